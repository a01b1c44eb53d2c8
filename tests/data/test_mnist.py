"""MNIST's files, as small as a test and in every layout, and, where it is there, Fashion-MNIST."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from batches import evaluated, training
from torchvision.datasets import MNIST

from critical_periods.core.errors import UserError
from critical_periods.data import FashionMNISTDataModule, MNISTDataModule

MODULES = {"MNIST": MNISTDataModule, "FashionMNIST": FashionMNISTDataModule}
COUNTS = {"train": 20, "t10k": 10}


def pixels(part: str) -> np.ndarray:
    draws = np.random.default_rng([*part.encode()])
    return draws.integers(0, 256, (COUNTS[part], 28, 28), dtype=np.uint8)


def labels(part: str) -> np.ndarray:
    return np.arange(COUNTS[part], dtype=np.uint8) * 3 % 10


def idx(values: np.ndarray) -> bytes:
    """Two zeros, the type (8: bytes), the number of axes, the big-endian sizes and the values."""
    sizes = np.array(values.shape, dtype=">u4").tobytes()
    return bytes([0, 0, 8, values.ndim]) + sizes + values.tobytes()


def write(folder: Path, packed: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for part in COUNTS:
        for kind, values in (("images-idx3", pixels(part)), ("labels-idx1", labels(part))):
            path = folder / f"{part}-{kind}-ubyte{'.gz' * packed}"
            path.write_bytes(gzip.compress(idx(values)) if packed else idx(values))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path)


# Layouts.


@pytest.mark.parametrize(
    ("name", "packed", "plain"),
    [("MNIST", False, False), ("MNIST", True, True), ("FashionMNIST", True, False)],
)
def test_every_layout_gives_the_same_padded_images(tmp_path, name, packed, plain):
    write(tmp_path if plain else tmp_path / name / "raw", packed)
    data = MODULES[name](str(tmp_path), batch_size=10)
    data.prepare_data()
    data.setup()
    for part, images in zip(COUNTS, data.load(), strict=True):
        assert images.pixels.dtype == torch.uint8 and images.target.dtype == torch.int64
        expected = np.pad(pixels(part), [(0, 0), (2, 2), (2, 2)])
        assert (images.pixels.numpy() == expected[:, None]).all()
        assert (images.target.numpy() == labels(part)).all()
    assert data.num_classes == 10
    assert len(data.train_dataloader().sampler.index) == 20


def test_one_dataset_is_not_taken_for_the_other(tmp_path):
    write(tmp_path / "MNIST" / "raw")
    MNISTDataModule(tmp_path).setup()
    with pytest.raises(UserError, match=r"FashionMNIST is not there under .* FashionMNIST/raw/ or"):
        FashionMNISTDataModule(tmp_path).setup()


def test_the_complete_folder_wins_and_gzipped_files_fill_in(tmp_path):
    write(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    write(tmp_path / "MNIST" / "raw", packed=True)
    raw = tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    raw.write_bytes(idx(labels("train")[::-1]))  # beside its .gz, as torchvision unpacks
    train, _ = MNISTDataModule(tmp_path).load()
    assert (train.target.numpy() == labels("train")[::-1]).all()


@pytest.mark.parametrize("name", MODULES)
def test_what_a_network_sees(folder, name):
    data = MODULES[name](folder, batch_size=10)
    data.setup()
    batch = evaluated(data)
    assert batch.views.shape == (10, 1, 1, 32, 32)
    mean, std = {"MNIST": (0.1, 0.2752), "FashionMNIST": (0.219, 0.3318)}[name]
    expected = (np.pad(pixels("t10k"), [(0, 0), (2, 2), (2, 2)]) / 255 - mean) / std
    expected = torch.from_numpy(expected)[:, None, None]
    torch.testing.assert_close(batch.views.double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("name", "flips"), [("MNIST", False), ("FashionMNIST", True)])
def test_shifts_lose_nothing_and_only_clothes_flip(folder, name, flips):
    # Bright pixels in two corners show where the picture went and which way it looks.
    marked = np.zeros((20, 28, 28), dtype=np.uint8)
    marked[:, 0, 0], marked[:, 27, 27] = 255, 254
    (folder / "train-images-idx3-ubyte").write_bytes(idx(marked))
    data = MODULES[name](folder, batch_size=20)
    data.setup()
    shifts, mirrored = set(), set()
    for epoch in range(40):
        views = training(data, epoch).views[:, 0, 0]
        first, second = views.flatten(1).topk(2).indices.unbind(1)
        assert (second // 32 - first // 32 == 27).all()
        assert ((second % 32 - first % 32).abs() == 27).all()
        mirrored |= set((second % 32 < first % 32).tolist())
        shifts |= set(zip((first // 32).tolist(), (first % 32).tolist(), strict=True))
    assert mirrored == ({False, True} if flips else {False})
    columns = [*range(5), *range(27, 32)] if flips else range(5)
    assert shifts == {(row, column) for row in range(5) for column in columns}


# What is not as it should be.


@pytest.mark.parametrize(("part", "kind"), [("train", "images-idx3"), ("t10k", "labels-idx1")])
def test_damaged_files_are_named(folder, part, kind):
    path = folder / f"{part}-{kind}-ubyte"
    packed = path.with_name(f"{path.name}.gz")
    whole, other = path.read_bytes(), idx((labels if kind == "images-idx3" else pixels)(part))
    # Cut, a header alone, too long, another page, another magic number, floats, the other kind.
    broken = [
        whole[:-5], whole[:16], b"", whole + b"beyond", b"<html>404 Not Found</html>",
        whole[:2] + b"\x0a" + whole[3:], bytes([0, 0, 13]) + whole[3:] + 3 * whole[16:], other,
    ]  # fmt: skip
    files = [(path, content) for content in broken]
    files += [(packed, gzip.compress(content)) for content in broken]
    for file, content in (*files, (packed, gzip.compress(whole)[:-5]), (packed, b"no gzip file")):
        path.unlink(missing_ok=True)
        file.write_bytes(content)
        with pytest.raises(UserError) as caught:
            MNISTDataModule(folder).setup()
        assert str(caught.value) == (
            f"{file} is damaged or no idx file of {kind[:6]}; replace it by a fresh copy."
        )


@pytest.mark.parametrize(
    ("where", "name"), [("", "train-labels-idx1-ubyte"), ("MNIST/raw", "t10k-images-idx3-ubyte")]
)
def test_a_missing_file_is_named(tmp_path, where, name):
    write(tmp_path / where)
    (tmp_path / where / name).unlink()
    sentence = rf"{tmp_path / where / name} is missing, and so is its \.gz; put it there, or set "
    with pytest.raises(UserError, match=sentence):
        MNISTDataModule(tmp_path).setup()


def test_no_data_at_all(tmp_path):
    sentence = r"^MNIST is not there under root='.*nowhere': it must hold MNIST/raw/ or the files"
    with pytest.raises(UserError, match=sentence):
        MNISTDataModule(tmp_path / "nowhere").setup()


def test_files_that_do_not_go_together(folder):
    path = folder / "train-labels-idx1-ubyte"
    path.write_bytes(idx(labels("t10k")))
    with pytest.raises(UserError, match=r"holds 20 images but .*train-labels-idx1-ubyte 10 labels"):
        MNISTDataModule(folder).setup()
    (folder / "train-images-idx3-ubyte").write_bytes(idx(pixels("train")[:, :, 4:]))
    with pytest.raises(UserError, match=r"holds images of 28x24 pixels instead of 28x28; replace"):
        MNISTDataModule(folder).setup()


# Downloads.


def test_download_happens_where_allowed_and_needed(tmp_path, monkeypatch):
    calls = []

    def download(self: MNIST) -> None:
        calls.append(type(self).__name__)
        write(Path(self.raw_folder))

    monkeypatch.setattr(MNIST, "download", download)
    for name, module in MODULES.items():
        module(tmp_path).prepare_data()
        assert name not in calls
        data = module(tmp_path, download=True)
        data.prepare_data()
        data.prepare_data()
        data.setup()
        assert calls.count(name) == 1 and len(data.test_dataloader().sampler.index) == 10


def test_a_plain_folder_is_not_downloaded_over(folder, monkeypatch):
    monkeypatch.setattr(MNIST, "download", None)
    data = MNISTDataModule(folder, download=True)
    data.prepare_data()
    data.setup()


def test_download_that_fails(tmp_path, monkeypatch):
    def download(self: MNIST) -> None:
        raise RuntimeError("Error downloading a:\nTried b, got:\nno route to host\n")

    monkeypatch.setattr(MNIST, "download", download)
    sentence = r"^FashionMNIST could not be downloaded to root='.*' \(Error .* no route to host\); "
    with pytest.raises(UserError, match=sentence) as caught:
        FashionMNISTDataModule(tmp_path, download=True).prepare_data()
    assert "\n" not in str(caught.value)


# The real one.

REAL = os.environ.get("CRITICAL_PERIODS_FASHION_MNIST", "")


@pytest.mark.real_data
@pytest.mark.skipif(
    not REAL, reason="CRITICAL_PERIODS_FASHION_MNIST names no folder with Fashion-MNIST's files"
)
def test_real_fashion_mnist():
    data = FashionMNISTDataModule(REAL)
    data.setup()
    train, test = data.load()
    assert train.pixels.shape == (60_000, 1, 32, 32) and test.pixels.shape == (10_000, 1, 32, 32)
    assert train.target.bincount().tolist() == [6000] * 10
    assert test.target.bincount().tolist() == [1000] * 10
    assert train.target[:4].tolist() == [9, 0, 0, 3]
    brightness = train.pixels.double() / 255
    assert brightness.mean().item() == pytest.approx(data.mean[0], abs=5e-5)
    assert brightness.std().item() == pytest.approx(data.std[0], abs=5e-5)
    inner = brightness[:, :, 2:-2, 2:-2]  # as published for the 28x28 pixels
    assert inner.mean().item() == pytest.approx(0.2860, abs=5e-5)
    assert inner.std().item() == pytest.approx(0.3530, abs=5e-5)
