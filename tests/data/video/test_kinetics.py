"""The DataModule of video pairs: what a batch is made of, and what becomes of bad videos."""

import csv
import errno
import functools
import itertools
import multiprocessing
import os
import pickle
import re
import shutil
import tracemalloc
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from batches import batches, by_index, evaluated, joined, measured, place, training
from PIL import Image
from processes import WORLD, join_processes, start_processes
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from small_videos import FullDecode, film, write_changing_video, write_video
from torch import Tensor, nn

from critical_periods.callbacks import DeficitWindow
from critical_periods.cli import main
from critical_periods.core.errors import UserError
from critical_periods.data import KineticsDataModule, MovingDigitsDataModule
from critical_periods.data.video import clips, kinetics, video_file
from critical_periods.data.video.extraction import extract
from critical_periods.data.video.moving_digits_video import write_videos
from critical_periods.data.video.video_index import as_bytes
from critical_periods.data.video.video_lists import find_videos
from critical_periods.deficits import Dissociation
from critical_periods.tasks import ClassificationTask

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
TRAIN, VAL = 37, 13
SMALL = {"batch_size": 8, "image_size": 16, "num_workers": 0}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Moving digits in the layout of Kinetics: four directions, two seconds, 24 pixels."""
    root = tmp_path_factory.mktemp("digits")
    write_videos(root, MovingDigitsDataModule("motion"), train=TRAIN, val=VAL)
    return root


def ready(root: Path, **settings: Any) -> Any:
    data = KineticsDataModule(root, **(SMALL | settings))
    data.setup()
    return data


def paths(data: Any, split: str) -> list[str]:
    return [*map(os.fsdecode, data._clips[split].paths)]


def colours(views: Tensor) -> Tensor:
    """Views [..., 3, H, W] in 0 to 255, colours last."""
    return (views.movedim(-3, -1) * STD + MEAN) * 255


def report(root: Path) -> list[list[str]]:
    with open(root / "critical_periods_index" / "bad_videos.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["split", "path", "reason"]
    return rows


def grey(root: Path, frames: int) -> Path:
    """Videos whose n-th frame is all of one grey, 5 n, so that a cut-out tells its time."""
    for split, number in (("train", 6), ("val", 2)):
        for n in range(number):
            images = [np.full((32, 48, 3), 5 * frame, np.uint8) for frame in range(frames)]
            write_video(root / split / f"class {n % 2}" / f"{n}.mp4", images, crf=4)
    return root


# What a batch is made of.


@pytest.mark.parametrize("delay", [3, None])
def test_evaluation_takes_the_middle_square_of_a_centred_pair(tmp_path: Path, delay: int | None):
    frames = [16, 24, 41, 48, 30]
    for number, length in enumerate(frames):
        for split in ("train", "val"):
            write_video(tmp_path / split / "a" / f"{number}.mp4", film(length, number))
    data = ready(tmp_path, image_size=48, delay=delay)
    batch = evaluated(data)
    assert batch.index.tolist() == list(range(5)) and batch.views.shape == (5, 2, 3, 48, 48)
    delays = set()
    for number, length in enumerate(frames):
        # At 12 frames a second every fourth is on the grid.
        full = FullDecode(tmp_path / "val" / "a" / f"{number}.mp4")
        images = torch.tensor(np.stack([full.image(n)[:, 8:56] for n in range(0, length, 4)]))
        shown = colours(batch.views[number])
        errors = (shown[:, None] - images).abs().flatten(2).amax(2)
        first, second = errors.argmin(1).tolist()
        assert errors.amin(1).max() < 1e-3
        assert 0 <= len(images) - 1 - second - first <= 1
        delays.add(second - first)
    assert delays == {delay} if delay else min(delays) >= 1 and len(delays) > 1


@pytest.mark.parametrize("delay", [4, None])
def test_training_takes_any_pair_a_delay_apart(tmp_path: Path, delay: int | None):
    length = 10 if delay else 4
    data = ready(grey(tmp_path, frames=4 * length), delay=delay)
    pairs: Counter[tuple[int, ...]] = Counter()
    for epoch in range(40):
        shown = colours(training(data, epoch).views)
        assert (shown.flatten(2).std(-1) < 2).all()
        # Every fourth frame is on the grid.
        steps = shown.mean((2, 3, 4)) / 20
        assert (steps - steps.round()).abs().max() < 0.12
        pairs.update(tuple(pair) for pair in steps.round().long().tolist())
    possible = [(a, b) for a in range(length) for b in range(a + 1, length)]
    assert sorted(pairs) == [pair for pair in possible if delay in (None, pair[1] - pair[0])]
    assert min(pairs.values()) > 20


def test_both_frames_are_cut_out_and_flipped_together(tmp_path: Path):
    """Videos that stand still: whatever is drawn, both views must show the same."""
    image = np.empty((48, 64, 3), np.uint8)
    image[:] = np.linspace(0, 255, 64)[None, :, None]
    image[:, :, 1] = np.linspace(0, 255, 48)[:, None]
    for split in ("train", "val"):
        for n in range(8):
            write_video(tmp_path / split / "a" / f"{n}.mp4", [image] * 20, crf=1)
    data = ready(tmp_path)
    shown = [colours(training(data, epoch).views) for epoch in range(20)]
    left, right = torch.cat(shown).unbind(1)
    assert (left - right).abs().mean() < 2
    slope = (left[:, :, -1] - left[:, :, 0])[..., 0].mean(1)
    assert ((slope < 0).double().mean() - 0.5).abs() < 4 * 0.5 / 160**0.5
    # Of 20 to 100 % of the area: no two cut out the same.
    assert slope.abs().min() > 60 and slope.abs().unique().numel() > 100
    assert (left[:, -1, :, 1] > left[:, 0, :, 1]).all()


@pytest.mark.parametrize("shards", [False, True], ids=["videos", "shards"])
@pytest.mark.parametrize("second", [(120, 160), (24, 32), (80, 48)])
def test_both_frames_show_the_same_where_the_size_changes(
    tmp_path: Path, second: tuple[int, int], shards: bool
):
    """A still picture at one size and then at another: both views show the same part of it."""
    ramp = np.stack(np.meshgrid(np.linspace(0, 255, 64), np.linspace(0, 255, 48)) * 2, -1)[..., :3]
    first = Image.fromarray(ramp.astype(np.uint8))
    other = first.resize(second[::-1], Image.Resampling.BICUBIC)
    parts = [8 * [np.asarray(image)] for image in (first, other)]
    for split in ("train", "val"):
        for n in range(3):
            path = tmp_path / "videos" / split / "a" / f"{n}.webm"
            write_changing_video(path, parts, "libvpx", crf=4, deadline="realtime")
        if shards:
            extract(find_videos(tmp_path / "videos", split), tmp_path / "shards" / split)
    data = ready(tmp_path / ("shards" if shards else "videos"), delay=3)
    for batch in (evaluated(data), *(training(data, epoch) for epoch in range(3))):
        left, right = colours(batch.views).unbind(1)
        assert (left - right).abs().mean() < 5 and (left - right).abs().max() < 25


def test_samples_depend_on_seed_epoch_and_index_alone(digits: Path, monkeypatch):
    expected = training(ready(digits), epoch=5)
    parts = []
    for rank in range(2):
        data = ready(digits, batch_size=3)
        place(data, rank, 2)
        training(data, epoch=0)  # what came before does not matter
        parts.append(training(data, epoch=5))
    both = joined(parts)
    assert len(both.index) == TRAIN - 1  # two processes get as many each
    found = torch.isin(expected.index.sort().values, both.index)
    assert torch.equal(by_index(both), by_index(expected)[found])
    in_order = expected.target[expected.index.argsort()]
    assert torch.equal(both.target[both.index.argsort()], in_order[found])
    assert not torch.equal(by_index(training(ready(digits), 4)), by_index(expected))
    monkeypatch.setenv("PL_GLOBAL_SEED", "4")
    assert not torch.equal(by_index(training(ready(digits), 5)), by_index(expected))
    assert torch.equal(evaluated(ready(digits)).views, evaluated(ready(digits)).views)


def test_workers_make_the_same_batches(digits: Path):
    settings: dict[str, Any] = {"delay": None, "mixup": 0.8, "cutmix": 1.0, "rand_augment": 9}
    alone, helped = (ready(digits, num_workers=n, **settings) for n in (0, 2))
    assert all(map(torch.equal, training(alone, 3), training(helped, 3)))
    assert torch.equal(evaluated(alone).views, evaluated(helped).views)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_full_shared_memory_is_said_and_batches_come_all_the_same(
    digits: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """Containers have little of it, and torch would wait for ever for a batch that was lost."""
    expected = training(ready(digits), 3)

    def full(self: Any, *arguments: Any) -> None:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space")

    for name in ("_share_fd_cpu_", "_share_filename_cpu_"):
        monkeypatch.setattr(torch.UntypedStorage, name, full)
    assert all(map(torch.equal, training(ready(digits, num_workers=2), 3), expected))
    assert caplog.text.count("Shared memory (/dev/shm) has no room for the batches of num") == 1
    monkeypatch.setattr(multiprocessing.context.BaseContext, "Lock", unable)
    with pytest.raises(UserError, match="num_workers=2 processes cannot be started: No space left"):
        training(ready(digits, num_workers=2))


def unable(*arguments: Any, **settings: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_rand_augment_changes_both_frames_alike_and_only_in_training(tmp_path: Path):
    for number in range(24):
        for split in ("train", "val"):
            still = film(1, number) * 24
            write_video(tmp_path / split / "a" / f"{number}.mp4", still, crf=0)
    plain, data = ready(tmp_path, delay=2), ready(tmp_path, delay=2, rand_augment=9)
    first, second = (training(data, epoch).views for epoch in (0, 1))
    assert torch.equal(first[:, 0], first[:, 1]) and torch.equal(second[:, 0], second[:, 1])
    other = ready(tmp_path, delay=2, rand_augment=9, batch_size=5)
    assert torch.equal(by_index(training(data, 0)), by_index(training(other, 0)))
    before, after = (by_index(training(each, 0)) for each in (plain, data))
    # A quarter of the samples skips both operations.
    assert 6 <= (before != after).flatten(1).any(1).sum() < 24
    assert torch.equal(evaluated(data).views, evaluated(plain).views)


def test_mixing_comes_last_and_is_one_for_both_views(digits: Path):
    clean = training(ready(digits, batch_size=TRAIN), 2)
    mixed = training(ready(digits, batch_size=TRAIN, mixup=0.8), 2)
    assert mixed.target.shape == (TRAIN, 4) and torch.equal(clean.index, mixed.index)
    for i in range(TRAIN):
        # The partner is known by its class alone, where that is another one.
        fits = []
        for j in range(TRAIN):
            share = mixed.target[i, clean.target[i]]
            if clean.target[j] != clean.target[i] and 0 < share < 1:
                blend = share * clean.views[i] + (1 - share) * clean.views[j]
                fits.append(torch.allclose(mixed.views[i], blend, atol=1e-5))
        assert not fits or sum(fits) == 1
    assert evaluated(ready(digits, mixup=0.8, cutmix=1.0)).target.dtype == torch.int64


def test_dissociated_pairs_have_one_frame_of_another_video(digits: Path):
    data = ready(digits, batch_size=TRAIN)
    clean = training(data, 1)
    data.deficits.fill([Dissociation(p=0.5)])
    batch = training(data, 1)
    for frame in range(2):
        near = torch.cdist(batch.views[:, frame].flatten(1), clean.views[:, frame].flatten(1))
        source, taken = near.argmin(1), batch.target_view == frame
        assert (near.amin(1) < 0.1).all()
        assert 8 < int(taken.sum()) < 29
        assert torch.equal(batch.target[taken], clean.target[source[taken]])
    assert (batch.views[:, 1] != clean.views[:, 1]).flatten(1).any(1).all()
    assert torch.equal(evaluated(data).views, evaluated(ready(digits)).views)


def test_measurement_samples_are_clean_and_of_every_run(digits: Path, monkeypatch):
    data = ready(digits, mixup=0.8)
    data.deficits.fill([Dissociation()])
    few = measured(data, "train", 11)
    monkeypatch.setenv("PL_GLOBAL_SEED", "9")
    again = measured(ready(digits), "train", 11)
    assert torch.equal(few.views, again.views) and torch.equal(few.target, again.target)
    # The validation videos are those to test on.
    assert torch.equal(measured(data, "test").views, measured(data, "val").views)


# Folders, lists and shards.


@pytest.mark.parametrize(("line", "classes"), [("{path},{name}", 4), ("{path} {number}", 700)])
def test_lists_in_place_of_folders(digits: Path, tmp_path: Path, line: str, classes: int):
    expected = ready(digits)
    for split in ("train", "val"):
        videos = find_videos(digits, split)
        # As the labels of Kinetics-700 are numbered, with some that no video has.
        numbers = {name: 699 - n for n, name in enumerate(expected.class_names)}
        lines = [
            line.format(path=f"{split}/{path}", name=name, number=numbers[name])
            for path, name in zip(videos.paths, videos.labels, strict=True)
        ]
        (tmp_path / f"{split}.csv").write_text("\n".join(lines))
    data = ready(digits, train_csv=tmp_path / "train.csv", val_csv=tmp_path / "val.csv")
    assert data.num_classes == classes == len(data.class_names)
    found, clean = evaluated(data), evaluated(expected)
    assert torch.equal(found.views, clean.views)
    assert torch.equal(found.target, clean.target if classes == 4 else 699 - clean.target)
    assert data.fingerprint() != expected.fingerprint()


def test_shards_are_read_like_the_videos(digits: Path, tmp_path: Path):
    for split in ("train", "val"):
        extract(find_videos(digits, split), tmp_path / split)
    videos, shards = ready(digits), ready(tmp_path)
    assert videos.class_names == shards.class_names
    for one, other in (
        (evaluated(videos), evaluated(shards)),
        (training(videos, 3), training(shards, 3)),
    ):
        assert torch.equal(one.index, other.index) and torch.equal(one.target, other.target)
        error = (colours(one.views) - colours(other.views)).abs()
        assert error.mean() < 3 and error.flatten(1).mean(1).max() < 6


def test_the_fingerprint_is_of_what_there_is(digits: Path, tmp_path: Path):
    copy = shutil.copytree(digits, tmp_path / "copy")
    same = ready(copy, batch_size=3, delay=2, mixup=0.8).fingerprint()
    assert same == ready(digits).fingerprint()
    file = next(copy.glob("val/*/*.mp4"))
    file.write_bytes(file.read_bytes() + b"one byte more")
    assert ready(copy).fingerprint() != same


def test_a_folder_that_cannot_be_written_to_has_its_index_at_home(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    root = shutil.copytree(digits, tmp_path / "root", ignore=lambda *_: ["critical_periods_index"])
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    ready(root)
    (index,) = (tmp_path / "cache" / "critical_periods").iterdir()
    assert {"train.npz", "val.npz", "bad_videos.csv"} <= {path.name for path in index.iterdir()}


def test_a_chosen_place_of_the_index_is_used_and_asked_for_once(digits: Path, tmp_path: Path):
    root = shutil.copytree(digits, tmp_path / "root", ignore=lambda *_: ["critical_periods_index"])
    data = ready(root, index_dir=tmp_path / "index")
    (index,) = (tmp_path / "index").iterdir()
    assert {"train.npz", "val.npz", "bad_videos.csv"} <= {path.name for path in index.iterdir()}
    assert not (root / "critical_periods_index").exists()
    # What becomes of the folder does not move the report of a run.
    (index / "val.lock").unlink()
    (index / "val.lock").mkdir()
    assert data._report_file == index / "bad_videos.csv"
    with pytest.raises(UserError, match=r"cannot be written to .*index/.* \(Is a directory\); set"):
        ready(root, index_dir=tmp_path / "index")


def test_folders_that_the_system_refuses_are_a_sentence(
    digits: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*arguments: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", "/videos/train")

    monkeypatch.setattr(kinetics, "find_videos", refuse)
    with pytest.raises(UserError, match=r"/videos/train under root=.* cannot be read: Permission"):
        ready(digits)


# Bad videos.


@pytest.fixture
def spoilt(digits: Path, tmp_path: Path) -> Path:
    """Four bad videos among 37 + 13."""
    root = shutil.copytree(digits, tmp_path / "spoilt")
    folder = root / "train" / "left"
    whole = next(folder.glob("*.mp4")).read_bytes()
    (folder / "a truncated.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "b empty.mp4").touch()
    (root / "val" / "up" / "text.mp4").write_text("Not a video, but a text.\n")
    write_video(folder / "c short.mp4", film(13))
    return root


def test_bad_videos_are_reported_and_left_out(spoilt, caplog):
    data = ready(spoilt, max_bad_share=4 / 54)
    rows = report(spoilt)
    bad = [
        ("train", "left/a truncated.mp4", "is cut off"),
        ("train", "left/b empty.mp4", "is empty"),
        ("train", "left/c short.mp4", "is too short: 4 frames at 3 a second, of which delay=4 nee"),
        ("val", "up/text.mp4", "cannot be read: Invalid data"),
    ]
    for row, expected in zip(rows, bad, strict=True):
        assert tuple(row[:2]) == expected[:2] and row[2].startswith(expected[2])
    assert "4 of 54 videos are left out; see " in caplog.text
    names = {split: paths(data, split) for split in ("train", "val")}
    used = {("train", names["train"][i]) for i in training(data).index}
    used |= {("val", names["val"][i]) for i in evaluated(data).index}
    assert len(used) == 50 and not used & {(split, path) for split, path, _ in bad}
    # A shorter delay has use for the short one.
    assert len(training(ready(spoilt, delay=3, max_bad_share=0.1)).index) == TRAIN + 1


def test_too_many_bad_videos_stop_before_training(spoilt):
    for share in (0.0, 3.9 / 54):
        with pytest.raises(UserError, match=r"4 of 54 videos under root=.* max_bad_share=.*; see"):
            ready(spoilt, max_bad_share=share)
    assert len(report(spoilt)) == 4
    with pytest.raises(UserError, match=r"no video of the split 'train' can be used; see .*csv"):
        ready(spoilt, delay=30, max_bad_share=1.0)


def break_videos(data: Any, split: str, numbers: list[int]) -> None:
    """Spoils videos that were sound when the index was made."""
    for number in numbers:
        path = Path(data.root, split, paths(data, split)[number])
        path.write_bytes(path.read_bytes()[:-200])


def test_a_video_that_breaks_in_training_is_replaced(digits: Path, tmp_path: Path):
    data = ready(shutil.copytree(digits, tmp_path / "copy"), max_bad_share=0.1)
    clean = by_index(training(data, 1))
    break_videos(data, "train", [4, 20])
    parts = batches(data, data.train_dataloader(), 1)
    assert [len(part.index) for part in parts] == [8, 8, 8, 8, 5]
    batch = joined(parts)
    counts = Counter(batch.index.tolist())
    assert set(counts) == set(range(TRAIN)) - {4, 20} and sum(counts.values()) == TRAIN
    for index, views in zip(batch.index.tolist(), batch.views, strict=True):
        assert torch.equal(views, clean[index])
    assert torch.equal(training(data, 1).index, batch.index)
    assert data.broken == {("train", 4): "is cut off", ("train", 20): "is cut off"}
    assert sorted(report(data.root)) == sorted(
        ["train", paths(data, "train")[n], "is cut off (found in training)"] for n in (4, 20)
    )
    break_videos(data, "train", [5, 6, 7])
    training(data, 2)
    break_videos(data, "train", [8])
    with pytest.raises(UserError, match=r"6 of 50 videos .* max_bad_share=0.1; see"):
        training(data, 3)


def test_a_video_that_breaks_is_left_out_of_evaluation(digits: Path, tmp_path: Path):
    data = ready(shutil.copytree(digits, tmp_path / "copy"), max_bad_share=1.0, batch_size=4)
    break_videos(data, "val", [2, 9])
    assert evaluated(data).index.tolist() == [n for n in range(VAL) if n not in (2, 9)]
    break_videos(data, "val", [n for n in range(VAL) if n not in (2, 9)])
    with pytest.raises(UserError, match=r"and 19 videos drawn in its place cannot be decode.*cut"):
        evaluated(data)


def test_what_the_system_refuses_in_training_is_asked_for_again(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A passing error changes nothing; one that stays is reported as what it is."""
    data = ready(shutil.copytree(digits, tmp_path / "copy"), max_bad_share=0.1)
    clean = training(data, 1)
    monkeypatch.setattr(clips, "_PAUSES", (0, 0))
    asked: Counter[Path] = Counter()
    times, is_cut_off = 2, video_file.is_cut_off

    def stale(path: Any) -> bool:
        asked[Path(path)] += 1
        # Each reading of a video opens it twice where it fails.
        if asked[Path(path)] <= 2 * times and Path(path) == gone:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return is_cut_off(path)

    gone = Path(data.root, "train", paths(data, "train")[4])
    monkeypatch.setattr(video_file, "is_cut_off", stale)
    assert all(map(torch.equal, training(data, 1), clean)) and not data.broken
    times = 100
    assert 4 not in training(data, 2).index
    assert data.broken == {("train", 4): f"cannot be read: {os.strerror(errno.ESTALE)}"}


def test_a_workers_error_is_its_own_sentence(digits: Path, tmp_path: Path):
    data = ready(shutil.copytree(digits, tmp_path / "copy"), max_bad_share=1.0, num_workers=1)
    break_videos(data, "train", list(range(TRAIN)))
    with pytest.raises(UserError) as caught:
        training(data)
    sentence = r"\S+\.mp4 and 19 videos drawn in its place cannot be decoded \(the last, .*\.mp4, "
    assert re.fullmatch(sentence + r"is cut off\); look after the data\.", str(caught.value))


# Settings.


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"delay": 0}, "delay=0 must be at least 1 step of 1/3 s, or null for any"),
        ({"image_size": 0}, "image_size=0 must be at least 1 pixel"),
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"num_workers": -1}, "num_workers=-1 must not be negative"),
        ({"mixup": -0.1}, "mixup=-0.1 must be 0, for none, or positive"),
        ({"cutmix": -1.0}, "cutmix=-1.0 must be 0, for none, or positive"),
        ({"rand_augment": 11}, "rand_augment=11 must be from 0, for none, to 10"),
        ({"max_bad_share": 5}, "max_bad_share=5 must be a share from 0 to 1"),
        ({"train_csv": "a.csv"}, "train_csv and val_csv go together; set both, or neither"),
        ({"root": "no/where"}, "root='no/where' is no folder; set data.init_args.root"),
        ({"train_csv": "a.csv", "val_csv": "b.csv"}, "the list a.csv cannot be read: .*No such"),
    ],
)
def test_settings_that_do_not_fit(digits: Path, settings: dict[str, Any], sentence: str):
    with pytest.raises(UserError, match=sentence):
        ready(**({"root": digits} | settings)).train_dataloader()


def test_the_command_line_says_it_in_one_sentence(tmp_path: Path, capsys):
    config = tmp_path / "run.yaml"
    config.write_text(f"""
model:
  class_path: ClassificationTask
  init_args:
    network:
      class_path: SplitResNet18
data:
  class_path: KineticsDataModule
  init_args:
    root: {tmp_path / "none"}
trainer: {{max_epochs: 1, logger: false, accelerator: cpu}}
""")
    assert main(["fit", "--config", str(config)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("critical-periods: error: ") and len(error.splitlines()) == 1
    assert f"root='{tmp_path / 'none'}' is no folder; set data.init_args.root." in error


# Whole trainings.


class TwoFrames(nn.Module):
    """Answers from both frames, small."""

    def __init__(self) -> None:
        super().__init__()
        layers = nn.Conv2d(6, 8, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(8 * 49, 4)
        self.body = nn.Sequential(*layers)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.body(torch.cat([first, second], 1))


class Witness(Callback):
    """Notes which samples each step and each validation sees."""

    def __init__(self) -> None:
        self.trained: list[list[int]] = []
        self.validated: list[int] = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, n: int):
        self.trained.append(batch.index.tolist())

    def on_validation_epoch_start(self, trainer: Any, module: Any):
        self.validated = []

    def on_validation_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, *n: Any):
        self.validated += batch.index.tolist()


def fit(
    root: Path,
    folder: Path | None = None,
    processes: int = 1,
    resume: Path | None = None,
    callbacks: tuple[Callback, ...] = (),
    epochs: int = 2,
    **settings: Any,
) -> tuple[dict[str, Tensor], Witness, dict[str, Tensor]]:
    pl.seed_everything(3, verbose=False)
    optimizer = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9)
    task = ClassificationTask(TwoFrames(), num_classes=4, optimizer=optimizer)
    witness = Witness()
    savers = [ModelCheckpoint(folder, "{step}", save_top_k=-1, every_n_train_steps=1)]
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        logger=False,
        enable_checkpointing=folder is not None,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[witness, *callbacks, *(savers if folder else [])],
    )
    data = KineticsDataModule(root, **(SMALL | settings))
    trainer.fit(task, data, ckpt_path=resume, weights_only=True)
    weights = {name: value.clone() for name, value in task.state_dict().items()}
    return weights, witness, dict(trainer.callback_metrics)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_stopped_anywhere_and_resumed_to_the_bit(digits: Path, tmp_path: Path, num_workers: int):
    def run(workers: int, *arguments: Any, **settings: Any) -> Any:
        window = DeficitWindow(Dissociation(), onset=1)
        mixing = {"mixup": 0.8, "cutmix": 1.0, "rand_augment": 9, "delay": None}
        return fit(
            digits, *arguments, callbacks=(window,), num_workers=workers, **mixing, **settings
        )

    weights, seen, metrics = run(num_workers, tmp_path)
    assert len(seen.trained) == 10 and metrics["deficit/active"] == 1
    for step in (3, 5, 8):
        # Going on with as many workers, or with others.
        for workers in {num_workers, 1} if step == 3 else {num_workers}:
            again, rest, after = run(workers, resume=tmp_path / f"step={step}.ckpt")
            assert rest.trained == seen.trained[step:]
            assert all(torch.equal(again[name], weight) for name, weight in weights.items())
            assert after["val/loss"] == metrics["val/loss"]
    assert not multiprocessing.active_children()


def run_process(rank: int, folder: Path) -> None:
    """A whole training, and one of two epochs, of which the second finds too many videos broken."""
    weights, witness, metrics = fit(folder / "videos", processes=WORLD, batch_size=4)
    seen = {"trained": witness.trained, "validated": witness.validated}
    torch.save({"weights": weights, "metrics": metrics, **seen}, folder / f"{rank}.pt")

    class Breaker(Callback):
        """Breaks two videos when all is set up, and two more when those are allowed for."""

        def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
            if rank == 0:
                numbers = [1, 3] if trainer.current_epoch == 0 else [5, 7]
                break_videos(trainer.datamodule, "val", numbers)
            trainer.strategy.barrier()

    with pytest.raises(UserError) as caught:
        fit(folder / "broken", processes=WORLD, callbacks=(Breaker(),), batch_size=4, epochs=3,
            max_bad_share=3 / (TRAIN + VAL))  # fmt: skip
    (folder / f"{rank}.txt").write_text(str(caught.value))


@pytest.fixture(scope="module")
def processes(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes leave behind."""
    folder = tmp_path_factory.mktemp("processes")
    for name in ("videos", "broken"):
        shutil.copytree(digits, folder / name)
    # 36 to train on, so that two processes share them evenly, and 13 to validate on.
    next((folder / "videos").glob("train/left/*.mp4")).unlink()
    join_processes(start_processes(run_process, folder))
    return folder


@pytest.mark.slow
def test_two_processes_train_and_validate_as_one(processes: Path):
    weights, witness, metrics = fit(processes / "videos")
    first, second = (torch.load(processes / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert sorted(first["validated"] + second["validated"]) == list(range(VAL))
    assert {len(first["validated"]), len(second["validated"])} == {6, 7}
    assert sorted(witness.validated) == list(range(VAL))
    both = [a + b for a, b in zip(first["trained"], second["trained"], strict=True)]
    assert both == witness.trained
    for name, weight in weights.items():
        torch.testing.assert_close(first["weights"][name], weight, rtol=1e-4, atol=2e-6)
        assert torch.equal(first["weights"][name], second["weights"][name])
    for key in ("train/loss", "val/loss"):
        torch.testing.assert_close(first["metrics"][key], metrics[key], rtol=1e-5, atol=0)
    assert first["metrics"]["val/accuracy"] == metrics["val/accuracy"]


@pytest.mark.slow
def test_two_processes_count_broken_videos_together(processes: Path):
    """Validation shares videos out by turns, so the odd ones are met by the second process."""
    first, second = ((processes / f"{rank}.txt").read_text() for rank in range(2))
    assert first == second and "4 of 50 videos under root=" in first
    rows = report(processes / "broken")
    assert len(rows) == 4 and all(row[0] == "val" for row in rows)
    assert all(row[2] == "is cut off (found in training)" for row in rows)


@pytest.mark.parametrize("shards", [False, True], ids=["videos", "shards"])
def test_a_workers_memory_hardly_grows_with_the_index(digits: Path, tmp_path: Path, shards: bool):
    """A worker that starts anew gets its data set as pickled bytes, and makes batches of it."""
    for split in ("train", "val") if shards else ():
        extract(find_videos(digits, split), tmp_path / split)
    data = ready(tmp_path if shards else digits)
    few, target = data._clips["train"], data._target["train"]
    peaks = []
    for number in (1000, 50_000):
        turns = np.arange(number) % TRAIN
        many = {name: v[turns] for name, v in vars(few).items() if np.shape(v) == (TRAIN,)}
        # Slashes make names longer.
        many["paths"] = as_bytes(os.fsdecode(few.paths[n]).replace("/", "/" * 50) for n in turns)
        data._clips["train"], data._target["train"] = replace(few, **many), target[turns]
        data.splits["train"] = "train", torch.arange(number)
        workers = data.train_dataloader().workers
        sent, draws = pickle.dumps(workers.dataset), [*itertools.islice(workers.sampler, 3)]
        tracemalloc.start()
        dataset = pickle.loads(sent)
        assert all(dataset[draw].pixels.shape == (8, 2, 3, 16, 16) for draw in draws)
        peaks.append(tracemalloc.get_traced_memory()[1] / 2**20)
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 6
