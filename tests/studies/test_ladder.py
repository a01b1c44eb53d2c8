"""Ladders of recovery budgets: their trees, their training, their tables, their design."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from small_study import BASE, Tree, changed, plan_of, planned, write_study
from torch.utils.data import DataLoader

from critical_periods.cli import main
from critical_periods.core.errors import UserError
from critical_periods.plots import plot_curve
from critical_periods.studies import load_study, read_table, segment, worker
from critical_periods.studies.cooldown import Cooldown
from critical_periods.studies.design import Design
from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.healing import healing
from critical_periods.studies.paths import paths
from critical_periods.studies.plan import Plan
from critical_periods.studies.recovery import recovery
from critical_periods.studies.statistics import summarise
from critical_periods.studies.summary import _media, _tables
from critical_periods.studies.tables import as_table, write_table
from critical_periods.studies.tracking import described

CONSTANT: Tree = {"model.init_args.lr_scheduler": None, "trainer.callbacks": []}
WINDOWS = {"removal": [2], "epochs_after": [2, 3, 4, 6], "cooldown": 2}
LADDER: Tree = {
    "windows": WINDOWS, "seeds": [0, 1], "verdict": {"margin": 0.005},
}  # fmt: skip


def find(plan: Plan, window: tuple[int, int], stop: int, cooldown: int, seed: int = 0) -> str:
    wanted = (window, stop, cooldown, seed)
    (name,) = [
        name
        for name, one in plan.segments.items()
        if (one.window, one.stop, one.cooldown, one.seed) == wanted
    ]
    return name


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study file of a ladder that was run once; not to be touched."""
    folder, _ = planned(tmp_path_factory.mktemp("ladder"), LADDER, CONSTANT)
    worker.work(folder)
    study = folder.path.with_name("small.yaml")
    assert run(study, command="plot") == 0
    return study


def run(study: Path, *words: str, command: str = "run") -> int:
    return main(["study", command, str(study), "--output", str(study.parent / "out"), *words])


def test_rungs_share_a_trunk_that_any_study_of_the_rate_has(tmp_path, capsys):
    plan = plan_of(write_study(tmp_path, LADDER, CONSTANT))
    trunk = [(0, 2), (2, 3), (3, 4), (4, 6)]
    rungs = [(2, 4), (3, 5), (4, 6), (6, 8)]
    for window in ((0, 2), (0, 0)):
        found = [one for one in plan.segments.values() if one.seed == 0 and one.window == window]
        assert [(s.start, s.stop) for s in found if not s.cooldown] == trunk
        assert [(s.start, s.stop) for s in found if s.cooldown] == rungs
    named = [described(plan, run.segment)[0] for run in plan.runs]
    assert len(set(named)) == len(named) and "Blur 0-2, 8 epochs, seed 0" in named
    # A job's path goes up the trunk to the last rung, and each other rung is one of its own.
    ways = [len(way) for way in paths(plan, set(plan.segments)) if plan.segments[way[0]].seed == 0]
    assert sorted(ways) == [1] * 6 + [5, 5]
    # Without a cooldown, 6 epochs after the removal, the trunk is the same to the name.
    plain = plan_of(
        write_study(tmp_path, {"windows": {"removal": [2], "epochs_after": 4}}, CONSTANT)
    )
    assert find(plain, (0, 2), 6, 0) == find(plan, (0, 2), 6, 0) != find(plan, (0, 2), 6, 2)
    # What a rung is depends on the cooldown, and the trunk does not.
    other = plan_of(write_study(tmp_path, changed(LADDER, {"windows.cooldown": 1}), CONSTANT))
    shared = set(plan.segments) & set(other.segments)
    assert {plan.segments[name].cooldown for name in shared} == {0}
    assert {plan.segments[name].stop for name in shared} == {2, 3, 4}
    more = {"windows.epochs_after": [2, 3, 4, 6, 9], "windows.removal": [2, 3]}
    grown = plan_of(write_study(tmp_path, changed(LADDER, more), CONSTANT))
    assert set(plan.segments) < set(grown.segments)

    # The ladder of the issue, as counted from the plan itself and as planning says it.
    windows = {"removal": [0, 20, 40], "epochs_after": [10, 20, 40, 80, 160], "cooldown": 5}
    path = write_study(tmp_path, {"windows": windows}, CONSTANT)
    assert main(["study", "plan", str(path)]) == 0
    said = capsys.readouterr().out.splitlines()[-3:]
    for removal, line in zip(windows["removal"], said, strict=True):
        alone = plan_of(path, [f"windows.removal=[{removal}]"])
        of = [one for one in alone.segments.values() if not removal or one.window[1] > 0]
        epochs = sum(one.stop - one.start for one in of)
        assert epochs == removal + 180 and epochs <= 1.25 * (removal + 160)
        assert f"trains {epochs} epochs a seed, its longest rung alone {removal + 160} (" in line


class Slope(pl.LightningModule):
    """A loss whose gradient is 1: each step takes its learning rate off the weight."""

    def __init__(self, gamma: float = 1.0) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.gamma = gamma
        self.weights: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.weights.append(self.weight.item())
        return self.weight * 1

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.5)
        return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, self.gamma)]


def fit(model: pl.LightningModule, *callbacks: pl.Callback, epochs: int = 5) -> pl.Trainer:
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=epochs, logger=False, callbacks=list(callbacks),
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, DataLoader(range(4)))
    return trainer


def test_a_cooldown_takes_the_rate_linearly_to_zero():
    """Three epochs of four batches: 12 steps at 12/12, 11/12, …, 1/12 of the rate."""
    model = Slope()
    trainer = fit(model, Cooldown(stop=5, epochs=3))
    taken = -torch.tensor([*model.weights, model.weight.item()], dtype=torch.float64).diff()
    left = torch.arange(12, 0, -1, dtype=torch.float64) / 12
    assert torch.allclose(taken, 0.5 * torch.cat([torch.ones(8), left]), rtol=1e-12)
    # Between steps, as a checkpoint has it, the rate is the run's own.
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.5
    # A third party's schedule is found in training.
    with pytest.raises(UserError, match=r"from 0\.5 to 0\.25, would fight windows\.cool"):
        fit(Slope(gamma=0.5), Cooldown(stop=5, epochs=5))


def test_a_rung_equals_the_same_run_trained_in_one_piece(original, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = StudyFolder(original.parent / "out")
    window = {"deficit": {"class_path": "Blur", "init_args": {"factor": 4, "views": [1]}}}
    callbacks = [
        {"class_path": "DeficitWindow", "init_args": {**window, "onset": 0, "removal": 2}},
        {"class_path": "critical_periods.studies.cooldown.Cooldown",
         "init_args": {"stop": 8, "epochs": 2}},
    ]  # fmt: skip
    alone = changed(BASE, CONSTANT | {"trainer.max_epochs": 8, "seed_everything": 1})
    alone["trainer"]["callbacks"] = callbacks
    Path("alone.yaml").write_text(json.dumps(alone))
    assert main(["fit", "--config", "alone.yaml"]) == 0
    (checkpoint,) = Path("runs").rglob("*.ckpt")
    name = find(folder.read_plan(), (0, 2), 8, 2, seed=1)
    ours, theirs = (
        torch.load(path, weights_only=True)
        for path in (folder.segment(name).checkpoint, checkpoint)
    )
    for part in ("state_dict", "optimizer_states"):
        torch.testing.assert_close(ours[part], theirs[part], rtol=0, atol=0)
    assert ours["optimizer_states"][0]["param_groups"][0]["lr"] == 0.05


def test_a_cooldown_that_was_killed_goes_on_with_the_same_bits(original, tmp_path, monkeypatch):
    class KilledError(BaseException):
        """As if by a signal."""

    shutil.copytree(original.parent, tmp_path / "copy")
    folder = StudyFolder(tmp_path / "copy" / "out")
    plan = folder.read_plan()
    name = find(plan, (0, 2), 8, 2)
    before = torch.load(folder.segment(name).checkpoint, weights_only=True)
    shutil.rmtree(folder.segment(name).path)
    monkeypatch.setattr(segment, "_SECONDS_BETWEEN_CHECKPOINTS", -1)

    def die(self: Any, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.current_epoch == 7:
            raise KilledError

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(segment.SegmentRecord, "on_train_epoch_start", die)
        worker.work(folder)
    assert folder.segment(name).halfway.exists()
    worker.work(folder)
    after = torch.load(folder.segment(name).checkpoint, weights_only=True)
    torch.testing.assert_close(before["state_dict"], after["state_dict"], rtol=0, atol=0)


def test_recovery_is_the_gaps_of_the_seeds_that_count(original):
    folder = original.parent / "out"
    runs, table = (read_table(folder / f"{name}.csv") for name in ("results", "recovery"))
    plan = StudyFolder(folder).read_plan()
    assert set(runs["seed"]) == {0, 1} and "design_changed" not in runs
    curves = []
    for seed in (0, 1):
        of = runs[runs["seed"] == seed].set_index(["removal", "epochs"])["final_accuracy"]
        curves.append([of[0, 2 + rung] - of[2, 2 + rung] for rung in WINDOWS["epochs_after"]])
        # The accuracy of a finished training is that of its last epoch.
        last = find(plan, (0, 2), 4, 2, seed)
        history = StudyFolder(folder).segment(last).history()
        assert of[2, 4] == pytest.approx(float(history[-1]["val/accuracy"]), rel=1e-5)
    assert list(table["epochs_after"]) == WINDOWS["epochs_after"]
    for row, gaps in zip(table.to_dict("records"), zip(*curves, strict=True), strict=True):
        assert [row[f"gap{end}"] for end in ("", "_sd", "_low", "_high")] == pytest.approx(
            list(summarise(gaps)), abs=1e-6
        )
        assert row["seeds"] == 2 and row["design"] == plan.design.hash
    found = healing(WINDOWS["epochs_after"], curves, margin=0.005)
    assert set(table["verdict"]) == {found.verdict}
    assert table["scar_high"][0] == pytest.approx(found.scar_high, abs=1e-5)
    assert {"recovery.png", "curve.png"} <= {path.name for path in folder.iterdir()}
    study = load_study(folder)
    assert study.recovery.equals(table)
    labels = plot_curve(study.curve).axes[0].get_legend_handles_labels()[1]
    assert labels == ["2 epochs after", "3 epochs after", "4 epochs after", "6 epochs after"]


def rows_of(plan: Plan, gaps: dict[str, list[list[float]]]) -> list[dict[str, Any]]:
    """Results with given gaps, by variant, seed and rung."""
    rows = []
    for run in plan.runs:
        onset, removal, epochs = run.window
        lost = 0.0
        if onset < removal:
            seeds = gaps[run.variation["variant"]]
            rung = plan.design.epochs_after.index(epochs - removal)
            # What calibration seeds lose would turn every verdict.
            lost = seeds[run.seed][rung] if run.seed in plan.design.seeds else 0.9
        known = {**run.variation, **run.window._asdict(), "seed": run.seed}
        rows.append({**known, "final_accuracy": 0.9 - lost})
    return rows


def test_the_second_control_and_a_verdict_only_at_the_end(tmp_path):
    flip = {"deficit": {"class_path": "VerticalFlip"}}
    changes = {
        "variants": {"blur": {}, "flip": flip}, "verdict.control": "flip",
        "seeds": list(range(4)), "calibration_seeds": [9],
    }  # fmt: skip
    plan = plan_of(write_study(tmp_path, changed(LADDER, changes), CONSTANT))
    gaps = {
        "blur": [
            [0.2 + x + 0.1 * (rung / 2) ** -1.5 for rung in WINDOWS["epochs_after"]]
            for x in (0, 0.001, 0.002, 0.003)
        ],
        "flip": [[0.1, 0.05, 0.01, 0.2]] * 4,
    }
    rows = rows_of(plan, gaps)
    table = as_table(recovery(plan, rows))
    blur = table[table["variant"] == "blur"]
    blurred, flipped = (np.mean(gaps[name], axis=0) for name in ("blur", "flip"))
    assert list(blur["more_than_control"]) == pytest.approx(list(blurred - flipped), rel=1e-5)
    assert list(blur["more_than_control_p"]) == [0.125] * 4
    assert table[table["variant"] == "flip"]["more_than_control"].isna().all()
    assert set(blur["verdict"]) == {"scar"}
    # While a run that counts is missing, no verdict tempts anyone to stop.
    missing = {"variant": "blur", "seed": 3, "removal": 2, "epochs": 8}
    fewer = [row for row in rows if any(row[name] != value for name, value in missing.items())]
    table = as_table(recovery(plan, fewer))
    blur = table[table["variant"] == "blur"]
    assert len(fewer) == len(rows) - 1
    assert blur["verdict"].isna().all() and blur["scar"].notna().all()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"verdict.margin": 0.05}, "margin 0.005 → 0.05"),
        ({"seeds": [0, 1, 3]}, "seeds [0, 1] → [0, 1, 3]"),
        ({"calibration_seeds": [1]}, "seeds [0, 1] → [0]; calibration_seeds [] → [1]"),
        ({}, ""),
    ],
)
def test_every_table_says_where_the_design_was_changed(original, tmp_path, capsys, changes, says):
    shutil.copytree(original.parent, tmp_path / "copy")
    study = tmp_path / "copy" / original.name
    folder = StudyFolder(study.parent / "out")
    first = folder.read_plan()
    write_study(study.parent, changed(LADDER, changes), CONSTANT)
    if "seeds" not in changes:  # An unchanged file has nothing to say.
        assert run(study, command="status") == 0
        assert ("last run in" in capsys.readouterr().err) is bool(says)
    plan = folder.settled(plan_of(study))
    assert plan.design_changes == says and plan.registered == first.design
    folder.write_plan(plan)
    # Settled twice, it still says what was there first.
    assert folder.settled(plan_of(study)).registered == first.design
    assert run(study, command="plot") in (0, 1)
    tables = [path.name for path in folder.path.glob("*.csv")]
    assert {"results.csv", "curve.csv", "recovery.csv"} <= set(tables)
    for name in tables:
        found = read_table(folder.path / name)
        assert set(found.get("design_changed", [""])) == {says}
    capsys.readouterr()
    assert run(study, command="table") == 0
    assert ("changed after training had begun: " + says in capsys.readouterr().out) is bool(says)


def test_of_a_control_of_a_later_rung_alone_there_is_no_curve(tmp_path, capsys):
    folder, plan = planned(tmp_path, LADDER, CONSTANT)
    segment = folder.segment(find(plan, (0, 0), 8, 2))
    segment.path.mkdir(parents=True)
    write_table(segment.metrics, [{"epoch": epoch, "val/accuracy": 0.5} for epoch in range(8)])
    segment.checkpoint.touch()
    segment.mark_done({})
    assert run(tmp_path / "small.yaml", command="plot") == 1
    assert f"Wrote results.csv to {folder.path}." in capsys.readouterr().out
    assert not (folder.path / "curve.csv").exists() and load_study(folder.path).curve.empty
    assert _tables({"results": load_study(folder.path).runs}, "small").keys() == {"results_table"}
    assert _media(folder, plan, {}, None) == {}


def test_a_rule_may_be_chosen_by_calibration_seeds_alone(tmp_path):
    path = write_study(tmp_path, changed(LADDER, {"verdict": None, "seeds": [2]}), CONSTANT)
    folder = StudyFolder(tmp_path / "out")
    before = folder.settled(plan_of(path))
    folder.write_plan(before)
    assert before.design.margin is None and before.registered == before.design
    # Nothing was trained yet, then a seed that does not count, then one that does.
    ruled = write_study(tmp_path, LADDER | {"calibration_seeds": [2]}, CONSTANT)
    assert folder.settled(plan_of(ruled)).design_changes == ""
    trained = next(name for name, one in before.segments.items() if one.seed == 2)
    (folder.path / "segments" / trained).mkdir(parents=True)
    assert folder.settled(plan_of(ruled)).design_changes == ""
    plan = folder.settled(plan_of(ruled, ["calibration_seeds=[]"]))
    assert plan.design_changes == "the verdict was added"
    # Where the plan is lost, nothing shows that the rule came first.
    folder.plan_file.write_text("{")
    assert folder.settled(plan_of(ruled, ["calibration_seeds=[]"])).design_changes != ""
    assert Plan.from_json(plan.to_json()) == plan


def test_the_hash_is_of_the_whole_design():
    one = Design((20,), (5, 10), 5, (0, 1), margin=0.01).of(["a", "b"])
    assert one.hash == Design((20,), (5, 10), 5, (0, 1), margin=0.01).of(["b", "a"]).hash
    others = [
        Design((20,), (5, 10), 4, (0, 1), margin=0.01).of(["a", "b"]),
        Design((20,), (5, 10), 5, (0, 1), margin=0.02).of(["a", "b"]),
        Design((20,), (5, 10), 5, (0, 1), margin=0.01).of(["a", "c"]),
    ]
    assert len({one.hash, *(other.hash for other in others)}) == 4
    assert one.changes(others[-1]) == "what is trained"
