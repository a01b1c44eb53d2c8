"""Whole studies of the smallest size: run, killed, damaged, grown and run again."""

import csv
import json
import os
import shutil
import statistics
import threading
import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import yaml
from matplotlib.figure import Figure
from small_study import BASE, changed, plan_of, planned, write_study
from small_study import STUDY as SMALL

from critical_periods.cli import main
from critical_periods.core.errors import UserError
from critical_periods.data import StereoDigitsDataModule
from critical_periods.plots import plot_curve
from critical_periods.studies import load_study, read_table, report, segment, worker
from critical_periods.studies.folder import (
    StudyFolder,
    checksum_file,
    finalize_checkpoint,
    is_intact,
    write_json,
)
from critical_periods.studies.launchers import local, progress
from critical_periods.studies.plan import Plan

launch_workers, save = local.launch, report.save

# Runs of five and seven epochs, so that the last five are not all there are.
STUDY = {"windows.epochs_after": 5, "seeds": [0, 1]}
EPOCHS = 2 * (2 + 5 + 7)


def run(study: Path, *words: str, command: str = "run") -> int:
    return main(["study", command, str(study), "--output", str(study.parent / "out"), *words])


def folder_of(study: Path) -> StudyFolder:
    return StudyFolder(study.parent / "out")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def assert_equal(a: Path, b: Path) -> None:
    """Compares the weights of two checkpoints bit by bit."""
    ours, theirs = (torch.load(path, weights_only=True)["state_dict"] for path in (a, b))
    assert ours.keys() == theirs.keys() and len(ours) > 5
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def find(plan: Plan, window: tuple[int, int], stop: int, seed: int = 0) -> str:
    """The name of a segment."""
    wanted = (window, stop, seed)
    (name,) = [n for n, s in plan.segments.items() if (s.window, s.stop, s.seed) == wanted]
    return name


def train_alone(callbacks: list[Any], epochs: int, seed: int = 0, **base: Any) -> Path:
    """Trains one run by the command line, not as a study; returns its checkpoint."""
    alone = changed(BASE, base | {"trainer.max_epochs": epochs, "seed_everything": seed})
    alone["trainer"]["callbacks"] = callbacks
    Path("alone.yaml").write_text(yaml.safe_dump(alone))
    assert main(["fit", "--config", "alone.yaml"]) == 0
    return max(Path("runs").glob("version_*/checkpoints/*.ckpt"), key=lambda p: p.stat().st_mtime)


def assert_same_end(branch: Path, alone: Path) -> dict[str, Any]:
    """Compares two checkpoints bit by bit; returns what they hold."""
    ours, theirs = (torch.load(path, weights_only=True) for path in (branch, alone))
    assert len(ours["state_dict"]) > 5
    assert ours["lr_schedulers"] == theirs["lr_schedulers"]
    for part in ("state_dict", "optimizer_states"):
        torch.testing.assert_close(ours[part], theirs[part], rtol=0, atol=0)
    assert (ours["epoch"], ours["global_step"]) == (theirs["epoch"], theirs["global_step"])
    return dict(ours)


def touch(figure: Figure, path: Path) -> None:
    for ending in (".png", ".pdf"):
        path.with_suffix(ending).touch()


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Trains in this process instead of workers of its own, and writes empty figures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report, "save", touch)
    monkeypatch.setattr(local, "launch", lambda folder, *_: worker.work(folder) or [])


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the segments that are trained from now on."""
    names: list[str] = []
    train = segment.train_segment

    def remember(study: StudyFolder, plan: Plan, name: str) -> None:
        names.append(name)
        train(study, plan, name)

    monkeypatch.setattr(segment, "train_segment", remember)
    return names


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study file of a study that was run once; not to be touched."""
    folder, _ = planned(tmp_path_factory.mktemp("original"), STUDY)
    worker.work(folder)
    study = folder.path.with_name("small.yaml")
    assert run(study, command="plot") == 0
    return study


@pytest.fixture
def study(original: Path, tmp_path: Path) -> Path:
    """The same in a folder of the test's own."""
    shutil.copytree(original.parent, tmp_path / "copy")
    return tmp_path / "copy" / original.name


# What it gives.


@pytest.mark.parametrize("window", [(0, 2), (0, 0)])
def test_a_branch_equals_the_same_run_trained_alone(original, tmp_path, window):
    onset, removal = window
    schedule = {"deficit": SMALL["deficit"], "onset": onset, "removal": removal}
    callback = {"class_path": "DeficitWindow", "init_args": schedule}
    alone = train_alone([callback, *BASE["trainer"]["callbacks"]], epochs=7, seed=1)
    plan = folder_of(original).read_plan()
    branch = folder_of(original).segment(find(plan, window, 7, seed=1))
    assert_same_end(branch.checkpoint, alone)

    # And it was measured alike, epoch by epoch.
    logged: dict[int, dict[str, str]] = {}
    for row in rows(tmp_path / "runs" / "version_0" / "metrics.csv"):
        found = {name: value for name, value in row.items() if value}
        logged.setdefault(int(row["epoch"]), {}).update(found)
    for row in rows(branch.metrics):
        for key in ("val/accuracy", "val/loss", "train/loss", "deficit/active"):
            assert float(row[key]) == float(logged[int(row["epoch"])][key])
    assert float(rows(branch.metrics)[-1]["rsv/trunk.conv/mean"]) == float(
        logged[6]["rsv/trunk.conv/mean"]
    )


DECAYED = {"model.init_args.optimizer.init_args.weight_decay": 0.1}
RESTART = {"class_path": "LearningRateRestart"}
SHORT = {"removal": [2], "epochs_after": 1}
LATE = {"onset": [1], "epochs": 3}
DECAY, CROPS = (
    {"class_path": "RegularizationWindow", "init_args": {"regularizer": regularizer}}
    for regularizer in ("weight_decay", "augmentation")
)
SUBSET = {"class_path": "SubsetWindow", "init_args": {"share": 0.5}}
OTHERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "weight decay at first": (DECAY, SHORT),
    "weight decay at last": (DECAY, LATE),
    "augmentation at first": (CROPS, SHORT),
    "few images in the middle": (SUBSET, {"onset": [1], "length": 1, "epochs": 3}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_branches_of_other_windows_equal_runs_trained_alone(tmp_path, name):
    """Weight decay, augmentation and images come and go; the rate starts over at each removal."""
    window, windows = OTHERS[name]
    base = DECAYED | {"trainer.callbacks": [RESTART], "data.init_args.width": 6}
    fields = {"deficit": None, "window": window, "windows": windows}
    folder, plan = planned(tmp_path, fields, base)
    worker.work(folder)
    deficit, control = (run.window for run in plan.runs)
    assert len(list(plan.lineage(plan.runs[0].segment))) > 1
    ends = []
    for run_ in plan.runs:
        schedule = {"onset": run_.window.onset, "removal": run_.window.removal}
        callback = {**window, "init_args": window["init_args"] | schedule}
        alone = train_alone([callback, RESTART], epochs=3, **base)
        ends.append(assert_same_end(folder.segment(run_.segment).checkpoint, alone))
    assert (deficit.epochs, control) == (3, deficit._replace(onset=0, removal=0))
    # And the window did something.
    first, second = (end["state_dict"] for end in ends)
    assert any(not torch.equal(first[name], second[name]) for name in first)
    steps = 1 if deficit.removal < 3 else 3  # of the schedule, since it began
    for end, step in zip(ends, (steps, 3), strict=True):
        rate = end["optimizer_states"][0]["param_groups"][0]["lr"]
        assert rate == pytest.approx(0.05 * 0.9**step)


# What Lightning changes as it trains, exactly through segments too: callbacks, and settings.
FOLLOWING = {"monitor": "val/loss", "patience": 0, "threshold": 1e9}
ACROSS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "exponential averages": ([{"class_path": "EMAWeightAveraging", "init_args": {
        "decay": 0.5, "update_starting_at_epoch": 1}}], {}),
    "averages": ([{"class_path": "WeightAveraging"}], {}),
    "accumulation": ([{"class_path": "GradientAccumulationScheduler", "init_args": {
        "scheduling": {0: 2, 2: 1}}}], {}),
    "a rate that follows a measure": ([], {"model.init_args.lr_scheduler": {
        "class_path": "pytorch_lightning.cli.ReduceLROnPlateau", "init_args": FOLLOWING}}),
}  # fmt: skip


@pytest.mark.parametrize("name", ACROSS)
def test_what_lightning_changes_goes_through_segments(tmp_path, name):
    """The same bits as in one piece, and the same accuracies on the way."""
    callbacks, base = ACROSS[name]
    base = {"trainer.callbacks": callbacks, "trainer.limit_val_batches": 1} | base
    folder, plan = planned(tmp_path, {"windows": SHORT}, base)
    worker.work(folder)
    schedule = {"deficit": SMALL["deficit"], "onset": 0, "removal": 2}
    window = {"class_path": "DeficitWindow", "init_args": schedule}
    end = train_alone([window, *callbacks], epochs=3, **base)
    branch = folder.segment(find(plan, (0, 2), 3))
    ours, theirs = assert_same_end(branch.checkpoint, end), torch.load(end, weights_only=True)
    for part in ("current_model_state", "averaging_state"):
        torch.testing.assert_close(ours.get(part), theirs.get(part), rtol=0, atol=0)
    logged = [row["val/accuracy"] for row in rows(Path("runs/version_0/metrics.csv"))]
    measured = [row["val/accuracy"] for row in rows(branch.metrics)]
    assert [float(one) for one in measured] == [float(one) for one in logged if one]


class OwnCheckpoint(pl.callbacks.ModelCheckpoint):
    """A third party's, which may do anything."""


class OwnProgressBar(pl.callbacks.TQDMProgressBar):
    """Likewise."""


OBSERVING: dict[str, dict[str, Any]] = {
    "ModelCheckpoint": {"monitor": "val/accuracy", "mode": "max", "save_last": True},
    f"{__name__}.OwnCheckpoint": {"every_n_train_steps": 1},
    f"{__name__}.OwnProgressBar": {},
    "OnExceptionCheckpoint": {"dirpath": "x"},
    "LearningRateMonitor": {},
    "DeviceStatsMonitor": {},
    "ThroughputMonitor": {"batch_size_fn": "builtins.len"},
    "TQDMProgressBar": {},
    "RichModelSummary": {},
    "LambdaCallback": {},
}


def test_observers_change_nothing_in_a_study(tmp_path, capsys):
    """All of them through the command line: the same tables as without, from the same segments."""
    fields = {"windows": {"removal": [0, 1], "epochs_after": 1}}
    tables = []
    for name, observers in (("with", OBSERVING), ("without", {})):
        callbacks = [{"class_path": one, "init_args": of} for one, of in observers.items()]
        (tmp_path / name).mkdir()
        base = {"trainer.callbacks": callbacks, "trainer.limit_val_batches": 1}
        base["trainer.enable_progress_bar"] = True
        study = write_study(tmp_path / name, fields, base)
        assert run(study) == 0, capsys.readouterr().err
        tables.append((folder_of(study).path / "results.csv").read_bytes())
    assert tables[0] == tables[1]
    # Those of a third party wrote into the segments' folders, and nowhere else.
    assert len([*(tmp_path / "with/out/segments").glob("*/checkpoints/*.ckpt")]) == 4
    assert not Path("x").exists() and not Path("runs").exists()


def test_a_restart_shares_what_comes_before_it(tmp_path):
    """Trained once for both variants: the clean run, and the deficit up to its removal."""
    variants = {"plain": {"trainer.callbacks": []}, "restart": {"trainer.callbacks": [RESTART]}}
    folder, plan = planned(tmp_path, {"variants": variants, "windows": SHORT})
    assert plan.epochs == 3 + 2 + 1 + 1 and plan.separate_epochs == 4 * 3
    worker.work(folder)
    (name,) = [r.segment for r in plan.runs if r.variation["variant"] == "restart" and r.window[1]]
    schedule = {"deficit": SMALL["deficit"], "onset": 0, "removal": 2}
    window = {"class_path": "DeficitWindow", "init_args": schedule}
    assert_same_end(folder.segment(name).checkpoint, train_alone([window, RESTART], epochs=3))


def test_results_are_what_the_segments_measured(original, tmp_path):
    folder = folder_of(original)
    plan = folder.read_plan()
    results = rows(folder.path / "results.csv")
    assert len(results) == len(plan.runs) == 6
    for row in results:
        window = (int(row["onset"]), int(row["removal"]))
        name = find(plan, window, int(row["epochs"]), int(row["seed"]))
        history = rows(folder.segment(name).metrics)
        assert [int(epoch["epoch"]) for epoch in history] == list(range(int(row["epochs"])))
        last = [float(epoch["val/accuracy"]) for epoch in history[-5:]]
        assert float(row["final_accuracy"]) == pytest.approx(sum(last) / 5, abs=1e-6)
        for column, key in (
            ("rsv_mean", "rsv/trunk.conv/mean"),
            ("rsv_channels_polarization", "rsv/trunk.conv/channels/polarization"),
        ):
            assert float(row[column]) == pytest.approx(float(history[-1][key]), rel=1e-5)
        # And the measure is of the checkpoint's own epoch, as the arrays on the disk say.
        file = folder.segment(name).path / "rsv" / f"epoch_{int(row['epochs']) - 1:04d}.npz"
        with np.load(file) as arrays:
            counts, edges = arrays["trunk.conv/counts"], arrays["trunk.conv/edges"]
        mean = np.average((edges[1:] + edges[:-1]) / 2, weights=counts)
        assert mean == pytest.approx(float(row["rsv_mean"]), abs=(edges[1] - edges[0]) / 2)
    assert {row["study"] for row in results} == {"small"}
    # Segments write into their own folders.
    for name in plan.segments:
        files = {path.name for path in folder.segment(name).path.iterdir()}
        assert {"checkpoint.ckpt", "metrics.csv", "done.json", "config.yaml", "rsv"} <= files
        assert not {"halfway.ckpt", "error.txt"} & files
    assert not (tmp_path / "runs").exists()


def test_varied_fields_are_columns(tmp_path):
    vary = {"data.init_args.width": [6, 8], "deficit": [{"class_path": "VerticalFlip"}]}
    study = write_study(tmp_path, {"vary": vary, "windows": {"removal": [1], "epochs_after": 1}})
    assert run(study) == 0
    results = rows(tmp_path / "out" / "results.csv")
    assert [row["data.init_args.width"] for row in results] == ["6", "6", "8", "8"]
    assert json.loads(results[0]["deficit"]) == {"class_path": "VerticalFlip"}
    points = rows(tmp_path / "out" / "curve.csv")
    assert len(points) == 4
    assert list(points[0])[:3] == ["data.init_args.width", "deficit", "onset"]
    assert all(np.isfinite(float(point["rsv_mean_control"])) for point in points)


def test_the_histograms_are_those_of_all_seeds_together(original):
    folder = folder_of(original)
    plan = folder.read_plan()
    table = read_table(folder.path / "rsv.csv").set_index(["onset", "removal", "epochs", "layer"])
    windows, layers = ((0, 2, 7), (0, 0, 7), (0, 0, 5)), ("trunk.conv", "trunk.conv/channels")
    for window, layer in product(windows, layers):
        bins, counts, edges = table.loc[(*window, layer)], np.zeros(40), np.empty(0)
        for seed in (0, 1):
            name = find(plan, window[:2], window[2], seed)
            file = folder.segment(name).path / "rsv" / f"epoch_{window[2] - 1:04d}.npz"
            with np.load(file) as arrays:
                counts, edges = counts + arrays[f"{layer}/counts"], arrays[f"{layer}/edges"]
        assert bins["seeds"].tolist() == [2] * 40
        expected = {"share": counts / counts.sum(), "low": edges[:-1], "high": edges[1:]}
        for name, numbers in expected.items():
            np.testing.assert_allclose(bins[name], numbers, rtol=1e-5)
    assert (folder.path / "rsv.png").exists() and (folder.path / "rsv.pdf").exists()


def test_a_damaged_histogram_names_its_file_and_the_way_out(study, trained, capsys):
    folder = folder_of(study)
    name = find(folder.read_plan(), (0, 2), 7)
    file, table = folder.segment(name).path / "rsv" / "epoch_0006.npz", folder.path / "rsv.csv"
    whole, before = file.read_bytes(), table.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"0" * 99, whole.replace(b"edges", b"sedge")):
        file.write_bytes(damaged)
        assert run(study, command="plot") == 2
        said = capsys.readouterr().err.strip()
        way_out = f"delete the segment's folder {file.parents[1]} and run the study again."
        assert said.endswith(f"{file} is damaged; {way_out}") and "\n" not in said
    shutil.rmtree(file.parents[1])
    assert run(study) == 0
    assert trained == [name] and table.read_bytes() == before


def test_measures_through_training_are_means_and_spreads_over_seeds(tmp_path):
    monitors = [
        {"class_path": "UsableInformationMonitor", "init_args": {"samples": 32}},
        {"class_path": "FisherMonitor", "init_args": {"every_n_epochs": 1, "samples": 8}},
    ]
    base = {"trainer.callbacks": monitors, "data.init_args.mask_probability": 0.1}
    windows = {"removal": [1], "epochs_after": 2}
    assert run(write_study(tmp_path, {"seeds": [0, 1], "windows": windows}, base)) == 0
    output = StudyFolder(tmp_path / "out")
    plan = output.read_plan()
    names = ("both", "view_0", "view_1")
    keys = {"information": {f"information_{name}": f"information/{name}" for name in names}}
    keys["fisher"] = {"fisher_trace": "fisher/trace"}
    loaded = load_study(output.path)
    assert plot_curve(loaded.curve).axes
    for table, of_table in keys.items():
        found = rows(output.path / f"{table}.csv")
        assert [(row["removal"], row["epoch"]) for row in found] == [
            (removal, epoch) for removal in "10" for epoch in "012"
        ]
        for row in found:
            window = (int(row["onset"]), int(row["removal"]))
            histories = [rows(output.segment(find(plan, window, 3, s)).metrics) for s in (0, 1)]
            for column, key in of_table.items():
                values = [float(history[int(row["epoch"])][key]) for history in histories]
                mean, sd = float(row[column]), float(row[f"{column}_sd"])
                assert mean == pytest.approx(statistics.mean(values), rel=1e-5, abs=1e-9)
                assert sd == pytest.approx(statistics.stdev(values), rel=1e-4, abs=1e-9)
        assert (output.path / f"{table}.png").exists()
        assert getattr(loaded, table).equals(read_table(output.path / f"{table}.csv"))


def test_metrics_are_of_the_epoch_that_they_were_measured_in(tmp_path):
    """Lightning goes on to show what was measured in earlier epochs.

    A Fisher trace of the last epoch alone makes no history, and segments have no use for a
    checkpoint callback, a learning-rate monitor or a progress bar.
    """
    rare = {"layers": ["trunk.conv"], "samples": 4, "pairs": 1, "every_n_epochs": 4}
    monitors = [
        {"class_path": "SourceVarianceMonitor", "init_args": rare},
        {"class_path": "FisherMonitor", "init_args": {"every_n_epochs": None, "samples": 8}},
    ]
    observers = ["ModelCheckpoint", "LearningRateMonitor", "TQDMProgressBar"]
    windows = {"windows": {"removal": [0], "epochs_after": 6}}
    base = {"trainer.check_val_every_n_epoch": 3, "trainer.callbacks": monitors}
    (name,) = plan_of(write_study(tmp_path, windows, base)).segments
    base["trainer.callbacks"] = [*monitors, *observers]
    study = write_study(tmp_path, windows, base)
    assert run(study) == 0
    assert [*folder_of(study).read_plan().segments] == [name]
    history = rows(folder_of(study).segment(name).metrics)
    measured = [bool(row["rsv/trunk.conv/mean"]) for row in history]
    assert measured == [False, False, False, True, False, True]
    validated = [bool(row["val/accuracy"]) for row in history]
    assert validated == [False, False, True, False, False, True]
    # Of the last five epochs two were validated.
    (row,) = rows(tmp_path / "out" / "results.csv")
    mean = (float(history[2]["val/accuracy"]) + float(history[5]["val/accuracy"])) / 2
    assert float(row["final_accuracy"]) == pytest.approx(mean, abs=1e-6)
    assert float(row["fisher_trace"]) > 0 and not list((tmp_path / "out").glob("fisher*"))


# Running again.


def test_running_again_trains_nothing_and_changes_nothing(study, trained, monkeypatch, capsys):
    """And starts no worker."""
    monkeypatch.setattr(local, "launch", launch_workers)
    monkeypatch.setattr(local, "start", None)
    before = {p: p.read_bytes() for p in (study.parent / "out").glob("*.[cj]s*")}
    assert {p.name for p in before} >= {"results.csv", "plan.json"}
    assert run(study) == 0
    assert trained == []
    assert before == {path: path.read_bytes() for path in before} and len(before) == 5
    assert f"trains {EPOCHS} epochs" in capsys.readouterr().out


def test_a_grown_study_trains_only_what_is_missing(study, original, tmp_path, trained):
    old = folder_of(study).read_plan()
    write_study(study.parent, STUDY | {"windows.removal": [0, 1, 2]})
    assert run(study) == 0
    new = folder_of(study).read_plan()
    assert trained and set(trained) == set(new.segments) - set(old.segments)
    was = rows(original.parent / "out" / "results.csv")
    now = rows(study.parent / "out" / "results.csv")
    assert [row for row in now if row["removal"] != "1" and row["epochs"] != "6"] == was
    assert len(now) == 2 * 5

    # And what it trained is what a study that was always so large would have.
    fresh = write_study(tmp_path, STUDY | {"windows.removal": [0, 1, 2], "seeds": [1]})
    assert run(fresh) == 0
    fresh_rows = rows(tmp_path / "out" / "results.csv")
    assert fresh_rows == [row for row in now if row["seed"] == "1"] and len(fresh_rows) == 5


def flip_a_bit(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


@pytest.mark.parametrize(
    "damages",
    [
        # Each with the window, stop and seed of its segment. The trunk alone is trained again, not
        # what has gone on from it.
        [
            ("checkpoint.ckpt", flip_a_bit, ((0, 2), 2, 0)),
            ("checkpoint.ckpt.sha256", None, ((0, 2), 7, 1)),
            ("done.json", None, ((0, 0), 7, 1)),
        ],
        [
            ("metrics.csv", lambda content: b"", ((0, 0), 5, 0)),
            ("metrics.csv", half, ((0, 2), 7, 0)),
            ("metrics.csv", lambda content: b"\xff", ((0, 2), 7, 1)),
            ("metrics.csv", None, ((0, 0), 5, 1)),
            ("checkpoint.ckpt", None, ((0, 0), 7, 0)),
        ],
    ],
)
def test_what_is_damaged_or_lost_is_noticed_and_trained_again(
    study, original, trained, capsys, damages
):
    folder, said = folder_of(study), {}
    for file, damage, of in damages:
        name = find(folder.read_plan(), *of)
        path = folder.segment(name).path / file
        said[name] = damage is not None or file == "checkpoint.ckpt.sha256"
        if damage is None:
            path.unlink()
            continue
        path.write_bytes(damage(path.read_bytes()))
        if not path.read_bytes():
            assert run(study, command="plot") == 2
            assert f"{path} is damaged; run the study again" in capsys.readouterr().err
    assert run(study) == 0
    out = capsys.readouterr().out
    for name, is_said in said.items():
        assert (f"Segment {name} is damaged; it is trained again." in out) is is_said
        ours, intact = (folder_of(one).segment(name).checkpoint for one in (study, original))
        assert_equal(ours, intact)
    assert sorted(trained) == sorted(said)
    for table in ("results.csv", "curve.csv"):
        same = (original.parent / "out" / table).read_bytes()
        assert (study.parent / "out" / table).read_bytes() == same


def test_commands_say_where_the_file_has_other_runs_than_the_folder(study, capsys):
    assert run(study, command="status") == 0
    assert "has other runs" not in capsys.readouterr().err
    write_study(study.parent, STUDY | {"windows.removal": [0, 1, 2]})
    for command in ("status", "plot"):
        assert run(study, command=command) == 0
        assert f"{study} has other runs than were last run in" in capsys.readouterr().err
    assert run(study, command="plan") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "[done]" in lines[0] and lines[-1] == "8 done, 6 missing."


# Being killed.


class Killed(BaseException):
    """As if by a signal: nothing of ours gets to tidy up."""


@pytest.fixture
def epochs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The epochs that are begun from now on."""
    begun: list[int] = []
    start = segment.SegmentRecord.on_train_epoch_start

    def remember(self: Any, trainer: Any, pl_module: Any) -> None:
        begun.append(trainer.current_epoch)
        start(self, trainer, pl_module)

    monkeypatch.setattr(segment.SegmentRecord, "on_train_epoch_start", remember)
    return begun


def test_a_segment_killed_halfway_goes_on_with_the_same_bits(study, original, monkeypatch, epochs):
    folder = folder_of(study)
    plan = folder.read_plan()
    name = find(plan, (0, 2), 7)
    files, intact = folder.segment(name), folder_of(original).segment(name)
    shutil.rmtree(files.path)
    monkeypatch.setattr(segment, "_SECONDS_BETWEEN_CHECKPOINTS", -1)
    end = segment.SegmentRecord.on_train_epoch_end

    def die(self: Any, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == 5:
            raise Killed
        end(self, trainer, pl_module)

    with monkeypatch.context() as patch:
        patch.setattr(segment.SegmentRecord, "on_train_epoch_end", die)
        with pytest.raises(Killed):
            worker.work(folder)
    assert epochs == [2, 3, 4, 5]
    assert is_intact(files.halfway) and not files.is_done() and files.epochs_done() == 5
    assert not files.is_running()

    epochs.clear()
    worker.work(folder)
    assert epochs == [5, 6]
    assert files.is_done() and not files.halfway.exists()
    assert not checksum_file(files.halfway).exists()
    assert_equal(files.checkpoint, intact.checkpoint)
    assert files.metrics.read_bytes() == intact.metrics.read_bytes()


def test_a_halfway_checkpoint_that_is_damaged_is_left_aside(study, original, monkeypatch, epochs):
    name = find(folder_of(study).read_plan(), (0, 2), 7)
    files = folder_of(study).segment(name)
    files.checkpoint.rename(files.halfway)
    files.halfway.write_bytes(files.halfway.read_bytes()[:-7])
    checksum_file(files.checkpoint).rename(checksum_file(files.halfway))
    worker.work(folder_of(study))
    assert epochs == [2, 3, 4, 5, 6]
    assert_equal(files.checkpoint, folder_of(original).segment(name).checkpoint)


def test_killed_between_the_last_writes(study, original, monkeypatch, trained):
    """With the checkpoint written, but not all that says so, the segment is trained again."""
    folder = folder_of(study)
    name = find(folder.read_plan(), (0, 2), 2)
    files, intact = folder.segment(name), folder_of(original).segment(name)

    def die(*args: Any) -> None:
        raise Killed

    for moment in ("finalize_checkpoint", "write_table", "SegmentFolder.mark_done"):
        shutil.rmtree(files.path)
        with monkeypatch.context() as patch:
            patch.setattr(f"critical_periods.studies.segment.{moment}", die)
            with pytest.raises(Killed):
                worker.work(folder)
        assert not files.is_done()
        worker.work(folder)
        assert trained == [name, name]
        trained.clear()
        assert files.is_intact(2) and files.metrics.read_bytes() == intact.metrics.read_bytes()
        assert_equal(files.checkpoint, intact.checkpoint)


# Going wrong.


def test_a_checkpoint_that_would_execute_code_is_refused(study, tmp_path, trained, capsys):
    class Attack:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "executed",))

    folder = folder_of(study)
    plan = folder.read_plan()
    parent, child = find(plan, (0, 2), 2), find(plan, (0, 2), 7)
    files = folder.segment(parent)
    state = torch.load(files.checkpoint, weights_only=True) | {"attack": Attack()}
    torch.save(state, files.checkpoint.with_name("part"))
    finalize_checkpoint(files.checkpoint.with_name("part"), files.checkpoint)
    folder.segment(child).discard()
    assert is_intact(files.checkpoint)

    assert run(study) == 1
    assert not (tmp_path / "executed").exists()
    assert trained == [child]
    sentence = f"{files.checkpoint} holds more than tensors and plain values, so it was not loaded"
    assert folder.segment(child).error.read_text().startswith(sentence)
    assert f"Segment {child} failed: {sentence}" in capsys.readouterr().err

    config = ["fit", "--config", str(study.parent / "base.yaml")]
    assert main([*config, "--ckpt_path", str(files.checkpoint)]) == 2
    assert "more than tensors and plain values" in capsys.readouterr().err
    assert not (tmp_path / "executed").exists()


def test_a_failing_segment_leaves_a_sentence_and_the_others_go_on(
    study, monkeypatch, trained, capsys
):
    folder = folder_of(study)
    plan = folder.read_plan()
    bad, child, other = find(plan, (0, 2), 2), find(plan, (0, 2), 7), find(plan, (0, 0), 7, seed=1)
    for name in (bad, child, other):
        folder.segment(name).discard()
    train = segment.train_segment

    def fail(folder: StudyFolder, plan: Plan, name: str) -> None:
        if name == bad:
            folder.segment(name).progress.write_text("1")
            raise RuntimeError("out of\n memory")
        train(folder, plan, name)

    with monkeypatch.context() as patch:
        patch.setattr(segment, "train_segment", fail)
        assert run(study) == 1
    out, err = capsys.readouterr()
    assert f"Segment {bad} failed: RuntimeError: out of memory\n" in err
    assert "2 of 8 segments are not done" in err
    assert "Traceback" in err  # of the worker, which writes it to its log
    assert trained == [other]
    # What is known is written all the same.
    assert len(rows(folder.path / "results.csv")) == 5
    assert "Wrote results.csv" in out

    assert progress._epochs_done(folder, plan) == EPOCHS - 7
    assert progress._running(folder, plan) == ""
    assert run(study, command="status") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "6 done, 1 failed, 1 missing."
    assert next(line for line in lines if bad in line).endswith("[failed]")
    assert run(study, command="plot") == 1

    assert run(study) == 0
    assert trained == [other, bad, child]
    assert not folder.segment(bad).error.exists()


class Stops(pl.Callback):
    """A third party's, of which planning knows nothing."""

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        trainer.should_stop = True


def test_a_run_that_stops_early_is_a_failure(tmp_path, trained):
    """And not one that is tried for ever."""
    stopper = {"trainer.callbacks": [{"class_path": f"{__name__}.Stops"}]}
    study = write_study(tmp_path, {"windows": {"removal": [0], "epochs_after": 4}}, stopper)
    assert run(study) == 1
    (name,) = trained
    error = folder_of(study).segment(name).error.read_text()
    assert error.startswith("training stopped after ") and "of 4 epochs" in error


def test_data_that_vanished_fails_in_a_sentence(study, trained, monkeypatch):
    """What a worker meets after the launcher has found nothing wrong."""
    name = find(folder_of(study).read_plan(), (0, 2), 7)
    folder_of(study).segment(name).discard()

    def fail(self: Any, stage: str | None = None) -> None:
        raise UserError("the folder is gone.")

    monkeypatch.setattr(StereoDigitsDataModule, "setup", fail)
    worker.work(folder_of(study))
    assert folder_of(study).segment(name).error.read_text() == "the folder is gone.\n"


# Commands.


def test_status_of_a_study_that_goes_on(study, capsys):
    folder = folder_of(study)
    plan = folder.read_plan()
    running, missing = find(plan, (0, 2), 7), find(plan, (0, 2), 7, seed=1)
    for name in (running, missing):
        folder.segment(name).discard()
    folder.segment(missing).progress.write_text("4")  # of one that was killed
    with folder.segment(running).lock():
        assert folder.segment(running).is_running()
        assert run(study, command="status") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "6 done, 1 missing, 1 running."
    assert next(line for line in lines if running in line).endswith("[running]")
    assert next(line for line in lines if missing in line).endswith("[missing]")


def test_plot_writes_everything_again(study, trained, monkeypatch, capsys):
    monkeypatch.setattr(report, "save", save)
    out = study.parent / "out"
    assert run(study, command="plot") == 0
    files = ("results.csv", "curve.csv", "curve.png", "curve.pdf", "rsv.csv", "rsv.png", "rsv.pdf")
    before = {file: (out / file).read_bytes() for file in files}
    for file in files:
        assert before[file].startswith({".png": b"\x89PNG", ".pdf": b"%PDF"}.get(file[-4:], b""))
        (out / file).unlink()
    assert run(study, command="plot") == 0
    assert before == {file: (out / file).read_bytes() for file in files}
    assert trained == []
    said = capsys.readouterr().out
    assert f"Wrote results.csv, curve.csv, rsv.csv, curve.png and rsv.png to {out}." in said
    assert not list(out.glob("*part*"))


def test_a_report_takes_away_what_an_earlier_one_wrote_alone(study):
    out = study.parent / "out"
    assert run(study, command="plot") == 0
    (out / "rsv_of_mine.png").touch()
    files = ("rsv.csv", "rsv.png", "rsv.pdf")
    assert all((out / file).exists() for file in files)
    smaller = ("trainer.callbacks=[]", "windows.removal=[0]", "windows.epochs_after=1", "seeds=[0]")
    assert run(study, *(word for change in smaller for word in ("--set", change))) == 0
    assert not any((out / file).exists() for file in files)
    assert (out / "curve.png").exists() and (out / "rsv_of_mine.png").exists()


def test_folders_that_hold_no_study_or_another_one(study, tmp_path, capsys):
    def message(path: Path, output: Path, command: str = "status") -> str:
        assert main(["study", command, str(path), "--output", str(output)]) == 2
        return capsys.readouterr().err.removeprefix("critical-periods: error: ").strip()

    nothing = tmp_path / "nothing"
    assert message(study, nothing) == (
        f"{nothing} holds no plan.json; run a study with --output {nothing} first."
    )
    other = study.with_name("other.yaml")
    shutil.copy(study, other)
    out = study.parent / "out"
    for command in ("status", "plot", "run"):
        assert message(other, out, command) == (
            f"{out} holds the study 'small', not 'other'; choose another --output."
        )
    assert message(tmp_path / "x.yaml", out) == f"the file {tmp_path / 'x.yaml'} does not exist."
    (out / "plan.json").write_text("{")
    assert message(study, out, "plot") == (
        f"{out / 'plan.json'} is damaged; run the study again, which writes it anew."
    )
    (tmp_path / "file").touch()
    assert message(study, tmp_path / "file" / "out", "run") == (
        f"--output {tmp_path / 'file' / 'out'} cannot be written: Not a directory."
    )
    for words, said in (
        (["--jobs", "0"], "--jobs 0 must be at least 1."),
        (["--per", "segment"], "--per is of jobs of Slurm; add --launcher slurm, or leave it out."),
        (["--packed", "2"], "--packed is of jobs of Slurm; add --launcher slurm, or leave it out."),
        (["--jobs", "2", "--launcher", "slurm"],
         "--jobs 2 is of trainings on this machine; --packed N trains N side by side in a job, "
         "slurm.array_limit bounds the jobs."),
    ):  # fmt: skip
        assert main(["study", "run", str(study), "--output", str(out), *words]) == 2
        assert capsys.readouterr().err == f"critical-periods: error: {said}\n"


# Many workers.


def test_no_segment_is_trained_twice_by_many_workers(tmp_path, monkeypatch):
    folder, plan = planned(tmp_path, {"windows.removal": [0, 1, 2, 3], "seeds": [0, 1, 2]})
    began: list[str] = []

    def train(study: StudyFolder, plan: Plan, name: str) -> None:
        parent = plan.segments[name].parent
        assert parent is None or folder.segment(parent).is_done()
        began.append(name)
        time.sleep(0.01)
        files = folder.segment(name)
        files.checkpoint.touch()
        files.metrics.touch()
        write_json(files.done, {})

    monkeypatch.setattr(segment, "train_segment", train)
    monkeypatch.setattr(worker, "_POLL_SECONDS", 0.005)
    workers = [threading.Thread(target=worker.work, args=(folder,)) for _ in range(4)]
    for one in workers:
        one.start()
    for one in workers:
        one.join(30)
        assert not one.is_alive()
    assert sorted(began) == sorted(plan.segments)


def test_the_longest_way_to_go_comes_first(original, tmp_path):
    plan, folder = folder_of(original).read_plan(), StudyFolder(tmp_path / "out")
    first = list(worker.ready(folder, plan, worker.missing(folder, plan)))
    remaining = {find(plan, (0, 0), 5, s): 7 for s in (0, 1)}
    remaining |= {find(plan, (0, 2), 2, s): 7 for s in (0, 1)}
    assert sorted(first) == sorted(remaining)


@pytest.mark.parametrize(
    ("gpus", "visible", "trainer", "jobs", "groups"),
    [
        (0, "", {}, None, None),
        (0, "", {}, 3, [None] * 3),
        (5, "", {"devices": 2}, None, ["0,1", "2,3"]),
        (1, "", {"devices": 2}, None, ["0"]),
        (2, "5,7", {"devices": 1}, None, ["5", "7"]),
        (2, "", {}, 3, ["0", "1", "0"]),
        (2, "", {"devices": -1}, None, ["0,1"]),
        (2, "", {"devices": [1]}, None, [None]),
        (2, "", {"accelerator": "cpu"}, 1, [None]),
    ],
)
def test_devices_are_shared_out(original, monkeypatch, gpus, visible, trainer, jobs, groups):
    base = {f"trainer.{name}": value for name, value in {"accelerator": "auto", **trainer}.items()}
    plan = folder_of(original).read_plan()
    config = changed(plan.configs[0][0], base)
    plan = replace(plan, configs=[(config, {})])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    cores = len(os.sched_getaffinity(0))
    assert local.device_groups(plan, jobs) == ([None] * cores if groups is None else groups)


def test_how_far_a_study_is(study):
    folder = folder_of(study)
    plan = folder.read_plan()
    assert progress._epochs_done(folder, plan) == EPOCHS
    assert not any(folder.segment(name).progress.exists() for name in plan.segments)
    name = find(plan, (0, 2), 7)
    folder.segment(name).discard()
    assert progress._epochs_done(folder, plan) == EPOCHS - 5
    folder.segment(name).progress.write_text("4")
    assert progress._epochs_done(folder, plan) == EPOCHS - 3
    assert progress._running(folder, plan) == f"{name[:6]} at epoch 4 of 7"
