"""Which videos there are and what they show: a folder for each class, or a list in a file."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from critical_periods.errors import UserError

SUFFIXES = frozenset(
    (
        ".mp4",
        ".m4v",
        ".mov",
        ".avi",
        ".mkv",
        ".webm",
        ".mpg",
        ".mpeg",
        ".flv",
        ".wmv",
        ".ts",
        ".3gp",
    )
)
# What a list may call its two columns.
_PATHS = ("path", "video", "video_path", "file", "filename", "filepath", "name", "clip")
_LABELS = ("label", "labels", "class", "class_name", "target", "category", "action")
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


def find_videos(root: Path, split: str, file: Path | None = None) -> VideoList:
    """The videos of a split.

    Args:
        root: holds ``train/<class>/*`` and ``val/<class>/*`` (or ``validation``, or ``test``).
        split: ``train`` or ``val``.
        file: a list of them instead; its paths are relative to ``root``.

    Raises:
        UserError: there is no such folder or file, or nothing in it.
    """
    if file is not None:
        return read_list(file, root)
    folders = [root / name for name in _FOLDERS[split] if (root / name).is_dir()]
    if not folders:
        wanted = " or ".join(f"{name}/" for name in _FOLDERS[split])
        raise UserError(
            f"root={str(root)!r} holds no folder {wanted} with a folder of videos for every class; "
            f"set root, or {split}_csv to a list of path,label."
        )
    return list_folder(folders[0])


def list_folder(folder: Path) -> VideoList:
    """All videos ``<class>/*`` of a folder, in the order of their names.

    Raises:
        UserError: there are none.
    """
    found: list[str] = []
    for label in sorted(entry.name for entry in os.scandir(folder) if entry.is_dir()):
        for name in sorted(os.listdir(folder / label)):
            if os.path.splitext(name)[1].lower() in SUFFIXES:
                found.append(f"{label}/{name}")
    if not found:
        raise UserError(
            f"{folder} holds no videos; it must hold a folder for every class, with files such as "
            "*.mp4 in it."
        )
    return VideoList(folder, found, [path.split("/")[0] for path in found])


def read_list(file: Path, root: Path) -> VideoList:
    """A list with a video and its label on each line.

    Commas, tabs or spaces stand between the two (so a path may hold spaces where a comma ends it,
    and where the label is one word), and a header may name them.

    Args:
        file: the list.
        root: that its paths are relative to.

    Raises:
        UserError: the file is not there or empty, or a line has no label.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the list {file} cannot be read: {error}.") from error
    rows = [_cells(line) for line in lines]
    numbered = [(number, row) for number, row in enumerate(rows, 1) if row]
    header = [cell.lower() for cell in numbered[0][1]] if numbered else []
    path, label = _column(header, _PATHS), _column(header, _LABELS)
    if "youtube_id" in header and path is None:
        # The lists as they were published name no files.
        raise UserError(
            f"the header of {file}, {','.join(header)!r}, names no column of paths; add one that "
            "is called path."
        )
    if path is None or label is None:
        path, label = 0, -1
    else:
        del numbered[0]
    if not numbered:
        raise UserError(f"the list {file} is empty; each line is a path and a label.")
    for number, row in numbered:
        if len(row) < 2 or len(row) <= max(path, label) or not row[path] or not row[label]:
            raise UserError(
                f"line {number} of {file} is {' '.join(row)!r}, but each line is a path and a "
                "label with a comma or a space between."
            )
    return VideoList(root, [row[path] for _, row in numbered], [row[label] for _, row in numbered])


def _cells(line: str) -> list[str]:
    for mark in (",", "\t"):
        if mark in line:
            (row,) = csv.reader([line], delimiter=mark, skipinitialspace=True)
            return [cell.strip() for cell in row]
    return line.rsplit(maxsplit=1)


def _column(header: list[str], names: Iterable[str]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def number_labels(train: list[str], val: list[str]) -> tuple[list[str], list[int], list[int]]:
    """Class names, and the class number of each video.

    Labels that are all whole numbers are class numbers already; else the names that occur in
    training, sorted, are numbered.

    Returns:
        The K class names; the class numbers of the training and of the validation videos.

    Raises:
        UserError: validation has a class that training has not.

    Example:
        >>> number_labels(["b", "a", "b"], ["a"])
        (['a', 'b'], [1, 0, 1], [0])
        >>> number_labels(["2", "0"], ["1"])
        (['0', '1', '2'], [2, 0], [1])
    """
    if all(label.isascii() and label.isdigit() for label in {*train, *val}):
        numbers = [int(label) for label in train], [int(label) for label in val]
        highest = max(max(part, default=0) for part in numbers)
        return [str(number) for number in range(highest + 1)], *numbers
    names = sorted(set(train))
    missing = sorted(set(val) - set(names))
    if missing:
        raise UserError(
            f"the class {missing[0]!r} occurs in validation but not in training; both must name "
            "their classes alike."
        )
    number = {name: place for place, name in enumerate(names)}
    return names, [number[label] for label in train], [number[label] for label in val]
