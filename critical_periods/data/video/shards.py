"""Frames that were extracted from videos once, 3 a second, as JPEGs in a few large files."""

import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, fields
from itertools import pairwise
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from critical_periods.core.errors import UserError
from critical_periods.core.files import replacing
from critical_periods.core.processes import end_with_parent
from critical_periods.data.video.frame_pairs import GRID_RATE, grid_length
from critical_periods.data.video.frames import probe, read_frames
from critical_periods.data.video.video_file import VideoError
from critical_periods.data.video.video_index import DAMAGED, as_bytes, path_buffers, save_arrays
from critical_periods.data.video.video_lists import VideoList

INDEX = "index.npz"
# Of the JPEGs; at 90 an error of one or two grey levels and about 25 kB a frame.
_QUALITY = 90
# About 100 MB a shard of ten-second clips, and half a minute's work of one core.
_VIDEOS = 128
# Frames of a video that are in memory at once: about 50 MB, and all of a clip of Kinetics.
_FRAMES = 128


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
    """

    folder: str
    shards: np.ndarray
    shard: np.ndarray
    starts: np.ndarray
    paths: np.ndarray
    labels: np.ndarray
    lengths: np.ndarray
    reasons: np.ndarray

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
    if not (folder / INDEX).exists():
        if any(folder.glob("shard_*")):
            raise UserError(
                f"{folder} holds a part of an extraction; run the same `critical-periods kinetics "
                "extract` again, which goes on where it stopped."
            )
        return None
    try:
        with np.load(folder / INDEX) as arrays:
            names = [field.name for field in fields(ShardClips)]
            clips = ShardClips(str(folder), *(_array(arrays, name) for name in names[1:]))
    except DAMAGED as error:
        raise _damaged(folder / INDEX, "cannot be read") from error
    # The last record of each shard says where it ends.
    order = np.lexsort((clips.lengths, clips.starts, clips.shard))
    for number in order[np.diff(clips.shard[order], append=-1) != 0]:
        file = folder / os.fsdecode(clips.shards[clips.shard[number]])
        if problem := _problem(file, int(clips.starts[number]), int(clips.lengths[number])):
            raise _damaged(file, problem)
    return clips


def _array(arrays: Any, name: str) -> np.ndarray:
    """An array of a file; version 0.1 wrote strings as a row of bytes and where each one ends."""
    if f"{name}_ends" not in arrays:
        return np.asarray(arrays[name])
    text, ends = arrays[f"{name}_text"].tobytes(), arrays[f"{name}_ends"].tolist()
    return np.array([text[start:end] for start, end in pairwise([0, *ends])], dtype="S")


def _problem(shard: Path, start: int, length: int) -> str:
    """What is wrong with a shard whose last record begins at start and has length frames."""
    try:
        size, end = shard.stat().st_size, start
        if length:
            # Nothing, where the shard ends before.
            last = np.fromfile(shard, np.uint32, count=1, offset=start + 4 * length)
            end += max(int(last.sum()), 4 * (length + 1))
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "" if size == end else f"has {size} bytes, which is not what its index says"


def _damaged(file: Path, problem: str) -> UserError:
    return UserError(
        f"{file} {problem}; copy it anew, or run the same `critical-periods kinetics extract` "
        "again, which makes anew what is damaged."
    )


class _Task(NamedTuple):
    videos: VideoList
    file: Path
    short_side: int


def extract(
    videos: VideoList,
    output: Path,
    short_side: int = 256,
    jobs: int = 1,
    videos_per_shard: int = _VIDEOS,
) -> ShardClips:
    """Writes 3 frames a second of all videos to shards, in parallel.

    Shards that are there already, from a run that was killed or was shorter, are kept as long as
    they are complete and their videos have neither changed size nor time. The index comes last.
    Broken videos have no frames in it, but a reason.

    Args:
        videos: what to extract.
        output: folder of the shards.
        short_side: frames whose shorter side is longer than this many pixels are scaled down to it.
        jobs: processes at once.
        videos_per_shard: how many videos a shard holds.
    """
    output.mkdir(parents=True, exist_ok=True)
    tasks: list[_Task] = []
    for start in range(0, len(videos.paths), videos_per_shard):
        part = slice(start, start + videos_per_shard)
        some = VideoList(videos.folder, videos.paths[part], videos.labels[part])
        name = f"shard_{len(tasks):05d}_{_stamp(some, short_side)}.bin"
        tasks.append(_Task(some, output / name, short_side))
    (output / INDEX).unlink(missing_ok=True)
    undone = [task for task in tasks if not _is_complete(task.file)]
    done = len(videos.paths) - sum(len(task.videos.paths) for task in undone)
    with tqdm(total=len(videos.paths), initial=done, desc=str(output), unit="video") as progress:
        for task in _make_shards(undone, jobs):
            progress.update(len(task.videos.paths))
    _write_index(output, tasks)
    clips = open_shards(output)
    assert clips is not None
    return clips


def _make_shards(tasks: list[_Task], jobs: int) -> Iterator[_Task]:
    """Makes the shards and yields each when it is complete."""
    if jobs == 1:
        for task in tasks:
            _make_shard(task)
            yield task
        return
    with ProcessPoolExecutor(jobs, _context(), end_with_parent) as pool:
        waiting = {pool.submit(_make_shard, task): task for task in tasks}
        try:
            for future in as_completed(waiting):
                future.result()
                yield waiting[future]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _context() -> BaseContext:
    """How processes start: not as copies of this one, in which FFmpeg may have threads."""
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    # Copies of a process that has done no more than import share its memory.
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _stamp(videos: VideoList, short_side: int) -> str:
    digest = hashlib.sha256(f"{short_side} {_QUALITY} {GRID_RATE}".encode())
    for path, label in zip(videos.paths, videos.labels, strict=True):
        state = -1, 0
        with suppress(OSError):
            status = os.stat(os.path.join(videos.folder, path))
            state = status.st_size, status.st_mtime_ns
        digest.update(repr((path, label, *state)).encode())
    return digest.hexdigest()[:8]


def _shard_index(shard: Path) -> Path:
    """The file that says what is in a shard; it is written when the shard is complete."""
    return shard.with_suffix(".npz")


def _is_complete(shard: Path) -> bool:
    try:
        with np.load(_shard_index(shard)) as arrays:
            start, length = int(arrays["starts"][-1]), int(arrays["lengths"][-1])
            _array(arrays, "reasons")
    except DAMAGED:
        return False
    return not _problem(shard, start, length)


def _make_shard(task: _Task) -> None:
    starts, lengths, reasons = [], [], []
    with replacing(task.file) as part, open(part, "wb") as out:
        for path in task.videos.paths:
            starts.append(out.tell())
            frames, reason = [], ""
            try:
                frames = _jpegs(os.path.join(task.videos.folder, path), task.short_side)
                bounds = 4 * (len(frames) + 1) + np.cumsum([0, *map(len, frames)])
                out.write(bounds.astype(np.uint32).tobytes())
                out.writelines(frames)
            except VideoError as error:
                reason = error.reason
            lengths.append(len(frames))
            reasons.append(reason)
    save_arrays(
        _shard_index(task.file),
        starts=np.array(starts, np.int64),
        lengths=np.array(lengths, np.int32),
        reasons=as_bytes(reasons),
    )


def _jpegs(path: str, short_side: int) -> list[bytes]:
    times = [place / GRID_RATE for place in range(grid_length(probe(path).duration))]
    coded = []
    for start in range(0, len(times), _FRAMES):
        for image in read_frames(path, times[start : start + _FRAMES], short_side).images:
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "JPEG", quality=_QUALITY)
            coded.append(buffer.getvalue())
    return coded


def _write_index(output: Path, tasks: list[_Task]) -> None:
    parts: dict[str, list[np.ndarray]] = {"starts": [], "lengths": [], "reasons": []}
    for task in tasks:
        with np.load(_shard_index(task.file)) as arrays:
            for name, values in parts.items():
                values.append(_array(arrays, name))
    starts, lengths, reasons = map(np.concatenate, parts.values())
    sizes = [len(task.videos.paths) for task in tasks]
    save_arrays(
        output / INDEX,
        starts=starts,
        lengths=lengths,
        shard=np.repeat(np.arange(len(tasks), dtype=np.int32), sizes),
        shards=as_bytes(task.file.name for task in tasks),
        paths=as_bytes(path for task in tasks for path in task.videos.paths),
        labels=as_bytes(label for task in tasks for label in task.videos.labels),
        reasons=reasons,
    )
    # What an earlier state of the videos, or a killed run, left behind is no part of it.
    kept = {name for task in tasks for name in (task.file.name, _shard_index(task.file).name)}
    for file in output.glob("shard_*"):
        if file.name not in kept:
            file.unlink()
