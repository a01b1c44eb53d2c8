"""What needs no Slurm of its launcher."""

from pathlib import Path

import pytest
from small_study import planned, write_study

from critical_periods.cli import main


def test_status_where_slurm_does_not_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    folder, _ = planned(tmp_path)
    words = ["study", "status", str(tmp_path / "small.yaml"), "--output", str(folder.path)]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(words) == 0
    said = capsys.readouterr()
    assert "4 missing." in said.out and said.err == ""
    (folder.path / "slurm").mkdir()
    assert main(words) == 0
    said = capsys.readouterr()
    assert "4 missing." in said.out
    assert said.err.startswith("What waits and runs is not known: squeue was not found; --launcher")


def test_launcher_slurm_without_slurm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    path = write_study(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    words = ["study", "run", str(path), "--output", str(tmp_path / "out"), "--launcher", "slurm"]
    assert main(words) == 2
    assert "needs a node of a Slurm cluster from which jobs can be" in capsys.readouterr().err
