"""What callbacks are to a study: by their classes, not by what these are called."""

import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from critical_periods.studies.names import Resolved, SegmentNames
from critical_periods.studies.roles import is_observer, said_by, segment_callbacks

THIRD_PARTY = """
import pytorch_lightning as pl
from critical_periods.callbacks import DeficitWindow, RegularizationWindow

class ModelCheckpoint(pl.callbacks.ModelCheckpoint):
    pass

class LearningRateRestart(pl.Callback):
    pass

class OtherWindow(pl.Callback):
    pass

class OwnDeficitWindow(DeficitWindow):
    changes_nothing_while_closed = False

class OwnRegularizationWindow(RegularizationWindow):
    pass

TQDMProgressBar = pl.callbacks.TQDMProgressBar
"""


@pytest.fixture(autouse=True)
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "third_party.py").write_text(THIRD_PARTY)
    (tmp_path / "broken_party.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    # As long as these classes live, their short names are ambiguous to jsonargparse.
    sys.modules.pop("third_party", None)
    gc.collect()


OBSERVERS = [
    "ModelCheckpoint",
    "pytorch_lightning.callbacks.ModelCheckpoint",
    "pytorch_lightning.callbacks.progress.TQDMProgressBar",
    "lightning.pytorch.callbacks.ModelCheckpoint",
    "lightning.pytorch.callbacks.LearningRateMonitor",
    # The class itself, wherever it is found.
    "third_party.TQDMProgressBar",
]
OWN = ["DeficitWindow", "critical_periods.callbacks.windows.deficit_window.DeficitWindow"]
OTHERS = [
    "third_party.ModelCheckpoint",
    "third_party.OwnDeficitWindow",
    "third_party.NoSuchClass",
    "broken_party.ModelCheckpoint",
    "EarlyStopping",
    "NoSuchClass",
    "FisherMonitor",
    "critical_periods.callbacks.FreezeWindow",
]


@pytest.mark.parametrize("path", [*OBSERVERS, *OTHERS, *OWN])
def test_what_lightning_observes_with_and_the_runs_own_deficit_windows_are_left_out(path):
    callback = {"class_path": path}
    assert is_observer(callback) is (path in OBSERVERS)
    assert segment_callbacks([callback]) == ([callback] if path in OTHERS else [])


def name_with(callback: str, removal: int = 0, stop: int = 4) -> str:
    config = {"trainer": {"callbacks": [{"class_path": callback}]}, "data": {}}
    window = {"class_path": "DeficitWindow", "init_args": {}}
    return SegmentNames(Resolved(config, window, "data")).name(0, (0, removal), stop)


def test_a_third_partys_class_is_in_the_names_of_segments():
    """Whatever it is called."""
    assert name_with("lightning.pytorch.callbacks.ModelCheckpoint") == name_with("ModelCheckpoint")
    assert name_with("third_party.ModelCheckpoint") != name_with("ModelCheckpoint")
    # Of a restart it is known that it does nothing before the removal, and only of ours.
    assert name_with("LearningRateRestart", 4) == name_with("ModelCheckpoint", 4)
    assert name_with("LearningRateRestart", 3) != name_with("ModelCheckpoint", 3)
    assert name_with("third_party.LearningRateRestart", 4) != name_with("ModelCheckpoint", 4)


@pytest.mark.parametrize(
    ("path", "kind", "is_any"),
    [
        ("DeficitWindow", "deficit", True),
        ("SubsetWindow", "deficit", True),
        ("FreezeWindow", "deficit", False),
        ("RegularizationWindow", "regularization", False),
        ("third_party.OwnDeficitWindow", "deficit", False),
        ("third_party.OwnRegularizationWindow", "regularization", False),
        ("third_party.OtherWindow", None, None),
        ("third_party.NoSuchClass", None, None),
    ],
)
def test_windows_say_what_they_are(path, kind, is_any):
    window = {"class_path": path}
    assert said_by(window, "kind") == kind
    assert said_by(window, "changes_nothing_while_closed") is is_any
