"""Single frames of a video file, by seeking to the key frame before and decoding from there."""

from collections.abc import Sequence
from contextlib import suppress
from math import floor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from av.video.frame import VideoFrame

from critical_periods.data.video.video_file import VideoError, VideoFile, open_video

# Times are asked for as decimal fractions of a second; a frame may begin a rounding error later.
_TOLERANCE = 1e-6
# Eleven days; what claims to last longer has a damaged header.
_LONGEST = 1e6


class Frames(NamedTuple):
    """Decoded frames and what they cost.

    Attributes:
        images: RGB, uint8 [H, W, 3] each, upright, in the order of the times asked for.
        decoded: frames that the decoder gave until it had given all of these.
    """

    images: list[np.ndarray]
    decoded: int


def read_frames(path: str | Path, times: Sequence[float], short_side: int | None = None) -> Frames:
    """The frames that are shown at the given times.

    A frame is shown from its own time stamp to the next frame's, whatever the rate does, and the
    last one for ever. Time 0 is the first frame's. The video is read from the last key frame at or
    before each time; times between the same two key frames share one pass. Frames on the way that
    no other frame is predicted from are not even decoded where the format lets one tell (H.264,
    MPEG-4, MPEG-2). Of AVI files with frames that are predicted from later ones, which do not say
    where they are shown, all frames are counted from the first one.

    Args:
        path: a file that FFmpeg can read, of any pixel format.
        times: in seconds, in any order, from 0.
        short_side: frames whose shorter side is longer than this many pixels are scaled down to it.

    Returns:
        The frames and how many the decoder gave for them.

    Raises:
        VideoError: the file is empty, cut off, damaged or no video.

    Example:
        >>> read_frames("none.mp4", [0.0])
        Traceback (most recent call last):
        ...
        critical_periods.data.video.video_file.VideoError: none.mp4 cannot be read: No such file...
    """
    with suppress(VideoError), open_video(path) as video:
        if video.can_seek:
            return _by_seeking(video, times, short_side)
    # What cannot be decoded from a key frame on may be from the beginning on, and if it cannot be
    # there, either, that says what is wrong.
    with open_video(path) as video:
        return _from_start(video, times, short_side)


def _by_seeking(video: VideoFile, times: Sequence[float], short_side: int | None) -> Frames:
    zero = video.stream.start_time or 0
    ticks = [zero + floor((time + _TOLERANCE) / video.tick) for time in times]
    images: dict[int, np.ndarray] = {}
    # Backwards, so that a second seek is made only for what lies before the last key frame.
    waiting = sorted(set(ticks), reverse=True)
    while waiting:
        run = video.run_to(waiting[0])
        inside = [tick for tick in waiting if tick >= video.time(run[0])]
        waiting = waiting[len(inside) :]
        shown = video.shown(run, inside)
        decoded = video.decode(run, set(shown.values()))
        found = {time: _upright_rgb(frame, short_side) for time, frame in decoded}
        images |= {tick: found[time] for tick, time in shown.items()}
    return Frames([images[tick] for tick in ticks], video.decoded)


def _from_start(video: VideoFile, times: Sequence[float], short_side: int | None) -> Frames:
    """The frames of a decoding of everything, which stops after the last of these times."""
    ticks = [floor((time + _TOLERANCE) / video.tick) for time in times]
    waiting = sorted(set(ticks), reverse=True)
    images: dict[int, np.ndarray] = {}
    zero, shown = 0, None
    for time, frame in video.decode_all():
        if shown is None:
            zero = time
        elif inside := [tick for tick in waiting if zero + tick < time]:
            images |= dict.fromkeys(inside, _upright_rgb(_whole(video, shown), short_side))
            waiting = waiting[: -len(inside)]
        if not waiting:
            break
        shown = frame
    if shown is None:
        raise VideoError(video.path, "holds no frame that can be decoded")
    if waiting:
        images |= dict.fromkeys(waiting, _upright_rgb(_whole(video, shown), short_side))
    return Frames([images[tick] for tick in ticks], video.decoded)


def _whole(video: VideoFile, frame: VideoFrame) -> VideoFrame:
    if frame.is_corrupt:
        raise VideoError(video.path, "is damaged: a frame is decoded only in part")
    return frame


def probe(path: str | Path) -> float:
    """How many seconds a video lasts, and a check that it is complete and can be decoded.

    Where the file says how long it is and how many frames it has (MP4, AVI), and these are at least
    one a second, only the first frame is read beside that; else all of the file is, though no more
    than one frame is decoded.

    Raises:
        VideoError: as :func:`read_frames`.
    """
    with suppress(VideoError), open_video(path) as video:
        if video.can_seek:
            return _look(video)
    with open_video(path) as video:
        return _look_at_all(video)


def _look(video: VideoFile) -> float:
    stream, zero = video.stream, video.stream.start_time or 0
    run = video.run_to(zero)
    next(video.decode(run, set(video.shown(run, [zero]).values())))
    duration = float((stream.duration or 0) * video.tick)
    return _checked(video, duration if 0 < duration <= stream.frames else video.scan())


def _look_at_all(video: VideoFile) -> float:
    """By decoding every frame, where the first ones are none that a seek would find."""
    zero, end = None, 0
    for time, frame in video.decode_all():
        if zero is None:
            _whole(video, frame)
            zero = time
        end = max(end, time + _ticks_shown(video, frame))
    if zero is None:
        raise VideoError(video.path, "holds no frame that can be decoded")
    return _checked(video, float((end - zero) * video.tick))


def _ticks_shown(video: VideoFile, frame: VideoFrame) -> int:
    rate = video.stream.average_rate
    return frame.duration or (round(1 / (rate * video.tick)) if rate else 1)


def _checked(video: VideoFile, duration: float) -> float:
    if duration > _LONGEST:
        raise VideoError(video.path, f"claims to last {duration:.0f} s")
    return duration


def _upright_rgb(frame: VideoFrame, short_side: int | None) -> np.ndarray:
    width, height = frame.width, frame.height
    short = min(width, height)
    if short_side is not None and short > short_side:
        width, height = (round(side * short_side / short) for side in (width, height))
    image = frame.reformat(width, height, format="rgb24").to_ndarray()
    return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))
