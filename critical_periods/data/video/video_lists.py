"""Which videos there are and what they show: a folder for each class, or a list in a file."""

import codecs
import csv
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from critical_periods.core.errors import UserError
from critical_periods.data.class_folders import (
    find_class_files,
    like,
    tell,
    tell_alike,
    tell_left_out,
)

SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".f4v", ".mkv", ".webm", ".ogv", ".avi", ".divx",
    ".mpg", ".mpeg", ".mpe", ".vob", ".ts", ".mts", ".m2t", ".m2ts", ".mxf", ".flv", ".asf", ".wmv",
)  # fmt: skip
# What the two columns of a list are called in its header.
COLUMNS = ("path", "label")

# Tables and other programs write class 3 as 3.0, too.
_WHOLE = re.compile(r"([0-9]+)(\.0*)?")
# What is a number, but no class number, and is no name either beside class numbers.
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]*)?")
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
    Tabs, commas, semicolons or spaces stand between them, the same in all lines: of these, those
    that suit the most lines (so a path may hold spaces and commas where tabs end it, or where the
    label is one word). Cells with commas may be in quotes, and lines that begin with ``#`` are
    comments. Labels are all class numbers, or all names. A list is in UTF-8, or in UTF-16 with its
    mark. Of folders, hidden files are ignored, a warning says how many others are left out, and the
    order is that of their names.

    Args:
        root: holds ``train/<class>/*`` and ``val/<class>/*`` (or ``validation``, or ``test``).
        split: ``train`` or ``val``.
        file: a list of them instead; its paths are relative to ``root``.
        columns: of the paths and of the labels in the header of ``file``, where it has one;
            capitals do not matter.
        settings: what the user calls ``root`` and ``file``; by default as the DataModule does.

    Raises:
        UserError: there is no such folder or file; nothing is in it, or in the folder of a class;
            videos lie deeper than in those; or a line is none of a list: its path or label is
            missing, its label is a number where others are names, or another line has another
            label for the same video.
    """
    if file is not None:
        return _read_list(file, root, columns)
    root_name, file_name = settings or ("root", f"{split}_csv")
    folder = next((root / name for name in _FOLDERS[split] if (root / name).is_dir()), None)
    if folder is None:
        wanted = " or ".join(f"{name}/" for name in _FOLDERS[split])
        raise UserError(
            f"{root_name}={str(root)!r} holds no folder {wanted} with a folder of videos for every "
            f"class; set {root_name}, or {file_name} to a list of path,label."
        )
    found = find_class_files(folder, SUFFIXES, "videos")
    if found.loose and not found.paths:
        raise UserError(
            f"{folder} holds {found.loose} videos, but no folder of a class with any; move them to "
            f"{folder}/<class>/, or set {file_name} to a list of path,label."
        )
    if not found.paths:
        raise UserError(
            f"{folder} holds no videos; it must hold a folder for every class, with files such as "
            f"*.mp4 in it{found.aside}."
        )
    if found.empty:
        raise UserError(
            f"the class folder {folder / found.empty[0]} holds no videos, such as *.mp4; put some "
            f"into it, or take it away{found.aside}."
        )
    tell_left_out(folder, "videos", len(found.paths), dict(found.left_out))
    return VideoList(folder, [*found.paths], found.labels)


def check_files(videos: VideoList, file: Path, most_missing: float = 1) -> None:
    """Looks whether the videos of a list are there.

    Args:
        videos: of the list.
        file: of the list.
        most_missing: the share of them that may be missing; never all.

    Raises:
        UserError: more of them do not exist.
    """
    missing, total = [], len(videos.paths)
    for number, path in enumerate(videos.paths, 1):
        if is_missing(os.path.join(videos.folder, path)):
            missing.append(path)
        elif len(missing) + total - number <= most_missing * total:
            # Whatever becomes of the rest.
            return
    if len(missing) > most_missing * total or len(missing) == total:
        raise UserError(
            f"{len(missing)} of the {total} videos of {file} do not exist, such as {missing[0]!r}; "
            f"paths that do not begin with / are looked for in {videos.folder}: correct the list, "
            "or the folder."
        )


def _too_high(number: int) -> str:
    return (
        f"the class number {number}, but numbers count from 0 and must be below {_MOST_CLASSES}; "
        "number the classes anew, or name them."
    )


def are_folders(paths: Iterable[str], labels: Iterable[str]) -> bool:
    """Whether each video's label is the first folder of its path."""
    return all(path.startswith(f"{label}/") for path, label in zip(paths, labels, strict=True))


def tell_shared(train: VideoList, val: VideoList) -> None:
    """Says how many of the validation videos are training videos, too."""
    known, again = (
        [os.path.normpath(os.path.join(folder, path)) for path in videos.paths]
        for videos in (train, val)
        for folder in [os.path.realpath(videos.folder)]
    )
    if shared := sorted({*known} & {*again}):
        tell(
            f"{len(shared)} videos are in training and in validation, such as {shared[0]}; what is "
            "measured on them says nothing of new ones."
        )


def is_missing(path: str | Path) -> bool:
    """Whether there is no such file; what may not be looked at is not missing."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        pass
    return False


def _read_list(file: Path, root: Path, columns: tuple[str, str]) -> VideoList:
    text = _lines(file)
    lines = {n: line for n, line in enumerate(text, 1) if line.strip()[:1] not in ("", "#")}
    readings = [_pairs(lines, mark, columns) for mark in "\t,; "]
    pairs = min(readings, key=lambda reading: list(reading.values()).count(_NO_PAIR))
    if not pairs:
        raise UserError(f"the list {file} is empty; each line is a path and a label.")
    for number, pair in pairs.items():
        if pair is _NO_PAIR:
            raise UserError(
                f"line {number} of {file} is {lines[number].strip()[:80]!r}, but each line is a "
                "video file and a label with a comma, a semicolon, a tab or a space between, the "
                "same one in all lines; a list with other files or more columns needs a header "
                f"that names {columns[0]!r} and {columns[1]!r}, as path_column and label_column "
                "call them."
            )
    _check_labels(pairs, file)
    _check_repeated(pairs, file, root)
    paths, labels = (list(cells) for cells in zip(*pairs.values(), strict=True))
    tell_alike(file, dict.fromkeys(labels))
    return VideoList(root, paths, labels)


def _lines(file: Path) -> list[str]:
    try:
        content = file.read_bytes()
        # What PowerShell writes begins with one of these marks.
        is_wide = content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        text = content.decode("utf-16" if is_wide else "utf-8-sig")
    except OSError as error:
        raise UserError(f"the list {file} cannot be read: {error}.") from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"line {line} of the list {file} is not in UTF-8; save it so.") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(
            f"line {line} of the list {file} holds a zero byte and is not in UTF-8; save it so."
        )
    # Names of files may hold the other characters at which Python ends lines.
    return re.split(r"\r\n|\r|\n", text)


def _check_labels(pairs: dict[int, tuple[str, str]], file: Path) -> None:
    """Raises a UserError where labels are neither all names nor all class numbers."""
    numbers: dict[int, int] = {}
    names: dict[int, str] = {}
    for line, (_, label) in pairs.items():
        if label.startswith("-") and _NUMBER.fullmatch(label):
            raise UserError(
                f"line {line} of {file} has the label {label}, which is no class number but says "
                "that the video has none; leave such lines out, or give them their labels."
            )
        if (value := _class_number(label)) is not None:
            numbers[line] = value
        elif not _NUMBER.fullmatch(label):
            names[line] = label
    if numbers and names:
        (line, value), (other, name) = next(iter(numbers.items())), next(iter(names.items()))
        raise UserError(
            f"{file} has the class number {value} in line {line}, but the name {name!r} in line "
            f"{other}; number all of its classes, or name them all."
        )
    if len(numbers) == len(pairs) and (highest := max(numbers.values())) >= _MOST_CLASSES:
        line = next(line for line, value in numbers.items() if value == highest)
        raise UserError(f"line {line} of {file} has {_too_high(highest)}")


def _check_repeated(pairs: dict[int, tuple[str, str]], file: Path, root: Path) -> None:
    """Says how many lines name a video again; raises a UserError if with another label."""
    known: dict[str, tuple[int, str]] = {}
    repeated = []
    for line, (path, label) in pairs.items():
        first, same = known.setdefault(os.path.normpath(os.path.join(root, path)), (line, label))
        if label != same:
            raise UserError(
                f"line {line} of {file} labels {path} as {label!r}, but line {first} as {same!r}; "
                "keep one of them."
            )
        if line != first:
            repeated.append(line)
    if repeated:
        tell(
            f"{len(repeated)} of {len(pairs)} lines of {file}, such as line {repeated[0]}, name a "
            "video again, which counts twice."
        )


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


def number_labels(
    train: list[str], val: list[str], folders: bool = False
) -> tuple[list[str], list[int], list[int]]:
    """Class names, and the class number of each video.

    Labels that are all whole numbers (3 or 3.0) are class numbers already; otherwise the names that
    occur in training are sorted and numbered. Folders that are called 0 to K - 1 are class numbers,
    too; other numbers, such as years, are names where they are folders'. A warning says where
    classes have no videos.

    Args:
        train: labels of the training videos.
        val: labels of the validation videos.
        folders: whether all labels are names of folders.

    Returns:
        The K class names; the class numbers of the training and of the validation videos.

    Raises:
        UserError: validation has a class that training has not, a number is too high, or it is the
            only one in training and not 0.

    Example:
        >>> number_labels(["b", "a", "b"], ["a"])
        (['a', 'b'], [1, 0, 1], [0])
        >>> number_labels(["2", "0"], ["1"])
        (['0', '1', '2'], [2, 0], [1])
        >>> number_labels(["2019", "2020"], ["2020"], folders=True)
        (['2019', '2020'], [0, 1], [1])
    """
    whole = {label: _class_number(label) for label in {*train, *val}}
    known = {label: number for label, number in whole.items() if number is not None}
    is_counted = {*known.values()} == {*range(len(known))}
    if numbered := len(known) == len(whole) and (is_counted or not folders):
        highest = max(known.values(), default=0)
        if highest >= _MOST_CLASSES:
            raise UserError(f"a video has {_too_high(highest)}")
        names = [str(number) for number in range(highest + 1)]
        if highest and len(in_training := {known[label] for label in train}) == 1:
            raise UserError(
                f"all training videos have the class number {in_training.pop()}, beside which "
                "there is nothing to learn; correct the labels, or name the class."
            )
    else:
        names = sorted(set(train))
        if missing := sorted(set(val) - set(names)):
            raise UserError(
                f"the class {missing[0]!r} occurs in validation but not in training; both must "
                f"name their classes alike{like(missing[0], names)}"
            )
        known = {name: place for place, name in enumerate(names)}
    numbers = [known[label] for label in train], [known[label] for label in val]
    for split, found in zip(("training", "validation"), numbers, strict=True):
        if absent := sorted({*range(len(names))} - {*found}):
            why = " (the labels are whole numbers, and so class numbers)" if numbered else ""
            tell(
                f"{len(absent)} of the {len(names)} classes have no {split} videos, such as "
                f"{names[absent[0]]!r}{why}."
            )
    return names, *numbers
