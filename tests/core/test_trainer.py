"""What is asked of a Trainer of either package."""

import pytest
import pytorch_lightning as pl
from small_runs import KeepsMedia, quiet_trainer

from critical_periods.core.trainer import (
    callbacks_of,
    datamodule_of,
    ends_before,
    log_to_wandb,
    results_folder,
    trainer_of,
)


def test_what_a_trainer_has(framework):
    callback, module = framework.Callback(), framework.LightningModule()
    trainer = quiet_trainer(callback, framework=framework)
    assert callback in callbacks_of(trainer) and datamodule_of(trainer) is None
    assert trainer_of(module) is None
    module.trainer = trainer
    assert trainer_of(module) is trainer


@pytest.mark.parametrize(
    ("settings", "run_epochs", "expected"),
    [
        ({"max_epochs": 3}, None, True),
        ({"max_epochs": 4}, None, False),
        ({"max_epochs": -1, "max_steps": 1}, None, False),
        ({"max_epochs": 3, "fast_dev_run": True}, None, False),
        # A part of a run, which says how many epochs the run has.
        ({"max_epochs": 3}, 4, False),
        ({"max_epochs": 4}, 3, True),
    ],
)
def test_a_run_ends_before_its_fourth_epoch(framework, settings, run_epochs, expected):
    part = framework.Callback()
    part.run_epochs = run_epochs
    assert ends_before(quiet_trainer(part, framework=framework, **settings), 4) is expected


def test_files_lie_with_the_logger_or_with_the_trainer(framework, tmp_path):
    without = quiet_trainer(framework=framework, default_root_dir=tmp_path)
    assert results_folder(without, "rsv") == tmp_path / "rsv"
    logger = framework.loggers.CSVLogger(tmp_path, name="some", version="run")
    assert results_folder(quiet_trainer(framework=framework, logger=logger), "rsv") == (
        tmp_path / "some" / "run" / "rsv"
    )


def test_media_go_to_every_logger_of_wandb_and_to_no_other(tmp_path):
    other, loggers = pl.loggers.CSVLogger(tmp_path), [KeepsMedia(), KeepsMedia()]
    log_to_wandb(quiet_trainer(logger=[other, *loggers]), lambda wandb: {"name": wandb.__name__})
    assert [one.media for one in loggers] == [[{"name": "wandb", "epoch": 0}]] * 2
    # It is not even loaded where nobody logs there.
    log_to_wandb(quiet_trainer(logger=other), lambda wandb: pytest.fail("asked"))
