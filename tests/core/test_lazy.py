"""Names are loaded when they are used, and each loads no more than it needs."""

import json
import subprocess
import sys
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest
from site_extension import FACES

HEAVY = {"av", "matplotlib", "pandas", "sklearn", "timm", "wandb"}


def in_a_fresh_process(script: str) -> Any:
    """What the last expression of a script gives, from a process that has imported nothing."""
    *statements, last = script.strip().splitlines()
    code = "\n".join(["import json, sys, time", *statements, f"print(json.dumps({last}))"])
    command = [sys.executable, "-c", code]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.parametrize("face", FACES)
def test_a_face_gives_its_names(face):
    """None is of a module, which would take the place of a name that is loaded lazily."""
    room = import_module(f"critical_periods.{face}")
    assert room.__all__ == sorted(room.__all__) and set(room.__all__) <= set(dir(room))
    for name in room.__all__ * 2:
        thing = getattr(room, name)
        assert thing.__doc__ and not isinstance(thing, ModuleType), name
    with pytest.raises(AttributeError, match=f"'critical_periods.{face}' has no attribute 'Nix'"):
        getattr(room, "Nix")  # noqa: B009


def test_what_is_not_needed_is_not_loaded():
    """Neither by a window, which takes little longer than Lightning, nor by these others."""
    script = f"""
import pytorch_lightning
before = set(sys.modules)
start = time.process_time()
from critical_periods.callbacks import DeficitWindow
seconds = time.process_time() - start
from critical_periods.callbacks import FisherMonitor
from critical_periods.metrics import FisherTrace, RelativeSourceVariance
from critical_periods.models import AllCNN
from critical_periods.tasks import ClassificationTask
from critical_periods.data import CIFAR10DataModule
[seconds, sorted({HEAVY!r} & (set(sys.modules) - before))]
"""
    seconds, heavy = in_a_fresh_process(script)
    # Lightning itself may have loaded matplotlib.
    assert heavy == [] and seconds < 0.3
