"""What all tests share: no test waits for Weights & Biases or prints its banner."""

import logging
import os
import signal
from importlib import import_module
from typing import Any

import pytest

os.environ.setdefault("WANDB_MODE", "disabled")
os.environ.setdefault("WANDB_SILENT", "true")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers that run side by side would wait for one another's threads.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# What a shell starts in the background ignores Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning leaves PL_GLOBAL_SEED behind; each test starts without it."""
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)


@pytest.fixture(params=["pytorch_lightning", "lightning.pytorch"])
def framework(request: pytest.FixtureRequest) -> Any:
    """Either package of Lightning."""
    return import_module(request.param)
