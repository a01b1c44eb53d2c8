"""An open video file: which packets a time needs, and the frames that they decode to."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from critical_periods.data.video.truncation import is_cut_off

# A picture on the cover of a sound file counts as a stream of video, too.
_COVER = Disposition.attached_pic
# Their decoders can leave out a frame that no other is predicted from before any work is done.
_SKIPPING = ("h264", "mpeg4", "mpeg2video")
# AVI: frames that a decoder may hold back before it gives them in the order of showing.
_HELD_BACK = 16
# Broadcasts and discs have no index: a seek lands in the middle of a frame, and the times of those
# that follow it are guesses.
_NO_SEEKING = ("mpeg", "mpegts")


class VideoError(Exception):
    """A video that cannot be decoded: its path, and what is wrong with it, in a few words.

    Example:
        >>> raise VideoError("a.mp4", "is empty")
        Traceback (most recent call last):
        ...
        critical_periods.data.video.video_file.VideoError: a.mp4 is empty
    """

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = str(path), reason

    def __str__(self) -> str:
        return f"{self.path} {self.reason}"


@dataclass
class VideoFile:
    """An open file and the arithmetic of its packets; ticks are the stream's units of time."""

    path: str | Path
    container: InputContainer
    stream: VideoStream
    decoded: int = 0

    def __post_init__(self) -> None:
        # AVI stores no times of showing, and FFmpeg's guesses fail where B-frames are packed. Its
        # rate is constant: the n-th frame that the decoder gives is shown in the n-th place.
        self.by_count = self.container.format.name == "avi"
        self.tick = self.stream.time_base or Fraction(1, 1000)
        self.margin = _HELD_BACK if self.by_count else 0
        self.packets: list[av.Packet] | None = None
        if self.container.format.name in _NO_SEEKING:
            self.packets = [packet for packet in self.container.demux(self.stream) if packet.size]

    def time(self, packet: av.Packet) -> int:
        """When the packet's frame is shown; in AVI, when the n-th frame is, for the n-th packet."""
        time = packet.dts if self.by_count else packet.pts
        if time is None:
            raise VideoError(self.path, "does not say when its frames are shown")
        return time

    def run_to(self, tick: int) -> list[av.Packet]:
        """From the last key frame shown at or before a tick to the first packet beyond it.

        A packet is never shown before the time that it is decoded at, so what follows one whose
        decoding time lies beyond the tick cannot be what the tick shows.
        """
        start = self.stream.start_time or 0
        # How many frames after a key frame are shown before it, no packet of an AVI says, so where
        # there may be such, frames are counted from the first one.
        from_start = self.by_count and self.stream.codec_context.has_b_frames
        place = start if from_start else max(tick, start)
        for _ in range(3):
            run: list[av.Packet] = []
            for packet in self._from(place):
                # Without an index a seek may land some key frames early.
                if packet.is_keyframe and self.time(packet) <= tick and not (from_start and run):
                    run = []
                run.append(packet)
                if packet.dts is not None and packet.dts > tick + self.margin:
                    break
            if run and run[0].is_keyframe and self.time(run[0]) <= tick:
                return run
            # A seek goes by the time of decoding; the key frame may be shown after the tick.
            early = run[0].dts if run and place == tick else None
            place = start if early is None else min(early, tick) - 1
        raise VideoError(self.path, "has no key frame to start decoding from")

    def _from(self, place: int) -> Iterator[av.Packet]:
        """The packets from the key frame before a place on, in the order of decoding."""
        if self.packets is not None:
            yield from self.packets
            return
        self.container.seek(place, stream=self.stream)
        for packet in self.container.demux(self.stream):
            if not packet.size:
                break
            yield packet

    def shown(self, run: list[av.Packet], ticks: Sequence[int]) -> dict[int, int]:
        """The time stamp of the frame that is shown at each tick."""
        times = [self.time(packet) for packet in run if not packet.is_discard]
        first = min(times)
        return {tick: max((t for t in times if t <= tick), default=first) for tick in ticks}

    def decode(self, run: list[av.Packet], wanted: set[int]) -> Iterator[tuple[int, VideoFrame]]:
        """The frames with these time stamps, from the packets of one key frame on."""
        skips = not self.by_count and self.stream.codec_context.name in _SKIPPING
        order = sorted(self.time(packet) for packet in run)
        last = max(i for i, packet in enumerate(run) if self.by_count or packet.pts in wanted)
        context = self.stream.codec_context
        context.flush_buffers()
        given, found = 0, set()
        for packet in [*run[: last + 1], None]:
            skip = skips and packet is not None and packet.pts not in wanted
            context.skip_frame = "NONREF" if skip else "DEFAULT"
            for frame in context.decode(packet):
                time = order[given] if self.by_count and given < len(order) else frame.pts
                given += 1
                if time not in wanted:
                    continue
                if frame.is_corrupt:
                    raise VideoError(self.path, "is damaged: a frame is decoded only in part")
                found.add(time)
                yield time, frame
                if found == wanted:
                    self.decoded += given
                    return
        raise VideoError(self.path, "is damaged: a frame cannot be decoded")

    def scan(self) -> tuple[float, int]:
        """Duration in seconds and number of frames, from all packets of the stream."""
        zero = end = self.stream.start_time or 0
        frames = 0
        for packet in self._from(zero):
            end = max(end, self.time(packet) + (packet.duration or 0))
            frames += 1
        return float((end - zero) * self.tick), frames


@contextmanager
def open_video(path: str | Path) -> Iterator[VideoFile]:
    """An open video; whatever error FFmpeg raises becomes a VideoError."""
    try:
        if not Path(path).stat().st_size:
            raise VideoError(path, "is empty")
        if is_cut_off(path):
            raise VideoError(path, "is cut off")
        with av.open(str(path), metadata_errors="ignore") as container:
            streams = [s for s in container.streams.video if not s.disposition & _COVER]
            if not streams or streams[0].codec_context is None:
                raise VideoError(path, "holds no video")
            # A worker is one thread; a decoder with several holds back more frames.
            streams[0].codec_context.thread_count = 1
            yield VideoFile(path, container, streams[0])
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise VideoError(path, f"cannot be read: {reason}") from error
