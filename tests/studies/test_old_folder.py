"""A study's folder that version 0.1 has left behind, before its rooms were moved."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from critical_periods.cli import main

FOLDER = Path(__file__).parent / "folder_of_version_0_1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path / "old"))


def test_its_status_is_read(folder, capsys):
    assert main(["study", "status", str(folder / "old.yaml"), "--output", str(folder)]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[-2:] == [
        "old: 6 runs in 8 segments; trains 8 epochs, separate runs would train 10.",
        "8 done.",
    ]
    assert lines[0] == "a4fe59cd92413cad  epochs 0-1, no deficit, seed 0  [done]"
    assert err == ""


def test_its_tables_and_figures_are_made_again(folder):
    tables = ("results.csv", "curve.csv", "fisher.csv", "layers.csv")
    for table in tables:
        (folder / table).unlink()
    assert main(["study", "plot", str(folder / "old.yaml"), "--output", str(folder)]) == 0
    for table in tables:
        assert (folder / table).read_bytes() == (FOLDER / table).read_bytes()
    assert {"curve.png", "fisher.png", "layers.png"} <= {path.name for path in folder.iterdir()}
