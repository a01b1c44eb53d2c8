"""Studies on a real Slurm of two nodes: whatever befalls their jobs, the same bytes in the end."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster import AVAILABLE, call, slurm, wait_for
from small_study import write_study

from critical_periods.cli import main
from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.launchers.slurm import Job, jobs

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="needs Slurm's packages, as root")

# Two trunks of two epochs, one with a deficit, and a branch of each.
STUDY: dict[str, Any] = {"slurm": {"partition": "main", "time": "0:10:00"}}
# Long enough to be found training: one sample a batch.
SLOW = {"data.init_args.batch_size": 2, "trainer.callbacks": []}
RESULTS = ("results.csv", "curve.csv")


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with slurm(tmp_path_factory.mktemp("slurm")):
        yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the study gives where nothing befalls it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    path = write_study(folder, STUDY, SLOW)
    assert main(["study", "run", str(path), "--output", str(folder / "out")]) == 0
    return {name: (folder / "out" / name).read_bytes() for name in RESULTS}


def study(path: Path, command: str, *words: str) -> str:
    """Runs a command, as its user does on the login node; returns what it prints."""
    with redirect_stdout(StringIO()) as printed:
        main(["study", command, str(path), "--output", str(path.parent / "out"), *words])
    return printed.getvalue()


def submit(folder: Path, *words: str, **fields: Any) -> tuple[Path, StudyFolder]:
    path = write_study(folder, STUDY | fields, SLOW)
    study(path, "run", "--launcher", "slurm", *words)
    return path, StudyFolder(folder / "out")


def trains(output: StudyFolder) -> Job | None:
    """A job of a study that is within an epoch of training."""
    for job in jobs(output):
        reached = [output.segment(name).epochs_done() for name in job.segments]
        if job.state == "RUNNING" and any(epochs is not None for epochs in reached):
            return job
    return None


def finish(path: Path, undisturbed: dict[str, bytes]) -> None:
    """Waits for the study to end, and compares what it wrote with what it would have."""
    output = StudyFolder(path.parent / "out")
    wait_for(lambda: not jobs(output), 300)
    for name, content in undisturbed.items():
        assert (output.path / name).read_bytes() == content, name
    assert not list(output.path.glob("segments/*/halfway*"))


def release(number: str) -> None:
    """Lets a job start that Slurm holds back for two minutes after a requeue."""
    wait_for(lambda: call("squeue", "-h", "-j", number, "-o", "%T").strip() == "PENDING")
    time.sleep(2)
    call("scontrol", "update", f"jobid={number}", "StartTime=now")


def task_of(output: StudyFolder, job: Job) -> int:
    """The process of a job that trains a segment."""
    found = [
        number
        for name in job.segments
        for number in subprocess.run(
            ["pgrep", "-f", f"study task {output.path} {name}"], capture_output=True, text=True
        ).stdout.split()
    ]
    # Before it come those of srun, whose command holds the same words.
    return int(found[-1])


def test_paths_and_what_is_said_of_them(tmp_path: Path, undisturbed: dict[str, bytes]):
    path, _ = submit(tmp_path)
    said = study(path, "status")
    assert re.search(r"\[queued \(.+\)\]|\[running \(.* left\)", said)
    again = study(path, "run", "--launcher", "slurm")
    assert "Submitted 0 jobs" in again
    assert study(path, "wait").count("is done;") <= 4
    finish(path, undisturbed)


def test_segments_one_of_them_killed(tmp_path: Path, undisturbed: dict[str, bytes]):
    path, output = submit(tmp_path, "--per", "segment")
    assert len(jobs(output)) == 5
    job = wait_for(lambda: trains(output))
    os.kill(task_of(output, job), signal.SIGKILL)
    release(job.number)
    finish(path, undisturbed)


def test_told_to_end_within_an_epoch(tmp_path: Path, undisturbed: dict[str, bytes]):
    path, output = submit(tmp_path)
    job = wait_for(lambda: trains(output))
    call("scancel", "--signal=USR1", "--batch", job.number)
    release(job.number)
    # What it had is saved, be it within an epoch.
    assert list(output.path.glob("segments/*/halfway.ckpt"))
    finish(path, undisturbed)


def test_cancelled_and_run_again(tmp_path: Path, undisturbed: dict[str, bytes]):
    foreign = call("sbatch", "--parsable", "--output=/dev/null", "--wrap", "sleep 300").strip()
    path, output = submit(tmp_path)
    wait_for(lambda: trains(output))
    assert re.match(r"Ended \d jobs", study(path, "cancel"))
    wait_for(lambda: not jobs(output))
    assert call("squeue", "-h", "-j", foreign, "-o", "%T").strip() in ("RUNNING", "PENDING")
    call("scancel", foreign)
    study(path, "run", "--launcher", "slurm")
    finish(path, undisturbed)


def test_a_parent_that_fails(tmp_path: Path):
    base = SLOW | {"model.init_args.optimizer.init_args.lr": 1e9}
    path = write_study(tmp_path, STUDY, base)
    study(path, "run", "--launcher", "slurm")
    output = StudyFolder(tmp_path / "out")
    wait_for(lambda: not jobs(output), 300)
    said = (output.path / "slurm" / "report.log").read_text()
    assert "failed" in said
    plan = output.read_plan()
    children = [name for name, one in plan.segments.items() if one.parent is not None]
    assert not any(output.segment(name).is_done() for name in children)


def test_what_slurm_refuses_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for slurm_field, sentence in [
        ({"partition": "gpu"}, r"sbatch of Slurm failed: .*[Pp]artition"),
        ({"time": 600}, r"slurm\.time is 600; put the time limit between quotes"),
        ({"partitoin": "main"}, r"unknown field 'slurm\.partitoin'; did you mean 'partition'"),
        ({"nodes": 2}, r"slurm\.nodes is 2, but a run has trainer\.num_nodes=1"),
    ]:
        path = write_study(tmp_path, {"slurm": slurm_field}, SLOW)
        words = ["study", "run", str(path), "--output", str(tmp_path / "out")]
        assert main([*words, "--launcher", "slurm"]) == 2
        assert re.search(sentence, capsys.readouterr().err)


def test_processes_other_than_devices_are_refused(tmp_path: Path):
    run = write_study(tmp_path).with_name("base.yaml")
    config = yaml.safe_load(run.read_text())
    config["trainer"] |= {"devices": 2, "logger": False}
    run.write_text(yaml.safe_dump(config))
    fit = f"{sys.executable} -m critical_periods fit --config {run}"
    done = subprocess.run(
        ["srun", "--ntasks=1", *fit.split()],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode
    assert (
        "this job of Slurm has 1 tasks, but trainer.devices × trainer.num_nodes is 2 × 1"
        in done.stderr
    )
