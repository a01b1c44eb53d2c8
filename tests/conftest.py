"""What all tests share: no test waits for Weights & Biases or prints its banner."""

import gc
import logging
import os
import signal
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("WANDB_MODE", "disabled")
os.environ.setdefault("WANDB_SILENT", "true")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers that run side by side would wait for one another's threads.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Until all is imported.
gc.disable()

# What a shell starts in the background ignores Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

# They begin first, so that of several workers none is left alone with one in the end.
LONGEST = (
    "slurm/test_slurm.py", "experiments/test_experiments.py", "studies/test_study_run.py",
    "runs/test_tracking.py", "slurm/test_packed_jobs.py", "studies/test_disturbed.py",
    "experiments/test_notebooks.py", "data/video/test_kinetics.py", "docs/test_site.py",
    "data/test_cifar10.py", "data/video/test_shards.py", "runs/test_callbacks.py",
)  # fmt: skip


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two more than there are cores, as some tests wait: for Slurm, a service, another process."""
    return (os.cpu_count() or 1) + 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first, the others in their order."""
    place = {Path(__file__).parent / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


def pytest_collection_finish() -> None:
    """What has been imported by now stays; the collector need not go through it again and again."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    """Some libraries complain of what is left when Python ends."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _own_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning leaves PL_GLOBAL_SEED behind; each test starts without it."""
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)


@pytest.fixture(params=["pytorch_lightning", "lightning.pytorch"])
def framework(request: pytest.FixtureRequest) -> Any:
    """Either package of Lightning."""
    return import_module(request.param)
