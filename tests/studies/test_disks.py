"""Studies on real disks that fill up and folders that are read-only: a sentence, the same bytes."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_study import write_study

from critical_periods.cli import main
from critical_periods.core.errors import ERROR_PREFIX
from critical_periods.studies import worker
from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.launchers import local

STUDY = {"windows": {"removal": [1], "epochs_after": 1}}
BASE = {"data.init_args.limit_train": 20, "trainer.limit_val_batches": 1}
TABLES = ("results.csv", "curve.csv")
# Within the plan, a segment, its checkpoint, the tables, the figures; in the end there is enough.
KILOBYTES = (8, 16, 112, 160, 352, 10_000)
FULL = "there is no space left "
AGAIN = "; free some, and run the same again."


def mount(out: Path, options: str) -> bool:
    words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(out)]
    return not subprocess.run(words, capture_output=True, check=False).returncode


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, bytes]]:
    """What the study gives where there is space; all of them are trained in this process."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "launch", lambda study, *_: worker.work(study) or [])
        path = write_study(folder, STUDY, BASE)
        assert main(["study", "run", str(path), "--output", str(folder / "out")]) == 0
        yield {name: (folder / "out" / name).read_bytes() for name in TABLES}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """The study's folder, with a disk of its own in ``out``."""
    out = tmp_path / "out"
    out.mkdir()
    write_study(tmp_path, STUDY, BASE)
    if os.getuid() or not mount(out, "size=8k"):
        pytest.skip("needs to mount a disk, as root")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(out)], check=True)


def study(folder: Path, command: str) -> int:
    words = [str(folder / "small.yaml"), "--output", str(folder / "out")]
    return main(["study", command, *words])


def check(folder: Path, whole: dict[str, bytes]) -> None:
    assert {name: (folder / "out" / name).read_bytes() for name in TABLES} == whole
    left = [*(folder / "out").rglob("*.part"), *(folder / "out").rglob("error.txt")]
    assert left == [] and not list((folder / "out").rglob("halfway*"))


def test_a_disk_that_is_full_again_and_again(disk: Path, whole: Any, capsys: Any):
    for size in KILOBYTES:
        assert mount(disk / "out", f"remount,size={size}k")
        code = study(disk, "run")
        said = capsys.readouterr().err.splitlines()
        if code == 0:
            break
        told = [line for line in said if FULL in line]
        assert all(line.endswith(AGAIN) for line in told)
        assert not list((disk / "out").rglob("*.part")) and "Traceback" not in "".join(said)
        if code == 2:
            (sentence,) = told
            assert sentence.startswith(f"critical-periods: error: {FULL}")
        else:
            failed = [*(disk / "out").rglob("error.txt")]
            assert code == 1 and len(told) == len(failed) > 0
            assert all("segments" in line for line in told)
    assert size == KILOBYTES[-1]
    check(disk, whole)


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that other users see."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
        subprocess.run(["chattr", "-R", "-i", folder], capture_output=True, check=False)


def immutable(*paths: Path, flag: str = "+i") -> bool:
    words = ["chattr", flag, *map(str, paths)]
    return not subprocess.run(words, capture_output=True, check=False).returncode


def test_folders_that_are_or_become_read_only(
    public: Path, whole: Any, capsys: Any, monkeypatch: Any
):
    """As a disk, as another user's, as one that may not be changed, before and within a segment."""
    out = public / "out"
    write_study(public, STUDY, BASE)
    out.mkdir()
    if os.getuid() or not mount(out, "size=9m,ro"):
        pytest.skip("needs to mount a disk, as root")

    def told(command: str, workers_log: bool = False) -> str:
        code, said = study(public, command), capsys.readouterr().err.splitlines()
        (sentence,) = [line for line in said if line.startswith(ERROR_PREFIX)]
        # A worker, which is this process here, has the traceback in its log.
        assert code == 2 and ("Traceback" not in "".join(said) or workers_log)
        return sentence

    try:
        assert told("run").endswith(f"--output {out} cannot be written: Read-only file system.")
        assert mount(out, "remount,rw")
        assert study(public, "run") == 0
        assert mount(out, "remount,ro")
        for command in ("run", "plot"):
            assert told(command).endswith(": Read-only file system.")
        capsys.readouterr()
        assert study(public, "status") == 0
    finally:
        subprocess.run(["umount", str(out)], check=True)

    # Of somebody else, as whom root becomes nobody for a while.
    out.chmod(0o555)
    os.seteuid(65534)
    try:
        assert told("run").endswith(f"--output {out} cannot be written: Permission denied.")
    finally:
        os.seteuid(0)
    if not immutable(out):
        pytest.skip("the file system of the tests has no attributes")
    assert told("run").endswith(f"--output {out} cannot be written: Operation not permitted.")
    assert immutable(out, flag="-i")
    out.chmod(0o755)
    train = worker._train_here_or_in_a_process

    def freeze(study: StudyFolder, plan: Any, name: str) -> None:
        assert immutable(study.segment(name).path)
        train(study, plan, name)

    with monkeypatch.context() as patch:
        patch.setattr(worker, "_train_here_or_in_a_process", freeze)
        assert "Operation not permitted" in told("run", workers_log=True)
    assert immutable(*out.glob("segments/*"), flag="-i")
    assert study(public, "run") == 0
    check(public, whole)
