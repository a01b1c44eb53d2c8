"""CIFAR-10 from folders and archives as small as a test, and, where it is there, the real one."""

import hashlib
import os
import pickle
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batches import evaluated, measured, training
from PIL import Image
from torchvision.datasets import CIFAR10

from critical_periods.core.errors import UserError
from critical_periods.data import CIFAR10DataModule, StereoCIFAR10DataModule
from critical_periods.data.pictures import read_archive, read_folder

CLASSES = ("bird", "cat", "zebra")


def picture(part: str, label: int, number: int, size: tuple[int, int] = (32, 32)) -> np.ndarray:
    words = [*part.encode(), label, number]
    return np.random.default_rng(words).integers(0, 256, (*size, 3), dtype=np.uint8)


def write_folder(root: Path, train: int = 4, test: int = 2, **settings: Any) -> Path:
    """``train/<class>/NN.png`` and ``test/<class>/NN.png``."""
    for part, count in (("train", train), ("test", test)):
        for label, name in enumerate(CLASSES):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = picture(part, label, number, **settings)
                Image.fromarray(pixels).save(root / part / name / f"{number:02d}.png")
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path)


# Folders.


def test_folder_is_read_in_the_order_of_its_names(folder):
    for part, images, count in zip(("train", "test"), read_folder(folder), (4, 2), strict=True):
        assert images.pixels.dtype == torch.uint8 and images.pixels.shape == (3 * count, 3, 32, 32)
        assert images.target.tolist() == [label for label in range(3) for _ in range(count)]
        for place, label in enumerate(images.target.tolist()):
            expected = picture(part, label, place % count).transpose(2, 0, 1)
            assert (images.pixels[place].numpy() == expected).all()


def test_folder_may_be_grey_or_of_another_size(tmp_path):
    write_folder(tmp_path, size=(12, 20))
    grey = Image.fromarray(picture("grey", 0, 0, (12, 20))).convert("L")
    grey.save(tmp_path / "train" / "bird" / "00.png")
    train, _ = read_folder(tmp_path)
    assert train.pixels.shape == (12, 3, 12, 20)
    assert (train.pixels[0] == torch.from_numpy(np.asarray(grey).copy())).all()


def test_folder_is_read_again_only_when_it_changed(folder, monkeypatch):
    first = read_folder(folder)
    assert read_folder(folder)[0].pixels is first[0].pixels
    Image.fromarray(picture("new", 0, 0)).save(folder / "train" / "cat" / "zz.png")
    assert len(read_folder(folder)[0].target) == 13
    (folder / "train" / "cat" / "zz.png").unlink()
    again = read_folder(folder)
    assert torch.equal(again[0].pixels, first[0].pixels)
    path = folder / "test" / "bird" / "00.png"
    Image.fromarray(picture("new", 1, 1)).save(path)
    os.utime(path, ns=(1, 1))  # an older picture copied over a newer one
    assert not torch.equal(read_folder(folder)[1].pixels, first[1].pixels)
    # The same relative path means another place after a change of directory.
    for number, other in enumerate(("a", "b")):
        root = write_folder(folder / other / "data", train=2 + number)
        monkeypatch.chdir(root.parent)
        assert len(read_folder(Path("data"))[0].target) == 3 * (2 + number)


def test_module_of_a_folder(folder):
    data = CIFAR10DataModule(root=str(folder), batch_size=6, augment="none")
    data.prepare_data()
    data.setup()
    assert data.num_classes == 3
    batch = evaluated(data)
    assert batch.views.shape == (6, 1, 3, 32, 32) and batch.target.tolist() == [0, 0, 1, 1, 2, 2]
    expected = (picture("test", 1, 0) / 255 - [0.4914, 0.4822, 0.4465]) / [0.2023, 0.1994, 0.2010]
    shown = batch.views[2, 0].permute(1, 2, 0).double()
    torch.testing.assert_close(shown, torch.from_numpy(expected), atol=1e-5, rtol=0)


def test_shifts_and_flips_of_the_papers(folder):
    # One bright column per picture shows where it went.
    for path in folder.glob("train/*/*.png"):
        pixels = np.zeros((32, 32, 3), dtype=np.uint8)
        pixels[16, 10] = 255
        Image.fromarray(pixels).save(path)
    data = CIFAR10DataModule(folder, batch_size=12)
    data.setup()
    rows, columns, colours = set(), set(), set()
    for epoch in range(60):
        views = training(data, epoch).views[:, 0]
        spot = views[:, 0].flatten(1).argmax(1)
        rows |= set((spot // 32).tolist())
        columns |= set((spot % 32).tolist())
        colours |= set(views[:, :, 0, 0].flatten().tolist()[:1])
    assert rows == set(range(12, 21))
    assert columns == set(range(6, 15)) | set(range(17, 26))
    black = -0.4914 / 0.2023
    # A corner is the mean colour where the padding reaches it, else the picture's black.
    assert {round(colour, 3) for colour in colours} == {0.0, round(black, 3)}


DAMAGES = {
    "gone": lambda path: path.rename(path.with_name("gone")),
    "emptied": lambda path: (shutil.rmtree(path), path.mkdir()),
    "new": lambda path: shutil.copytree(path.with_name("cat"), path),
    "words": lambda path: path.write_text("not a picture"),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:1500]),
    "size": lambda path: Image.fromarray(picture("x", 0, 0, (31, 32))).save(path),
}


@pytest.mark.parametrize(
    ("damage", "place", "sentence"),
    [
        ("gone", "test", r"half unpacked: .*No such file .*: '.*test'; train/ and test/ must"),
        ("gone", "train", r"half unpacked: .*No such file or directory: '.*train'"),
        ("emptied", "test", r"half unpacked: Couldn't find any class folder in .*test"),
        ("emptied", "train/cat", r"half unpacked: Found no valid file for the classes cat\."),
        ("new", "test/yak", r"'yak' is in .*test but not in .*train; train/ and test/ must"),
        ("new", "train/yak", r"'yak' is in .*train but not in .*test;"),
        ("words", "train/cat/01.png", r"train/cat/01\.png cannot be read as a picture; replace"),
        ("cut", "test/zebra/00.png", r"test/zebra/00\.png cannot be read as a picture"),
        ("size", "train/cat/03.png", r"03\.png is 32x31 pixels, but the first picture is 32x32;"),
    ],
)
def test_folders_that_are_not_as_they_should_be(folder, damage, place, sentence):
    DAMAGES[damage](folder / place)
    with pytest.raises(UserError, match=sentence) as caught:
        CIFAR10DataModule(folder).setup()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"width": 33}, "width=33 of the crops must lie between 1 and 32"),
        ({"limit_train": 13}, "limit_train=13 asks for 13 images; choose between 3 .* and 12"),
        ({"val_split": 2}, "val_split=2 asks for 2 images"),
    ],
)
def test_settings_that_do_not_fit(folder, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        StereoCIFAR10DataModule(folder, **settings).setup()


# Archives.


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torchvision's layout with four pictures a file, and checksums to match."""
    base = tmp_path / CIFAR10.base_folder
    base.mkdir()

    def write(name: str, content: dict[str, Any]) -> str:
        encoded = pickle.dumps(content)
        (base / name).write_bytes(encoded)
        return hashlib.md5(encoded).hexdigest()

    lists: dict[str, list[list[str]]] = {"train": [], "test": []}
    for number, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        part = "test" if name == "test_batch" else "train"
        pixels = [picture(name, 0, place).transpose(2, 0, 1).ravel() for place in range(4)]
        content = {"data": np.stack(pixels), "labels": [number, 9, 0, 1]}
        lists[part].append([name, write(name, content)])
    meta = write("batches.meta", {"label_names": list("abcdefghij")})
    monkeypatch.setattr(CIFAR10, "train_list", lists["train"])
    monkeypatch.setattr(CIFAR10, "test_list", lists["test"])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": meta})
    return tmp_path


def test_archive_is_read(archive):
    train, test = read_archive(archive)
    assert train.pixels.shape == (20, 3, 32, 32) and train.pixels.dtype == torch.uint8
    assert train.target.tolist() == [n for file in range(5) for n in (file, 9, 0, 1)]
    assert test.target.tolist() == [5, 9, 0, 1]
    expected = picture("data_batch_3", 0, 2).transpose(2, 0, 1)
    assert (train.pixels[10].numpy() == expected).all()
    assert read_archive(archive)[0].pixels is train.pixels
    data = StereoCIFAR10DataModule(archive, width=20, limit_train=8)
    data.prepare_data()
    data.setup()
    assert data.num_classes == 10 and len(data.train_dataloader().sampler.index) == 8


@pytest.mark.parametrize("name", ["data_batch_4", "test_batch", "batches.meta"])
def test_archive_that_is_damaged_or_half_unpacked(archive, name):
    path = archive / CIFAR10.base_folder / name
    path.write_bytes(path.read_bytes()[:-5])
    sentence = r"CIFAR-10 is damaged or half unpacked under root='.*': it must hold a complete cif"
    with pytest.raises(UserError, match=sentence):
        CIFAR10DataModule(archive).setup()
    path.unlink()
    with pytest.raises(UserError, match=sentence):
        CIFAR10DataModule(archive).setup()


def test_no_data_at_all(tmp_path):
    with pytest.raises(UserError, match=r"CIFAR-10 is not there under root='.*nowhere': .* set da"):
        CIFAR10DataModule(tmp_path / "nowhere").setup()


def test_download_happens_where_allowed_and_needed(archive, monkeypatch):
    calls = []

    def download(self: CIFAR10) -> None:
        if not self._check_integrity():
            calls.append(self.root)
            (archive / "elsewhere").rename(archive / CIFAR10.base_folder)

    monkeypatch.setattr(CIFAR10, "download", download)
    (archive / CIFAR10.base_folder).rename(archive / "elsewhere")
    CIFAR10DataModule(archive).prepare_data()
    assert not calls
    data = CIFAR10DataModule(archive, download=True)
    data.prepare_data()
    data.setup()
    assert len(calls) == 1 and len(data.test_dataloader().sampler.index) == 4


def test_download_that_fails(tmp_path, monkeypatch):
    def download(self: CIFAR10) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(CIFAR10, "download", download)
    sentence = r"could not be downloaded to root='.*' \(no route to host\); put it there"
    with pytest.raises(UserError, match=sentence):
        CIFAR10DataModule(tmp_path, download=True).prepare_data()


def test_a_folder_is_never_downloaded_over(folder, monkeypatch):
    monkeypatch.setattr(CIFAR10, "download", None)
    data = CIFAR10DataModule(folder, download=True)
    data.prepare_data()
    data.setup()
    assert data.num_classes == 3


# The real one.

REAL = os.environ.get("CRITICAL_PERIODS_CIFAR10", "")
real = pytest.mark.skipif(
    not REAL, reason="CRITICAL_PERIODS_CIFAR10 names no folder with CIFAR-10's train/ and test/"
)


@pytest.mark.real_data
@real
def test_real_cifar10():
    start = time.perf_counter()
    data = StereoCIFAR10DataModule(REAL, width=16)
    parts = data.load()
    assert time.perf_counter() - start < 90
    data.load = lambda: parts  # which takes half a minute
    data.setup()
    train, test = parts
    assert train.pixels.shape == (50_000, 3, 32, 32) and test.pixels.shape == (10_000, 3, 32, 32)
    assert train.target.bincount().tolist() == [5000] * 10
    assert test.target.bincount().tolist() == [1000] * 10
    pixels = train.pixels.float() / 255
    # JPEG costs a little contrast. The papers' deviations are the means of single pictures' ones.
    mean, std = pixels.mean((0, 2, 3)), pixels.std((2, 3)).mean(0)
    torch.testing.assert_close(mean, torch.tensor(data.mean), atol=0.002, rtol=0)
    torch.testing.assert_close(std, torch.tensor(data.std), atol=0.004, rtol=0)
    batch = measured(data, "train", 128)
    assert batch.views.shape == (128, 2, 3, 32, 32)
    assert torch.equal(batch.target, train.target[batch.index])
