"""A study's folder that version 0.1 has left behind, before its rooms were moved."""

import shutil
from pathlib import Path

import pytest
import pytorch_lightning as pl

from critical_periods.cli import main
from critical_periods.studies import load_study, read_table

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


def test_its_tables_and_networks_are_loaded(folder):
    study = load_study(folder)
    for name in ("curve", "fisher", "layers"):
        assert getattr(study, name).equals(read_table(FOLDER / f"{name}.csv"))
    assert len(study.history) == study.runs["epochs"].sum()
    settings = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    settings["limit_val_batches"] = study.plan.configs[0][0]["trainer"]["limit_val_batches"]
    for place in study.runs.index:
        task, data = study.task(place), study.datamodule(place)
        (shown,) = pl.Trainer(**settings).validate(task, data, verbose=False)
        row = study.runs.loc[place]
        own = study.history.query(f"removal == {row.removal} and epochs == {row.epochs}")
        recorded = own[own["seed"] == row.seed].iloc[-1]
        # Trained on another processor, whose sums differ in their last bits.
        assert {key: recorded[key] for key in shown} == pytest.approx(shown, rel=1e-5)
