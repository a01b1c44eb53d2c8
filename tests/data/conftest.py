"""What the tests of the data share."""

import pytest


@pytest.fixture(autouse=True)
def seed(_own_seed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The seed of the runs that draw from the data."""
    monkeypatch.setenv("PL_GLOBAL_SEED", "3")
