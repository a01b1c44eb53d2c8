"""Runs that diverge: failed, with their epoch, and in nobody's way."""

import json
import math
import shutil
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from small_runs import quiet_trainer
from small_study import write_study

from critical_periods.cli import main
from critical_periods.core.errors import UserError
from critical_periods.plots import plot_curve
from critical_periods.studies import load_study, read_table, report, worker
from critical_periods.studies.divergence import DivergenceCheck
from critical_periods.studies.folder import SegmentFolder
from critical_periods.studies.launchers import local
from critical_periods.studies.statistics import average, spread
from critical_periods.studies.tables import short

OLD = Path(__file__).parent / "folder_of_version_0_1"
RATE = "model.init_args.optimizer.init_args.lr"


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report, "save", lambda figure, path: figure.canvas.draw())
    monkeypatch.setattr(local, "launch", lambda folder, *_: worker.work(folder) or [])


def run(command: str = "run", **fields: Any) -> int:
    windows = {"removal": [0, 1], "epochs_after": 1}
    base = {"trainer.callbacks": [], "trainer.limit_train_batches": 1}
    study = write_study(Path(), {"windows": windows, **fields}, base)
    return main(["study", command, str(study), "--output", "out"])


def test_a_learning_rate_that_diverges_leaves_the_others_as_they_are(capsys):
    assert run(vary={RATE: [0.05]}) == 0
    results, curve = (read_table(f"out/{name}.csv") for name in ("results", "curve"))
    shutil.rmtree("out")
    capsys.readouterr()
    assert run(vary={RATE: [0.05, 1e38]}) == 1
    said = capsys.readouterr().err
    trunk, clean = (name for name, one in load_study("out").plan.segments.items()
                    if one.config == 1 and one.parent is None)  # fmt: skip
    branches = [one.name for one in load_study("out").plan.segments.values()
                if one.parent in (trunk, clean)]  # fmt: skip
    for failed, branch in zip((trunk, clean), branches, strict=True):
        why = "the run diverged in epoch 0, where val/loss is no longer finite; lower the learn"
        assert f"Segment {failed} failed: {why}" in said
        assert f"Not tried, as it goes on from {failed}: {branch}.\n" in said
        assert not Path("out/segments", branch).exists()
    assert "Traceback" not in said

    # What is known of the others is what it would be without it.
    found, points = (read_table(f"out/{name}.csv") for name in ("results", "curve"))
    is_lost = found[RATE] == 1e38
    epochs = [math.nan] * 3 + [0] * 3
    assert found["diverged_epoch"].tolist() == pytest.approx(epochs, nan_ok=True)
    assert found[is_lost]["final_accuracy"].isna().all()
    pd.testing.assert_frame_equal(found[~is_lost][results.columns], results)
    assert points["seeds"].tolist() == [1, 1, 0, 0]
    assert points["diverged_seeds"].tolist() == [0, 0, 1, 1]
    sound = points[points["seeds"] > 0]
    shared = [name for name in curve if name != RATE]
    pd.testing.assert_frame_equal(sound[shared], curve[shared], check_dtype=False)
    assert "critical_removal" not in points

    failures = json.loads(Path("out/report.json").read_text())["failed"]
    shown = [(one["segment"], one["diverged"], one["not_tried"]) for one in failures]
    assert shown == [(trunk, 0, branches[:1]), (clean, 0, branches[1:])]
    assert run("status", vary={RATE: [0.05, 1e38]}) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "4 done, 2 failed, 2 missing."
    assert sum(line.endswith("  [failed: diverged in epoch 0]") for line in lines) == 2
    assert sum(f"  [missing: goes on from {trunk}, which failed]" in line for line in lines) == 1
    assert run("table", vary={RATE: [0.05, 1e38]}) == 0
    assert "| 1e+38 | none | 1 | 0 (1 diverged) |  |  |  |" in capsys.readouterr().out

    study = load_study("out")
    assert list(study.runs.index) == list(range(6)) and len(study.curve) == 4
    assert study.history["val/loss"].map(math.isfinite).all()
    with pytest.raises(UserError, match="has no trained network, as it diverged in epoch 0"):
        study.network(study.runs.iloc[-1])
    labels = [handle.get_label() for handle in plot_curve(study.curve).legends[0].legend_handles]
    assert "diverged seeds" in labels

    # All that a study has may be lost.
    shutil.rmtree("out")
    assert run(vary={RATE: [1e38]}) == 1
    assert read_table("out/curve.csv")["diverged_seeds"].tolist() == [1, 1]
    assert run("plot", vary={RATE: [1e38]}) == 1 and run("table", vary={RATE: [1e38]}) == 0


# What is lost, and when.


def lose(kind: str, folder: Path, epoch: int) -> None:
    """Trains three epochs of two steps, of which one goes wrong."""
    import pytorch_lightning as pl

    class Task(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor(1.0))
            if kind == "start":
                self.weight.data.fill_(math.inf)

        def training_step(self, batch: Any, number: int) -> Any:
            goes_wrong = self.current_epoch == epoch and number == 0
            if kind == "weight" and goes_wrong:
                self.weight.data.fill_(math.nan)
            lost = math.inf if goes_wrong and kind == "step" else 0.0
            if kind == "logged":
                self.log("my_loss", math.nan if goes_wrong else 1.0, on_epoch=True)
            return None if kind == "weight" else 0 * self.weight.clamp(-1, 1) + lost

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    check = DivergenceCheck(SegmentFolder(folder), "parent.ckpt")
    trainer = quiet_trainer(check, max_epochs=3)
    trainer.fit(Task(), torch.utils.data.DataLoader(torch.arange(2.0)))


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("weight", "the weight weight is"),
        ("step", "the loss of training is"),
        ("logged", "my_loss is"),
    ],
)
def test_the_epoch_in_which_a_loss_or_a_weight_is_lost(kind, what, tmp_path):
    with pytest.raises(UserError, match=f"the run diverged in epoch 1, where {what} no longer fi"):
        lose(kind, tmp_path, epoch=1)
    assert (tmp_path / "diverged").read_text() == "1"
    lose(kind, tmp_path, epoch=9)


def test_a_parent_whose_weights_are_lost_is_named(tmp_path):
    with pytest.raises(UserError, match=r"the weight weight is not finite in parent\.ckpt, which"):
        lose("start", tmp_path, epoch=9)


# Folders of earlier versions, and measures that are not finite.


def edited(tmp_path: Path, key: str, value: str) -> Path:
    """A copy of a study's folder with another value of its first run's last epoch."""
    folder = Path(shutil.copytree(OLD, tmp_path / "old"))
    file = folder / "segments" / load_study(folder).plan.runs[0].segment / "metrics.csv"
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    table.loc[table.index[-1], key] = value
    table.to_csv(file, index=False)
    return folder


@pytest.mark.parametrize("value", ["nan", "inf"])
@pytest.mark.parametrize("key", ["fisher/trace", "val/accuracy"])
def test_measures_that_are_not_finite_are_drawn_and_written(tmp_path, key, value):
    folder = edited(tmp_path, key, value)
    assert main(["study", "plot", str(folder / "old.yaml"), "--output", str(folder)]) == 0
    before, after = (read_table(one / "curve.csv") for one in (OLD, folder))
    column = "fisher_trace" if key == "fisher/trace" else "final_accuracy"
    assert len(before) == len(after) and not np.isfinite(after[column]).all()
    others = [name for name in before if not name.startswith((column, "critical", "threshold"))]
    pd.testing.assert_frame_equal(after[others], before[others])
    assert main(["study", "table", str(folder / "old.yaml"), "--output", str(folder)]) == 0


def test_runs_that_diverged_in_an_earlier_version_are_known(tmp_path, capsys):
    folder = edited(tmp_path, "val/loss", "nan")
    assert main(["study", "plot", str(folder / "old.yaml"), "--output", str(folder)]) == 0
    first, *others = read_table(folder / "results.csv")["diverged_epoch"]
    assert first == load_study(folder).plan.runs[0].window.epochs - 1
    assert pd.isna(others).all()
    assert load_study(folder).curve["diverged_seeds"].sum() == 1


# Statistics by NumPy.


def test_sound_numbers_are_what_they_were():
    """To the sixth digit, which tables have: so rounded, exact rational means are the measure."""
    draw = np.random.default_rng(0)
    for number in (1, 2, 3, 4, 5, 10):
        for _ in range(300):
            numbers = draw.normal(0.7, 10.0 ** -draw.integers(1, 6), number)
            values = [short(value) for value in numbers]
            assert short(average(values)) == short(mean(values))
            assert number == 1 or short(spread(values)) == short(stdev(values))
    assert spread([0.1] * 3) == 0 and average([0.1] * 3) == 0.1
    for values in ([math.nan, 1.0], [math.inf, 1.0], [math.inf, -math.inf]):
        assert math.isnan(average(values)) and math.isnan(spread(values))
