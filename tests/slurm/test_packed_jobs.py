"""Studies planned by a job, and several of their segments side by side, on a real Slurm."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import AVAILABLE, slurm
from small_study import write_study
from waiting import call, is_requeued, wait_for

from critical_periods.cli import main
from critical_periods.studies import worker
from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.launchers import local
from critical_periods.studies.launchers.slurm_queue import jobs

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="needs Slurm's packages, as root")

# A login node on which torch is not installed.
WITHOUT_TORCH = """
import sys
sys.modules |= {"torch": None, "pytorch_lightning": None}
from critical_periods.cli.main import main
sys.exit(main())
"""


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with slurm(tmp_path_factory.mktemp("slurm")):
        yield


def on_the_login_node(path: Path, command: str, *words: str) -> str:
    files = [str(path), "--output", str(path.parent / "out")]
    command_line = [sys.executable, "-c", WITHOUT_TORCH, "study", command, *files, *words]
    done = subprocess.run(command_line, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_packed_job_that_a_job_has_planned_is_told_to_end(tmp_path, monkeypatch):
    fields = {"windows": {"onset": [0], "epochs": 8}, "slurm": {"partition": "main"}}
    path = write_study(tmp_path, fields, {"data.init_args.batch_size": 2, "trainer.callbacks": []})
    said = on_the_login_node(path, "run", "--launcher", "slurm", "--packed", "2")
    assert re.match(r"Submitted job \d+, which plans the study and submits the rest", said)
    said = on_the_login_node(path, "status")
    assert re.match(r"The job that plans the study is (queued|running) \(.+\)\.\n$", said)
    output = StudyFolder(tmp_path / "out")
    (job,) = wait_for(lambda: [job for job in jobs(output) if len(job.segments) == 2])
    segments = [output.segment(name) for name in job.segments]
    wait_for(lambda: all(one.epochs_done() is not None for one in segments))
    assert on_the_login_node(path, "status").count("[running (") == 2
    call("scancel", "--signal=USR1", "--batch", job.number)
    is_requeued(job.number)
    assert len(list(output.path.glob("segments/*/halfway.ckpt"))) == 2
    said = on_the_login_node(path, "wait")
    tables = {name: (output.path / name).read_bytes() for name in ("results.csv", "curve.csv")}
    monkeypatch.setattr(local, "launch", lambda folder, *_: worker.work(folder) or [])
    assert main(["study", "run", str(path), "--output", str(tmp_path / "local")]) == 0
    for name, content in tables.items():
        assert (tmp_path / "local" / name).read_bytes() == content
