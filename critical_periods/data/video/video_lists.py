"""Which videos there are and what they show: a folder for each class, or a list in a file."""

import csv
import os
import re
from pathlib import Path
from typing import NamedTuple

from critical_periods.core.errors import UserError

SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".flv", ".wmv", ".ts", ".3gp",
)  # fmt: skip
# What the two columns of a list are called in its header.
COLUMNS = ("path", "label")

# Tables and other programs write class 3 as 3.0, too.
_WHOLE = re.compile(r"([0-9]+)(\.0*)?")
# Far more than any data set has; a larger class number is something else.
_MOST_CLASSES = 100_000
_NO_PAIR = ("", "")
_FOLDERS = {"train": ("train",), "val": ("val", "validation", "test")}


class VideoList(NamedTuple):
    """Videos and their labels.

    Attributes:
        folder: that the paths are relative to.
        paths: of the videos, N.
        labels: of the videos as they are written, N.
    """

    folder: Path
    paths: list[str]
    labels: list[str]


def find_videos(
    root: Path,
    split: str,
    file: Path | None = None,
    columns: tuple[str, str] = COLUMNS,
    settings: tuple[str, str] | None = None,
) -> VideoList:
    """The videos of a split, by a folder for each class or by a list.

    A list has a video and its label on each line. A header names the two columns, among any others.
    Without one, each line is a video file, known by its ending, and its label, and nothing else.
    Tabs, commas or spaces stand between them, the same in all lines: of these, those that suit the
    most lines (so a path may hold spaces and commas where tabs end it, or where the label is one
    word). Cells with commas may be in quotes, and lines that begin with ``#`` are comments. Of
    folders, hidden files are left out, and the order is that of their names.

    Args:
        root: holds ``train/<class>/*`` and ``val/<class>/*`` (or ``validation``, or ``test``).
        split: ``train`` or ``val``.
        file: a list of them instead; its paths are relative to ``root``.
        columns: of the paths and of the labels in the header of ``file``, where it has one;
            capitals do not matter.
        settings: what the user calls ``root`` and ``file``; by default as the DataModule does.

    Raises:
        UserError: there is no such folder or file, nothing in it, or a line that is none of a list.
    """
    if file is not None:
        return _read_list(file, root, columns)
    folder = next((root / name for name in _FOLDERS[split] if (root / name).is_dir()), None)
    if folder is None:
        wanted = " or ".join(f"{name}/" for name in _FOLDERS[split])
        root_name, file_name = settings or ("root", f"{split}_csv")
        raise UserError(
            f"{root_name}={str(root)!r} holds no folder {wanted} with a folder of videos for every "
            f"class; set {root_name}, or {file_name} to a list of path,label."
        )
    found = [
        f"{label.name}/{name}"
        for label in sorted(folder.iterdir())
        if label.is_dir() and not label.name.startswith(".")
        for name in sorted(os.listdir(label))
        if _is_video(name) and not name.startswith(".")
    ]
    if not found:
        raise UserError(
            f"{folder} holds no videos; it must hold a folder for every class, with files such as "
            "*.mp4 in it."
        )
    return VideoList(folder, found, [path.split("/")[0] for path in found])


def _read_list(file: Path, root: Path, columns: tuple[str, str]) -> VideoList:
    try:
        text = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the list {file} cannot be read: {error}.") from error
    lines = {n: line for n, line in enumerate(text, 1) if line.strip()[:1] not in ("", "#")}
    readings = [_pairs(lines, mark, columns) for mark in "\t, "]
    pairs = min(readings, key=lambda reading: list(reading.values()).count(_NO_PAIR))
    if not pairs:
        raise UserError(f"the list {file} is empty; each line is a path and a label.")
    for number, pair in pairs.items():
        if pair is _NO_PAIR:
            raise UserError(
                f"line {number} of {file} is {lines[number].strip()[:80]!r}, but each line is a "
                "video file and a label with a comma, a tab or a space between, the same one in "
                "all lines; a list with other files or more columns needs a header that names "
                f"{columns[0]!r} and {columns[1]!r}, as path_column and label_column call them."
            )
    paths, labels = (list(cells) for cells in zip(*pairs.values(), strict=True))
    numbers = [value for label in labels if (value := _class_number(label)) is not None]
    if len(numbers) == len(labels) and max(numbers) >= _MOST_CLASSES:
        line = [*pairs][numbers.index(max(numbers))]
        raise UserError(f"line {line} of {file} has {_too_high(max(numbers))}")
    return VideoList(root, paths, labels)


def _pairs(
    lines: dict[int, str], mark: str, columns: tuple[str, str]
) -> dict[int, tuple[str, str]]:
    """The path and the label of each line but the header; empty where it is not so made up."""
    rows = {number: _cells(line, mark) for number, line in lines.items()}
    header = [cell.lower() for cell in next(iter(rows.values()), [])]
    places, width = [0, 1], 2
    if is_named := all(header.count(column.lower()) == 1 for column in columns):
        places, width = [header.index(column.lower()) for column in columns], len(header)
        del rows[next(iter(rows))]
    pairs = {}
    for number, row in rows.items():
        path, label = (row[place] for place in places) if len(row) == width else _NO_PAIR
        is_pair = path and label and (is_named or _is_video(path))
        pairs[number] = (path, label) if is_pair else _NO_PAIR
    return pairs


def _cells(line: str, mark: str) -> list[str]:
    if mark == " ":
        return line.rsplit(maxsplit=1)
    try:
        (row,) = csv.reader([line], delimiter=mark, skipinitialspace=True)
    except csv.Error:
        # A line without end is no row of a list.
        return [line]
    return [cell.strip() for cell in row]


def _is_video(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in SUFFIXES


def _class_number(label: str) -> int | None:
    whole = _WHOLE.fullmatch(label)
    return int(whole[1]) if whole else None


def _too_high(number: int) -> str:
    return (
        f"the class number {number}, but numbers count from 0 and must be below {_MOST_CLASSES}; "
        "number the classes anew, or name them."
    )


def number_labels(train: list[str], val: list[str]) -> tuple[list[str], list[int], list[int]]:
    """Class names, and the class number of each video.

    Labels that are all whole numbers (3 or 3.0) are class numbers already; otherwise the names that
    occur in training are sorted and numbered.

    Returns:
        The K class names; the class numbers of the training and of the validation videos.

    Raises:
        UserError: validation has a class that training has not, or a number is too high.

    Example:
        >>> number_labels(["b", "a", "b"], ["a"])
        (['a', 'b'], [1, 0, 1], [0])
        >>> number_labels(["2", "0"], ["1"])
        (['0', '1', '2'], [2, 0], [1])
    """
    whole = {label: _class_number(label) for label in {*train, *val}}
    known = {label: number for label, number in whole.items() if number is not None}
    if len(known) == len(whole):
        highest = max(known.values(), default=0)
        if highest >= _MOST_CLASSES:
            raise UserError(f"a video has {_too_high(highest)}")
        names = [str(number) for number in range(highest + 1)]
    else:
        names = sorted(set(train))
        if missing := sorted(set(val) - set(names)):
            raise UserError(
                f"the class {missing[0]!r} occurs in validation but not in training; both must "
                "name their classes alike."
            )
        known = {name: place for place, name in enumerate(names)}
    return names, [known[label] for label in train], [known[label] for label in val]
