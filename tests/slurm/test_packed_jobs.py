"""Studies that jobs plan, round by round or at once, and packed jobs, on a real Slurm."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import AVAILABLE, slurm
from small_study import write_study
from waiting import call, is_requeued, wait_for

from critical_periods.cli import main
from critical_periods.studies import load_study, worker
from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.launchers import local
from critical_periods.studies.launchers.batch_script import NEXT
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


def test_rounds_that_jobs_choose_are_those_that_are_chosen_here(tmp_path, monkeypatch, capsys):
    """Even where a user has ended the job that chooses, and runs the study again."""
    settings = {
        "onset": [0, 0], "length": [1, 1], "epochs": 1, "deficit.init_args.p": [0, 1],
        "threshold": 0.1, "budget": 12, "initial": 10, "batch": 1, "kernel": "plain",
    }  # fmt: skip
    fields = {"windows": {"adaptive": settings}, "deficit": {"class_path": "LabelNoise"}}
    fields["slurm"] = {"partition": "main"}
    path = write_study(tmp_path, fields, {"trainer.callbacks": [], "data.init_args.batch_size": 5})
    monkeypatch.setattr(local, "launch", lambda folder, *_: worker.work(folder) or [])
    here, there = tmp_path / "here", tmp_path / "out"
    assert main(["study", "run", str(path), "--output", str(here)]) == 0
    study = load_study(here)
    assert [*study.adaptive["round"]] == [0] * 10 + [1, 2]
    # Most of the initial design is trained, as each segment is a Python more.
    for run in study.plan.runs[1:20]:
        of = Path("segments") / run.segment
        shutil.copytree(here / of, there / of, dirs_exist_ok=True)

    def command(name, *words):
        capsys.readouterr()
        code = main(["study", name, str(path), "--output", str(there), *words])
        return (code, *capsys.readouterr())

    assert "Submitted 1 jobs for 1 segments." in command("run", "--launcher", "slurm")[1]
    output = StudyFolder(there)
    (chooses,) = [job.number for job in jobs(output) if job.segments == (NEXT,)]
    said = command("status")[1]
    assert "Round 1 is yet to be chosen, when" in said
    assert re.search(r"The job that chooses it is queued \(.+\)\.", said)
    call("scancel", chooses)
    code, _, said = command("wait")
    assert code == 1 and "Round 1 is yet to be chosen" in said and "Run the study again" in said
    assert "Submitted 0 jobs for 0 segments." in command("run", "--launcher", "slurm")[1]
    code, said, _ = command("wait")
    assert code == 0 and "Wrote results.csv" in said
    assert "It has ended: by 12 runs" in command("status")[1]
    for name in ("results.csv", "adaptive.csv", "boundary.csv", "curve.csv"):
        assert (there / name).read_bytes() == (here / name).read_bytes(), name
    assert "report" in [file.stem for file in there.glob("slurm/*.log")]
