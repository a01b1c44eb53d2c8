"""An open video file: which packets a time needs, and the frames that they decode to."""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
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


# What the system says of a path that leads to no file.
_NO_FILE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG}
# Numbers of the system's that FFmpeg also gives for what it finds in a file.
_AMBIGUOUS = {errno.EPERM, errno.EINVAL, errno.ENOSYS, errno.ERANGE, errno.EDOM, errno.EAGAIN}
_DOUBTFUL = {errno.EIO, errno.ENOMEM}
# The reason of a video that is not there.
MISSING = f"cannot be read: {os.strerror(errno.ENOENT)}"


class VideoError(Exception):
    """A video that cannot be decoded: its path, and what is wrong with it, in a few words.

    Attributes:
        path: of the video.
        reason: what is wrong with it.
        lasts: whether it is the file's content, so that the same file will always be so.

    Example:
        >>> raise VideoError("a.mp4", "is empty")
        Traceback (most recent call last):
        ...
        critical_periods.data.video.video_file.VideoError: a.mp4 is empty
    """

    def __init__(self, path: str | Path, reason: str, lasts: bool = True) -> None:
        super().__init__(path, reason, lasts)
        self.path, self.reason, self.lasts = str(path), reason, lasts

    def __str__(self) -> str:
        return f"{self.path} {self.reason}"


class VideoAccessError(VideoError):
    """The system does not give the bytes of a file now: permissions, open files, the network, ….

    That says nothing about the video, and may be otherwise at the next reading.
    """

    def __init__(self, path: str | Path, reason: str, lasts: bool = False) -> None:
        super().__init__(path, reason, lasts)


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
        # The opening has read the first packets already, so that this one costs nothing.
        self._unread = self.container.demux(self.stream) if self.packets is None else iter(())
        self._first = self.packets[0] if self.packets else next(self._unread, None)
        self.can_seek = self._can_seek()

    def _can_seek(self) -> bool:
        """Whether what a decoder gives after a seek can be what it gives from the beginning on.

        A palette comes with the first packet alone. In a clip that begins without a key frame, or
        with frames that are predicted from what was before it, no packet says which frame the
        decoder gives first.
        """
        if self.stream.codec_context.pix_fmt == "pal8":
            return False
        first, start = self._first, self.stream.start_time
        if first is None or not first.is_keyframe:
            return False
        return self.by_count or first.pts is None or start is None or first.pts <= start

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
        # A key frame that the decoder does not give is none, but where a picture begins to be
        # refreshed piece by piece.
        from_key = self.by_count or run[0].is_discard
        for packet in [*run[: last + 1], None]:
            skip = skips and packet is not None and packet.pts not in wanted
            context.skip_frame = "NONREF" if skip else "DEFAULT"
            for frame in context.decode(packet):
                time = order[given] if self.by_count and given < len(order) else frame.pts
                given += 1
                from_key |= time == run[0].pts
                if time not in wanted:
                    continue
                if not from_key:
                    raise VideoError(self.path, "is damaged: a key frame cannot be decoded")
                if frame.is_corrupt:
                    raise VideoError(self.path, "is damaged: a frame is decoded only in part")
                found.add(time)
                yield time, frame
                if found == wanted:
                    self.decoded += given
                    return
        raise VideoError(self.path, "is damaged: a frame cannot be decoded")

    def decode_all(self) -> Iterator[tuple[int, VideoFrame]]:
        """All frames with their time stamps, from the first packet on; only before any seek.

        Packets before the first frame may be of no use to the decoder.
        """
        packets = [self._first] if self.packets is None else [*self.packets, None]
        times: list[int] = []
        for packet in chain(packets, self._unread):
            if self.by_count and packet is not None and packet.size:
                times.append(self.time(packet))
            try:
                frames = self.stream.codec_context.decode(packet)
            except av.error.InvalidDataError:
                if self.decoded:
                    raise
                continue
            for frame in frames:
                time = times[self.decoded] if self.by_count else frame.pts
                if time is None:
                    raise VideoError(self.path, "does not say when its frames are shown")
                self.decoded += 1
                yield time, frame

    def scan(self) -> float:
        """Duration in seconds, from all packets of the stream."""
        zero = self.stream.start_time or 0
        ends = [self.time(packet) + (packet.duration or 0) for packet in self._from(zero)]
        return float((max([zero, *ends]) - zero) * self.tick)


@contextmanager
def open_video(path: str | Path) -> Iterator[VideoFile]:
    """An open video; whatever error FFmpeg or the system raises becomes a VideoError."""
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
    except (av.FFmpegError, OSError, ValueError, MemoryError) as error:
        raise _video_error(path, error) from error


def _video_error(path: str | Path, error: Exception) -> VideoError:
    """What an error says of a video: that its content is bad, or that the system gives none."""
    number = getattr(error, "errno", None)
    by_ffmpeg = isinstance(error, av.FFmpegError)
    of_system = number in errno.errorcode and not (by_ffmpeg and number in _AMBIGUOUS | _DOUBTFUL)
    if by_ffmpeg and not of_system:
        # What the system refuses to a demuxer is often told as an error in the file.
        try:
            _read_through(path)
        except OSError as refusal:
            error, of_system = refusal, True
    reason = f"cannot be read: {getattr(error, 'strerror', None) or str(error) or 'out of memory'}"
    if (of_system and getattr(error, "errno", None) not in _NO_FILE) or (
        isinstance(error, MemoryError) and not by_ffmpeg
    ):
        return VideoAccessError(path, reason)
    return VideoError(path, reason, lasts=not of_system and number not in _DOUBTFUL)


# What versions before 0.2 said of videos that can be read.
_MENDED = ("has no key frame to start decoding from", "is damaged: a frame cannot be decoded")


def may_pass(reason: str) -> bool:
    """Whether the reason that was kept of a video may have been the system's or an older version's.

    Example:
        >>> may_pass("cannot be read: Permission denied"), may_pass("is empty")
        (True, False)
    """
    numbers = errno.errorcode.keys() - _NO_FILE - _AMBIGUOUS
    refusals = {f"cannot be read: {os.strerror(number)}" for number in numbers}
    return reason in refusals or reason in _MENDED


def _read_through(path: str | Path) -> None:
    """Reads all of a file; the system's error where it does not give it."""
    with open(path, "rb", buffering=0) as file:
        while file.read(1 << 20):
            pass
