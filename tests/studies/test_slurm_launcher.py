"""What needs no Slurm of its launcher."""

import errno
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from small_study import planned, write_study

from critical_periods.cli import main
from critical_periods.core.errors import UserError
from critical_periods.studies.launchers import slurm, slurm_queue, slurm_submission, task
from critical_periods.studies.launchers.batch_script import batch_script
from critical_periods.studies.paths import leaf_of, paths
from critical_periods.studies.plan import Plan, Segment
from critical_periods.studies.slurm_settings import SlurmSettings


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


@pytest.mark.parametrize(
    ("trainer", "fields", "wanted"),
    [
        ({"accelerator": "cuda", "devices": 2}, {}, "#SBATCH --gpus-per-node=2\n"),
        ({"accelerator": "cpu", "devices": 2}, {}, None),
        (
            {"accelerator": "auto", "devices": 1},
            {"gpus_per_node": 1},
            "#SBATCH --gpus-per-node=1\n",
        ),
    ],
)
def test_gpus_are_asked_for_where_the_run_trains_on_them(tmp_path, trainer, fields, wanted):
    _, plan = planned(tmp_path)
    plan.configs[0][0]["trainer"].update(trainer)
    settings = SlurmSettings(**fields)
    shape = slurm_submission.shape(plan, settings)
    script = batch_script(settings, "cp-1", tmp_path, ["a"], *shape)
    assert f"#SBATCH --ntasks-per-node={trainer['devices']}\n" in script
    assert wanted in script if wanted else "--gpus-per-node" not in script


def test_devices_are_counted_or_refused(tmp_path):
    _, plan = planned(tmp_path)
    trainer = plan.configs[0][0]["trainer"]
    for devices, tasks in (("auto", 1), ([0, 3], 2), ("0,1", 2), ("0,", 1), ("2", 2), (2, 2)):
        trainer["devices"] = devices
        assert slurm_submission.shape(plan, SlurmSettings())[1] == tasks
    for devices in (-1, "-1", 0, [], "all"):
        trainer["devices"] = devices
        with pytest.raises(UserError, match=r"trainer\.devices is .* give one\."):
            slurm_submission.shape(plan, SlurmSettings())


def test_a_task_of_no_segment_of_the_plan(tmp_path, capsys):
    folder, _ = planned(tmp_path)
    for command in ("task", "segment"):
        assert main(["study", command, str(folder.path), "nosuch"]) == 2
        assert "has no segment nosuch any more" in capsys.readouterr().err


def test_a_task_without_locks_is_guarded_by_slurm_alone(tmp_path, monkeypatch, caplog):
    folder, plan = planned(tmp_path)
    (root, *_) = plan.segments
    trained: list[str] = []
    monkeypatch.setattr(task, "train_segment", lambda *args: trained.append(args[2]))

    def refuse(self: FileLock, *args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    assert task.run_task(folder, plan, root) == 0
    assert trained == [root] and "has no locks" in caplog.text


def test_a_task_that_another_process_trains(tmp_path, capsys):
    folder, plan = planned(tmp_path)
    (root, *_) = plan.segments
    with folder.segment(root).held():
        assert task.run_task(folder, plan, root) == 1
    assert f"segment {root} is trained by another process" in capsys.readouterr().err


def test_text_of_slurm_must_be_text(tmp_path, capsys):
    path = write_study(tmp_path, {"slurm": {"mem": 32000}})
    assert main(["study", "plan", str(path)]) == 2
    assert "slurm.mem is 32000; it must be text." in capsys.readouterr().err


def test_a_task_that_has_failed_is_not_tried_again(tmp_path, capsys):
    folder, plan = planned(tmp_path)
    (root, *_) = plan.segments
    with folder.segment(root).held():
        folder.segment(root).error.write_text("no")
    assert task.run_task(folder, plan, root) == 1
    assert f"segment {root} has failed before" in capsys.readouterr().err


def test_a_job_names_no_more_segments_than_a_comment_of_slurm_holds():
    chain = [
        Segment(f"{n:016}", f"{n - 1:016}" if n else None, n, n + 1, (0, 0), 0, 0)
        for n in range(130)
    ]
    plan = Plan("long", [], {one.name: one for one in chain}, [], 0.01)
    found = paths(plan, plan.segments, longest=slurm_submission.LONGEST)
    assert [name for way in found for name in way] == list(plan.segments)
    assert all(len(",".join(way)) <= 1024 for way in found)
    # Its run in Weights & Biases is one, of however many jobs.
    assert {leaf_of(plan, name) for name in plan.segments} == {chain[-1].name}


def test_a_refusal_halfway_stops_and_says_so(tmp_path, monkeypatch):
    folder, plan = planned(tmp_path)
    taken: list[str] = []

    def call(program: str, *arguments: str) -> str:
        if program == "sbatch" and len(taken) == 1:
            raise UserError("sbatch of Slurm failed: job submit limit.")
        taken.extend(arguments[-1:] if program == "sbatch" else [])
        return "1"[: program == "sbatch"]

    monkeypatch.setattr(slurm_queue, "_call", call)
    said = slurm_submission.submit(folder, plan, SlurmSettings(), ["study", "plot"])
    assert said.startswith("Submitted 1 jobs for 2 segments.") and len(taken) == 1
    assert "(sbatch of Slurm failed: job submit limit); run the study again" in said


def test_jobs_that_are_ending_are_waited_for_and_the_last_job_comes_in_the_end(
    tmp_path, monkeypatch, capsys
):
    folder, plan = planned(tmp_path)
    names, ended = list(plan.segments), ",".join(plan.segments)
    queue = [f"7|COMPLETING|None|9:00|{slurm_queue.prefix(folder)}x|{ended}\n"]
    asked: list[tuple[str, ...]] = []

    def call(program: str, *arguments: str) -> str:
        asked.append((program, *arguments))
        return (queue.pop() if queue else "") if program == "squeue" else "8"

    monkeypatch.setattr(slurm_queue, "_call", call)
    monkeypatch.setattr(slurm_queue.time, "sleep", lambda seconds: None)
    said = slurm_submission.submit(folder, plan, SlurmSettings(), ["study", "plot"])
    assert said.startswith("Submitted 2 jobs for 4 segments.")
    assert "Waiting for jobs that are ending." in capsys.readouterr().err
    # All is done, but the last job was refused or cancelled.
    for name in names:
        one = folder.segment(name)
        one.path.mkdir(parents=True)
        for file in (one.done, one.metrics, one.checkpoint):
            file.touch()
    for last in (True, False):
        asked.clear()
        slurm_submission.submit(folder, plan, SlurmSettings(), ["study", "plot"])
        submitted = [words[-1] for words in asked if words[0] == "sbatch"]
        assert submitted == [str(folder.path / "slurm" / "report.sh")] * last
        (folder.path / "results.csv").touch()


@pytest.mark.parametrize("what", ["training", "planning"])
def test_what_goes_on_while_slurm_does_not_answer(what, tmp_path, monkeypatch, capsys):
    folder, plan = planned(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    goes_on = slurm.going_on(folder, plan)
    if what == "planning":
        (folder.path / "slurm").mkdir()
        (folder.path / "slurm" / "plan.sh").touch()
        goes_on = slurm.planning_goes_on(folder)
    with pytest.raises(UserError, match="squeue was not found"):
        goes_on()
    squeue = tmp_path / "squeue"
    said = r"squeue: error: Down\nsqueue: error: No controller\n"
    squeue.write_text(f"#!/bin/bash\nprintf '{said}' >&2; exit 1\n")
    squeue.chmod(0o755)
    assert goes_on() and goes_on()
    assert capsys.readouterr().err == (
        "squeue of Slurm failed: Down; No controller; it is asked again until it answers.\n"
    )
    squeue.write_text("#!/bin/bash\n")
    if what == "planning":
        with pytest.raises(UserError, match="that plans the study has ended before the rest was"):
            goes_on()
        (folder.path / "slurm" / "plan.sh").unlink()
    assert not goes_on()


@pytest.mark.parametrize(
    ("code", "restarts", "requeues"),
    [
        (0, 0, False), (1, 0, False), (75, 0, True), (137, 0, True), (137, 4, True), (75, 5, False),
    ],
)  # fmt: skip
def test_what_a_job_goes_back_to_the_queue_for(tmp_path, code, restarts, requeues):
    silent = tmp_path / "silent"
    for name, body in [
        ("srun", f"exit {code}"),
        # It answers when it is asked again.
        ("squeue", f"[ -e {silent} ] || {{ touch {silent}; exit 1; }}; echo RUNNING"),
        ("sleep", ""),
        ("scontrol", f"echo $1 >> {tmp_path}/requeued; exit 1"),
    ]:
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    script = batch_script(SlurmSettings(), "cp-1", tmp_path, ["a"], 1, 1, None)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "1"}
    env["SLURM_RESTART_COUNT"] = str(restarts)
    done = subprocess.run(
        ["bash", "-c", script], env=env, check=False, timeout=60, capture_output=True, text=True
    )
    assert done.returncode == code
    assert (tmp_path / "requeued").exists() == requeues
    assert ("Run the study again to go on." in done.stderr) == requeues
