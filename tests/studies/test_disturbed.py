"""Local studies whose processes are killed at random moments, again and again.

``DISTURBED_KILLS=20 pytest tests/studies/test_disturbed.py`` takes some minutes; without, it is
skipped.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from small_study import write_study
from wandb_files import read_records

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("DISTURBED_KILLS" not in os.environ, reason="takes minutes"),
    pytest.mark.skipif(not Path("/proc").exists(), reason="finds processes as Linux shows them"),
]

STUDY = {"windows.removal": [0, 1], "windows.epochs_after": 2}
BASE = {
    "data.init_args.limit_train": 20,
    "data.init_args.batch_size": 10,
    "trainer.limit_val_batches": 1,
}
TABLES = ("results.csv", "curve.csv")
# Each kill comes after an event in the folder and a delay.
EVENTS = (
    "plan.json", "worker_*.log", "segments/*/lock", "wandb/*", "segments/*/progress",
    "segments/*/checkpoint.ckpt", "segments/*/metrics.csv",
)  # fmt: skip
# How often, in all; with more, DISTURBED_SEED=1 draws other moments.
KILLS, SEED = (
    int(os.environ.get(f"DISTURBED_{name}", n)) for name, n in (("KILLS", 0), ("SEED", 0))
)


def start(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "critical_periods", "study", "run", "small.yaml"]
    root = Path(__file__).parents[2]
    # Another test of this process may have left the place of a service there.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    with (folder / "said.txt").open("ab") as said:
        return subprocess.Popen(
            [*command, "--output", "out", "--jobs", "2"], stdout=said, stderr=said, cwd=folder,
            env={**clean, "PYTHONPATH": str(root), "WANDB_MODE": "offline"},
        )  # fmt: skip


def processes(folder: Path) -> list[int]:
    """All processes that work in a folder: launcher, workers, ranks and wandb's service."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == folder and (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:  # it has ended
            continue
    return sorted(found)


def tables(folder: Path) -> list[bytes]:
    return [(folder / "out" / name).read_bytes() for name in TABLES]


def wait_until_none(folder: Path) -> None:
    end = time.monotonic() + 60
    while left := processes(folder):
        assert time.monotonic() < end, f"left behind: {left}"
        time.sleep(0.1)


def finish(folder: Path) -> None:
    launcher = start(folder)
    assert launcher.wait() == 0, (folder / "said.txt").read_text()


def test_a_study_that_is_killed_again_and_again_ends_alike(tmp_path):
    """Its launcher, a worker or the service of Weights & Biases; nothing is left behind."""
    draw, whole = random.Random(SEED), tmp_path / "whole"
    whole.mkdir()
    write_study(whole, STUDY, BASE)
    finish(whole)
    kills = rounds = 0
    folder = tmp_path / "killed_0"
    while kills < KILLS:
        if not folder.exists():
            folder.mkdir()
            write_study(folder, STUDY, BASE)
        rounds += 1
        assert rounds < 4 * KILLS, "hardly anything could be killed"
        out, launcher = folder / "out", start(folder)
        event, delay = draw.choice(EVENTS), draw.random()
        before = stamps(out, event)
        while launcher.poll() is None and stamps(out, event) == before:
            time.sleep(0.02)
        time.sleep(delay)
        if victims := processes(folder):
            os.kill(draw.choice(victims), signal.SIGKILL)
            kills += 1
        if launcher.wait() == 0:
            assert tables(folder) == tables(whole)
            wait_until_none(folder)
            folder = tmp_path / f"killed_{rounds}"
        else:
            wait_until_none(folder)
    if folder.exists():
        finish(folder)
        wait_until_none(folder)
    for folder in tmp_path.glob("killed_*"):
        assert tables(folder) == tables(whole)
        runs = [epochs(file) for file in (folder / "out").glob("wandb/offline-run-*/*.wandb")]
        assert sorted(runs) == [[], [0, 1, 2], [0, 1, 2]]  # the summary, and two paths
        left = ("*.part", "halfway*", "error.txt")
        assert [path for name in left for path in (folder / "out" / "segments").rglob(name)] == []


def epochs(file: Path) -> list[int]:
    """Those of a run of Weights & Biases, as they were logged."""
    items = [item for record in read_records(file) for item in record.history.item]
    names = [item.key or ".".join(item.nested_key) for item in items]
    found = zip(names, items, strict=True)
    return [int(json.loads(item.value_json)) for name, item in found if name == "epoch"]


def stamps(out: Path, event: str) -> dict[Path, int]:
    found = {}
    for path in out.glob(event):
        with suppress(FileNotFoundError):
            found[path] = path.stat().st_mtime_ns
    return found
