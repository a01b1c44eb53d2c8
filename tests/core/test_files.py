"""Files that are never half written."""

import os
import platform
import subprocess
import sys

import pytest

from critical_periods.core.files import replacing, write_text


def test_a_file_takes_its_place_when_it_is_whole(tmp_path):
    """Until then whoever reads it sees the old one."""
    file = tmp_path / "a.txt"
    write_text(file, "old")

    with replacing(file) as part:
        part.write_text("new")
        assert part.name == f"a.txt.{platform.node()}.{os.getpid()}.part"
        assert file.read_text() == "old"

    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, error):
    """A part of the new one would only be in the way."""
    file = tmp_path / "a.txt"
    write_text(file, "old")

    with pytest.raises(error), replacing(file) as part:
        part.write_text("n")
        raise error

    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_failure_before_anything_is_written_is_told_as_it_is(tmp_path):
    """It is not covered by a complaint that there was nothing to remove."""
    with pytest.raises(FileNotFoundError, match=r"none/a\.txt"):
        write_text(tmp_path / "none" / "a.txt", "text")


def test_what_a_killed_process_left_is_removed_and_nothing_of_anyone_else(tmp_path):
    """A part of another machine, or of a process that still writes, stays."""
    code = (
        "import os; from pathlib import Path; from critical_periods.core.files import replacing\n"
    )
    code += "with replacing(Path('a.txt')) as part: part.write_text('n'); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path).returncode == 9
    (left,) = tmp_path.iterdir()
    others = ["a.txt.elsewhere-9.99999999.part", f"a.txt.{platform.node()}.{os.getppid()}.part"]
    for name in others:
        (tmp_path / name).touch()

    write_text(tmp_path / "a.txt", "new")

    assert left.name.endswith(".part")
    assert {path.name for path in tmp_path.iterdir()} == {"a.txt", *others}
