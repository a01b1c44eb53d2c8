"""Images and labels in the idx format of MNIST and of the data sets made after it."""

import gzip
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from critical_periods.core.errors import UserError
from critical_periods.data.batch_stage import Images

_SIDE = 28
FILES = tuple(
    f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
)


def find_file(folder: Path, name: str) -> Path | None:
    """Where a file of a folder lies: as it is or, failing that, gzipped.

    Example:
        >>> find_file(Path("nowhere"), "train-images-idx3-ubyte") is None
        True
    """
    paths = (folder / name, folder / f"{name}.gz")
    return next((path for path in paths if path.is_file()), None)


def read_idx(folder: Path) -> tuple[Images, Images]:
    """The training and the test images of a folder of four idx files, each gzipped or not.

    Args:
        folder: it holds ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte`` and the same two
            of ``t10k``, under these names or with ``.gz`` behind them.

    Returns:
        Training and test images, uint8 [N, 1, 28, 28].

    Raises:
        UserError: a file is missing, damaged or of another kind, holds images of another size, or
            does not go with its partner.
    """
    return _read_part(folder, "train"), _read_part(folder, "t10k")


def _read_part(folder: Path, part: str) -> Images:
    images, pixels = _read(folder, f"{part}-images-idx3-ubyte", "images", 3)
    labels, target = _read(folder, f"{part}-labels-idx1-ubyte", "labels", 1)
    height, width = pixels.shape[1:]
    if (height, width) != (_SIDE, _SIDE):
        raise UserError(
            f"{images} holds images of {height}x{width} pixels instead of {_SIDE}x{_SIDE}; "
            "replace it by the data set's own file."
        )
    if len(pixels) != len(target):
        raise UserError(
            f"{images} holds {len(pixels)} images but {labels} {len(target)} labels; replace "
            "them by two files that belong together."
        )
    return Images(pixels[:, None], target.long())


def _read(folder: Path, name: str, kind: str, axes: int) -> tuple[Path, Tensor]:
    """The file, and its bytes after the header: 0, 0, 8 for bytes, the axes, and their lengths."""
    path = find_file(folder, name)
    if path is None:
        raise UserError(
            f"{folder / name} is missing, and so is its .gz; put it there, or set download: true."
        )
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = bytearray(file.read())
        if content[:4] != bytes([0, 0, 8, axes]):
            raise ValueError("the header is another one")
        sizes = np.frombuffer(content, ">u4", count=axes, offset=4)
        values = np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(sizes)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(
            f"{path} is damaged or no idx file of {kind}; replace it by a fresh copy."
        ) from error
    return path, torch.from_numpy(values)
