"""A study in a notebook: frames that agree with its files, trained networks, and Markdown."""

import os
import re
import shutil
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from small_study import planned

from critical_periods.cli import main
from critical_periods.core.errors import UserError
from critical_periods.studies import LoadedStudy, load_study, markdown_table, read_table
from critical_periods.studies.report import write_report
from critical_periods.studies.tables import as_table, write_table
from critical_periods.studies.worker import work

WIDTH = "data.init_args.width"
STUDY = {"vary": {WIDTH: [6, 8]}, "windows": {"removal": [1], "epochs_after": 1}, "seeds": [0, 1]}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study that was run; its file lies beside it."""
    folder, plan = planned(tmp_path_factory.mktemp("study"), STUDY)
    work(folder)
    assert "curve.png" in write_report(folder, plan)
    return folder.path


@pytest.fixture
def study(path: Path) -> LoadedStudy:
    return load_study(path)


@pytest.fixture
def broken(path: Path, tmp_path: Path) -> LoadedStudy:
    """A study of a copy, which may be damaged."""
    return load_study(shutil.copytree(path, tmp_path / "out"))


def test_frames_agree_with_the_files(study: LoadedStudy, path: Path):
    for name, table in (("results", study.runs), ("curve", study.curve), ("rsv", study.rsv)):
        written = read_table(path / f"{name}.csv")
        pd.testing.assert_frame_equal(table, written, check_index_type=False)
        assert table.attrs["window"] == "deficit"
    for table in (study.fisher, study.layers, study.information, study.reconstruction, study.modes):
        assert table.empty
    columns = [WIDTH, "onset", "removal", "epochs", "seed"]
    assert list(study.runs)[:6] == ["study", *columns] and list(study.curve)[:4] == columns[:4]
    assert study.runs is study.runs and len(study.runs) == len(study.plan.runs) == 8


def test_the_history_has_every_epoch_of_every_run(study: LoadedStudy):
    history = study.history
    known = [WIDTH, "onset", "removal", "epochs", "seed", "epoch"]
    assert list(history)[:6] == known and not history[known].duplicated().any()
    for place, row in study.runs.iterrows():
        own = history.merge(row.to_frame().T[known[:5]].astype(int))
        # The branch knows what its trunk has measured.
        assert list(own["epoch"]) == [0, 1]
        assert list(own["deficit/active"]) == [float(row["removal"] > 0), 0.0]
        segment = study.folder.segment(study.plan.runs[place].segment)
        assert list(own["val/accuracy"]) == [float(e["val/accuracy"]) for e in segment.history()]
        mean = own["val/accuracy"].mean()
        assert row["final_accuracy"] == pytest.approx(mean, rel=1e-5)


def predictions(network: torch.nn.Module, data: Any) -> Iterator[torch.Tensor]:
    for indices in data.val_dataloader():
        batch = data.transfer_batch_to_device(indices, torch.device("cpu"), 0)
        batch = data.on_after_batch_transfer(batch, 0)
        with torch.no_grad():
            yield network(*batch.views.unbind(1)).argmax(1) == batch.target


@pytest.mark.parametrize("place", [0, 3, 5])
def test_the_network_has_the_accuracy_that_was_recorded(
    study: LoadedStudy, place: int, monkeypatch
):
    row = study.runs.iloc[place]
    state, environment = torch.get_rng_state(), dict(os.environ)
    network, data = study.network(row), study.datamodule(place)
    assert torch.equal(torch.get_rng_state(), state) and dict(os.environ) == environment
    assert not network.training and data.width == row[WIDTH]
    # As many batches as the runs are validated on.
    right = torch.cat([one for one, _ in zip(predictions(network, data), range(4), strict=False)])
    known = study.runs.columns[1 : 5 + 1]
    own = study.history.merge(row[known].to_frame().T.astype(int))
    recorded = torch.tensor(own["val/accuracy"].iloc[-1])
    assert right.float().mean() == recorded.float()


def test_a_run_is_found_by_its_label_and_by_what_its_row_says(study: LoadedStudy):
    chosen = study.runs[(study.runs[WIDTH] == 8) & (study.runs["seed"] == 1)]
    networks = [study.network(one) for one in (chosen.index[0], chosen.iloc[0],
                chosen.reset_index(drop=True).iloc[0])]  # fmt: skip
    first, *others = [network.state_dict() for network in networks]
    assert all(torch.equal(first[key], other[key]) for other in others for key in first)
    for nothing in (8, -1, "x", chosen.iloc[0].drop("seed"), study.curve.iloc[0]):
        with pytest.raises(UserError, match=r"no such run .* 0 to 7"):
            study.network(nothing)


def test_a_study_that_is_not_done(broken: LoadedStudy):
    run = broken.plan.runs[2]
    broken.folder.segment(run.segment).discard()
    assert len(broken.runs) == 7 and 2 not in broken.runs.index
    assert len(broken.history) == 7 * 2
    with pytest.raises(UserError, match=f"{WIDTH} 6, onset 0, .* seed 1 is not done"):
        broken.network(2)


def test_what_is_damaged_is_named(broken: LoadedStudy, tmp_path: Path):
    segment = broken.folder.segment(broken.plan.runs[0].segment)
    segment.checkpoint.write_bytes(segment.checkpoint.read_bytes()[:1000])
    with pytest.raises(UserError, match=f"{re.escape(str(segment.checkpoint))} is damaged; run"):
        broken.network(0)
    segment.metrics.write_bytes(b"")
    for name in ("runs", "history", "layers"):
        with pytest.raises(UserError, match=r"metrics\.csv is damaged; run the study again"):
            getattr(broken, name)
    broken.folder.plan_file.write_text("{")
    with pytest.raises(UserError, match=r"plan\.json is damaged"):
        load_study(broken.folder.path)
    with pytest.raises(UserError, match=r"holds no plan\.json"):
        load_study(tmp_path)


# Tables as text.


def test_tables_keep_what_was_written(tmp_path: Path):
    rows = [
        {"variant": "a", "share": 1, "depth": 1, "onset": 0, "x": 0.1, "sd": float("nan")},
        {"variant": "007", "share": 0.5, "depth": None, "onset": 4, "x": float("inf"), "late": 2.0},
    ]
    write_table(tmp_path / "a.csv", rows)
    text = "variant,share,depth,onset,x,sd,late\na,1,1,0,0.1,nan,\n007,0.5,,4,inf,,2.0\n"
    assert (tmp_path / "a.csv").read_text() == text
    table = read_table(tmp_path / "a.csv")
    assert table.equals(as_table(rows)) and table.equals(read_table(StringIO(text)))
    # Varied values are as they were written, numbers are numbers.
    assert [list(table[name]) for name in ("variant", "share", "depth")] == [
        ["a", "007"], [1, 0.5], [1, None],
    ]  # fmt: skip
    assert table["onset"].dtype == int and table["x"].tolist() == [0.1, float("inf")]
    assert table["sd"].isna().all() and table["late"].isna().tolist() == [True, False]


@pytest.mark.parametrize("name", ["variant", "model.init_args.width"])
def test_a_curve_as_markdown(name: str):
    rows = [
        {name: "b|c", "onset": 2, "removal": 4, "epochs": 9, "seeds": 1, "rsv_mean": -0.25},
        {name: None, "onset": 0, "removal": 0, "epochs": 9, "seeds": 2, "rsv_mean": 0.5,
         "rsv_mean_sd": 0.125, "rsv_mean_control": 0.5, "rsv_mean_control_sd": 0.125,
         "rsv_mean_difference": -0.0, "rsv_mean_difference_low": -0.0625,
         "rsv_mean_difference_high": 0.0625, "final_accuracy": 0.5,
         "final_accuracy_sd": 0.0},
    ]  # fmt: skip
    table = as_table(rows)
    header, line, *body = markdown_table(table, "rsv_mean").splitlines()
    title = name.split(".")[-1].capitalize()
    settings = f"| {title} | Deficit | Epochs | Seeds |"
    assert header == f"{settings} RSV mean | Control | Difference [95 % interval] |"
    assert line.count("|") == header.count("|") == 8
    assert body == [
        "| b\\|c | epochs 2–3 | 9 | 1 | −0.25 |  |  |",
        "| none | none | 9 | 2 | 0.5 ± 0.125 | 0.5 ± 0.125 | 0 [−0.0625, 0.0625] |",
    ]
    # Windows in which it was not measured are left out.
    assert len(markdown_table(table).splitlines()) == 3
    table.attrs["window"] = "window"
    assert "| Window |" in markdown_table(table)
    sentence = r"'error' is not in the curve; it has rsv_mean, final_accuracy"
    with pytest.raises(UserError, match=sentence):
        markdown_table(table, "error")


def test_the_command_prints_every_measure(study: LoadedStudy, path: Path, capsys):
    words = ["study", "table", str(path.parent / "small.yaml"), "--output", str(path)]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert text.startswith("## small\n\n### Final accuracy (%)\n\n| Width | Deficit |")
    assert f"\n\n{markdown_table(study.curve, 'rsv_mean')}\n\n" in text
    assert "| 6 | epochs 0–0 | 2 | 2 |" in text
