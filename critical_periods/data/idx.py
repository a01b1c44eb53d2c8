"""Images and labels in the idx format of MNIST and of the data sets made after it."""

from __future__ import annotations

import gzip
import shutil
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

from torch import Tensor
from torchvision.datasets.mnist import read_image_file, read_label_file

from critical_periods.core.errors import UserError
from critical_periods.data.batch_stage import Images

_SIDE = 28
_KINDS: dict[str, Callable[[str], Tensor]] = {
    "images-idx3-ubyte": read_image_file,
    "labels-idx1-ubyte": read_label_file,
}
# What files raise that are cut short or something else altogether.
_BROKEN = (
    *(AssertionError, LookupError, TypeError, ValueError, RuntimeError),  # the readers
    *(OSError, EOFError, zlib.error),  # gzip
)

FILES = tuple(f"{part}-{kind}" for part in ("train", "t10k") for kind in _KINDS)


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
    train, test = (_read_part(folder, part) for part in ("train", "t10k"))
    return train, test


def _read_part(folder: Path, part: str) -> Images:
    paths, tensors = [], []
    for kind, reader in _KINDS.items():
        path = find_file(folder, f"{part}-{kind}")
        if path is None:
            raise UserError(
                f"{folder / f'{part}-{kind}'} is missing, and so is its .gz; put it there, or set "
                "download: true."
            )
        paths.append(path)
        tensors.append(_read(path, reader))
    pixels, target = tensors
    if pixels.shape[1:] != (_SIDE, _SIDE):
        height, width = pixels.shape[1:]
        raise UserError(
            f"{paths[0]} holds images of {height}x{width} pixels instead of {_SIDE}x{_SIDE}; "
            "replace it by the data set's own file."
        )
    if len(pixels) != len(target):
        raise UserError(
            f"{paths[0]} holds {len(pixels)} images but {paths[1]} {len(target)} labels; replace "
            "them by two files that belong together."
        )
    return Images(pixels[:, None], target)


def _read(path: Path, reader: Callable[[str], Tensor]) -> Tensor:
    try:
        if path.suffix != ".gz":
            return reader(str(path))
        # torchvision's readers want a path and do not decompress.
        with tempfile.NamedTemporaryFile() as plain:
            with gzip.open(path) as packed:
                shutil.copyfileobj(packed, plain)
            plain.flush()
            return reader(plain.name)
    except _BROKEN as error:
        kind = "images" if reader is read_image_file else "labels"
        raise UserError(
            f"{path} is damaged or no idx file of {kind}; replace it by a fresh copy."
        ) from error
