"""The lines of a list of videos: a path and a label each."""

import codecs
import csv
import os
import re
from pathlib import Path

from critical_periods.core.errors import UserError
from critical_periods.data.class_folders import tell, tell_alike
from critical_periods.data.video.labels import check_labels

SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".f4v", ".mkv", ".webm", ".ogv", ".avi", ".divx",
    ".mpg", ".mpeg", ".mpe", ".vob", ".ts", ".mts", ".m2t", ".m2ts", ".mxf", ".flv", ".asf", ".wmv",
)  # fmt: skip
_NO_PAIR = ("", "")


def read_list(file: Path, root: Path, columns: tuple[str, str]) -> tuple[list[str], list[str]]:
    """The paths and the labels of a list, as :func:`~.video_lists.find_videos` describes it."""
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
    check_labels(pairs, file)
    _check_repeated(pairs, file, root)
    paths, labels = (list(cells) for cells in zip(*pairs.values(), strict=True))
    tell_alike(file, dict.fromkeys(labels))
    return paths, labels


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
        is_video = is_named or os.path.splitext(path)[1].lower() in SUFFIXES
        pairs[number] = (path, label) if path and label and is_video else _NO_PAIR
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
