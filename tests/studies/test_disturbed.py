"""Local studies that are killed, interrupted and misled by clocks at random moments.

``DISTURBED_KILLS=20 pytest tests/studies/test_disturbed.py`` takes some minutes, and then ranks of
a segment of two processes are killed, too; without, there are few.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from small_study import planned, write_study
from wandb_files import read_records, rows_of

from critical_periods.cli import main
from critical_periods.studies import worker
from critical_periods.studies.launchers import local
from critical_periods.studies.summary import _order

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc").exists(), reason="finds processes as Linux shows them"),
]

BASE = {
    "data.init_args.limit_train": 20,
    "data.init_args.batch_size": 10,
    "trainer.limit_val_batches": 1,
}
# One process a segment: two paths, of three runs. Two: one segment.
STUDIES = {
    1: ({"windows.removal": [0, 1], "windows.epochs_after": 1}, BASE),
    2: (
        {"windows.removal": [0], "windows.epochs_after": 2},
        BASE | {"trainer.devices": 2, "trainer.strategy": "ddp"},
    ),
}
TABLES = ("results.csv", "curve.csv")
# What is disturbed, by its command.
PROCESSES = {
    "launcher": b"study\0run\0",
    "worker": b"study\0work\0",
    "service": b"wandb-core\0",
    "rank": b"study\0segment\0",
    "Ctrl-C": b"study\0run\0",
    "Ctrl-C twice": b"study\0run\0",
}
# Each comes after an event in the folder and a delay.
EVENTS = (
    "plan.json", "worker_*.log", "segments/*/lock", "wandb/*", "segments/*/progress",
    "segments/*/checkpoint.ckpt", "segments/*/metrics.csv",
)  # fmt: skip
# How often, in all; with more, DISTURBED_SEED=1 draws other moments.
KILLS, SEED = (
    int(os.environ.get(f"DISTURBED_{name}", n)) for name, n in (("KILLS", 0), ("SEED", 0))
)
# Every process has a clock that is hours ahead or behind, and jumps back and forth each second.
CLOCK = """
import random, time
true, ahead = time.time, random.SystemRandom().choice((-5, 5)) * 3600
time.time = lambda: true() + ahead * (int(time.monotonic()) % 2)
"""
STOPPED = "critical-periods: stopped by Ctrl-C; "


def start(folder: Path, workers: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "critical_periods", "study", "run", "small.yaml"]
    path = os.pathsep.join([str(folder), str(Path(__file__).parents[2])])
    # Another test of this process may have left the place of a service there.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    command += ["--output", "out", "--jobs", str(workers)]
    with (folder / "said.txt").open("wb") as said:
        return subprocess.Popen(
            command, stdout=said, stderr=said, cwd=folder,
            env={**clean, "PYTHONPATH": path, "WANDB_MODE": "offline"},
        )  # fmt: skip


def processes(folder: Path, kind: bytes = b"") -> list[int]:
    """All that work in a folder: launcher, workers, ranks and wandb's service."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            if (process / "cwd").readlink() == folder and command and kind in command:
                found.append(int(process.name))
        except OSError:  # it has ended
            continue
    return sorted(found)


def stamps(out: Path, event: str) -> dict[Path, int]:
    found = {}
    for path in out.glob(event):
        with suppress(FileNotFoundError):
            found[path] = path.stat().st_mtime_ns
    return found


def strike(folder: Path, launcher: Any, what: str, event: str, delay: float) -> bool:
    """Kills or interrupts a process once something has happened; says whether there was one."""
    before = stamps(folder / "out", event)
    while launcher.poll() is None and stamps(folder / "out", event) == before:
        time.sleep(0.02)
    time.sleep(delay)
    while launcher.poll() is None and not processes(folder, PROCESSES[what]):
        time.sleep(0.02)
    if launcher.poll() is not None:
        return False
    victim = processes(folder, PROCESSES[what])[-1:]
    for number in (victim or [launcher.pid]) * (1 + ("twice" in what)):
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGINT if "Ctrl-C" in what else signal.SIGKILL)
        time.sleep(delay / 2)
    return True


def wait(folder: Path, launcher: Any) -> int:
    """The exit code; nothing that was started goes on."""
    code, end = launcher.wait(), time.monotonic() + 60
    while left := processes(folder):
        assert time.monotonic() < end, f"left behind: {left}"
        time.sleep(0.1)
    return code


def mislead(out: Path, draw: random.Random) -> None:
    """Files are hours old, or of the future, in any order."""
    for path in out.rglob("*"):
        with suppress(FileNotFoundError):
            os.utime(path, (time.time() + draw.uniform(-1, 1) * 36000,) * 2)


def places(folder: Path) -> dict[str, int]:
    """The checkpoints of segments that are done; one that is written anew is another file."""
    done = [path.parent for path in folder.glob("out/segments/*/done.json")]
    return {path.name: (path / "checkpoint.ckpt").stat().st_ino for path in done}


def said(folder: Path) -> str:
    return (folder / "said.txt").read_text(errors="replace")


def check(folder: Path, whole: Path, devices: int) -> None:
    """All is as in an undisturbed study, and nothing is left behind."""
    for name in TABLES:
        assert (folder / "out" / name).read_bytes() == (whole / "out" / name).read_bytes()
    left = ("*.part", "halfway*", "error.txt")
    assert [path for name in left for path in (folder / "out").rglob(name)] == []
    files = [*(folder / "out").glob("wandb/offline-run-*/*.wandb")]
    found = [rows_of(read_records(file)) for file in files]
    paths, runs = ([[0, 1]] * 2, [1, 2, 3]) if devices == 1 else ([[0, 1]], [1])
    assert sorted([row["epoch"] for row in rows] for rows in found if "epoch" in rows[0]) == paths
    (summary,) = [rows for rows in found if "runs" in rows[0]]
    assert [row["runs"] for row in summary] == runs
    assert [row["results_table"]["nrows"] for row in summary] == runs
    codes = [[r.exit.exit_code for r in read_records(f) if r.HasField("exit")] for f in files]
    assert codes == [[0]] * len(files)


def draw_kinds(devices: int, draw: random.Random) -> list[str]:
    if not KILLS:
        return ["worker", "service", "Ctrl-C twice", "launcher"]
    kinds = [kind for kind in PROCESSES if devices == 2 or kind != "rank"]
    number = KILLS // 4
    drawn = [draw.choice(kinds) for _ in range(number if devices == 2 else KILLS - number)]
    return drawn if devices == 1 else [*drawn[::2], *len(drawn[1::2]) * ["rank"]]


@pytest.mark.parametrize("devices", [1, 2] if KILLS else [1])
def test_a_disturbed_study_ends_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, devices: int
):
    """Its launcher, workers, ranks and the service of W&B; its files, and what is logged."""
    draw = random.Random(SEED + devices)
    whole, folder = tmp_path / "whole", tmp_path / "disturbed"
    whole.mkdir()
    write_study(whole, *STUDIES[devices])
    # In this process, which has imported everything, as far as ranks need no other ones.
    monkeypatch.setattr(local, "launch", lambda folder, *_: worker.work(folder) or [])
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert main(["study", "run", f"{whole / 'small.yaml'}", "--output", f"{whole / 'out'}"]) == 0
    ahead = draw_kinds(devices, draw)
    while ahead or folder.exists():
        if not folder.exists():
            folder.mkdir()
            write_study(folder, *STUDIES[devices])
            (folder / "sitecustomize.py").write_text(CLOCK)
        mislead(folder / "out", draw)
        before = places(folder)
        # A Python that starts costs most; the killed one of two leaves the other.
        launcher, struck = start(folder, 1 + ("worker" in ahead)), []
        while ahead and strike(folder, launcher, ahead[0], draw.choice(EVENTS), draw.random()):
            struck.append(ahead.pop(0))
        code = wait(folder, launcher)
        print(struck, code, said(folder))  # shown where something fails
        assert "Traceback" not in said(folder)
        assert before.items() <= places(folder).items()  # What is done is not trained again.
        if code == 0:
            check(folder, whole, devices)
            shutil.rmtree(folder)
        elif code == 130:
            # What came after that one hit a study that was ending.
            assert any("Ctrl-C" in one for one in struck) and said(folder).count(STOPPED) == 1
        elif code == 1:
            # A rank that is killed fails its segment, and a killed worker leaves the rest undone.
            assert set(struck) & {"worker", "rank"} and " segments are not done" in said(folder)
        else:
            assert code == -signal.SIGKILL and "launcher" in struck


def test_the_order_of_the_summary_is_no_matter_of_clocks(tmp_path: Path):
    """The order in which runs were seen to end stays, whatever the times of their files are."""
    study, plan = planned(tmp_path, *STUDIES[1])
    leaves = [run.segment for run in plan.runs]
    for number, name in enumerate(reversed(leaves)):
        folder = study.segment(name)
        folder.path.mkdir(parents=True)
        for path in (folder.done, folder.metrics, folder.checkpoint):
            path.write_text("epoch\n0\n")
            os.utime(path, (4e9 - number * 3600,) * 2)
        assert _order(study, plan) == [2, 1, 0][: number + 1]
    (study.path / "summary.json").write_text("[nothing")  # damaged: the order of the plan
    assert _order(study, plan) == [0, 1, 2]
