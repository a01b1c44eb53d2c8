"""Short runs for tests: a Trainer that prints and saves nothing, and clean samples of data."""

from types import SimpleNamespace
from typing import Any

import pytorch_lightning
import torch
from pytorch_lightning.loggers.logger import DummyLogger

from critical_periods.core.batch import Batch


def quiet_trainer(*callbacks: Any, framework: Any = pytorch_lightning, **settings: Any) -> Any:
    """A Trainer of either package on the CPU; settings go to it, over these."""
    quiet = {
        "accelerator": "cpu", "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0,
    }  # fmt: skip
    return framework.Trainer(callbacks=list(callbacks), **(quiet | settings))


def clean_samples(datamodule: Any, split: str, samples: int | None = None) -> Batch:
    """The samples that a measurement is about, as one batch."""
    datamodule.setup()
    found = []
    for indices in datamodule.measurement_loader(split, samples):
        images = datamodule.transfer_batch_to_device(indices, torch.device("cpu"), 0)
        found.append(datamodule.on_after_batch_transfer(images, 0))
    return Batch(*map(torch.cat, zip(*found, strict=True)))


class Untrained(pytorch_lightning.Callback):
    """Fails where a run takes a step."""

    def on_before_optimizer_step(self, *args: Any) -> None:
        raise AssertionError("a step was taken")


class WandbLogger:
    """The name that loggers of W&B are found by; no Logger, of whose names a config knows one."""


class KeepsMedia(WandbLogger, DummyLogger):
    """Stands in for the logger of W&B, and keeps its media."""

    def __init__(self) -> None:
        super().__init__()
        self.media: list[dict[str, Any]] = []

    @property
    def experiment(self) -> Any:
        return SimpleNamespace(log=self.media.append)


class KeepsCalls(DummyLogger):
    """Stands in for the loggers of TensorBoard and MLflow, and keeps what their writers get."""

    run_id = "run"

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, Any, Any]] = []

    @property
    def experiment(self) -> Any:
        return self

    def __getattr__(self, name: str) -> Any:
        if not name.startswith(("add_", "log_")):
            raise AttributeError(name)
        return lambda *args, **settings: self.calls.append((name, args, settings))
