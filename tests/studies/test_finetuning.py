"""Studies with a second stage: every branch is pre-trained, then fine-tuned from its weights."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from small_study import changed, plan_of

from critical_periods.cli import main
from critical_periods.core.errors import UserError
from critical_periods.studies import report
from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.plan import Plan, make_plan
from critical_periods.studies.prediction import variations
from critical_periods.studies.remedies import remedies
from critical_periods.studies.resolve import resolve
from critical_periods.studies.results import results
from critical_periods.studies.segment import segment_config
from critical_periods.studies.study import read_study
from critical_periods.studies.tables import read_table, write_table
from critical_periods.studies.worker import work

Tree = dict[str, Any]

NETWORK: Tree = {
    "class_path": "MultiViewTransformer",
    "init_args": {"width": 8, "depth": 1, "heads": 2, "patch": 8, "image_size": 16,
                  "in_channels": 1},
}  # fmt: skip
PRETRAINING: Tree = {
    "num_threads": 1,
    "trainer": {
        "max_epochs": 3, "accelerator": "cpu", "num_sanity_val_steps": 0, "limit_val_batches": 2,
        "callbacks": [
            {"class_path": "SourceVarianceMonitor",
             "init_args": {"layers": ["encoder"], "samples": 16, "pairs": 2}},
            {"class_path": "ReconstructionMonitor",
             "init_args": {"every_n_epochs": 1, "samples": 16}},
        ],
    },
    "model": {
        "class_path": "MaskedReconstructionTask",
        "init_args": {
            "network": NETWORK,
            "recipe": {"epochs": 3, "base_rate": 0.01, "warmup_epochs": 1},
            "decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2,
        },
    },
    "data": {
        "class_path": "StereoDigitsDataModule",
        "init_args": {"limit_train": 60, "batch_size": 30},
    },
}  # fmt: skip
FINETUNING = changed(
    PRETRAINING,
    {
        "trainer.callbacks": PRETRAINING["trainer"]["callbacks"][:1],
        "trainer.max_epochs": 2,
        "model": {
            "class_path": "TransformerClassificationTask",
            "init_args": {
                "network": NETWORK,
                "recipe": {"epochs": 2, "base_rate": 0.01, "warmup_epochs": 1, "layer_decay": 0.5},
            },
        },
    },
)
STUDY: Tree = {
    "base": "base.yaml",
    "deficit": {"class_path": "Dissociation"},
    "windows": {"onset": [0, 1], "length": 1, "epochs": 3},
    "finetuning": {"base": "finetuning.yaml"},
    "seeds": [0],
}


def write(
    folder: Path, study: Tree | None = None, base: Tree | None = None, second: Tree | None = None
) -> Path:
    (folder / "base.yaml").write_text(yaml.safe_dump(changed(PRETRAINING, base or {})))
    (folder / "finetuning.yaml").write_text(yaml.safe_dump(changed(FINETUNING, second or {})))
    path = folder / "two.yaml"
    path.write_text(yaml.safe_dump(changed(STUDY, study or {}), sort_keys=False))
    return path


def network_of(checkpoint: Path) -> dict[str, torch.Tensor]:
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    return {n.removeprefix("network."): of for n, of in state.items() if n.startswith("network.")}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyFolder, Plan]:
    """A study that has been run."""
    path = tmp_path_factory.mktemp("study")
    study = read_study(write(path))
    before = copy.deepcopy((study.base, study.finetuning))
    plan = make_plan(study, *resolve(study))
    assert (study.base, study.finetuning) == before
    folder = StudyFolder(path / "out")
    folder.write_plan(plan)
    work(folder)
    failures = [folder.segment(name).error for name in plan.segments]
    assert [failure.read_text() for failure in failures if failure.exists()] == []
    return folder, plan


# The plan.


def test_every_branch_ends_with_a_second_stage_of_its_own(done: tuple[StudyFolder, Plan]):
    _, plan = done
    second = [segment for segment in plan.segments.values() if segment.finetunes]
    assert len(plan.runs) == len(second) == 3
    assert {run.segment for run in plan.runs} == {segment.name for segment in second}
    for segment in second:
        assert (segment.start, segment.stop) == (0, 2)
        parent = plan.segments[str(segment.parent)]
        assert (parent.stop, parent.window) == (3, segment.window)
        callbacks = segment_config(plan, segment)["trainer"]["callbacks"]
        assert [one["class_path"] for one in callbacks] == ["SourceVarianceMonitor"]
    # 3 clean ones; 3 with a deficit in the first, 2 with it in the second; 3 times 2.
    assert plan.epochs == 3 + 3 + 2 + 3 * 2
    assert plan.separate_epochs == 3 * (3 + 2)
    assert Plan.from_json(plan.to_json()) == plan


def first_stage(plan: Plan) -> set[str]:
    return {name for name, one in plan.segments.items() if not one.finetunes}


def test_the_first_stage_is_the_same_whatever_the_second(done: tuple[StudyFolder, Plan], tmp_path):
    _, plan = done
    without = plan_of(write(tmp_path, {"finetuning": None}))
    assert first_stage(plan) == set(without.segments)
    other = plan_of(write(tmp_path), ["finetuning.data.init_args.batch_size=20"])
    assert first_stage(plan) == first_stage(other)
    assert {run.segment for run in plan.runs}.isdisjoint(run.segment for run in other.runs)
    rates = {"finetuning.model.init_args.recipe.base_rate": [0.01, 0.02]}
    varied = plan_of(write(tmp_path, {"vary": rates}))
    assert first_stage(plan) == first_stage(varied)
    assert len(varied.runs) == 6 == len(varied.segments) - len(first_stage(plan))


# Running it.


def test_it_starts_from_the_weights_that_its_own_branch_left(
    done: tuple[StudyFolder, Plan], tmp_path: Path
):
    folder, plan = done
    run = plan.runs[0]
    [(_, before), (_, after)] = plan.stages(run)
    # Without a rate nothing moves, so that what it starts from can be read at its end.
    still = plan_of(write(tmp_path), ["finetuning.model.init_args.recipe.base_rate=0", "seeds=[0]"])
    assert still.stages(still.runs[0])[0] == ("pretraining", before)
    other = StudyFolder(tmp_path / "out")
    other.write_plan(still)
    (other.path / "segments").mkdir(exist_ok=True)
    for name, segment in plan.segments.items():
        if not segment.finetunes:
            other.segment(name).path.symlink_to(folder.segment(name).path)
    work(other)
    pretrained = network_of(folder.segment(before).checkpoint)
    started = network_of(other.segment(still.runs[0].segment).checkpoint)
    ended = network_of(folder.segment(after).checkpoint)
    shared = [name for name in started if not name.startswith("classifier.")]
    assert all(torch.equal(started[name], pretrained[name]) for name in shared)
    assert not torch.equal(ended["global_tokens"], pretrained["global_tokens"])


def test_results_are_of_the_second_stage_with_the_first_beside_it(done: tuple[StudyFolder, Plan]):
    folder, plan = done
    rows = results(folder, plan)
    assert [(row["onset"], row["removal"]) for row in rows] == [(0, 1), (1, 2), (0, 0)]
    for row, run in zip(rows, plan.runs, strict=True):
        [(_, before), (_, after)] = plan.stages(run)
        first, second = (folder.segment(name).history() for name in (before, after))
        assert (len(first), len(second)) == (3, 2)
        assert row["pretrained_loss"] == pytest.approx(float(first[-1]["val/loss"]), rel=1e-5)
        assert row["pretrained_rsv_mean"] == pytest.approx(
            float(first[-1]["rsv/encoder/mean"]), rel=1e-5
        )
        assert row["rsv_mean"] == pytest.approx(float(second[-1]["rsv/encoder/mean"]), rel=1e-5)
        accuracies = [float(epoch["val/accuracy"]) for epoch in second]
        assert row["final_accuracy"] == pytest.approx(sum(accuracies) / 2, rel=1e-5)


def test_remedies_act_in_the_first_stage_and_are_judged_by_the_second(tmp_path: Path):
    windows = {"removal": [1], "epochs_after": 2}
    recovery = {"patch": [{"class_path": "Patching", "init_args": {"removal": 1}}]}
    path = write(tmp_path, {"windows": windows, "recovery": recovery, "seeds": [*range(5)]})
    plan, folder = plan_of(path), StudyFolder(tmp_path / "out")
    remedied = [run for run in plan.runs if run.variation["remedy"] == "patch"]
    patched = {plan.stages(run)[0][1] for run in remedied}
    assert len(patched) == len({run.segment for run in remedied}) == 2 * 5
    for name, segment in plan.segments.items():
        callbacks = segment_config(plan, segment)["trainer"]["callbacks"]
        assert (name in patched) == any("Patch" in one["class_path"] for one in callbacks)
        rows = [
            {"epoch": e, "val/accuracy": 0.4 + 0.1 * e + 0.01 * segment.seed, "x": e}
            if segment.finetunes
            else {"epoch": e, "x": 10 + segment.seed}
            for e in range(segment.stop)
        ]
        folder.segment(name).path.mkdir(parents=True)
        write_table(folder.segment(name).metrics, rows)
        folder.segment(name).checkpoint.touch()
        folder.segment(name).mark_done({})
    rows = results(folder, plan)
    # The mean of the last epochs of the second stage, so that its second reaches it, after two of
    # the first.
    assert {row["epochs_to_match"] for row in remedies(folder, plan, rows)} == {4.0}
    (points,) = variations(folder, plan, rows)
    assert [one.of("x")["at"] for one in points] == [10, 11, 12, 13, 14]


def test_its_figures_show_both_stages(done: tuple[StudyFolder, Plan], monkeypatch):
    folder, plan = done
    monkeypatch.setattr(report, "save", lambda figure, path: None)
    written = report.write_report(folder, plan)
    figures = "curve sensitivity rsv_pretraining rsv_finetuning reconstruction_pretraining"
    assert {f"{name}.png" for name in figures.split()} <= {*written}
    table = read_table(folder.path / "reconstruction.csv")
    assert list(table["epoch"][table["onset"] == 1]) == [0, 1, 2]
    assert set(table["stage"]) == {"pretraining"}
    assert (table["reconstruction_other_view"] > 0).all()
    assert set(read_table(folder.path / "rsv.csv")["stage"]) == {"pretraining", "finetuning"}
    assert {"final_accuracy", "pretrained_loss"} <= set(read_table(folder.path / "curve.csv"))


def test_the_command_line_tells_the_stages_apart(
    done: tuple[StudyFolder, Plan], capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    folder, _ = done
    assert main(["study", "status", str(write(tmp_path)), "--output", str(folder.path)]) == 0
    text = capsys.readouterr().out
    assert text.count("fine-tuning, epochs 0-2") == 3
    assert "trains 14 epochs, separate runs would train 15" in text


# Bad input.


@pytest.mark.parametrize(
    ("study", "second", "sentence"),
    [
        ({"finetuning": {}}, {}, "the field 'finetuning.base' is missing; finetuning needs it"),
        ({"finetuning.epochs": 3}, {}, "unknown field 'finetuning.epochs'"),
        ({"finetuning.base": "none.yaml"}, {}, r"finetuning: .*none\.yaml"),
        ({}, {"trainer.max_epochs": None}, r"finetuning: trainer\.max_epochs"),
        ({}, {"trainer.max_epochs": 0}, r"finetuning: trainer\.max_epochs"),
        ({}, {"model.init_args.network.init_args.width": 16},
         r"finetuning: weights: .* in a checkpoint of the base's network has the shape"),
        ({}, {"model.init_args.network.init_args.depth": 2},
         r"finetuning: weights: a checkpoint of the base's network lacks"),
        ({}, {"model.init_args.network": {"class_path": "SplitAllCNN", "init_args":
              {"depth": 1, "width": 4, "in_channels": 1}}}, r"finetuning: .*weights"),
        ({}, {"model.init_args.network": None}, r"finetuning: model\.init_args\.network"),
        ({"finetuning": None, "vary": {"finetuning.trainer.max_epochs": [1, 2]}}, {},
         r"finetuning\.trainer\.max_epochs is varied, but the study has no finetuning"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_before_training(study, second, sentence, tmp_path: Path):
    path = write(tmp_path, study, second=second)
    with pytest.raises(UserError, match=sentence):
        read = read_study(path)
        make_plan(read, *resolve(read))
