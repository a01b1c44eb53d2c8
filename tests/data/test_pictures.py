"""Pictures of every kind that Pillow reads: their levels, which way is up, and what is left out."""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
from PIL import Image
from torch import nn

from critical_periods.core.errors import UserError
from critical_periods.data import CIFAR10DataModule, pictures
from critical_periods.data.class_folders import describe
from critical_periods.data.pictures import read_folder
from critical_periods.tasks import ClassificationTask

GREY = np.random.default_rng(0).integers(0, 2**16, (6, 8)).astype(np.uint16)
GREY[0, :3] = 0, 128, 2**16 - 1
BYTES = (GREY >> 8).astype(np.uint8)
COLOURS = np.random.default_rng(1).integers(0, 256, (6, 8, 3), dtype=np.uint8)
# The definition, in integers: v / 257, rounded; 257 is odd, so there are no ties.
SCALED = ((GREY.astype(int) + 128) // 257).astype(np.uint8)


def base(root: Path) -> Path:
    """Two classes of two pictures, of which tests replace ``train/a/0.png``."""
    for folder in ("train/a", "train/b", "test/a", "test/b"):
        (root / folder).mkdir(parents=True)
        for number in range(2):
            Image.fromarray(COLOURS).save(root / folder / f"{number}.png")
    return root


def replaced(root: Path, name: str, save: Callable[[Path], Any]) -> Path:
    """The base with another picture in the place of its first one."""
    (base(root) / "train" / "a" / "0.png").unlink()
    save(root / "train" / "a" / name)
    return root


def tiff(data: np.ndarray, kind: int, photometric: int = 1, bits: int = 0) -> bytes:
    """A plain TIFF of one channel; kind is 1 for whole numbers, 2 with a sign, 3 floating-point."""
    order = ">" if data.dtype.str[0] == ">" else "<"
    body = data.tobytes()
    bits = bits or 8 * data.dtype.itemsize
    tags = [
        (256, 4, 8), (257, 4, 6), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (273, 4, 8),
        (277, 3, 1), (278, 4, 6), (279, 4, len(body)), (339, 3, kind),
    ]  # fmt: skip
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8 + len(body))
    entries = b"".join(
        struct.pack(f"{order}HHI", tag, form, 1)
        + (struct.pack(f"{order}I", n) if form == 4 else struct.pack(f"{order}HH", n, 0))
        for tag, form, n in tags
    )
    return head + body + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)


def twelve_bits(values: np.ndarray) -> np.ndarray:
    """Two numbers in three bytes."""
    first, second = values.reshape(-1, 2).T
    return np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 1).astype(np.uint8)


def saved(picture: Image.Image, **settings: Any) -> Callable[[Path], Any]:
    return lambda path: picture.save(path, **settings)


def written(content: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(content)


FLOAT = (GREY / 65535).astype(np.float32)
UNIT = np.rint(255.0 * FLOAT).astype(np.uint8)
TWELVE = GREY >> 4
GREYS = {
    "8 bits": ("0.png", saved(Image.fromarray(BYTES)), BYTES),
    "16 bits, PNG": ("0.png", saved(Image.fromarray(GREY)), SCALED),
    "16 bits, PGM": ("0.pgm", written(b"P5 8 6 65535\n" + GREY.astype(">u2").tobytes()), SCALED),
    "16 bits, TIFF": ("0.tif", saved(Image.fromarray(GREY)), SCALED),
    "16 bits, big-endian": ("0.tif", written(tiff(GREY.astype(">u2"), 1)), SCALED),
    "16 bits, 0 is white": ("0.tif", written(tiff(~GREY, 1, photometric=0)), SCALED),
    "16 bits, JPEG 2000": ("0.jp2", saved(Image.fromarray(GREY)), SCALED),
    "12 bits": (
        "0.tif",
        written(tiff(twelve_bits(TWELVE), 1, bits=12)),
        np.rint(TWELVE * 255.0 / 4095).astype(np.uint8),
    ),
    **{
        f"{kind} in 16, {tag}": (
            "0.tif",
            saved(Image.fromarray(TWELVE), tiffinfo={tag: highest}),
            np.rint(TWELVE * 255.0 / white).astype(np.uint8),
        )
        for kind, highest, white in (("12 bits", 4095, 4095), ("a statistic", 4000, 2**16 - 1))
        for tag in (281, 341)
    },
    "floats, TIFF": ("0.tiff", saved(Image.fromarray(FLOAT)), UNIT),
    "floats, big-endian": ("0.tif", written(tiff(FLOAT.astype(">f4"), 3)), UNIT),
    "floats, 0 is white": ("0.tif", written(tiff(1 - FLOAT, 3, photometric=0)), UNIT),
    "black floats": ("0.tif", saved(Image.fromarray(0 * FLOAT)), 0 * BYTES),
    "1 bit": ("0.png", saved(Image.fromarray(BYTES > 127)), np.uint8(255) * (BYTES > 127)),
    "grey and transparency": ("0.png", saved(Image.fromarray(BYTES).convert("LA")), BYTES),
}


@pytest.mark.parametrize("kind", GREYS)
def test_levels_of_grey(kind: str, tmp_path: Path):
    name, save, expected = GREYS[kind]
    train, _ = read_folder(replaced(tmp_path, name, save))
    assert (train.pixels[0].numpy() == expected).all()
    assert (train.pixels[1].numpy() == COLOURS.transpose(2, 0, 1)).all()


def test_dark_pictures_are_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    for path in base(tmp_path).rglob("*.png"):
        Image.fromarray(TWELVE.astype(np.uint16)).save(path)
    read_folder(tmp_path)
    assert f"all pictures under {tmp_path} are dark, none has a level above 16 of" in caplog.text


def png(colours: np.ndarray) -> bytes:
    """A PNG of 16 bits of each colour, which Pillow does not write."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colours)
    head = struct.pack(">IIBBBBB", *colours.shape[1::-1], 16, 2, 0, 0, 0)
    chunks = (b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def test_16_bits_of_each_colour_are_pillows(tmp_path: Path):
    """The higher 8 bits, and of a PPM v / 257, rounded: at most one level apart."""
    deep = np.random.default_rng(2).integers(0, 2**16, (6, 8, 3)).astype(np.uint16)
    replaced(tmp_path, "0.png", written(png(deep)))
    (tmp_path / "train/a/1.ppm").write_bytes(b"P6 8 6 65535\n" + deep.astype(">u2").tobytes())
    pixels = read_folder(tmp_path)[0].pixels.numpy().transpose(0, 2, 3, 1)
    assert (pixels[0] == deep >> 8).all()
    assert (pixels[2] == (deep.astype(int) + 128) // 257).all()
    assert (pixels[0] != pixels[2]).any()


PALETTE = Image.fromarray(COLOURS).quantize(16)
OTHER = Image.fromarray(255 - COLOURS)
KINDS = {
    "palette": ("0.png", PALETTE, {}),
    "palette with transparency": ("0.png", PALETTE, {"transparency": 3}),
    "transparent": ("0.png", Image.fromarray(np.dstack([COLOURS, BYTES])), {}),
    "CMYK": ("0.jpg", Image.fromarray(COLOURS).convert("CMYK"), {}),
    "YCbCr": ("0.tif", Image.fromarray(COLOURS).convert("YCbCr"), {"compression": "jpeg"}),
    "JPEG named .jfif": ("0.jfif", Image.fromarray(COLOURS), {"format": "JPEG"}),
    "PNG named .jpg": ("0.JPG", Image.fromarray(COLOURS), {"format": "PNG"}),
    "TGA": ("0.tga", Image.fromarray(COLOURS), {}),
    "animated GIF": ("0.gif", PALETTE, {"save_all": True, "append_images": [OTHER]}),
    "animated WebP": (
        "0.webp",
        Image.fromarray(COLOURS),
        {"save_all": True, "append_images": [OTHER], "lossless": True},
    ),
    "two of a camera": ("0.mpo", OTHER.copy(), {"save_all": True, "append_images": [OTHER.copy()]}),
    "pages": ("0.tif", Image.fromarray(COLOURS), {"save_all": True, "append_images": [OTHER]}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_colours_are_pillows_and_of_the_first_frame(kind: str, tmp_path: Path):
    name, picture, settings = KINDS[kind]
    train, _ = read_folder(replaced(tmp_path, name, saved(picture, **settings)))
    with Image.open(tmp_path / "train" / "a" / name) as opened:
        expected = np.asarray(opened.convert("RGB")).transpose(2, 0, 1)
    assert (train.pixels[0].numpy() == expected).all()
    if kind in ("animated GIF", "animated WebP", "pages"):
        assert (abs(expected - COLOURS.transpose(2, 0, 1).astype(int)) < 64).mean() > 0.7


UPRIGHT: list[Callable[[np.ndarray], np.ndarray]] = [
    lambda image: image,
    lambda image: image[:, ::-1],
    lambda image: image[::-1, ::-1],
    lambda image: image[::-1],
    lambda image: image.T,
    lambda image: np.rot90(image, -1),
    lambda image: image[::-1, ::-1].T,
    lambda image: np.rot90(image),
]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(orientation: int, tmp_path: Path):
    """Of any format, that of the first picture among them."""
    square, deep = BYTES[:, :6], GREY[:, :6]
    exif = Image.Exif()
    exif[274] = orientation
    for part in ("train", "test"):
        for name in "ab":
            (tmp_path / part / name).mkdir(parents=True)
            Image.fromarray(square).save(tmp_path / part / name / "0.png", exif=exif)
    folder = tmp_path / "train" / "a"
    Image.fromarray(square).save(folder / "1.tif", tiffinfo=exif)
    Image.fromarray(deep).save(folder / "2.png", exif=exif)
    Image.fromarray(deep).save(folder / "3.tif", tiffinfo=exif)
    colours = Image.fromarray(square).convert("RGB")
    colours.save(folder / "4.webp", exif=exif, lossless=True)
    pixels = read_folder(tmp_path)[0].pixels[:5, 0].numpy()
    expected = [square, square, SCALED[:, :6], SCALED[:, :6], square]
    for found, image in zip(pixels, expected, strict=True):
        assert (found == UPRIGHT[orientation - 1](image)).all()


def test_sides_change_places_and_damaged_exif_is_none(tmp_path: Path):
    exif = Image.Exif()
    exif[274] = 6
    tall = Image.fromarray(np.rot90(BYTES).copy())
    replaced(tmp_path, "0.tif", saved(tall, tiffinfo=exif))
    tall.save(tmp_path / "train" / "a" / "1.png", exif=exif)
    Image.fromarray(BYTES).save(tmp_path / "train" / "b" / "0.png", exif=b"Exif\0\0no EXIF")
    train, _ = read_folder(tmp_path)
    for place in range(3):
        assert (train.pixels[place].numpy() == BYTES).all()


@pytest.mark.parametrize(
    ("name", "save", "sentence"),
    [
        (
            "0.tif",
            saved(Image.fromarray(GREY.astype(np.int32))),
            r"a/0.tif holds whole numbers with a sign or of 32 bits, which do not say",
        ),
        ("0.tif", written(tiff(GREY.astype("<i2"), 2)), "0.tif holds whole numbers with a sign"),
        (
            "0.tif",
            saved(Image.fromarray(2 * FLOAT)),
            r"0.tif holds numbers from 0 to 2, but floating-point ones must lie in \[0, 1\]",
        ),
        ("0.tif", saved(Image.fromarray(FLOAT - 0.5)), "holds numbers from -0.5 to 0.5, but"),
        ("0.tif", saved(Image.fromarray(FLOAT * np.nan)), "holds numbers from nan to nan, but"),
        ("0.jpg", written(b"<html>404</html>"), r"0.jpg cannot be read as a picture; replace it"),
        ("0.jpg", written(b""), r"0.jpg cannot be read as a picture; replace it or take it away"),
        ("0.tif", written(tiff(FLOAT.astype("<f8"), 3)), "0.tif is damaged, or holds numbers of"),
        ("0.pfm", written(b"PF\n8 6\n-1\n" + bytes(576)), "0.pfm is damaged, or holds numbers of"),
        ("0.gif", written(b"GIF89a"), r"0.gif cannot be read as a picture"),
        (
            "0.png",
            lambda path: path.symlink_to("0.png"),
            r"the picture \S+/a/0.png cannot be opened: Too many levels of symbolic links\.$",
        ),
        (
            "0.png",
            lambda path: path.symlink_to("nowhere.png"),
            r"the picture \S+/a/0.png cannot be opened: No such file or directory\.$",
        ),
    ],
)
def test_pictures_that_are_refused(
    name: str, save: Callable[[Path], Any], sentence: str, tmp_path: Path
):
    with pytest.raises(UserError, match=sentence) as caught:
        read_folder(replaced(tmp_path, name, save))
    assert "\n" not in str(caught.value)


def test_one_line_says_what_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    root = base(tmp_path)
    for name in (
        "train/notes.txt", "train/a/0.npy", "train/a/1.NPY", "train/b/README", "test/loose.png",
        # Hidden and systems' ones are not data.
        "train/.DS_Store", "train/a/._0.png", "train/a/Thumbs.db", "test/b/desktop.ini",
    ):  # fmt: skip
        (root / name).write_bytes(b"x")
    for _ in range(2):
        train, test = read_folder(root)
        assert len(train.target) == len(test.target) == 4
    (line,) = caplog.messages
    assert line == (
        f"5 of 13 files under {root} are left out, as no pictures of a class: 2 that end in .npy, "
        "1 without an ending, 1 that end in .txt, 1 beside the classes' folders."
    )


def test_many_kinds_make_no_long_line():
    found = describe({f".{n}": 1 + n for n in range(9)})
    assert found.startswith("9 that end in .8, 8 that end in .7, ")
    assert found.endswith(", 5 that end in .4, 10 others")


def test_a_clean_folder_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    read_folder(base(tmp_path))
    assert not caplog.messages


def test_classes_that_look_like_one(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Letters may be classes, so this is no error."""
    copies(base(tmp_path), "train/A", "test/A")
    assert read_folder(tmp_path)[0].target.tolist() == [0, 1, 1, 2, 2]
    assert caplog.messages == [
        f"{tmp_path / part} holds the classes 'A' and 'a', which may be meant as one."
        for part in ("train", "test")
    ]


def test_what_the_system_says_no_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The reason is the system's; nothing is called broken."""

    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    base(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(pictures, "open", refuse, raising=False)
        with pytest.raises(UserError, match=r"0.png cannot be opened: Permission denied\.$"):
            read_folder(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        with pytest.raises(UserError, match=r"folder \S+/train cannot be read: Permission denied"):
            read_folder(tmp_path)
    with pytest.raises(UserError, match=r"root='x+' cannot be read: File name too long"):
        CIFAR10DataModule("x" * 300).setup()


# Folders.


def move(root: Path, old: str, new: str) -> None:
    (root / new).parent.mkdir(parents=True, exist_ok=True)
    (root / old).rename(root / new)


def copies(root: Path, *names: str) -> None:
    for name in names:
        (root / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(COLOURS).save(root / name / "0.png")


@pytest.mark.parametrize(
    "change",
    [
        lambda root: copies(root, "train/.ipynb_checkpoints", "test/.ipynb_checkpoints"),
        lambda root: copies(root, "train/__MACOSX", "test/.git/a", "train/a/.ipynb_checkpoints"),
        lambda root: (root / "train" / "lost+found").mkdir(),
        lambda root: (root / "train" / "a" / "9.png").mkdir(),
        lambda root: (root / "train" / "a" / "again").symlink_to(root / "train" / "a"),
        lambda root: (move(root, "train/a", "far/x"), (root / "train/a").symlink_to("../far/x")),
        lambda root: move(root, "train/a/0.png", os.fsdecode(b"train/a/\xe9t\xe9.png")),
        # Tiny ImageNet has its pictures there.
        lambda root: [
            move(root, f"{folder}/{n}.png", f"{folder}/images/{n}.png")
            for folder in ("train/a", "train/b")
            for n in range(2)
        ],
    ],
)
def test_folders_that_change_nothing(change: Callable[[Path], Any], tmp_path: Path):
    change(base(tmp_path))
    train, test = read_folder(tmp_path)
    assert train.target.tolist() == test.target.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda root: [move(root, f"train/{c}", f"train/pets/{c}") for c in "ab"],
            r"train/pets holds pictures in folders of its own \('a', 'b'\), so that it may be one",
        ),
        (
            lambda root: [move(root, "train/a", "train/x/a"), move(root, "train/b", "train/y/b")],
            r"train/x holds pictures in folders of its own \('a'\), so that it may be one class or",
        ),
        (
            lambda root: [move(root, "train/a", "train/x/a"), move(root, "train/b", "train/x/b")],
            r"\S+/train must hold a folder for every class with its pictures right in it\.",
        ),
        (lambda root: copies(root, "train/a/more"), r"train/a holds .* of its own \('more'\)"),
        (lambda root: copies(root, *(f"train/a/{n}" for n in range(5))), r"\('0', '1', '2', …\)"),
        (lambda root: (root / "test" / "c").mkdir(), r"no valid file for the classes c\. Put pict"),
        (
            lambda root: move(root, "train/a", "train/A"),
            r"'A' is in .*; there it is written 'a'",
        ),
        (lambda root: move(root, "train/a", "train/tiger"), r"hold the same classes\.$"),
        (
            lambda root: [
                move(root, "train/a", "train/\xfc"),
                move(root, "test/a", "test/u\u0308"),
            ],
            r"'ü' is in .*; there it is written 'u\\u0308'\.$",
        ),
        (
            lambda root: move(root, "test", "val"),
            r"'\S+/test'; train/ and test/ must .* \(the folders there are 'train', 'val'\)",
        ),
        (
            lambda root: (root / "train" / "c").symlink_to(root / "train"),
            r"no valid file for the classes c\.",
        ),
        (
            lambda root: (root / "train" / "c").symlink_to(root / "train" / "a"),
            r"the class folders 'a' and 'c' in \S+ are one and the same, by a link; keep one",
        ),
    ],
)
def test_folders_that_are_refused(change: Callable[[Path], Any], sentence: str, tmp_path: Path):
    change(base(tmp_path))
    with pytest.raises(UserError, match=sentence) as caught:
        read_folder(tmp_path)
    assert "\n" not in str(caught.value)


def test_one_class_is_nothing_to_classify(tmp_path: Path):
    copies(tmp_path, "train/all", "test/all")
    data = CIFAR10DataModule(tmp_path)
    data.setup()
    assert data.num_classes == 1
    task = ClassificationTask(nn.Flatten(), num_classes=2)
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    with pytest.raises(UserError, match="all samples of CIFAR10DataModule are of one class, so"):
        trainer.fit(task, data)
