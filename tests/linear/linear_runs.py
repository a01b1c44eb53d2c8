"""What the tests of linear networks in training share: a log of epochs, and runs of studies."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from small_runs import quiet_trainer

from critical_periods.studies import worker
from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.plan import Plan, make_plan
from critical_periods.studies.report import write_report
from critical_periods.studies.resolve import resolve
from critical_periods.studies.study import read_study

STUDIES = Path(__file__).parents[2] / "experiments" / "studies"


class Logged(pl.Callback):
    """What was logged at the end of each epoch."""

    def __init__(self) -> None:
        self.epochs: dict[int, dict[str, float]] = {}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        values = {key: float(value) for key, value in trainer.callback_metrics.items()}
        self.epochs[trainer.current_epoch] = values


def train(
    task: pl.LightningModule,
    data: pl.LightningDataModule,
    *callbacks: pl.Callback,
    checkpoint: str | None = None,
    **settings: Any,
) -> dict[int, dict[str, float]]:
    """Trains, from a checkpoint if one is given, and returns the logged values of each epoch."""
    logged = Logged()
    keeps = any(isinstance(one, ModelCheckpoint) for one in callbacks)
    trainer = quiet_trainer(*callbacks, logged, enable_checkpointing=keeps, **settings)
    trainer.fit(task, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    return logged.epochs


def run_study(name: str, cuts: list[str], path: Path) -> tuple[Plan, StudyFolder, list[str]]:
    """Runs one of our studies, cut down, and writes its report: the plan, folder and file names."""
    study = read_study(STUDIES / f"{name}.yaml", cuts)
    plan = make_plan(study, *resolve(study))
    assert plan.epochs < plan.separate_epochs
    folder = StudyFolder(path)
    folder.write_plan(plan)
    worker.work(folder)
    return plan, folder, write_report(folder, plan)
