"""``critical-periods kinetics extract``: from videos to shards of JPEGs."""

import hashlib
import io
import os
import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import NamedTuple

import numpy as np
from filelock import Timeout
from PIL import Image
from tqdm import tqdm

from critical_periods.core.errors import UserError
from critical_periods.core.files import replacing
from critical_periods.core.locks import locked
from critical_periods.core.processes import end_with_parent
from critical_periods.data.video.frame_pairs import GRID_RATE, grid_length
from critical_periods.data.video.frames import probe, read_frames
from critical_periods.data.video.shards import (
    INDEX,
    NAME,
    ShardClips,
    load_array,
    load_index,
    may_lack_palette,
    open_shards,
    problem_of,
    stems_in,
)
from critical_periods.data.video.video_file import VideoAccessError, VideoError, may_pass
from critical_periods.data.video.video_index import DAMAGED, as_bytes, file_states, save_arrays
from critical_periods.data.video.video_lists import VideoList

_LOCK = "extract.lock"
# Of the JPEGs; at 90 an error of one or two grey levels and about 25 kB a frame.
_QUALITY = 90
# About 100 MB a shard of ten-second clips, and half a minute's work of one core.
_VIDEOS = 128
# Frames of a video that are in memory at once: about 50 MB, and all of a clip of Kinetics.
_FRAMES = 128


class _Task(NamedTuple):
    videos: VideoList
    file: Path
    short_side: int
    source: str


def extract(
    videos: VideoList,
    output: Path,
    short_side: int = 256,
    jobs: int = 1,
    videos_per_shard: int = _VIDEOS,
    source: Path | None = None,
) -> ShardClips:
    """Writes 3 frames a second of all videos to shards, in parallel.

    Shards that are there already, from a run that was killed or was shorter, are kept as long as
    they are complete and their videos have neither changed size nor time; those of an earlier state
    of the same source go at the end. Nothing else in the folder is touched. The index comes last.
    Broken videos have no frames in it, but a reason.

    Args:
        videos: what to extract.
        output: folder of the shards.
        short_side: frames whose shorter side is longer than this many pixels are scaled down to it.
        jobs: processes at once.
        videos_per_shard: how many videos a shard holds.
        source: the list or folder that the videos come from; by default their folder.

    Raises:
        UserError: the folder holds the shards of another source, another process writes to it, or
            the system does not give the bytes of a video.
    """
    output.mkdir(parents=True, exist_ok=True)
    lock = output / _LOCK
    try:
        with locked(lock):
            try:
                return _extract(
                    videos, output, short_side, jobs, videos_per_shard, source or videos.folder
                )
            finally:
                lock.unlink(missing_ok=True)
    except Timeout as error:
        raise UserError(
            f"another `critical-periods kinetics extract` writes to {output} now; wait for its "
            "end, or choose another --output."
        ) from error


def _extract(
    videos: VideoList, output: Path, short_side: int, jobs: int, videos_per_shard: int, source: Path
) -> ShardClips:
    tasks: list[_Task] = []
    for start in range(0, len(videos.paths), videos_per_shard):
        part = slice(start, start + videos_per_shard)
        some = VideoList(videos.folder, videos.paths[part], videos.labels[part])
        name = f"shard_{len(tasks):05d}_{_stamp(some, short_side)}.bin"
        tasks.append(_Task(some, output / name, short_side, str(source.resolve())))
    outdated = _outdated(output, tasks)
    undone = [task for task in tasks if not _is_complete(task)]
    (output / INDEX).unlink(missing_ok=True)
    done = len(videos.paths) - sum(len(task.videos.paths) for task in undone)
    refusals: list[VideoAccessError] = []
    with tqdm(total=len(videos.paths), initial=done, desc=str(output), unit="video") as progress:
        for task, refusal in _make_shards(undone, jobs):
            if isinstance(refusal, VideoAccessError):
                refusals.append(refusal)
            progress.update(len(task.videos.paths))
    if refusals:
        raise UserError(
            f"{refusals[0]}; as the system says so, and not the file, {len(refusals)} of "
            f"{len(tasks)} shards in {output} wait for it: see to permissions, disks and limits, "
            "and run the same again, which goes on where it stopped."
        )
    _write_index(output, tasks)
    _remove(output, outdated, [task.file.stem for task in tasks])
    clips = open_shards(output)
    assert clips is not None
    return clips


def _outdated(output: Path, tasks: list[_Task]) -> list[str]:
    """Shards in a folder that come from an earlier state of these videos, by name.

    Raises:
        UserError: there are some of another source, or an index that is none of shards.
    """
    stems = stems_in(output)
    try:
        stems |= {Path(os.fsdecode(name)).stem for name in load_index(output).shards}
    except DAMAGED as error:
        if not stems and (output / INDEX).exists():
            raise UserError(
                f"{output / INDEX} is there already and is none of `critical-periods kinetics "
                "extract`; choose another --output."
            ) from error
    outdated = sorted(stems - {task.file.stem for task in tasks})
    for stem in outdated:
        source = _source(output / f"{stem}.npz")
        if source != tasks[0].source:
            raise UserError(
                f"{output} holds frames of {source or 'unknown videos, from an older version'}, "
                f"whose place those of {tasks[0].source} would take; choose another --output, or "
                f"remove {output} first."
            )
    return outdated


def _source(index: Path) -> str:
    """What a shard's index says of where the videos come from; empty where it does not."""
    try:
        with np.load(index) as arrays:
            return os.fsdecode(arrays["source"].item())
    except DAMAGED:
        return ""


def _remove(output: Path, outdated: list[str], current: list[str]) -> None:
    """Takes outdated shards away, and what a killed process left of any of ours."""
    for name in os.listdir(output):
        if (match := NAME.match(name)) is None:
            continue
        rest = name[match.end() :]
        is_left = re.fullmatch(r"\.\d+\.part", rest) and match[1] in {*outdated, *current}
        if is_left or (not rest and match[1] in outdated):
            (output / name).unlink()


def _make_shards(tasks: list[_Task], jobs: int) -> Iterator[tuple[_Task, VideoAccessError | None]]:
    """Makes the shards and yields each when it is complete, or with why it is not made."""
    if jobs == 1:
        for task in tasks:
            yield task, _make_shard(task)
        return
    with ProcessPoolExecutor(jobs, _context(), end_with_parent) as pool:
        waiting = {pool.submit(_make_shard, task): task for task in tasks}
        try:
            for future in as_completed(waiting):
                yield waiting[future], future.result()
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
    states = (state.tolist() for state in file_states(videos))
    for video in zip(videos.paths, videos.labels, *states, strict=True):
        digest.update(repr(video).encode())
    return digest.hexdigest()[:8]


def _shard_index(shard: Path) -> Path:
    """The file that says what is in a shard; it is written when the shard is complete."""
    return shard.with_suffix(".npz")


def _is_complete(task: _Task) -> bool:
    try:
        with np.load(_shard_index(task.file)) as arrays:
            start, length = int(arrays["starts"][-1]), int(arrays["lengths"][-1])
            reasons = {os.fsdecode(reason) for reason in load_array(arrays, "reasons").tolist()}
            is_old = "source" not in arrays
        if is_old and any(may_lack_palette(os.fsencode(path)) for path in task.videos.paths):
            return False
        return not problem_of(task.file, start, length) and not any(map(may_pass, reasons))
    except DAMAGED:
        return False


def _make_shard(task: _Task) -> VideoAccessError | None:
    """Writes a shard and its index; nothing where the system does not give the bytes of a video."""
    try:
        _write_shard(task)
    except VideoAccessError as refusal:
        return refusal
    return None


def _write_shard(task: _Task) -> None:
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
            except VideoAccessError:
                raise
            except VideoError as error:
                reason = error.reason
            lengths.append(len(frames))
            reasons.append(reason)
    save_arrays(
        _shard_index(task.file),
        starts=np.array(starts, np.int64),
        lengths=np.array(lengths, np.int32),
        reasons=as_bytes(reasons),
        source=np.array(os.fsencode(task.source)),
    )


def _jpegs(path: str, short_side: int) -> list[bytes]:
    times = [place / GRID_RATE for place in range(grid_length(probe(path)))]
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
                values.append(load_array(arrays, name))
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
        keeps_palettes=np.array(True),
    )
