"""Pairs of frames from Kinetics, or from any folder of videos laid out like it."""

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.core.randomness import Stream, global_seed, uniform
from critical_periods.data.batch_stage import BatchStage, Images, normalise
from critical_periods.data.class_folders import is_hidden, tell
from critical_periods.data.epochs import EpochSampler, Indices
from critical_periods.data.video.clips import ClipDataset, ClipLoader, Clips
from critical_periods.data.video.frame_pairs import GRID_RATE, needed_length
from critical_periods.data.video.index_folder import BESIDE, index_file, index_folder
from critical_periods.data.video.labels import number_labels
from critical_periods.data.video.mixing import mix
from critical_periods.data.video.shards import open_shards
from critical_periods.data.video.video_file import MISSING
from critical_periods.data.video.video_index import read_index, write_report
from critical_periods.data.video.video_lists import (
    VideoList,
    are_folders,
    check_files,
    find_videos,
    tell_shared,
)

# ImageNet's constants, which MultiMAE normalises with.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class KineticsDataModule(BatchStage):
    """Two frames of a video, a multiple of 0.33 s apart, as two views of a scene.

    Reads videos (``train/<class>/*.mp4`` and ``val/`` or ``validation/``, of any format that FFmpeg
    knows, or lists of path and label), or the shards that ``critical-periods kinetics extract``
    made of them. Videos are looked at once, at first use, whatever lists name them; the index lies
    in ``root/critical_periods_index`` (where that cannot be written to, in the user's cache: see
    ``index_dir``) beside ``bad_videos.csv``, the report of the broken, empty and too short ones,
    which are left out. (Kleinman et al. 2023, sections 4.3, 4.4 and A.7.)

    Workers decode and cut out: in training one random part of 20 to 100 % of the area for both
    frames, with RandAugment where asked for, in evaluation the middle square. On the device both
    frames of a sample flip together, are normalised, meet the deficits and, in training, mix with
    another sample's.

    Args:
        root: the data set's folder, or that of its shards.
        train_csv: a list of the training videos (path, label; paths relative to ``root``) in place
            of ``train/``.
        val_csv: the same for validation.
        batch_size: samples in a batch of one process.
        num_workers: processes that decode; by default one a core, at most 8.
        delay: steps of 1/3 s between the frames (A.7: 4, which is 1.33 s); ``None`` draws them.
        image_size: pixels of a side of the square views.
        mixup: a of Beta(a, a), the share that a sample keeps in mixup (A.7: 0.8 for supervised
            training); 0 for none.
        cutmix: the same for CutMix (A.7: 1.0).
        rand_augment: magnitude of :func:`.rand_augment`, one for both frames (9 where MultiMAE is
            fine-tuned); 0 for none.
        max_bad_share: of the videos that may be bad before training stops.
        path_column: the column of the paths in the lists' header, where they have one.
        label_column: that of the labels.
        index_dir: a folder for the index and the report, which get one for the data set in it; by
            default beside the data, or, where nothing can be written there, in
            ``$XDG_CACHE_HOME/critical_periods`` (``~/.cache``).

    Raises:
        UserError: a setting has no meaning; by ``setup``, data is missing, the system does not let
            it be read or its index be written, or too many videos are bad; in training, too many
            turn out to be (where there are several processes, they add up theirs at the end of an
            epoch).

    Attributes:
        class_names: of the K classes, from :meth:`setup` on.
        broken: videos that turned out to be broken in training, by split and number.
    """

    num_views: int = 2
    num_classes: int = 400

    def __init__(
        self,
        root: str | Path = "data/kinetics",
        train_csv: str | Path | None = None,
        val_csv: str | Path | None = None,
        batch_size: int = 64,
        num_workers: int | None = None,
        delay: int | None = 4,
        image_size: int = 224,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        rand_augment: int = 0,
        max_bad_share: float = 0.05,
        path_column: str = "path",
        label_column: str = "label",
        index_dir: str | Path | None = None,
    ) -> None:
        super().__init__()
        if num_workers is None:
            num_workers = min(8, os.cpu_count() or 1)
        for holds, rule in (
            (
                delay is None or delay >= 1,
                f"{delay=} must be at least 1 step of 1/3 s, or null for any",
            ),
            (image_size >= 1, f"{image_size=} must be at least 1 pixel"),
            (mixup >= 0, f"{mixup=} must be 0, for none, or positive"),
            (cutmix >= 0, f"{cutmix=} must be 0, for none, or positive"),
            (0 <= rand_augment <= 10, f"{rand_augment=} must be from 0, for none, to 10"),
            (0 <= max_bad_share <= 1, f"{max_bad_share=} must be a share from 0 to 1"),
            (num_workers >= 0, f"{num_workers=} must not be negative"),
            (
                (train_csv is None) == (val_csv is None),
                "train_csv and val_csv go together; set both, or neither",
            ),
        ):
            if not holds:
                raise UserError(f"{rule}.")
        self.root = Path(root).expanduser()
        self.lists = {
            split: None if file is None else Path(file).expanduser()
            for split, file in (("train", train_csv), ("val", val_csv))
        }
        self.columns = path_column, label_column
        self.index_dir = None if index_dir is None else Path(index_dir).expanduser()
        self.batch_size, self.num_workers = batch_size, num_workers
        self.delay, self.image_size, self.max_bad_share = delay, image_size, max_bad_share
        self.mixup, self.cutmix, self.rand_augment = mixup, cutmix, rand_augment
        self.class_names: list[str] = []
        self.broken: dict[tuple[str, int], str] = {}
        self._clips: dict[str, Clips] = {}
        self._target: dict[str, Tensor] = {}
        self._bad: list[tuple[str, str, str]] = []
        self._missing = 0

    def prepare_data(self) -> None:
        """Looks at all videos, once; Lightning has one process of each machine do it."""
        self._open()

    def _open(self) -> tuple[dict[str, Clips], dict[str, list[str]]]:
        try:
            return self._read_splits()
        except OSError as error:
            raise UserError(
                f"{error.filename or self.root} under root={str(self.root)!r} cannot be read: "
                f"{error.strerror or error}."
            ) from error

    def _read_splits(self) -> tuple[dict[str, Clips], dict[str, list[str]]]:
        if not self.root.is_dir():
            raise UserError(f"root={str(self.root)!r} is no folder; set data.init_args.root.")
        clips: dict[str, Clips] = {}
        labels: dict[str, list[str]] = {}
        listed: list[VideoList] = []
        for split, file in self.lists.items():
            order = (split, *(other for other in self.lists if other != split))
            shards = None if file else open_shards(self.root / split)
            if shards is not None:
                folder = self.root / split
                if any(each.is_dir() and not is_hidden(each.name) for each in folder.iterdir()):
                    tell(f"{folder} holds shards and folders; only the shards are read.")
                clips[split], labels[split] = shards, [*map(os.fsdecode, shards.labels)]
                continue
            videos = find_videos(self.root, split, file, self.columns)
            if file is not None:
                check_files(videos, file)
            # That of the other split, and another user's, where ours lies elsewhere.
            places = (self._index_folder, self.root / BESIDE)
            index, *others = (index_file(place, part) for place in places for part in order)
            clips[split] = read_index(videos, index, root=self.root, others=others)
            labels[split] = videos.labels
            listed.append(videos)
        if len(listed) == 2:
            tell_shared(*listed)
        return clips, labels

    def setup(self, stage: str | None = None) -> None:
        """Reads the index and leaves out what is bad; calling it again is safe."""
        callbacks: list[Callback] = getattr(self.trainer, "callbacks", [])
        if not any(isinstance(each, _GatherBroken) and each.data is self for each in callbacks):
            callbacks.append(_GatherBroken(self))
        if self._clips:
            return
        clips, labels = self._open()
        folders = all(
            are_folders(map(os.fsdecode, found.paths), labels[split])
            for split, found in clips.items()
        )
        self.class_names, *numbers = number_labels(labels["train"], labels["val"], folders)
        self.num_classes = len(self.class_names)
        needed = needed_length(self.delay)
        for (split, found), target in zip(clips.items(), numbers, strict=True):
            self._target[split] = torch.tensor(target)
            lengths = torch.from_numpy(found.lengths)
            self.splits[split] = (split, (lengths >= needed).nonzero().flatten())
            for number in (lengths < needed).nonzero().flatten().tolist():
                reason = os.fsdecode(found.reasons[number]) or (
                    f"is too short: {int(lengths[number])} frames at {GRID_RATE} a second, of "
                    f"which delay={self.delay} needs {needed}"
                )
                if reason == MISSING:
                    reason, self._missing = "does not exist", self._missing + 1
                self._bad.append((split, os.fsdecode(found.paths[number]), reason))
        write_report(self._report_file, self._bad)
        self._check_share()
        for split, (_, index) in self.splits.items():
            if not len(index):
                raise UserError(
                    f"no video of the split {split!r} can be used; see {self._report_file}."
                )
        if self._bad:
            total = sum(map(len, self._target.values()))
            tell(f"{len(self._bad)} of {total} videos are left out; see {self._report_file}.")
        # The test labels of Kinetics were kept back for long, so the validation videos test.
        self.splits["test"] = self.splits["val"]
        self._clips = clips

    @cached_property
    def _index_folder(self) -> Path:
        return index_folder(self.root, self.index_dir)

    @property
    def _report_file(self) -> Path:
        return self._index_folder / "bad_videos.csv"

    def contents(self) -> Iterator[Any]:
        """All paths, sizes, lengths and classes; not the contents of the files."""
        for split, clips in self._clips.items():
            yield from clips.contents()
            yield self._target[split].numpy().data

    def make_loader(self, part: str, sampler: EpochSampler) -> ClipLoader:
        """A loader whose workers decode the videos of a split."""
        dataset = ClipDataset(
            self._clips[part], self._target[part], self.splits[part][1], self.delay,
            self.image_size, (0.2, 1.0), self.rand_augment, global_seed(),
        )  # fmt: skip
        return ClipLoader(part, sampler, dataset, self.num_workers)

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> tuple[Indices, Images]:
        """The frames and targets on the device; counts the videos that were broken."""
        self._count({(batch.draw.part, number): why for number, why in batch.broken})
        # Of several processes one must not stop while the others wait for it: see gather_broken.
        if batch.broken and self.place[1] == 1:
            self._check_share()
        index, *images = (
            each.to(device, non_blocking=True) for each in (batch.draw.index, *batch[1:3])
        )
        return batch.draw._replace(index=index), Images(*images)

    def views(self, pixels: Tensor, draw: Indices) -> Tensor:
        """Both frames, in training of half of the samples mirrored, [B, 2, 3, S, S]."""
        if draw.in_training:
            flips = uniform(draw.index, 1, Stream.FRAME_FLIP, *draw.key) < 0.5
            pixels = torch.where(flips.view(-1, 1, 1, 1, 1), pixels.flip(-1), pixels)
        return normalise(pixels, _MEAN, _STD)

    def finish(self, batch: Batch, draw: Indices) -> Batch:
        """Mixes the samples with one another where asked for."""
        key = (Stream.MIXING, *draw.key, draw.batch, self.place[0])
        return mix(batch, self.num_classes, self.mixup, self.cutmix, *key)

    def _count(self, new: dict[tuple[str, int], str]) -> None:
        """Adds videos that turned out to be broken to those that are known, and to the report."""
        if new.keys() <= self.broken.keys():
            return
        self.broken.update(new)
        if self.place[0] == 0:
            rows = [
                (split, os.fsdecode(self._clips[split].paths[number]), f"{why} (found in training)")
                for (split, number), why in self.broken.items()
            ]
            write_report(self._report_file, [*self._bad, *rows])

    def gather_broken(self) -> None:
        """Of several processes, tells each the broken videos of all.

        All must call it at the same time; Lightning has them do it at the end of every epoch.

        Raises:
            UserError: there are too many by now; every process raises it.
        """
        _, world_size = self.place
        if world_size == 1:
            return
        parts: list[dict[tuple[str, int], str]] = [{} for _ in range(world_size)]
        torch.distributed.all_gather_object(parts, self.broken)
        for part in parts:
            self._count(part)
        self._check_share()

    def _check_share(self) -> None:
        bad, total = len(self._bad) + len(self.broken), sum(map(len, self._target.values()))
        if bad > self.max_bad_share * total:
            missing = f"missing ({self._missing}), " if self._missing else ""
            correct = "correct the list" if self.lists["train"] else "take their links away"
            way_out = f"put the missing ones there or {correct}, " if missing else ""
            if bad > self._missing:
                way_out += "replace the broken ones, " if missing else "replace them, "
            raise UserError(
                f"{bad} of {total} videos under root={str(self.root)!r} are {missing}broken, empty "
                f"or too short, more than max_bad_share={self.max_bad_share}; see "
                f"{self._report_file}, {way_out}or raise max_bad_share."
            )


class _GatherBroken(Callback):
    """Calls ``gather_broken`` at the end of every epoch, which Lightning tells only callbacks."""

    def __init__(self, data: KineticsDataModule) -> None:
        self.data = data

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.data.gather_broken()

    on_validation_epoch_end = on_test_epoch_end = on_predict_epoch_end = on_train_epoch_end
