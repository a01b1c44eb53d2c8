"""Moving digits as video files in the layout of Kinetics."""

from pathlib import Path

import av
import numpy as np
import torch

from critical_periods.core.errors import UserError
from critical_periods.data.moving_digits import MovingDigitsDataModule
from critical_periods.data.video.frame_pairs import GRID_RATE

# Of x264, from 0 to 51: a frame is its scene to within a few grey levels.
_QUALITY = 4


def write_videos(
    root: str | Path,
    data: MovingDigitsDataModule,
    train: int = 64,
    val: int = 64,
    seconds: float = 2.0,
) -> None:
    """Writes scenes of moving digits as ``train/<class>/*.mp4`` and ``val/<class>/*.mp4``.

    A clip is a scene as it is evaluated, in which the digit moves by a pixel a frame, at
    3 · ``data.step`` frames a second. So two frames 1/3 s apart show it moved by ``data.step``
    pixels, as the DataModule's views do (the first two frames so far apart are those very views),
    and a :class:`~critical_periods.data.KineticsDataModule` with this ``root``, ``delay: 1`` and
    ``image_size: data.size`` reads the same task back. In training it cuts out a part of the
    frames, though, and mirrors half of the samples, so that left and right become one.

    Files are H.264 and bear the sample's index: ``val/down/00017.mp4``. The first frame is the
    only key frame. Clips of training digits make ``train``, clips of test digits ``val``.

    Args:
        root: the data set's folder, which is made where there is none.
        data: whose scenes; its ``size`` must be even.
        train: how many clips of training digits.
        val: how many of test digits.
        seconds: how long a clip is.

    Raises:
        UserError: ``size`` is odd, a clip is too short for two frames 1/3 s apart, or there are
            fewer samples than clips.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> data = MovingDigitsDataModule(label="motion")
        >>> with TemporaryDirectory() as root:
        ...     write_videos(root, data, train=8, val=8)
        ...     len(list(Path(root).glob("train/*/*.mp4")))
        8
    """
    if data.size % 2:
        raise UserError(
            f"size={data.size} of the moving digits must be even in a video, which stores colours "
            "for two by two pixels."
        )
    rate = GRID_RATE * data.step
    frames = round(seconds * rate)
    if frames <= data.step:
        raise UserError(
            f"seconds={seconds} are too short for two frames 1/3 s apart; a clip needs at least "
            f"{(data.step + 1) / rate:.2f}."
        )
    data.setup()
    for folder, split, number in (("train", "train", train), ("val", "test", val)):
        loader = data.measurement_loader(split, number, shared=True)
        if len(loader.sampler.index) < number:
            raise UserError(
                f"{folder}={number} clips are more than the {len(loader.sampler.index)} samples "
                f"of the {split} split."
            )
        for batch in loader:
            draw, digits = data.transfer_batch_to_device(batch, torch.device("cpu"), 0)
            film = data.film(digits.pixels, draw, torch.arange(frames))[:, :, 0]
            clips = (film * 255).round().to(torch.uint8).numpy()
            for index, target, clip in zip(draw.index, digits.target, clips, strict=True):
                path = Path(root) / folder / data.class_names[target] / f"{index:05d}.mp4"
                path.parent.mkdir(parents=True, exist_ok=True)
                _write(path, clip, rate)


def _write(path: Path, clip: np.ndarray, rate: int) -> None:
    """Grey frames, uint8 [T, S, S], as a file."""
    options = {"crf": str(_QUALITY), "g": str(len(clip))}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.height, stream.width = clip.shape[1:]
        stream.pix_fmt = "yuv420p"
        for image in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="gray")))
        container.mux(stream.encode())
