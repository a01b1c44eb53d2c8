"""Lightning's callbacks and loggers through `fit`: as without a dry run, or refused before."""

from collections import Counter
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from small_study import write_run

from critical_periods.cli import main

# Each with settings, and what it leaves behind under the folder that it runs in; side by side. Of
# checkpoints no two may save at the same moments by the same measure.
OBSERVERS: list[list[tuple[str, dict[str, Any], list[str]]]] = [
    [
        ("ModelCheckpoint", {"monitor": "val/accuracy", "mode": "max", "save_last": True,
                             "dirpath": "x"}, ["x/last.ckpt"]),
        ("ModelCheckpoint", {"every_n_train_steps": 3, "dirpath": "x"}, ["x/epoch=1-step=3.ckpt"]),
        ("ModelCheckpoint", {"train_time_interval": "00:00:00:00", "dirpath": "x",
                             "filename": "t"}, ["x/t.ckpt"]),
        ("ModelCheckpoint", {"save_weights_only": True, "dirpath": "x", "filename": "w",
                             "every_n_epochs": 2}, ["x/w.ckpt"]),
        ("ModelCheckpoint", {"save_on_exception": True, "dirpath": "x", "mode": "max"}, []),
        ("ModelCheckpoint", {"save_on_train_epoch_end": True, "dirpath": "x", "filename": "e"},
         ["x/e.ckpt"]),
        ("OnExceptionCheckpoint", {"dirpath": "y"}, []),
        ("LearningRateMonitor", {}, []),
        ("EarlyStopping", {"monitor": "val/accuracy"}, []),
        ("Timer", {"duration": "00:01:00:00"}, []),
        ("DeviceStatsMonitor", {}, []),
        ("ThroughputMonitor", {"batch_size_fn": "builtins.len"}, []),
        ("SpikeDetection", {"warmup": 10}, []),
        ("LambdaCallback", {}, []),
        ("TQDMProgressBar", {}, []),
        ("RichModelSummary", {}, []),
    ],
    [
        ("ModelCheckpoint", {}, ["runs/version_2/checkpoints/epoch=1-step=4.ckpt"]),
        ("RichProgressBar", {}, []),
        ("ModelSummary", {}, []),
    ],
]  # fmt: skip
CHANGERS: dict[str, dict[str, Any]] = {
    "StochasticWeightAveraging": {"swa_lrs": 0.01},
    "WeightAveraging": {},
    "EMAWeightAveraging": {"decay": 0.5},
    "GradientAccumulationScheduler": {"scheduling": {0: 2}},
}
SHORT = {"trainer.limit_val_batches": 1, "trainer.enable_progress_bar": True}


class Seen:
    """Keeps what the Trainer that trains has, and the weights at its end."""

    callbacks: list[str]
    weights: dict[str, torch.Tensor]
    batch_size: int


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    kept, fit = Seen(), pl.Trainer.fit

    def remember(self: Any, model: Any, *args: Any, **settings: Any) -> None:
        kept.callbacks = [type(one).__name__ for one in self.callbacks]
        fit(self, model, *args, **settings)
        kept.weights = {name: value.clone() for name, value in model.state_dict().items()}
        kept.batch_size = self.datamodule.batch_size

    # By its own signature, which the command line reads.
    monkeypatch.setattr(pl.Trainer, "fit", wraps(fit)(remember))
    return kept


def fits(callbacks: Any, changes: dict[str, Any] | None = None) -> None:
    file = write_run(SHORT | {"trainer.callbacks": callbacks} | (changes or {}))
    assert main(["fit", "--config", file]) == 0


def same(a: Seen, b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a.weights[name], value) for name, value in b.items())


def test_observers_are_as_the_config_has_them(seen, capsys):
    """None is refused, none is there twice, and none changes a bit."""
    fits([])
    plain, default = seen.weights, set(seen.callbacks)
    for observers in OBSERVERS:
        fits([{"class_path": kind, "init_args": settings} for kind, settings, _ in observers])
        assert same(seen, plain)
        asked = Counter(kind for kind, *_ in observers)
        found = Counter(seen.callbacks)
        assert asked.items() <= found.items() and set(found) - default <= set(asked)
        assert {count for kind, count in found.items() if kind not in asked} <= {1}
        assert all(Path(file).exists() for *_, files in observers for file in files)
    # One alone, and one by its name.
    for callbacks in ({"class_path": "ModelCheckpoint"}, "ModelCheckpoint", ["TQDMProgressBar"]):
        fits(callbacks)
        assert same(seen, plain)


def test_changers_do_what_they_do_without_a_dry_run(seen, monkeypatch):
    fits([])
    plain = seen.weights
    for name, settings in CHANGERS.items():
        callbacks = [{"class_path": name, "init_args": settings}]
        fits(callbacks)
        after = seen.weights
        with monkeypatch.context() as patch:
            patch.setattr("critical_periods.runs.lightning_cli.dry_run", lambda *args: [])
            fits(callbacks)
        assert same(seen, after) and not same(seen, plain), name


def test_a_batch_size_that_is_found_is_like_one_that_is_set(seen):
    finder = {"class_path": "BatchSizeFinder", "init_args": {"init_val": 10, "max_trials": 1}}
    fits([finder])
    found, batch_size = seen.weights, seen.batch_size
    fits([], {"data.init_args.batch_size": batch_size})
    assert batch_size == 10 and same(seen, found)


def following(name: str, key: str) -> dict[str, Any]:
    follower = {"class_path": name, "init_args": {"monitor": key}}
    is_callback = hasattr(pl.callbacks, name)
    return {"trainer.callbacks": [follower]} if is_callback else {SCHEDULER: follower}


SCHEDULER, PLATEAU = "model.init_args.lr_scheduler", "pytorch_lightning.cli.ReduceLROnPlateau"


@pytest.mark.parametrize("name", ["EarlyStopping", "ModelCheckpoint", PLATEAU])
def test_a_measure_that_is_not_there_is_a_sentence_before_training(seen, capsys, name):
    keys = ["val/acc", "val_loss", "loss"] if name == "EarlyStopping" else ["val/acc"]
    unknown: list[tuple[str, dict[str, Any]]] = [(key, {}) for key in keys]
    for key, changes in (*unknown, ("val/loss", {"trainer.limit_val_batches": 0})):
        file = write_run(following(name, key) | changes)
        assert main(["fit", "--config", file]) == 2
        (line,) = [one for one in capsys.readouterr().err.splitlines() if "error" in one]
        assert line.startswith("critical-periods: error: run.yaml: ") and repr(key) in line
        assert not hasattr(seen, "callbacks")


def test_a_measure_that_is_there_is_followed(seen):
    others = [{"class_path": "FisherMonitor", "init_args": {"samples": 4}}, "LearningRateMonitor"]
    keys = ("val/accuracy", "train/loss", "epoch", "fisher/trace", "lr-SGD")
    followers = [following("ModelCheckpoint", key)["trainer.callbacks"] for key in keys]
    fits(sum(followers, others))
    assert seen.callbacks.count("ModelCheckpoint") == len(keys)


def test_a_printed_config_is_one(seen, capsys):
    file = write_run({"trainer.callbacks": [{"class_path": "Timer"}]})
    with pytest.raises(SystemExit, match="0"):
        main(["fit", "--config", file, "--print_config"])
    Path("printed.yaml").write_text(capsys.readouterr().out)
    assert main(["fit", "--config", "printed.yaml"]) == 0
    assert main(["fit", "--config", "runs/version_0/config.yaml"]) == 0


def test_a_barebones_trainer_has_no_loggers(seen):
    fits([], {"trainer.barebones": True, "trainer.enable_progress_bar": None})


LOGGERS: dict[str, tuple[Any, str]] = {
    "none": (False, ""),
    "CSVLogger": ({"save_dir": "x"}, "x/lightning_logs/version_0/metrics.csv"),
    "TensorBoardLogger": ({"save_dir": "x"}, "x/lightning_logs/version_0/events*"),
    "WandbLogger": ({"save_dir": "x", "offline": True}, "x/wandb/offline-run-*"),
    # Its folders of files are refused by MLflow 3.
    "MLFlowLogger": ({"tracking_uri": "sqlite:///x.db"}, "x.db"),
    # As of those that only send.
    "pytorch_lightning.loggers.logger.DummyLogger": ({}, "runs/config.yaml"),
}
NEEDS = {"TensorBoardLogger": "tensorboard", "MLFlowLogger": "mlflow"}


@pytest.mark.parametrize("name", LOGGERS)
def test_loggers(seen, monkeypatch, name):
    """The dry run logs nowhere, and the run once."""
    if name in NEEDS and find_spec(NEEDS[name]) is None:
        pytest.skip(f"{NEEDS[name]} is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    settings, file = LOGGERS[name]
    logger = settings is not False and {"class_path": name, "init_args": settings}
    checkpoint = {"class_path": "ModelCheckpoint", "init_args": {"dirpath": "y"}}
    fits([checkpoint], {"trainer.logger": logger})
    assert not file or len([*Path().glob(file)]) == 1
    # Without a logger the config lies there.
    assert {path.name for path in Path("runs").glob("*")} <= {"config.yaml"}
    assert len([*Path("y").glob("*.ckpt")]) == 1
