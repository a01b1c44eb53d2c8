"""Reading CIFAR-10's archive, or folders of pictures, into memory."""

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


@lru_cache(maxsize=1)
def read_archive(root: Path, download: bool = False) -> tuple[Images, Images]:
    """CIFAR-10 from torchvision's archive, whose checksums torchvision verifies.

    Read once a process: what passes the checksums cannot have changed.

    Args:
        root: the folder that holds ``cifar-10-batches-py``; absolute, as results go by its name.
        download: whether torchvision may download it.

    Returns:
        Training and test images, uint8 [N, 3, 32, 32].

    Raises:
        UserError: the archive is missing, damaged or cannot be downloaded.
    """
    try:
        archives = [CIFAR10(root, train=train, download=download) for train in (True, False)]
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
        where = f"root={str(root)!r}"
        if download:
            message = f"CIFAR-10 could not be downloaded to {where} ({error}); put it there."
            raise UserError(message) from error
        unpacked = (root / CIFAR10.base_folder).exists()
        state = "is damaged or half unpacked" if unpacked else "is not there"
        raise UserError(
            f"CIFAR-10 {state} under {where}: it must hold a complete {CIFAR10.base_folder}/ or "
            "train/<class>/* and test/<class>/*; set data.init_args.root, or download: true."
        ) from error
    train, test = (_images(archive.data, archive.targets) for archive in archives)
    return train, test


def _images(pictures: np.ndarray, target: list[int]) -> Images:
    """Pictures [N, H, W, C] and their classes."""
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()
    return Images(pixels, torch.tensor(target))


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
    root, files = root.resolve(), []
    for part in ("train", "test"):
        for folder, _, names in os.walk(root / part, followlinks=True):
            for name in names:
                status = os.lstat(os.path.join(folder, name))
                files.append((folder, name, status.st_size, status.st_mtime_ns))
    return _read_folder(root, hash(tuple(sorted(files))))


@lru_cache(maxsize=1)
def _read_folder(root: Path, stamp: int) -> tuple[Images, Images]:
    """Reads the pictures; ``stamp`` changes whenever a file does."""
    try:
        train, test = (ImageFolder(root / part) for part in ("train", "test"))
    except FileNotFoundError as error:
        raise UserError(
            f"the data under root={str(root)!r} is half unpacked: {reason(error)}; train/ and "
            "test/ must both hold a folder of pictures for every class."
        ) from error
    for part, other, name in ((train, test, "test"), (test, train, "train")):
        if missing := sorted(set(part.classes) - set(other.classes)):
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
        list(pool.map(decode, range(len(paths))))
    return _images(pixels, folder.targets)


def _read(path: str) -> np.ndarray:
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        message = f"{path} cannot be read as a picture; replace it or take it away."
        raise UserError(message) from error
