"""What is asked of a Trainer of either package."""

import numpy as np
import pytest
import pytorch_lightning as pl
from PIL import Image
from small_runs import KeepsCalls, KeepsMedia, quiet_trainer

from critical_periods.core.trainer import (
    callbacks_of,
    datamodule_of,
    ends_before,
    log_media,
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


def test_media_go_to_every_logger_that_has_any(tmp_path):
    """To W&B, TensorBoard and MLflow, of which the calls of their writers stand in."""
    counts, edges = np.array([1, 2, 1]), np.array([-1.0, 0.0, 0.5, 1.0])
    picture = Image.new("RGB", (3, 2), "red")
    board = type("TensorBoardLogger", (KeepsCalls,), {})()
    flow = type("MLFlowLogger", (KeepsCalls,), {})()
    other, wandbs = pl.loggers.CSVLogger(tmp_path), [KeepsMedia(), KeepsMedia()]
    trainer = quiet_trainer(logger=[other, *wandbs, board, flow])
    log_media(trainer, {"rsv/fc": (counts, edges)}, {"seen": picture})
    for one in wandbs:
        (row,) = one.media
        assert row.keys() == {"rsv/fc", "seen", "epoch"} and row["epoch"] == 0
        assert row["rsv/fc"].histogram == [1, 2, 1] and row["seen"].image.size == (3, 2)
    (_, (key,), raw), (_, (name, image), shown) = board.calls
    assert (key, name, shown["dataformats"]) == ("rsv/fc", "seen", "HWC")
    assert (raw["bucket_counts"], raw["bucket_limits"]) == ([1, 2, 1], [0.0, 0.5, 1.0])
    # The middles of the bins stand for what is in them: -0.5, 0.25 twice, 0.75.
    assert (raw["num"], raw["sum"], raw["sum_squares"]) == (4, 0.75, 0.25 + 0.125 + 0.5625)
    assert image.shape == (2, 3, 3) and (image[..., 0] == 255).all()
    (table, (_, bins, file), _), (logged, (run, found, place), _) = flow.calls
    assert (table, file) == ("log_dict", "rsv/fc/epoch_0000.json")
    assert bins == {"low": [-1.0, 0.0, 0.5], "high": [0.0, 0.5, 1.0], "count": [1, 2, 1]}
    assert (logged, run, place) == ("log_image", "run", "seen/epoch_0000.png") and found is picture
