"""The index of a folder of videos: how long each is, kept in a file and brought up to date."""

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
# What NumPy raises at a damaged .npz file.
DAMAGED = (OSError, ValueError, KeyError, EOFError, BadZipFile)


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
        """Frames at these places of the video's grid; a VideoError where it cannot be decoded."""
        path = os.path.join(self.folder, os.fsdecode(self.paths[number]))
        frames = read_frames(path, [place / GRID_RATE for place in places], self.short_side)
        return [Image.fromarray(image) for image in frames.images]

    def contents(self) -> Iterator[Any]:
        """Paths, sizes and lengths, as buffers for a fingerprint; not what is in the files."""
        yield from (*path_buffers(self.paths), self.sizes.tobytes(), self.lengths.tobytes())


def read_index(videos: VideoList, file: Path, short_side: int = 256) -> VideoClips:
    """The index of some videos, from its file as far as that is up to date.

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
        videos_now = [*zip(paths.tolist(), sizes.tolist(), times.tolist(), strict=True)]
        known = _load(file)
        before = [*known]
        known |= _probe_all(videos.folder, [video for video in videos_now if video not in known])
        lengths = np.array([known[video][0] for video in videos_now], np.int32)
        reasons = np.array([known[video][1] for video in videos_now], dtype="S")
        if videos_now != before:
            states = {"paths": paths, "sizes": sizes, "times": times}
            save_arrays(file, format=_FORMAT, **states, lengths=lengths, reasons=reasons)
    return VideoClips(str(videos.folder), paths, lengths, reasons, sizes, short_side)


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


# A video by its path, its size and when it changed; and its length and what is wrong with it.
_Video = tuple[bytes, int, int]
_Finding = tuple[int, bytes]


def _load(file: Path) -> dict[_Video, _Finding]:
    """What an index says; nothing where it is missing, damaged or of another version."""
    try:
        with np.load(file) as arrays:
            if arrays["format"] != _FORMAT:
                return {}
            videos = (arrays[name].tolist() for name in ("paths", "sizes", "times"))
            findings = (arrays[name].tolist() for name in ("lengths", "reasons"))
            return dict(zip(zip(*videos, strict=True), zip(*findings, strict=True), strict=True))
    except DAMAGED:
        return {}


def _probe_all(folder: Path, videos: list[_Video]) -> dict[_Video, _Finding]:
    """Probes videos, in parallel."""

    def length(video: _Video) -> _Finding:
        try:
            return grid_length(probe(os.path.join(folder, os.fsdecode(video[0]))).duration), b""
        except VideoError as error:
            return 0, os.fsencode(error.reason)

    with ThreadPoolExecutor(_THREADS) as pool:
        findings = pool.map(length, videos)
        progress = tqdm(findings, f"Looking at {folder}", len(videos), unit="video")
        return dict(zip(videos, progress, strict=True))


def index_folder(root: Path) -> Path:
    """Where the indices and the report of a data set lie: in it, or, if it is read-only, at home.

    ``$XDG_CACHE_HOME`` (or ``~/.cache``) then holds a folder named by the hash of the root.
    """
    folder = root / "critical_periods_index"
    with suppress(OSError):
        folder.mkdir(exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
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
