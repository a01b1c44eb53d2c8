"""Packed segments, and planning by a job, without Slurm."""

import os
import shlex
import subprocess
import sys
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from small_study import planned, write_study

from critical_periods.cli import main
from critical_periods.core.errors import UserError
from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.launchers import packed, slurm_queue, slurm_submission
from critical_periods.studies.launchers.batch_script import PLAN, other_script
from critical_periods.studies.segment import StoppedError, train_segment
from critical_periods.studies.slurm_settings import SlurmSettings

# A login node on which torch is not installed.
WITHOUT_TORCH = """
import sys
sys.modules |= {"torch": None, "pytorch_lightning": None}
from critical_periods.cli.main import main
sys.exit(main())
"""
GPU = {"accelerator": "gpu", "devices": 1}
DONE = "touch {0}/done.json {0}/metrics.csv {0}/checkpoint.ckpt"


def test_told_to_end_in_a_later_epoch_gives_the_same_bits(tmp_path):
    epochs = {"windows": {"removal": [3], "epochs_after": 1}}
    base = {"trainer.callbacks": []}
    found = []
    calls = count()  # within an epoch of two batches, and at its end
    for is_told in (None, lambda: next(calls) > 1):
        place = tmp_path / str(len(found))
        place.mkdir()
        folder, plan = planned(place, epochs, base)
        name = next(name for name, one in plan.segments.items() if one.window == (0, 3))
        if is_told is not None:
            with pytest.raises(StoppedError):
                train_segment(folder, plan, name, is_told)
            assert folder.segment(name).epochs_done() == 1 and folder.segment(name).halfway.exists()
        train_segment(folder, plan, name)
        found.append(folder.segment(name).metrics.read_bytes())
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("acts", "code", "done"),
    [
        ({}, 0, 4),
        # A killed one has its job go back to the queue; what does not go on from it is trained.
        ({0: "kill -9 $$"}, 137, 2),
        ({0: "echo no > {0}/error.txt; exit 1"}, 1, 2),
        ({0: "kill -USR1 $PPID; sleep 0.1; exit 75"}, 75, None),
    ],
)
def test_segments_side_by_side(tmp_path, monkeypatch, acts, code, done):
    folder, plan = planned(tmp_path)
    names = sorted(plan.segments, key=lambda name: plan.segments[name].start)
    running, most = [], []

    def start(words, devices):
        assert words[:2] == ["task", str(folder.path)]
        place = folder.segment(words[2]).path
        place.mkdir(parents=True)
        running.append(subprocess.Popen(
            ["bash", "-c", acts.get(names.index(words[2]), f"sleep 0.2; {DONE}").format(place)]
        ))  # fmt: skip
        most.append(sum(one.poll() is None for one in running))
        return running[-1]

    monkeypatch.setattr(packed, "start", start)
    monkeypatch.setattr(packed, "_POLL_SECONDS", 0.02)
    assert packed.run_packed(folder, plan, names, 2) == code
    found = sum(folder.segment(name).is_done() for name in names)
    assert found == done if done is not None else found < 4
    assert max(most) <= 2


def test_what_goes_on_from_an_undone_segment_is_not_trained(tmp_path, capsys):
    folder, plan = planned(tmp_path)
    child = next(name for name, one in plan.segments.items() if one.parent is not None)
    assert main(["study", "pack", str(folder.path), "2", child]) == 1
    assert f"segment {child} starts from" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("trainer", "fields", "lines"),
    [
        ({}, {}, ["--cpus-per-task=3", "--nodes=1", "--ntasks-per-node=1"]),
        (GPU, {"cpus_per_task": 2}, ["--cpus-per-task=6", "--gpus-per-node=1"]),
        (GPU, {"gpus_per_node": 2}, ["--gpus-per-node=2"]),
        ({"devices": 2}, {}, None),
        ({"num_nodes": 2}, {}, None),
    ],
)  # fmt: skip
def test_a_packed_job(tmp_path, fake_slurm, trainer, fields, lines):
    folder, plan = planned(tmp_path)
    plan.configs[0][0]["trainer"].update(trainer)
    settings = SlurmSettings(**fields)
    submit = partial(slurm_submission.submit, folder, plan, settings, ["study"], True, 3)
    if lines is None:
        with pytest.raises(UserError, match=r"packed is 3, but .* are trained side by side"):
            submit()
        return
    assert submit() == "Submitted 1 jobs for 4 segments."
    names = max(slurm_queue.jobs(folder), key=lambda job: len(job.segments)).segments
    assert sorted(names) == sorted(plan.segments)
    script = (folder.path / "slurm" / f"{names[0]}.sh").read_text()
    assert f'study pack {folder.path} 3 "$segment"' in script
    assert f"for segment in {','.join(names)}; do" in script
    assert all(f"#SBATCH {line}\n" in script for line in lines)


def on_the_login_node(path: Path, command: str, *words: str) -> tuple[int, str, str]:
    files = [str(path), "--output", str(path.parent / "out")]
    line = [sys.executable, "-c", WITHOUT_TORCH, "study", command, *files, *words]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_a_job_plans_where_the_login_node_has_no_torch(tmp_path, fake_slurm, monkeypatch, capsys):
    fields = {"python": "python3", "setup": ["source env"], "modules": ["cuda"], "mem": "1G"}
    path, output = write_study(tmp_path, {"slurm": fields, "packed": 2}), tmp_path / "out"
    for words in ([], ["--launcher", "local"]):
        code, _, said = on_the_login_node(path, "run", *words)
        assert (
            code == 2 and "cannot import what training needs" in said and "first job plans" in said
        )
    # Twice: the first job makes way.
    for number in (1, 2):
        code, said, _ = on_the_login_node(path, "run", "--launcher", "slurm", "--per", "segment")
        assert code == 0
        assert said.startswith(f"Submitted job {number}, which plans the study and submits the")
    (job,) = slurm_queue.jobs(StudyFolder(output))
    assert job.segments == ("plan",) and job.number == "2"
    said = on_the_login_node(path, "status")
    assert said == (0, "The job that plans the study is queued (Priority).\n", "")
    script = (output / "slurm" / "plan.sh").read_text()
    assert "#SBATCH --mem=1G\n" in script and "module load cuda\nsource env\n" in script
    prepare, submit = (
        shlex.split(line.removesuffix(" &&"))
        for line in script.splitlines() if " -m critical_periods " in line
    )  # fmt: skip
    assert prepare[:5] == ["python3", "-m", "critical_periods", "study", "prepare"]
    # The job, on a node where Slurm's commands are missing.
    (fake_slurm / "queue").unlink()
    assert main(prepare[3:]) == 0
    capsys.readouterr()
    with monkeypatch.context() as without:
        without.setenv("PATH", "")
        assert main(submit[3:]) == 2
    (output / "slurm" / "plan.log").write_text(capsys.readouterr().err)
    code, said, why = on_the_login_node(path, "status")
    assert code == 0 and "4 missing." in said
    assert "has ended before the rest was submitted: squeue was not found" in why
    code, said, _ = on_the_login_node(path, "run", "--launcher", "slurm", "--per", "segment")
    assert code == 0 and said.endswith("Submitted 2 jobs for 4 segments.\n")
    assert not (output / "slurm" / "planned").exists()
    code, said, _ = on_the_login_node(path, "status")
    assert "4 queued." in said and said.count("[queued (Priority)]") == 4
    assert on_the_login_node(path, "cancel")[1].startswith("Ended 3 jobs of")
    code, said, why = on_the_login_node(path, "wait")
    assert code == 1 and "No tables are written, as " in said and "4 of 4 segments" in why


def test_a_folder_of_version_0_1_is_read_without_torch():
    folder = Path(__file__).parent / "folder_of_version_0_1"
    words = ["study", "status", str(folder / "old.yaml"), "--output", str(folder)]
    line = [sys.executable, "-c", WITHOUT_TORCH, *words]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\n8 done.\n")


def test_what_a_container_plans_is_submitted_outside_of_it(tmp_path):
    settings = SlurmSettings(container="cp.sif", python="python3.12", setup=["export A=1"])
    words = ["study", "prepare"], ["study", "submit"]
    script = other_script(settings, "cp-1-plan", tmp_path / "plan.log", PLAN, 1, *words)
    assert script.splitlines()[-3:] == [
        "export A=1",
        "apptainer exec --nv cp.sif python3.12 -m critical_periods study prepare &&",
        f"{sys.executable} -m critical_periods study submit",
    ]
    assert "#SBATCH --gpus-per-node=1\n" in script


@pytest.fixture
def fake_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Slurm that takes jobs and never runs them; its queue is a file."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, body in {
        "sbatch": """for script; do :; done
echo >> $0.count; number=$(wc -l < $0.count)
of() { sed -n "s/#SBATCH --$1=//p" "$script"; }
echo "$number|PENDING|Priority|1:00|$(of job-name)|$(of comment)" >> $(dirname $0)/queue
echo $number""",
        "squeue": "cat $(dirname $0)/queue 2>/dev/null; true",
        "scancel": 'for number; do sed -i "/^$number|/d" $(dirname $0)/queue; done',
    }.items():
        (folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder
