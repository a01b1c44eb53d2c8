"""Folders of pictures of any size, and FER2013: classes, crops, turns, tones and sentences."""

import re

import numpy as np
import pytest
import torch
from batches import batches, by_index, evaluated, training
from PIL import Image
from pytorch_lightning import Trainer
from torch import nn
from torch.nn import functional as F
from torchvision.datasets import FER2013
from torchvision.transforms.functional import affine, five_crop

from critical_periods.core.errors import UserError
from critical_periods.data import ImageFolderDataModule
from critical_periods.data.image_folder import change_tone, turn_and_crop
from critical_periods.tasks import ClassificationTask

CLASSES = ("joy", "awe")


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    for part, count in (("train", 6), ("val", 2), ("test", 3)):
        for name in ("awe", "calm", "joy"):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(count + (name == "awe")):
                size = (20 + number, 30 - number, 3)
                picture = Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8))
                picture.save(tmp_path / part / name / f"{number}.png")
    (tmp_path / "train" / "joy" / ".hidden.png").write_bytes(b"")
    (tmp_path / "train" / "joy" / "broken.png").write_bytes(b"no picture")
    return tmp_path


def ready(root, **settings):
    chosen = {"classes": CLASSES, "size": 16, "crop_size": 12, "batch_size": 4, **settings}
    data = ImageFolderDataModule(root, **chosen)
    data.setup()
    return data


def test_classes_are_chosen_ordered_and_counted(root, caplog):
    data = ready(root)
    assert data.class_names == ["joy", "awe"] and data.num_classes == 2
    assert data.balance == {
        "train": {"joy": 6, "awe": 7}, "val": {"joy": 2, "awe": 3}, "test": {"joy": 3, "awe": 4}
    }  # fmt: skip
    assert "1 of 14 pictures" in caplog.text and "broken.png" in caplog.text
    assert len(data.splits["val"][1]) == 5 and data.splits["val"][0] == "val"
    assert ready(root, val_split=4).splits["val"][0] == "train"
    renamed = ready(root, classes={"awe": "surprise", "calm": "neutral"})
    assert renamed.class_names == ["surprise", "neutral"]
    assert ready(root, classes=None).class_names == ["awe", "calm", "joy"]


def test_without_turns_and_tones_training_sees_corners_and_the_middle(root):
    data = ready(root, rotation=0, tone=0)
    whole = ready(root, crop_size=16, augment="none")
    crops, images = by_index(training(data)), by_index(training(whole))
    places = set()
    for crop, image in zip(crops, images, strict=True):
        five = five_crop(image, [12, 12])
        near = [bool((crop - one).abs().max() < 1e-4) for one in five]
        assert any(near)
        places.add(near.index(True))
    assert len(places) > 2


def test_turns_and_tones_are_those_of_torchvision_and_depend_on_the_sample_alone(root):
    image = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    turned = turn_and_crop(image, torch.tensor([torch.pi / 6]), torch.zeros(1, 2), 16)
    expected = affine(image, -30.0, [0, 0], 1.0, [0.0, 0.0], Image.Resampling.BILINEAR)
    torch.testing.assert_close(turned, expected, atol=1e-5, rtol=0)
    grey = change_tone(image, torch.tensor([[1.0, 1.0, 0.0]]).double())
    assert grey.std(dim=1).max() < 1e-6 and change_tone(image, torch.ones(1, 3)).allclose(image)

    def views(epoch, **settings):
        data = ready(root, **settings)
        return by_index(training(data, epoch))

    small, large, other = views(0), views(0, batch_size=13), views(1)
    torch.testing.assert_close(small, large)
    assert not any(map(torch.equal, small, other))


def test_five_crops_are_averaged_where_a_run_evaluates_and_nowhere_else(root):
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, 2))
    task = ClassificationTask(network, num_classes=2)
    data = ready(root, evaluation="five")
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, barebones=False)
    (found,) = trainer.validate(task, data, verbose=False)
    whole = ready(root, crop_size=16)
    views = evaluated(whole, "val")
    five = torch.stack([network(one) for one in five_crop(views.views[:, 0], [12, 12])])
    means = five.softmax(2).mean(0)
    assert found["val/loss"] == pytest.approx(F.nll_loss(means.log(), views.target).item())
    probabilities = torch.cat(trainer.predict(task, data))
    assert probabilities.shape == (7, 2)
    assert next(iter(batches(data, data.measurement_loader("val")))).views.shape[0] == 3


def test_fer2013_is_read_as_torchvision_reads_it(tmp_path, monkeypatch):
    (tmp_path / "fer2013").mkdir()
    pixels = " ".join(["7"] * 48 * 48)
    lines = [f"{n % 7},{pixels},{use}" for use in ("Training", "PrivateTest") for n in range(14)]
    file = tmp_path / "fer2013" / "fer2013.csv"
    file.write_text("\n".join(["emotion,pixels,Usage", *lines]))
    with pytest.raises(UserError, match=r"FER2013 cannot be read from root=.*corrupted"):
        ready(tmp_path, classes=None)
    monkeypatch.setitem(FER2013._RESOURCES, "fer", ("fer2013.csv", None))
    data = ready(tmp_path, classes=["happiness", "anger"], size=48, crop_size=40)
    images, order = data._images["train"], data.class_names
    assert order == ["happiness", "anger"] and images.target.tolist() == [1, 0, 1, 0]
    assert images.pixels.shape == (4, 3, 48, 48) and images.pixels.unique().tolist() == [7]
    with pytest.raises(UserError, match=r"classes names 'angry'.*did you mean 'anger'"):
        ready(tmp_path, classes=["angry", "fear"])
    for part in ("train", "test"):
        monkeypatch.setitem(FER2013._RESOURCES, part, (f"{part}.csv", None))
    file.rename(tmp_path / "fer2013" / "train.csv")
    (tmp_path / "fer2013" / "test.csv").write_text(f"pixels\n{pixels}\n")
    with pytest.raises(UserError, match="no labels to test on"):
        ready(tmp_path, classes=None)


@pytest.mark.parametrize(
    ("settings", "change", "message"),
    [
        ({"crop_size": 17}, None, "crop_size=17 must lie between 1 and size=16"),
        ({"rotation": -1}, None, "rotation=-1 must lie"),
        ({"tone": 1}, None, "tone=1 must lie"),
        ({"evaluation": "ten"}, None, "evaluation='ten' is unknown; choose one of"),
        ({"classes": ["joy", "joy"]}, None, "at least two classes, each once"),
        ({"classes": ["joy", "aw"]}, None, "classes names 'aw', .*train lacks; did you mean 'awe'"),
        ({}, "empty", "awe holds no pictures; put some there, or leave 'awe' out"),
        ({}, "unreadable", "none of the pictures in .*awe can be read"),
        ({}, "missing", "'awe' is in .*train but not in .*test"),
        ({}, "no test", "root=.* has no folder val or test; it must hold"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(root, settings, change, message):
    for file in (root / "test" / "awe").iterdir():
        if change == "unreadable":
            file.write_bytes(b"")
        elif change in ("empty", "missing", "no test"):
            file.unlink()
    if change in ("missing", "no test"):
        (root / "test" / "awe").rmdir()
    if change == "no test":
        (root / "test").rename(root / "tests")
        (root / "val").rename(root / "validation")
    with pytest.raises(UserError) as caught:
        ready(root, **settings)
    assert re.search(message, str(caught.value)), caught.value
    assert str(caught.value).count("\n") == 0
