"""Which videos there are and what they show: a folder for each class, or a list in a file."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from critical_periods.core.errors import UserError

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
# What a list may call its two columns; the first that it has is taken.
_PATHS = (
    "path",
    "video_path",
    "file_path",
    "filepath",
    "relative_path",
    "filename",
    "file_name",
    "file",
    "files",
    "video",
    "videos",
    "video_name",
    "name",
    "clip",
    "clip_path",
    "clip_name",
    "video_id",
)
_LABELS = (
    "label",
    "labels",
    "label_id",
    "class",
    "class_id",
    "class_index",
    "class_idx",
    "target",
    "targets",
    "category",
    "category_id",
    "action",
    "action_id",
    "label_name",
    "class_name",
    "classname",
    "category_name",
)
# The lists of Kinetics as they were published name no files, but still have a header.
_HEADER = frozenset((*_PATHS, *_LABELS, "youtube_id"))
# Tables and other programs write class 3 as 3.0, too.
_WHOLE = re.compile(r"([0-9]+)(\.0*)?")
# Far more than any data set has; a larger class number is something else.
_MOST_CLASSES = 100_000
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
    root: Path, split: str, file: Path | None = None, words: tuple[str, str] | None = None
) -> VideoList:
    """The videos of a split.

    Args:
        root: holds ``train/<class>/*`` and ``val/<class>/*`` (or ``validation``, or ``test``).
        split: ``train`` or ``val``.
        file: a list of them instead; its paths are relative to ``root``.
        words: what the user calls ``root`` and ``file``; by default as the DataModule does.

    Raises:
        UserError: there is no such folder or file, or nothing in it.
    """
    if file is not None:
        return read_list(file, root)
    folders = [root / name for name in _FOLDERS[split] if (root / name).is_dir()]
    if not folders:
        wanted = " or ".join(f"{name}/" for name in _FOLDERS[split])
        root_word, file_word = words or ("root", f"{split}_csv")
        raise UserError(
            f"{root_word}={str(root)!r} holds no folder {wanted} with a folder of videos for every "
            f"class; set {root_word}, or {file_word} to a list of path,label."
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

    Tabs, commas or spaces stand between the two, the same in all lines: of these, those that make
    most of the lines a video file and its label (so a path may hold spaces and commas where tabs
    end it, or where the label is one word). A header may name the columns; lines that begin with
    ``#`` are comments.

    Args:
        file: the list.
        root: that its paths are relative to.

    Raises:
        UserError: the file is not there or empty, a line has no label, or the first line is neither
            like the others nor a header that names a path and a label.
    """
    try:
        text = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the list {file} cannot be read: {error}.") from error
    lines = [(number, line.strip("\r\n")) for number, line in enumerate(text, 1)]
    lines = [(n, line) for n, line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        raise UserError(f"the list {file} is empty; each line is a path and a label.")
    reading = min((_read(lines, mark) for mark in "\t, "), key=_Reading.oddness)
    return reading.checked(file, root)


class _Reading(NamedTuple):
    """A list, cut up by one of the marks.

    Attributes:
        header: its cells, in small letters with underscores; empty where there is none.
        path: the column of the paths; ``None`` where the header names none.
        label: that of the labels.
        rows: of all other lines, their number and their cells.
    """

    header: list[str]
    path: int | None
    label: int | None
    rows: list[tuple[int, list[str]]]

    def pair(self, row: list[str]) -> tuple[str, str] | None:
        """A row's path and label, if it has both."""
        if self.path is None or self.label is None or len(row) <= max(1, self.path, self.label):
            return None
        path, label = row[self.path], row[self.label]
        return (path, label) if path and label else None

    def oddness(self) -> tuple[int, int, int]:
        """How many rows name no video file; have no path or label; have no number as label."""
        pairs = [self.pair(row) for _, row in self.rows]
        found = [pair for pair in pairs if pair]
        return (
            len(pairs) - sum(_is_video(path) for path, _ in found),
            len(pairs) - len(found),
            len(pairs) - sum(_class_number(label) is not None for _, label in found),
        )

    def checked(self, file: Path, root: Path) -> VideoList:
        """The list, if it is one."""
        for name, column in (("path", self.path), ("label", self.label)):
            if column is None:
                raise UserError(
                    f"the header of {file}, {','.join(self.header)!r}, names no column of {name}s; "
                    f"add one that is called {name}."
                )
        if not self.rows:
            raise UserError(f"the list {file} is empty; each line is a path and a label.")
        pairs: list[tuple[str, str]] = []
        for number, row in self.rows:
            pair = self.pair(row)
            if pair is None:
                raise UserError(
                    f"line {number} of {file} is {' '.join(row)[:80]!r}, but each line is a path "
                    "and a label with a comma, a tab or a space between, the same one in all lines."
                )
            pairs.append(pair)
        self._check_first(file, pairs)
        numbers = [n for _, label in pairs if (n := _class_number(label)) is not None]
        if len(numbers) == len(pairs) and max(numbers) >= _MOST_CLASSES:
            line, _ = self.rows[numbers.index(max(numbers))]
            raise UserError(f"line {line} of {file} has {_too_high(max(numbers))}")
        return VideoList(root, [path for path, _ in pairs], [label for _, label in pairs])

    def _check_first(self, file: Path, pairs: list[tuple[str, str]]) -> None:
        """A header that is not known must not become a video, or class names of class numbers."""
        first, *others = pairs
        if self.header or not others:
            return
        for what, suits in (
            ("a video file", lambda pair: _is_video(pair[0])),
            ("labelled by a whole number", lambda pair: _class_number(pair[1]) is not None),
        ):
            if not suits(first) and all(map(suits, others)):
                number, row = self.rows[0]
                raise UserError(
                    f"line {number} of {file}, {','.join(row)[:80]!r}, is not {what}, as all "
                    "others are; mend it or, where it is a header, call its columns path and label."
                )


def _read(lines: list[tuple[int, str]], mark: str) -> _Reading:
    rows = [(number, _cells(line, mark)) for number, line in lines]
    first = [re.sub(r"[\s-]+", "_", cell.lower()) for cell in rows[0][1]]
    if not _HEADER.isdisjoint(first) and not any(map(_is_video, first)):
        return _Reading(first, _column(first, _PATHS), _column(first, _LABELS), rows[1:])
    return _Reading([], 0, -1, rows)


def _cells(line: str, mark: str) -> list[str]:
    if mark == " ":
        return line.rsplit(maxsplit=1)
    try:
        (row,) = csv.reader([line], delimiter=mark, skipinitialspace=True)
    except csv.Error:
        # A line without end is no row of a list.
        return [line]
    return [cell.strip() for cell in row]


def _column(header: list[str], names: Iterable[str]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


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

    Labels that are all whole numbers (3 or 3.0) are class numbers already; else the names that
    occur in training, sorted, are numbered.

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
        classes = [str(number) for number in range(highest + 1)]
        return classes, [known[label] for label in train], [known[label] for label in val]
    names = sorted(set(train))
    missing = sorted(set(val) - set(names))
    if missing:
        raise UserError(
            f"the class {missing[0]!r} occurs in validation but not in training; both must name "
            "their classes alike."
        )
    number = {name: place for place, name in enumerate(names)}
    return names, [number[label] for label in train], [number[label] for label in val]
