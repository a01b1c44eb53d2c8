"""Callbacks and data under `lightning.pytorch`, whichever package is imported first."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_runs import quiet_trainer
from test_windows import third_party

import critical_periods.callbacks as callbacks
from critical_periods.callbacks import DeficitWindow, FisherMonitor, FreezeWindow
from critical_periods.data import StereoDigitsDataModule
from critical_periods.deficits import Blur

# What isort makes of any script: our names come before Lightning's.
SCRIPT = """
import sys
from critical_periods.callbacks import DeficitWindow, FisherMonitor, LearningRateRestart
from critical_periods.callbacks.windows.freeze_window import FreezeWindow
from critical_periods.data import CIFAR10DataModule
from critical_periods.deficits import Blur
assert not any(name.startswith("lightning.") for name in sys.modules)
early = DeficitWindow(Blur())

import lightning
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.demos.boring_classes import BoringModel

for kind in (DeficitWindow, FisherMonitor, FreezeWindow, LearningRateRestart):
    assert issubclass(kind, lightning.Callback)
assert isinstance(early, lightning.Callback)
assert issubclass(CIFAR10DataModule, lightning.LightningDataModule)
cli = LightningCLI(BoringModel, run=False, save_config_callback=None)
names = [type(one).__name__ for one in cli.trainer.callbacks]
assert names[:3] == ["DeficitWindow", "FreezeWindow", "FisherMonitor"], names
"""


def callback(path: str, **settings: Any) -> dict[str, Any]:
    return {"class_path": path, "init_args": settings}


BLUR = {"class_path": "critical_periods.deficits.Blur"}
OURS = [
    callback("critical_periods.callbacks.DeficitWindow", deficit=BLUR, removal=2),
    # As a config is saved, and as short as the command line of Lightning lets a name be.
    callback("critical_periods.callbacks.windows.freeze_window.FreezeWindow", modules=["layer"]),
    callback("FisherMonitor"),
]
TRAINER = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}


def test_imported_before_lightning(tmp_path: Path):
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({"trainer": {**TRAINER, "callbacks": OURS}}))
    command = [sys.executable, "-c", SCRIPT, "--config", str(file)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr[-2000:]


@pytest.mark.parametrize("names", [OURS, OURS[0]], ids=["a list", "one alone"])
def test_in_yaml(framework: Any, names: Any):
    cli, demos = (
        import_module(f"{framework.__name__}.{n}") for n in ("cli", "demos.boring_classes")
    )
    config = {"trainer": {**TRAINER, "callbacks": names}}
    run = cli.LightningCLI(demos.BoringModel, run=False, save_config_callback=None, args=config)
    kinds = [DeficitWindow, FreezeWindow, FisherMonitor] if names is OURS else [DeficitWindow]
    assert [type(one) for one in run.trainer.callbacks[: len(kinds)]] == kinds


def test_every_callback_is_one_of_both_packages(framework: Any):
    for name in {*callbacks.__all__} - {"Project"}:
        assert issubclass(getattr(callbacks, name), framework.Callback), name
    window = DeficitWindow(Blur())
    trainer = framework.Trainer(accelerator="cpu", logger=False, callbacks=window)
    assert window in trainer.callbacks


def test_data_of_this_package_in_either_trainer(framework: Any):
    module = third_party(framework)
    module.training_step = lambda batch, batch_idx: module.probe.idle(
        batch.views[:, 0, 0, 0, :2]
    ).mean()
    data = StereoDigitsDataModule(batch_size=50, limit_train=100, width=16)
    trainer = quiet_trainer(DeficitWindow(Blur()), framework=framework, max_epochs=1)
    # Not by its keyword, where the Trainer looks at what it is.
    trainer.fit(module, data)
    assert trainer.datamodule is data and trainer.callback_metrics["deficit/active"] == 1
