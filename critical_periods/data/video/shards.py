"""Reading frames that were extracted from videos: JPEGs, 3 a second, in a few large files."""

import io
import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from critical_periods.core.errors import UserError
from critical_periods.data.class_folders import tell
from critical_periods.data.video.video_file import VideoAccessError, VideoError
from critical_periods.data.video.video_index import DAMAGED, is_refused, path_buffers

INDEX = "index.npz"
# A shard, or the file that says what is in it; others' files may begin with "shard_", too.
NAME = re.compile(r"(shard_\d{5,}_[0-9a-f]{8})\.(bin|npz)")
# Version 0.1 lost the palettes that videos in these may have.
_WITH_PALETTES = (b".avi", b".divx", b".mov", b".qt", b".mkv", b".asf", b".wmv")


@dataclass
class ShardClips:
    """Extracted videos, by number; the same to a reader as the videos themselves.

    A shard is the records of its videos one after the other: where each of the n JPEGs of a video
    begins and the last one ends, counted from the record's own start (uint32 [n + 1]), then those.

    Attributes:
        folder: of the shards.
        shards: their file names, bytes [S].
        shard: number of each video's shard, int32 [N].
        starts: of each video's record in it, int64 [N].
        paths: that the videos had, bytes [N].
        labels: as they were written, bytes [N].
        lengths: frames of each, int32 [N]; 0 where the video could not be decoded.
        reasons: what was wrong with those, bytes [N].
        keeps_palettes: whether no version extracted them that lost the palettes of videos.
    """

    folder: str
    shards: np.ndarray
    shard: np.ndarray
    starts: np.ndarray
    paths: np.ndarray
    labels: np.ndarray
    lengths: np.ndarray
    reasons: np.ndarray
    keeps_palettes: bool = field(default=True, init=False)

    def read(self, number: int, places: Iterable[int]) -> list[Image.Image]:
        """Frames at these places of the video's grid; a VideoError where the shard is damaged."""
        path = os.path.join(self.folder, os.fsdecode(self.shards[self.shard[number]]))
        start, length = int(self.starts[number]), int(self.lengths[number])
        try:
            with open(path, "rb", buffering=0) as file:
                file.seek(start)
                bounds = np.frombuffer(file.read(4 * (length + 1)), np.uint32)
                images = []
                for place in places:
                    begin, end = bounds[place : place + 2].tolist()
                    file.seek(start + begin)
                    images.append(Image.open(io.BytesIO(file.read(end - begin))))
                    images[-1].load()
                return [*images]
        except (OSError, IndexError, ValueError) as error:
            # Where it is no matter of files, NumPy and Pillow speak of buffers.
            reason = getattr(error, "strerror", None) or "a frame is no JPEG"
            video = os.fsdecode(self.paths[number])
            if is_refused(error):
                raise VideoAccessError(video, f"cannot be read in {path}: {reason}") from error
            raise VideoError(video, f"is damaged in {path}: {reason}") from error

    def contents(self) -> Iterator[Any]:
        """Paths, lengths and the sizes of all records, as buffers for a fingerprint."""
        yield from path_buffers(self.paths)
        yield from (each.tobytes() for each in (self.lengths, self.shard, self.starts))


def open_shards(folder: Path) -> ShardClips | None:
    """The shards of a split; ``None`` where the folder holds none.

    Raises:
        UserError: a file is missing, damaged or of another size than the index has it.
    """
    stems = stems_in(folder)
    if not (folder / INDEX).exists():
        if not stems:
            return None
        raise UserError(
            f"{folder} holds a part of an extraction; run the same `critical-periods kinetics "
            "extract` again, which goes on where it stopped."
        )
    try:
        clips = load_index(folder)
    except DAMAGED as error:
        if not stems:
            # A file of that name may be anything.
            return None
        raise _damaged(folder / INDEX, "cannot be read", error) from error
    # The last record of each shard says where it ends.
    order = np.lexsort((clips.lengths, clips.starts, clips.shard))
    for number in order[np.diff(clips.shard[order], append=-1) != 0]:
        file = folder / os.fsdecode(clips.shards[clips.shard[number]])
        try:
            problem = problem_of(file, int(clips.starts[number]), int(clips.lengths[number]))
        except OSError as error:
            raise _damaged(file, "cannot be read", error) from error
        if problem:
            raise _damaged(file, problem)
    if not clips.keeps_palettes:
        _tell_black(clips)
    return clips


def _tell_black(clips: ShardClips) -> None:
    """Says which videos are black, as version 0.1 made those with palettes."""

    def is_black(number: int) -> bool:
        with suppress(VideoError):
            (image,) = clips.read(number, [int(clips.lengths[number]) // 2])
            return image.convert("L").getextrema() == (0, 0)
        return False

    lengths, paths = clips.lengths.tolist(), clips.paths.tolist()
    numbers = [n for n, path in enumerate(paths) if lengths[n] and may_lack_palette(path)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        is_each = pool.map(is_black, numbers)
        black = [os.fsdecode(paths[n]) for n, is_it in zip(numbers, is_each, strict=True) if is_it]
    if black:
        tell(
            f"{len(black)} of {len(paths)} videos in {clips.folder}, such as {black[0]}, are "
            "black, as an older version extracted those with palettes; run the same `critical-"
            "periods kinetics extract` again, which makes them anew."
        )


def may_lack_palette(path: bytes) -> bool:
    """Whether a video may have a palette, by its ending, of which old shards know nothing."""
    return os.path.splitext(path)[1].lower() in _WITH_PALETTES


def load_index(folder: Path) -> ShardClips:
    """What the index of a folder says; one of the errors in DAMAGED where it is none."""
    with np.load(folder / INDEX) as arrays:
        names = [each.name for each in fields(ShardClips) if each.init][1:]
        clips = ShardClips(str(folder), *(load_array(arrays, name) for name in names))
        clips.keeps_palettes = "keeps_palettes" in arrays
        return clips


def stems_in(folder: Path) -> set[str]:
    """Names of the shards in a folder, complete or not, without their endings."""
    names = os.listdir(folder) if folder.is_dir() else []
    return {match[1] for name in names if (match := NAME.fullmatch(name))}


def load_array(arrays: Any, name: str) -> np.ndarray:
    """An array of a file; version 0.1 wrote strings as a row of bytes and where each one ends."""
    if f"{name}_ends" not in arrays:
        return np.asarray(arrays[name])
    text, ends = arrays[f"{name}_text"].tobytes(), arrays[f"{name}_ends"].tolist()
    return np.array([text[start:end] for start, end in pairwise([0, *ends])], dtype="S")


def problem_of(shard: Path, start: int, length: int) -> str:
    """What is wrong with a shard whose last record begins at start and has length frames."""
    size, end = shard.stat().st_size, start
    if length:
        # Nothing, where the shard ends before.
        last = np.fromfile(shard, np.uint32, count=1, offset=start + 4 * length)
        end += max(int(last.sum()), 4 * (length + 1))
    return "" if size == end else f"has {size} bytes, which is not what its index says"


def _damaged(file: Path, problem: str, error: Exception | None = None) -> UserError:
    if error is not None and getattr(error, "strerror", None):
        problem += f": {getattr(error, 'strerror', '')}"
    if error is not None and is_refused(error):
        return UserError(f"{file} {problem}; see to permissions, disks and limits.")
    return UserError(
        f"{file} {problem}; copy it anew, or run the same `critical-periods kinetics extract` "
        "again, which makes anew what is damaged."
    )
