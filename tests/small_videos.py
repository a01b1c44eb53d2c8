"""Small films to write as files, and their frames by decoding everything."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

SIDES = (48, 64)  # height and width


def film(frames: int, seed: int = 0) -> list[np.ndarray]:
    """Coloured noise that moves by two pixels a frame and gets brighter: no two frames alike."""
    noise = np.random.default_rng(seed).integers(0, 256, (*SIDES, 3), dtype=np.uint8)
    return [np.roll(noise, 2 * n, axis=1) // 2 + np.uint8(n) for n in range(frames)]


def write_video(
    path: Path,
    images: Sequence[np.ndarray],
    codec: str = "libx264",
    rate: int = 12,
    pix_fmt: str = "yuv420p",
    ticks: Sequence[int] | None = None,
    **options: Any,
) -> Path:
    """Writes RGB images as a video.

    Args:
        path: whose suffix names the format.
        images: uint8 [H, W, 3] each.
        codec: an encoder of FFmpeg's.
        rate: frames a second.
        pix_fmt: how the file stores colours.
        ticks: when each frame is shown, in thousandths of a second; by default at the rate.
        options: of the encoder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    settings = {name: str(value) for name, value in options.items()}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=settings)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pix_fmt
        if ticks is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if ticks is not None:
                frame.pts, frame.time_base = ticks[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_changing_video(
    path: Path, parts: Sequence[Sequence[np.ndarray]], codec: str, rate: int = 12, **options: Any
) -> Path:
    """Writes films of several sizes one after the other, as one stream of a WebM or a TS file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    base, number = Fraction(1, rate), 0
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = parts[0][0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for images in parts:
            encoder: Any = av.CodecContext.create(codec, "w")
            encoder.height, encoder.width = images[0].shape[:2]
            encoder.pix_fmt, encoder.time_base, encoder.framerate = "yuv420p", base, rate
            encoder.options = {name: str(value) for name, value in options.items()}
            packets: list[av.Packet] = []
            for image in images:
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = number, base
                packets += encoder.encode(frame)
                number += 1
            for packet in [*packets, *encoder.encode()]:
                packet.stream, packet.time_base = stream, base
                container.mux(packet)
    return path


def write_palette_video(path: Path, frames: int, codec: str = "rawvideo", rate: int = 12) -> Path:
    """Writes frames of 8 bits that a palette of the file's gives their colours."""
    draws = np.random.default_rng(0)
    palette = draws.integers(0, 256, (256, 4), dtype=np.uint8)
    palette[:, 3] = 255
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = SIDES
        stream.pix_fmt = "pal8"
        for _ in range(frames):
            image = draws.integers(0, 256, SIDES, dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray((image, palette), format="pal8")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def without_first_packets(path: Path, number: int) -> Path:
    """A copy of a video that leaves out so many packets at its beginning."""
    copy = path.with_name(f"cut_{path.name}")
    with av.open(str(path)) as source, av.open(str(copy), "w") as target:
        stream = source.streams.video[0]
        written = target.add_stream_from_template(stream)
        for count, packet in enumerate(source.demux(stream)):
            if packet.size and count >= number:
                packet.stream = written
                if path.suffix == ".avi":
                    packet.pts = packet.dts = (packet.dts or 0) - number
                target.mux(packet)
    return copy


class FullDecode:
    """All frames of a file, decoded by PyAV from its beginning to its end.

    Attributes:
        frames: in the order of showing.
        starts: when each one is shown, in seconds from the first.
    """

    def __init__(self, path: Path, rate: float | None = None) -> None:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            self.frames = list(container.decode(stream))
            if rate is None and path.suffix == ".avi":
                rate = float(stream.average_rate or 0)
            base = stream.time_base or Fraction(1)
        # AVI stores no times, and says how many frames there are a second.
        self.starts = (
            [float((frame.pts - self.frames[0].pts) * base) for frame in self.frames]
            if rate is None
            else [number / rate for number in range(len(self.frames))]
        )

    def number_at(self, time: float) -> int:
        """The last frame that begins no later than at a time (to a millionth of a second)."""
        return max(n for n, start in enumerate(self.starts) if start <= time + 1e-6)

    def image(self, number: int) -> np.ndarray:
        return self.frames[number].to_ndarray(format="rgb24")

    def images_at(self, times: Sequence[float]) -> list[np.ndarray]:
        return [self.image(self.number_at(time)) for time in times]
