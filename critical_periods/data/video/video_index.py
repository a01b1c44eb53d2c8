"""The index of a folder of videos: looked at once, kept in a file, brought up to date."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from filelock import FileLock
from PIL import Image
from tqdm import tqdm

from critical_periods.core.files import replacing
from critical_periods.data.video.frame_pairs import GRID_RATE, grid_length
from critical_periods.data.video.frames import probe, read_frames
from critical_periods.data.video.video_file import VideoError
from critical_periods.data.video.video_lists import VideoList

_FORMAT = 2
FOLDER = "critical_periods_index"


@dataclass
class VideoClips:
    """Videos on disk, by number: what a worker needs to read frames of any of them.

    Attributes:
        folder: that the paths are relative to.
        paths: of the videos, bytes [N].
        lengths: frames on each one's grid of 3 a second, int32 [N]; 0 where it cannot be decoded.
        reasons: what is wrong with those, bytes [N]; empty for sound ones.
        sizes: of the files in bytes, int64 [N]; -1 where there is none.
        short_side: pixels that larger frames are scaled down to.
    """

    folder: str
    paths: np.ndarray
    lengths: np.ndarray
    reasons: np.ndarray
    sizes: np.ndarray
    short_side: int = 256

    def read(self, number: int, places: Iterable[int]) -> list[Image.Image]:
        """Frames at these places of the video's grid.

        Raises:
            VideoError: the video cannot be decoded.
        """
        path = os.path.join(self.folder, os.fsdecode(self.paths[number]))
        frames = read_frames(path, [place / GRID_RATE for place in places], self.short_side)
        return [Image.fromarray(image) for image in frames.images]

    def contents(self) -> Iterator[Any]:
        """Paths, sizes and lengths, as buffers for a fingerprint; not what is in the files."""
        yield from path_buffers(self.paths)
        yield from (self.sizes.tobytes(), self.lengths.tobytes())


def read_index(videos: VideoList, file: Path, short_side: int = 256) -> VideoClips:
    """The index of some videos, from its file where it has one and made where it has not.

    A video is looked at again when its size or its time of change is another; all others are taken
    from the file, which is written anew when anything was. Of several processes one does the work.

    Args:
        videos: what to index.
        file: of the index; it need not exist.
        short_side: pixels that larger frames are scaled down to when they are read.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):
        paths = as_bytes(videos.paths)
        sizes, times = _states(videos)
        known = _load(file)
        same = known is not None and all(
            np.array_equal(known[name], now)
            for name, now in (("sizes", sizes), ("times", times), ("paths", paths))
        )
        if known is None or not same:
            lengths, reasons = _look(videos, sizes, times, known)
            known = {
                "format": np.array(_FORMAT), "lengths": lengths, "sizes": sizes, "times": times,
                "paths": paths, "reasons": as_bytes(reasons),
            }  # fmt: skip
            save_arrays(file, **known)
    folder = str(videos.folder)
    return VideoClips(folder, paths, known["lengths"], known["reasons"], sizes, short_side)


def as_bytes(strings: Iterable[str]) -> np.ndarray:
    """Strings in one array of bytes [N], which processes share.

    A list of 100,000 strings is 100,000 objects whose reference counts every worker writes to, so
    that each soon has a copy of its own. :func:`os.fsdecode` gives the string of a place.

    Example:
        >>> names = as_bytes(["left", "", "right"])
        >>> names, os.fsdecode(names[2])
        (array([b'left', b'', b'right'], dtype='|S5'), 'right')
    """
    return np.array([os.fsencode(string) for string in strings], dtype="S")


def path_buffers(paths: np.ndarray) -> Iterator[bytes]:
    """All paths and where each ends, as buffers for a fingerprint."""
    yield b"".join(paths.tolist())
    yield np.cumsum(np.char.str_len(paths), dtype=np.int64).tobytes()


def save_arrays(path: Path, **arrays: Any) -> None:
    """Writes an ``.npz`` file, whole or not at all."""
    with replacing(path) as part, open(part, "wb") as file:
        np.savez(file, **arrays)


# Looking at a file is waiting for the disk, and decoding its first frame, which frees the lock.
_THREADS = 2 * (os.cpu_count() or 1)
# Files that a thread asks for in one go; a task each would cost more than the asking.
_CHUNK = 256


def _states(videos: VideoList) -> tuple[np.ndarray, np.ndarray]:
    """Sizes of the files in bytes and when they changed, int64 [N] each; -1 where there is none."""
    states = np.full((len(videos.paths), 2), -1, np.int64)

    def ask(start: int) -> None:
        for number, path in enumerate(videos.paths[start : start + _CHUNK], start):
            with suppress(OSError):
                status = os.stat(os.path.join(videos.folder, path))
                states[number] = status.st_size, status.st_mtime_ns

    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(ask, range(0, len(states), _CHUNK)))
    return states[:, 0], states[:, 1]


def _load(file: Path) -> dict[str, np.ndarray] | None:
    try:
        with np.load(file) as arrays:
            found = dict(arrays)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
    return found if found.get("format") == _FORMAT else None


def _look(
    videos: VideoList, sizes: np.ndarray, times: np.ndarray, known: dict[str, np.ndarray] | None
) -> tuple[np.ndarray, list[str]]:
    """The grid's length and what is wrong, of each video; probes those that are not known."""
    lengths, reasons = np.zeros(len(sizes), np.int32), [""] * len(sizes)
    before: dict[tuple[str, int, int], int] = {}
    if known is not None:
        states = zip(*(known[name].tolist() for name in ("paths", "sizes", "times")), strict=True)
        before = {(os.fsdecode(path), *state): i for i, (path, *state) in enumerate(states)}
    new = []
    states = zip(sizes.tolist(), times.tolist(), strict=True)
    for number, (path, state) in enumerate(zip(videos.paths, states, strict=True)):
        old = before.get((path, *state))
        if known is None or old is None:
            new.append(number)
        else:
            lengths[number], reasons[number] = (
                known["lengths"][old],
                os.fsdecode(known["reasons"][old]),
            )
    full = [os.path.join(videos.folder, videos.paths[number]) for number in new]
    with ThreadPoolExecutor(_THREADS) as pool:
        results = tqdm(
            pool.map(_length, full), f"Looking at {videos.folder}", len(new), unit="video"
        )
        for number, (length, reason) in zip(new, results, strict=True):
            lengths[number], reasons[number] = length, reason
    return lengths, reasons


def _length(path: str) -> tuple[int, str]:
    try:
        return grid_length(probe(path).duration), ""
    except VideoError as error:
        return 0, error.reason


def index_folder(root: Path) -> Path:
    """Where the indices and the report of a data set lie: in it, or, if it is read-only, at home.

    ``$XDG_CACHE_HOME`` (or ``~/.cache``) then holds a folder named by the hash of the root.
    """
    inside = root / FOLDER
    try:
        inside.mkdir(exist_ok=True)
        if os.access(inside, os.W_OK):
            return inside
    except OSError:
        pass
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
    folder = cache / "critical_periods" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_report(file: Path, rows: Iterable[tuple[str, str, str]]) -> None:
    """Writes which videos are left out and why: columns split, path, reason."""
    with (
        replacing(file) as part,
        open(part, "w", encoding="utf-8", errors="surrogateescape", newline="") as out,
    ):
        writer = csv.writer(out)
        writer.writerow(("split", "path", "reason"))
        writer.writerows(rows)
