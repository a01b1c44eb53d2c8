"""Reading CIFAR-10's archive, or folders of pictures, into memory."""

from __future__ import annotations

import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.datasets import CIFAR10, ImageFolder

from critical_periods.core.errors import UserError, reason
from critical_periods.data.batch_stage import Images


def read_archive(root: Path, download: bool = False) -> tuple[Images, Images]:
    """CIFAR-10 from torchvision's archive, whose checksums torchvision verifies.

    Read once a process: what passes the checksums cannot have changed.

    Args:
        root: the folder that holds ``cifar-10-batches-py``.
        download: whether torchvision may download it.

    Returns:
        Training and test images, uint8 [N, 3, 32, 32].

    Raises:
        UserError: the archive is missing, damaged or cannot be downloaded.
    """
    return _read_archive(root.resolve(), download)


@lru_cache(maxsize=1)
def _read_archive(root: Path, download: bool) -> tuple[Images, Images]:
    parts = []
    for train in (True, False):
        try:
            archive = CIFAR10(root, train=train, download=download)
        except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
            raise UserError(_missing(root, download, error)) from error
        pixels = torch.from_numpy(archive.data).permute(0, 3, 1, 2).contiguous()
        parts.append(Images(pixels, torch.tensor(archive.targets)))
    return parts[0], parts[1]


def _missing(root: Path, download: bool, error: Exception) -> str:
    if download:
        return f"CIFAR-10 could not be downloaded to root={str(root)!r} ({error}); put it there."
    unpacked = (root / CIFAR10.base_folder).exists()
    state = "is damaged or half unpacked" if unpacked else "is not there"
    return (
        f"CIFAR-10 {state} under root={str(root)!r}: it must hold a complete "
        f"{CIFAR10.base_folder}/ or train/<class>/* and test/<class>/*; set data.init_args.root, "
        "or download: true."
    )


def read_folder(root: Path) -> tuple[Images, Images]:
    """All pictures of ``train/<class>/*`` and ``test/<class>/*``, decoded to RGB.

    Read once a process, and again when a file was added, taken away or written to since.

    Args:
        root: the folder that holds ``train`` and ``test``.

    Returns:
        Training and test images, uint8 [N, 3, H, W]; the classes are numbered in the order of
        their folders' names.

    Raises:
        UserError: a part is missing or empty, the parts' classes differ, a picture cannot be read
            or differs in size from the first one.
    """
    root = root.resolve()
    return _read_folder(root, _stamp(root))


def _stamp(root: Path) -> int:
    """A number that changes whenever a file does: a hash of all names, sizes and times."""
    files = []
    for part in ("train", "test"):
        for folder, _, names in os.walk(root / part, followlinks=True):
            for name in names:
                status = os.lstat(os.path.join(folder, name))
                files.append((folder, name, status.st_size, status.st_mtime_ns))
    return hash(tuple(sorted(files)))


@lru_cache(maxsize=1)
def _read_folder(root: Path, stamp: int) -> tuple[Images, Images]:
    found = {}
    for part in ("train", "test"):
        try:
            found[part] = ImageFolder(root / part)
        except FileNotFoundError as error:
            raise UserError(
                f"the data under root={str(root)!r} is half unpacked: {reason(error)}; "
                "train/ and test/ must both hold a folder of pictures for every class."
            ) from error
    train, test = found["train"], found["test"]
    for part, other, name in ((train, test, "test"), (test, train, "train")):
        missing = sorted(set(part.classes) - set(other.classes))
        if missing:
            raise UserError(
                f"the class folder {missing[0]!r} is in {part.root} but not in {root / name}; "
                "train/ and test/ must hold the same classes."
            )
    shape = _read(train.samples[0][0]).shape
    return _decode(train, shape), _decode(test, shape)


def _decode(folder: ImageFolder, shape: tuple[int, ...]) -> Images:
    paths = [path for path, _ in folder.samples]
    pixels = np.empty((len(paths), *shape), dtype=np.uint8)

    def decode(place: int) -> None:
        picture = _read(paths[place])
        if picture.shape != shape:
            raise UserError(
                f"{paths[place]} is {picture.shape[1]}x{picture.shape[0]} pixels, but the first "
                f"picture is {shape[1]}x{shape[0]}; all pictures must have one size."
            )
        pixels[place] = picture

    # Pillow releases the interpreter's lock while it decodes.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(decode, range(len(paths))):
            pass
    channels_first = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    return Images(channels_first, torch.tensor(folder.targets))


def _read(path: str) -> np.ndarray:
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        message = f"{path} cannot be read as a picture; replace it or take it away."
        raise UserError(message) from error
