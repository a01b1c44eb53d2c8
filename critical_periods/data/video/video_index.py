"""The index of a folder of videos: how long each is, kept in a file and brought up to date."""

import csv
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from errno import ENOENT
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from PIL import Image
from tqdm import tqdm

from critical_periods.core.errors import UserError
from critical_periods.core.files import replacing
from critical_periods.core.locks import locked
from critical_periods.data.class_folders import tell
from critical_periods.data.video.frame_pairs import GRID_RATE, grid_length
from critical_periods.data.video.frames import probe, read_frames
from critical_periods.data.video.index_folder import lock_file
from critical_periods.data.video.video_file import VideoAccessError, VideoError
from critical_periods.data.video.video_lists import VideoList

_FORMAT = 3
# Pixels that the shorter side of larger frames is scaled down to when they are read.
_SHORT_SIDE = 256

# The columns of a report.
HEADER = ("split", "path", "reason")

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
    """

    folder: str
    paths: np.ndarray
    lengths: np.ndarray
    reasons: np.ndarray
    sizes: np.ndarray

    def read(self, number: int, places: Iterable[int]) -> list[Image.Image]:
        """Frames at these places of the video's grid; a VideoError where it cannot be decoded."""
        path = os.path.join(self.folder, os.fsdecode(self.paths[number]))
        frames = read_frames(path, [place / GRID_RATE for place in places], _SHORT_SIDE)
        return [Image.fromarray(image) for image in frames.images]

    def contents(self) -> Iterator[Any]:
        """Paths, sizes and lengths, as buffers for a fingerprint; not what is in the files."""
        yield from (*path_buffers(self.paths), self.sizes.tobytes(), self.lengths.tobytes())


def read_index(
    videos: VideoList,
    file: Path,
    root: Path | None = None,
    others: Iterable[Path] = (),
) -> VideoClips:
    """The index of some videos, from its file as far as that is up to date.

    The file has an entry for every video under a root that any list has named. One that is not
    there, or of another size or time of change, is looked at and entered, and what other lists have
    entered stays. Of several processes one does the work while the others wait. Nothing is entered
    of what the system, and not the file, said no to.

    Args:
        videos: what to index.
        file: of the index; it need not exist.
        root: that the index's paths are relative to; by default the folder of the list.
        others: files of other users' indices, or of older versions', whose entries hold, too.

    Raises:
        UserError: the file cannot be written, or the system does not give the bytes of a video.
    """
    paths = as_bytes(videos.paths)
    sizes, times = file_states(videos)
    states = [*zip(sizes.tolist(), times.tolist(), strict=True)]
    prefix = os.fsencode(os.path.relpath(videos.folder, root or videos.folder))
    keys = [_key(prefix, path) for path in paths.tolist()]
    waiting = f"Waiting for another process that looks at the videos of {videos.folder}."
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with locked(lock_file(file), waiting):
            known = _load(file, prefix)

            def unknown() -> list[int]:
                return [n for n, key in enumerate(keys) if known.get(key, ())[:2] != states[n]]

            if new := unknown():
                for other in others:
                    with suppress(OSError):
                        theirs = _load(other, prefix)
                        same = [n for n in new if theirs.get(keys[n], ())[:2] == states[n]]
                        known |= {keys[n]: theirs[keys[n]] for n in same}
            looked_at = _probe_all(videos, unknown())
            lasting = {
                keys[n]: (*states[n], *found)
                for n, (found, error) in looked_at.items()
                if states[n][0] >= 0 and (error is None or error.lasts)
            }
            if lasting or len(looked_at) < len(new):
                _save(file, known | lasting)
    except OSError as error:
        raise UserError(
            f"the index {file} cannot be read and written: {error.strerror or error}; see to it, "
            "or set data.init_args.index_dir to another folder."
        ) from error
    refused = [error for _, error in looked_at.values() if isinstance(error, VideoAccessError)]
    if refused:
        more = f", nor can {len(refused) - 1} more" if len(refused) > 1 else ""
        raise UserError(
            f"{refused[0]}{more}; as the system says so, and not the file, the index keeps nothing "
            "of it: see to permissions, disks and limits, and run the same again."
        )
    found = [looked_at[n][0] if n in looked_at else known[key][2:] for n, key in enumerate(keys)]
    lengths = np.array([length for length, _ in found], np.int32)
    reasons = np.array([reason for _, reason in found], dtype="S")
    return VideoClips(str(videos.folder), paths, lengths, reasons, sizes)


def _key(prefix: bytes, path: bytes) -> bytes:
    """A path as the index has it: relative to the root, but where it is absolute."""
    return os.path.normpath(os.path.join(prefix, path))


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


def file_states(videos: VideoList) -> tuple[np.ndarray, np.ndarray]:
    """Sizes of the files in bytes and when they changed, int64 [N] each; -1, 0 where is none."""
    states = np.tile(np.array([-1, 0]), (len(videos.paths), 1))

    def ask(start: int) -> None:
        for number, path in enumerate(videos.paths[start : start + _CHUNK], start):
            with suppress(OSError):
                status = os.stat(os.path.join(videos.folder, path))
                states[number] = status.st_size, status.st_mtime_ns

    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(ask, range(0, len(states), _CHUNK)))
    return states[:, 0], states[:, 1]


# How long a video is and what is wrong with it; in an index after its size and time of change.
_Finding = tuple[int, bytes]
_Entry = tuple[int, int, int, bytes]
_COLUMNS = ("sizes", "times", "lengths", "reasons")


def _load(file: Path, prefix: bytes) -> dict[bytes, _Entry]:
    """What an index says by path; nothing where it is missing, damaged or of an unknown version.

    Version 2 had paths relative to the list's folder, and called some videos broken for good that
    were not.

    Raises:
        OSError: the system does not let it be read.
    """
    try:
        with np.load(file) as arrays:
            version = int(arrays["format"])
            if version not in (2, _FORMAT):
                return {}
            paths, *columns = (arrays[name].tolist() for name in ("paths", *_COLUMNS))
            known = dict(zip(paths, zip(*columns, strict=True), strict=True))
            if version == 2:
                known = {_key(prefix, path): entry for path, entry in known.items() if entry[2]}
            return known
    except DAMAGED as error:
        if is_refused(error):
            raise
        return {}


def is_refused(error: Exception) -> bool:
    """Whether it is the system that does not give a file's bytes; NumPy's errors have no number."""
    return isinstance(error, OSError) and error.errno not in (None, ENOENT)


def _save(file: Path, known: dict[bytes, _Entry]) -> None:
    columns = zip(_COLUMNS, zip(*known.values(), strict=True), strict=True)
    save_arrays(
        file,
        format=_FORMAT,
        paths=np.array([*known]),
        **{name: np.array(values) for name, values in columns},
    )


def _probe_all(
    videos: VideoList, numbers: list[int]
) -> dict[int, tuple[_Finding, VideoError | None]]:
    """Looks at videos, in parallel; by number what is found, and the error where there is one."""

    def look(number: int) -> tuple[_Finding, VideoError | None]:
        path = os.path.join(videos.folder, videos.paths[number])
        try:
            return (grid_length(probe(path)), b""), None
        except VideoError as error:
            return (0, os.fsencode(error.reason)), error

    with ThreadPoolExecutor(_THREADS) as pool:
        progress = tqdm(
            pool.map(look, numbers), f"Looking at {videos.folder}", len(numbers), unit="video",
            disable=not numbers,
        )  # fmt: skip
        return dict(zip(numbers, progress, strict=True))


def write_report(file: Path, rows: Iterable[tuple[str, str, str]]) -> None:
    """Writes which videos are left out and why: columns split, path, reason.

    A report that cannot be written is a warning, as it is no reason to stop.
    """
    try:
        with (
            replacing(file) as part,
            open(part, "w", encoding="utf-8", errors="surrogateescape", newline="") as out,
        ):
            writer = csv.writer(out)
            writer.writerow(HEADER)
            writer.writerows(rows)
    except OSError as error:
        tell(f"The report {file} cannot be written: {error.strerror or error}.")
