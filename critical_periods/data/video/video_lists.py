"""Which videos there are and what they show: a folder for each class, or a list in a file."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from critical_periods.core.errors import UserError
from critical_periods.data.class_folders import (
    find_class_files,
    tell,
    tell_left_out,
)
from critical_periods.data.video.list_file import SUFFIXES, read_list

# What the two columns of a list are called in its header.
COLUMNS = ("path", "label")

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
        return VideoList(root, *read_list(file, root, columns))
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
