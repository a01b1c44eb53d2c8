"""Studies on a real Slurm: whatever befalls their jobs, the same bytes in the end.

What befalls them does so side by side, in threads, as most of it is waiting for Slurm.
"""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import accounts
import pytest
import yaml
from cluster import AVAILABLE, lose_node, slurm, start_controller, start_node, stop_controller
from small_study import BASE, write_study
from waiting import call, is_requeued, restarts, wait_for
from wandb_files import logged, read_records

from critical_periods.cli import main
from critical_periods.core.processes import STOPPED
from critical_periods.studies import worker
from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.launchers import local
from critical_periods.studies.launchers.batch_script import REPORT
from critical_periods.studies.launchers.slurm_queue import Job, jobs

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="needs Slurm's packages, as root")

# A trunk with a deficit, its branch, and a control: a path of two segments and one of one.
TREE = {"removal": [1], "epochs_after": 1}
# The control alone, for what befalls a job: a Python that starts is most of what a job costs.
ALONE = {"removal": [0], "epochs_after": 1}
TRAINS = {
    "data.init_args.limit_train": 40,
    "data.init_args.batch_size": 4,
    "trainer.limit_val_batches": 16,
    "trainer.callbacks": [*BASE["trainer"]["callbacks"], {"class_path": "waits.Waits"}],
}
# For two processes, with an uneven last batch.
TWO = {"data.init_args.batch_size": 8}
RESULTS = ("results.csv", "curve.csv")
Bytes = dict[str, bytes]
# Of an undisturbed study of the tree, and of one that is alone.
Expected = dict[str, Bytes]


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    most = {"limited": 2} if accounts.AVAILABLE else None
    with slurm(tmp_path_factory.mktemp("slurm"), most), pytest.MonkeyPatch.context() as patch:
        # The jobs find our callback, too.
        places = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, places)))
        # In this process, which has imported everything.
        patch.setattr(local, "launch", lambda folder, *_: worker.work(folder) or [])
        yield


# What dry runs set of torch, and what redirects the output, is of the process.
_one_at_a_time = threading.Lock()


def undisturbed(folder: Path, windows: Any, base: Any = TRAINS) -> Bytes:
    """What a study gives where nothing befalls it."""
    path = write_study(folder, {"windows": windows}, base)
    with _one_at_a_time:
        assert main(["study", "run", str(path), "--output", str(folder / "out")]) == 0
    return {name: (folder / "out" / name).read_bytes() for name in RESULTS}


def study(path: Path, command: str, *words: str) -> str:
    """Runs a command, as its user does on the login node; returns what it prints."""
    with _one_at_a_time, redirect_stdout(StringIO()) as printed:
        main(["study", command, str(path), "--output", str(path.parent / "out"), *words])
    return printed.getvalue()


def submit(
    folder: Path, *words: str, windows: Any = ALONE, setup: Any = (), **fields: Any
) -> tuple[Path, StudyFolder]:
    """Submits a study that waits within its first epoch until :func:`go`."""
    fields = {"partition": "main", "setup": [f"export WAITS_FOR={folder}/go", *setup], **fields}
    path = write_study(folder, {"windows": windows, "slurm": fields}, TRAINS)
    study(path, "run", "--launcher", "slurm", *words)
    return path, StudyFolder(folder / "out")


def without_report(output: StudyFolder) -> None:
    """Takes a study's last job away, which is a Python more; :func:`finish` does its work."""
    call("scancel", *(job.number for job in jobs(output) if job.segments == (REPORT,)))


def go(path: Path) -> None:
    path.with_name("go").touch()


def trains(output: StudyFolder, where: str = "") -> Job:
    """A job of a study that is within an epoch of training, on some node."""

    def found() -> Job | None:
        for job in jobs(output):
            at = call("squeue", "-h", "-j", job.number, "-o", "%N").strip()
            reached = [output.segment(name).progress.exists() for name in job.segments]
            begun = any(reached) and output.path.with_name("waits").exists()
            if job.state == "RUNNING" and where in at and begun:
                return job
        return None

    return wait_for(found)


def finish(output: StudyFolder, expected: Bytes) -> None:
    """Waits for a study's jobs to end, and compares what they wrote with what they would have."""
    go(output.path)
    wait_for(lambda: not jobs(output))
    if not (output.path / "slurm" / f"{REPORT}.log").exists():
        study(output.path.with_name("small.yaml"), "plot")
    for name, content in expected.items():
        assert (output.path / name).read_bytes() == content, name
    assert not list(output.path.glob("segments/*/halfway*"))


def log(output: StudyFolder, job: Job) -> str:
    return (output.path / "slurm" / f"{job.segments[0]}.log").read_text()


def out_of_time(folder: Path, expected: Expected) -> None:
    """A job, whose segment saves within an epoch, and goes on from there."""
    _, output = submit(folder, time="0:30:00")
    without_report(output)
    job = trains(output)
    # Of its time are two to three minutes left, of which it is told.
    _set_limit(job, _minutes(job) + 3)
    is_requeued(job.number)
    assert list(output.path.glob("segments/*/halfway.ckpt"))
    _set_limit(job, 30)
    finish(output, expected["alone"])


def _set_limit(job: Job, minutes: int) -> None:
    call("scontrol", "update", f"jobid={job.number}", f"TimeLimit={minutes}")


def _minutes(job: Job) -> int:
    """How many whole minutes a job has run."""
    ran = call("squeue", "-h", "-j", job.number, "-o", "%M").strip()
    return int(ran.split(":")[-2])


def killed_and_cancelled(folder: Path, expected: Expected) -> None:
    """Two studies of one user: of one a task is killed, and the other is sent back and cancelled.

    The latter is run again, with Weights & Biases; a job of another kind goes on, too.
    """
    foreign = call("sbatch", "--parsable", "--output=/dev/null", "--wrap", "sleep 1800").strip()
    (folder / "killed").mkdir()
    _, killed = submit(folder / "killed", "--per", "segment")
    without_report(killed)
    path, output = submit(folder, windows=TREE, setup=["export WANDB_MODE=offline"], array_limit=1)
    job = trains(killed)
    words = f"study task {killed.path} {job.segments[0]}"
    # Before it come those of srun, whose command holds the same words.
    os.kill(int(call("pgrep", "-f", words).split()[-1]), signal.SIGKILL)

    first = trains(output)
    output.path.with_name("waits").unlink()
    call("scontrol", "requeue", first.number)
    is_requeued(first.number)
    trains(output)
    wait_for(lambda: list(output.path.glob("segments/*/halfway.ckpt")))
    is_requeued(job.number)
    assert re.search(r"Ended \d jobs", study(path, "cancel"))
    assert [one.number for one in jobs(killed)] == [job.number]
    # It waits for them to end, and so does this.
    study(path, "run", "--launcher", "slurm")
    assert {STOPPED} == {
        one.exit.exit_code
        for file in output.path.glob("wandb/offline-run-*/*.wandb")
        for one in read_records(file)
        if one.HasField("exit")
    }
    assert call("squeue", "-h", "-j", foreign, "-o", "%T").strip() in ("RUNNING", "PENDING")
    call("scancel", foreign)
    finish(killed, expected["alone"])
    finish(output, expected["tree"])
    runs = {
        file.stem.partition("-")[2]: read_records(file)
        for file in output.path.glob("wandb/offline-run-*/*.wandb")
    }
    plan = output.read_plan()
    leaves = {run.segment for run in plan.runs}
    assert {name for name, found in runs.items() if logged(found, "epoch")} == leaves
    for name, found in runs.items():
        assert [one.exit.exit_code for one in found if one.HasField("exit")] == [0]
        if name in leaves:
            assert logged(found, "epoch") == [0, 1]
    (summary,) = runs.keys() - leaves
    assert logged(runs[summary], "runs") == [1, 2]


def preempted(folder: Path, expected: Expected) -> None:
    """By a partition of higher priority; it goes on from where it was told to end."""
    _, output = submit(folder, partition="low")
    without_report(output)
    job = trains(output)
    words = ["--parsable", "--output=/dev/null", "--partition=urgent", "--wrap", "true"]
    call("sbatch", *words)
    is_requeued(job.number)
    wait_for(lambda: list(output.path.glob("segments/*/halfway.ckpt")))
    assert "DUE TO PREEMPTION" in log(output, job)
    finish(output, expected["alone"])


def drained_and_lost(folder: Path, expected: Expected) -> None:
    """A node that is drained keeps its job; the jobs of one that is lost start on another."""
    _, output = submit(folder, partition="frail")
    without_report(output)
    job = trains(output)
    (node,) = call("squeue", "-h", "-j", job.number, "-o", "%N").split()
    call("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    assert [one.state for one in jobs(output)] == ["RUNNING"]
    lose_node(node, job.number)
    is_requeued(job.number)
    finish(output, expected["alone"])
    (other,) = {"n4", "n5"} - {node}
    assert call("squeue", "-h", "-t", "all", "-j", job.number, "-o", "%N").strip() == other
    start_node(node)
    call("scontrol", "update", f"nodename={node}", "state=resume")


def refused(folder: Path, expected: Expected) -> None:
    """Where Slurm takes two jobs and no more; it is run again until it has taken all."""
    fields = {"partition": "limited", "setup": [f"export WAITS_FOR={folder}/go"]}
    path = write_study(folder, {"windows": TREE, "slurm": fields}, TRAINS)
    words = ("run", "--launcher", "slurm", "--per", "segment")
    said, output = study(path, *words), StudyFolder(folder / "out")
    plan = output.read_plan()
    parents = {segment.parent for segment in plan.segments.values()} - {None}
    assert "Submitted 2 jobs for 2 segments" in said
    assert "Slurm takes no more for now (sbatch of Slurm failed: AssocMaxSubmitJobLimit; " in said
    assert len(jobs(output)) == 2
    assert parents <= {name for job in jobs(output) for name in job.segments}
    go(path)
    again = said
    while "Slurm takes no" in again:
        wait_for(lambda: len(jobs(output)) < 2)
        again = study(path, *words)
        said += again
    assert "Submitted 1 jobs for 1 segments" in said
    trained = re.findall(r"Job \d+ trains (.*)\.", said)
    assert sorted(trained) == sorted(plan.segments)
    finish(output, expected["tree"])


def killed_for_ever(folder: Path, expected: Expected) -> None:
    """Goes back to the queue five times; the last job writes what is known then."""
    python = folder / "python"
    python.write_text(f'#!/bin/bash\n[ "$4" = plot ] && exec {sys.executable} "$@"\nkill -9 $$\n')
    python.chmod(0o755)
    _, output = submit(folder, "--per", "segment", python=str(python), partition="lone")
    # Slurm lists the last job, which waits, before one that runs already.
    (trained,) = [job for job in jobs(output) if job.segments != (REPORT,)]
    wait_for(lambda: not jobs(output))
    assert restarts(trained.number) == 5
    assert "1 of 1 segments are not done" in (output.path / "slurm" / "report.log").read_text()


def failed(folder: Path, expected: Expected) -> None:
    """A parent, without which its child is not trained; the report names the cause."""
    windows = {"removal": [2], "epochs_after": 1}
    base = TRAINS | {"model.init_args.optimizer.init_args.lr": 1e30}
    path = write_study(folder, {"windows": windows, "slurm": {"partition": "main"}}, base)
    study(path, "run", "--launcher", "slurm")
    output = StudyFolder(folder / "out")
    wait_for(lambda: not jobs(output))
    plan = output.read_plan()
    (child,) = [name for name, one in plan.segments.items() if one.parent is not None]
    parent = plan.segments[child].parent
    said = (output.path / "slurm" / "report.log").read_text()
    assert f"Segment {parent} failed: " in said
    assert f"Not tried, as it goes on from {parent}: {child}." in said
    assert not output.segment(child).is_done()


def divided(folder: Path, expected: Expected) -> None:
    """Between two tasks of one node, and between two nodes; as between two local processes."""
    # These nodes have names that no one else knows.
    fields = {"slurm": {"partition": "main", "setup": ["export MASTER_ADDR=127.0.0.1"]}}
    shapes = {
        "tasks": {"trainer.devices": 2},
        "nodes": {"trainer.devices": 1, "trainer.num_nodes": 2},
    }
    for name, shape in shapes.items():
        (folder / name).mkdir()
        path = write_study(folder / name, {"windows": ALONE} | fields, TRAINS | TWO | shape)
        study(path, "run", "--launcher", "slurm")
        without_report(StudyFolder(folder / name / "out"))
    alike = undisturbed(folder, ALONE, TRAINS | TWO | {"trainer.devices": 2})
    for name in shapes:
        finish(StudyFolder(folder / name / "out"), alike)


BEFALLS: list[Callable[[Path, Expected], None]] = [
    killed_and_cancelled, drained_and_lost, out_of_time, refused, preempted, killed_for_ever,
    failed, divided,
]  # fmt: skip


@pytest.fixture(scope="module")
def befallen(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[None]]]:
    """What befalls studies, side by side; those of the tests that are asked for."""
    asked = [item.name for item in request.session.items]
    chosen = [one for one in BEFALLS if any(f"[{one.__name__}]" in name for name in asked)]
    chosen = [one for one in chosen if accounts.AVAILABLE or one is not refused]
    expected = {
        name: undisturbed(tmp_path_factory.mktemp(name), windows)
        for name, windows in (("tree", TREE), ("alone", ALONE))
    }
    assert all(b"rsv" in one["results.csv"] for one in expected.values())
    with ThreadPoolExecutor(len(chosen)) as pool:
        yield {
            one.__name__: pool.submit(one, tmp_path_factory.mktemp(one.__name__), expected)
            for one in chosen
        }


@pytest.mark.parametrize("what", [one.__name__ for one in BEFALLS])
def test_a_study_of_which_something_is(what: str, befallen: dict[str, Future[None]]):
    if what == "refused" and not accounts.AVAILABLE:
        pytest.skip("needs slurmdbd and a database")
    befallen[what].result()


def test_paths_and_what_is_said_of_them_while_slurm_is_silent(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    setup = [f"export WAITS_FOR={tmp_path}/go"]
    path = write_study(
        tmp_path, {"windows": ALONE} | {"slurm": {"partition": "main", "setup": setup}}, TRAINS
    )
    study(path, "run", "--launcher", "slurm")
    output = StudyFolder(tmp_path / "out")
    assert "Submitted 0 jobs" in study(path, "run", "--launcher", "slurm")
    assert re.search(r"\[queued \(.+\)\]|\[running \(.* left\)", study(path, "status"))
    # Programs of Slurm wait so long for a controller that is down.
    conf = Path(os.environ["SLURM_CONF"])
    impatient = conf.with_name("impatient.conf")
    impatient.write_text(conf.read_text().replace("MessageTimeout=100", "MessageTimeout=15"))
    with subprocess.Popen(
        [sys.executable, "-m", "critical_periods", "study", "wait", path, "--output", output.path],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"SLURM_CONF": str(impatient)},
    ) as waits:  # fmt: skip
        wait_for(lambda: any(job.state == "RUNNING" for job in jobs(output)))
        stop_controller()
        try:
            assert waits.stderr is not None
            said = waits.stderr.readline()
            assert re.match("squeue of Slurm failed: .*; it is asked again until it answers.", said)
            capfd.readouterr()
            with monkeypatch.context() as patch:
                patch.setenv("SLURM_CONF", str(impatient))
                assert study(path, "status")
            assert f"What waits and runs is not known: {said[:23]}" in capfd.readouterr().err
            go(path)
            wait_for(lambda: list(output.path.glob("segments/*/done.json")))
        finally:
            start_controller()
        out, err = waits.communicate(timeout=900)
    assert waits.returncode == 0 and err == ""
    assert out.count("is done;") == 1 and "Wrote results.csv" in out
    wait_for(lambda: not jobs(output))


def test_what_slurm_refuses_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for slurm_field, sentence in [
        ({"partition": "gpu"}, r"sbatch of Slurm failed: .*[Pp]artition"),
        ({"time": 600}, r"slurm\.time is 600; put the time limit between quotes"),
        ({"partitoin": "main"}, r"unknown field 'slurm\.partitoin'; did you mean 'partition'"),
        ({"nodes": 2}, r"slurm\.nodes is 2, but a run has trainer\.num_nodes=1"),
    ]:
        path = write_study(tmp_path, {"slurm": slurm_field}, TRAINS)
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
