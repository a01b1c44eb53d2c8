"""Reading CIFAR-10's archive, or folders of pictures, into memory."""

import os
import pickle
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION
from torchvision.datasets import CIFAR10

from critical_periods.core.errors import UserError
from critical_periods.data.batch_stage import Images
from critical_periods.data.class_folders import (
    ClassFolders,
    find_class_files,
    like,
    tell,
    tell_left_out,
)


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


def folder_classes(root: Path) -> tuple[str, ...]:
    """The names of the classes of :func:`read_folder`, in their order."""
    return _find(root.resolve(), "train").classes


def read_folder(root: Path) -> tuple[Images, Images]:
    """All pictures of ``train/<class>/*`` and ``test/<class>/*``, decoded to RGB.

    Which files are pictures, and how their levels are scaled, says :class:`.CIFAR10DataModule`.

    Read once a process, and again when a file was added, taken away or written to since.

    Args:
        root: the folder that holds ``train`` and ``test``.

    Returns:
        Training and test images, uint8 [N, 3, H, W]; the classes are numbered in the order of
        their folders' names.

    Raises:
        UserError: a part or a class is missing or empty, pictures lie deeper than in the classes'
            folders, the parts' classes differ, a picture cannot be read, has levels without a scale
            or differs in size from the first one.
    """
    root = root.resolve()
    train, test = (_find(root, part) for part in ("train", "test"))
    for one, other in ((train, test), (test, train)):
        if missing := sorted(set(one.classes) - set(other.classes)):
            raise UserError(
                f"the class folder {missing[0]!r} is in {one.folder} but not in {other.folder}; "
                f"train/ and test/ must hold the same classes{like(missing[0], other.classes)}"
            )
    return _read_folders(train, test, stamp(train), stamp(test))


# The highest number of TIFFs that store fewer than 16 bits as 16 (MaxSampleValue, SMaxSampleValue).
# Others say there which one the picture has, and that is seldom one of these.
_HIGHEST, _OF_BITS = (281, 341), [2**bits - 1 for bits in range(9, 16)]
# A level of 255 that stored 12 bits of 16 do not get beyond.
_DARK = 16

# Pillow knows the endings of these, but needs other programs to read them, or they hold data whose
# white is not known.
_NO_PICTURES = ("BUFR", "EPS", "FITS", "GRIB", "HDF5", "MPEG", "WMF")


def _find(root: Path, part: str) -> ClassFolders:
    """The pictures of a part, by class."""
    state = f"the data under root={str(root)!r} is half unpacked:"
    rule = "train/ and test/ must both hold a folder of pictures for every class"
    if not (root / part).is_dir():
        others = sorted(one.name for one in root.iterdir() if one.is_dir() and one.name != part)
        raise UserError(
            f"{state} No such file or directory: {str(root / part)!r}; {rule} (the folders there "
            f"are {', '.join(map(repr, others))})."
        )
    found = find_class_files(root / part, picture_suffixes(), "pictures")
    if not found.classes:
        raise UserError(
            f"{state} Couldn't find any class folder in {found.folder}; {rule}{found.aside}."
        )
    if found.empty:
        raise UserError(
            f"{state} Found no valid file for the classes {', '.join(found.empty)}. Put pictures "
            f"into these folders in {part}/, or take them away{found.aside}."
        )
    return found


def picture_suffixes() -> list[str]:
    """The endings of the files that are read as pictures."""
    return [
        suffix
        for suffix, kind in Image.registered_extensions().items()
        # An MPO, two pictures of a camera, is opened as a JPEG.
        if (kind in Image.OPEN or kind == "MPO") and kind not in _NO_PICTURES
    ]


def stamp(found: ClassFolders) -> int:
    """Another number whenever a file is."""
    states = []
    for path in found.paths:
        status = os.lstat(found.folder / path)
        states.append((status.st_size, status.st_mtime_ns))
    return hash(tuple(states))


@lru_cache(maxsize=1)
def _read_folders(train: ClassFolders, test: ClassFolders, *stamps: int) -> tuple[Images, Images]:
    """Reads the pictures; a stamp changes whenever a file does."""
    left_out = Counter(dict(train.left_out)) + Counter(dict(test.left_out))
    used = len(train.paths) + len(test.paths)
    tell_left_out(train.folder.parent, "pictures", used, left_out)
    shape = read_picture(str(train.folder / train.paths[0])).shape
    images = _decode(train, shape), _decode(test, shape)
    if (highest := max(int(part.pixels.max()) for part in images)) <= _DARK:
        tell(
            f"all pictures under {train.folder.parent} are dark, none has a level above {highest} "
            "of 255; if they are of 12 bits stored as 16, save them with 8 bits."
        )
    return images


def _decode(found: ClassFolders, shape: tuple[int, ...]) -> Images:
    paths = [str(found.folder / path) for path in found.paths]
    pixels = np.empty((len(paths), *shape), dtype=np.uint8)

    def decode(place: int) -> None:
        picture = read_picture(paths[place])
        if picture.shape != shape:
            raise UserError(
                f"{paths[place]} is {picture.shape[1]}x{picture.shape[0]} pixels, but the first "
                f"picture is {shape[1]}x{shape[0]}; all pictures must have one size."
            )
        pixels[place] = picture

    # Pillow releases the interpreter's lock while it decodes.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(decode, range(len(paths))))
    numbers = {name: number for number, name in enumerate(found.classes)}
    return _images(pixels, [numbers[label] for label in found.labels])


def read_picture(path: str) -> np.ndarray:
    """A picture as uint8 [H, W, 3]; a UserError where it cannot be read."""
    try:
        # Of a file that it opens itself, Pillow 13 gets TIFFs on their sides wrong.
        with open(path, "rb") as file, Image.open(file) as picture:
            return _levels(picture, path)
    except UserError:
        raise
    except Exception as error:  # Pillow says in many ways that a file is damaged
        if isinstance(error, OSError) and error.strerror:
            message = f"the picture {path} cannot be opened: {error.strerror}."
        elif isinstance(error, UnidentifiedImageError) and _has_types(path):
            message = (
                f"{path} is damaged, or holds numbers of a type that Pillow does not read, such as "
                "floats of 64 bits or of colours; save it with 8 bits, in grey or three colours."
            )
        else:
            message = f"{path} cannot be read as a picture; replace it or take it away."
        raise UserError(message) from error


def _has_types(path: str) -> bool:
    """Whether a file begins as a TIFF or a PFM, of whose types of numbers Pillow knows some."""
    with open(path, "rb") as file:
        return file.read(4).startswith((b"II*\0", b"MM\0*", b"PF\n"))


def _upright(picture: Image.Image) -> Image.Image:
    picture.load()
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # EXIF data that are damaged do not say how the picture stands
        return picture


def _levels(picture: ImageFile, path: str) -> np.ndarray:
    kind, tags = picture.format, getattr(picture, "tag_v2", {})
    upright = _upright(picture)
    # Pillow has more than one type for 16 bits, and the one for 32 holds those of some formats.
    is_16_bit = upright.mode.startswith("I;16") or (upright.mode == "I" and kind in ("PNG", "PPM"))
    if upright.mode != "F" and not is_16_bit:
        if upright.mode == "I":
            raise UserError(
                f"{path} holds whole numbers with a sign or of 32 bits, which do not say what "
                "white is; save it with 8 bits, or with 16 without a sign."
            )
        return np.asarray(upright.convert("RGB"))
    values = np.asarray(upright, np.float64)
    white = 2 ** tags.get(BITSPERSAMPLE, (16,))[0] - 1 if is_16_bit else 1
    for highest in (np.max(tags.get(tag, 0)) for tag in _HIGHEST) if is_16_bit else ():
        white = highest if highest in _OF_BITS and values.max() <= highest else white
    # This also holds for no number at all.
    if not (values.min() >= 0 and values.max() <= white):
        raise UserError(
            f"{path} holds numbers from {values.min():.6g} to {values.max():.6g}, but floating-"
            "point ones must lie in [0, 1], where 1 is white; scale them, or save it with 8 bits."
        )
    if tags.get(PHOTOMETRIC_INTERPRETATION) == 0:
        values = white - values
    grey = np.rint(255 * values / white).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)
