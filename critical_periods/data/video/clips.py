"""Decoding the frames of a batch in the workers of a data loader."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from critical_periods.core.errors import UserError
from critical_periods.core.internals import HasWorkers
from critical_periods.core.randomness import FIXED_SEED, Stream, fold, uniform
from critical_periods.data.class_folders import tell
from critical_periods.data.epochs import EpochLoader, EpochSampler, Indices
from critical_periods.data.video.frame_pairs import centre_box, draw_box, draw_pairs
from critical_periods.data.video.rand_augment import rand_augment
from critical_periods.data.video.shards import ShardClips
from critical_periods.data.video.video_file import VideoAccessError, VideoError
from critical_periods.data.video.video_index import VideoClips

# Videos that are tried in a broken one's place before a folder is given up.
_TRIES = 20
# Seconds until a file is asked for again that the system did not give.
_PAUSES = (0.5, 2.0)

Clips = VideoClips | ShardClips


class ClipBatch(NamedTuple):
    """What a worker hands over.

    Attributes:
        draw: which samples of which batch; ``draw.index`` names those that were read.
        pixels: both frames, cut out and scaled, uint8 [B, 2, 3, S, S].
        target: class numbers [B].
        broken: numbers of videos that could not be decoded, and why.
    """

    draw: Indices
    pixels: Tensor
    target: Tensor
    broken: list[tuple[int, str]]


@dataclass(eq=False)
class ClipDataset(Dataset):
    """Turns the indices of a batch into its frames.

    In training the pair of frames, and the part of both that is cut out, are drawn from (seed,
    epoch, index); in evaluation the pair is centred and the part is the middle square. A video
    that turns out broken, or that the system does not give at the third time of asking either, is
    replaced in training by another one, drawn from (seed, epoch, index,
    try), and left out in evaluation (but for a batch of nothing else, where one stands in).

    Args:
        clips: to read from.
        target: class number of each video, int64 [N].
        index: the videos that are used, [M]; substitutes come from among them.
        delay: grid steps of 1/3 s between the frames; ``None`` draws them.
        size: S, pixels of a side.
        scale: least and largest share of a frame that is cut out in training.
        magnitude: of :func:`.rand_augment` in training; 0 leaves it out.
        seed: of the training draws.
    """

    clips: Clips
    target: Tensor
    index: Tensor
    delay: int | None
    size: int
    scale: tuple[float, float]
    magnitude: int
    seed: int

    def __getitem__(self, draw: Indices) -> ClipBatch | UserError:
        """The batch, or the error as a value, as torch would add to its message."""
        try:
            return self._batch(draw._replace(index=torch.as_tensor(draw.index)))
        except UserError as error:
            return error

    def _batch(self, draw: Indices) -> ClipBatch:
        broken: dict[int, str] = {}
        tries = _TRIES if draw.in_training else 1
        read = [self._sample(int(i), draw.epoch, broken, tries) for i in draw.index]
        if not any(read):
            read = [self._sample(int(draw.index[0]), draw.epoch, broken, _TRIES)]
        samples = [sample for sample in read if sample is not None]
        if not samples:
            number, reason = list(broken.items())[-1]
            one, last = (os.fsdecode(self.clips.paths[n]) for n in (int(draw.index[0]), number))
            raise UserError(
                f"{one} and {_TRIES - 1} videos drawn in its place cannot be decoded (the "
                f"last, {last}, {reason}); look after the data."
            )
        numbers, pixels = zip(*samples, strict=True)
        index = torch.tensor(numbers)
        return ClipBatch(
            draw._replace(index=index), torch.stack(pixels), self.target[index], [*broken.items()]
        )

    def _sample(
        self, number: int, epoch: int, broken: dict[int, str], tries: int
    ) -> tuple[int, Tensor] | None:
        """The video's number and its frames, or those of one in its place."""
        chosen = number
        for attempt in range(tries):
            try:
                return chosen, self._patiently(chosen, epoch)
            except VideoError as error:
                broken[chosen] = error.reason
            place = fold(Stream.SUBSTITUTE, self.seed, epoch, number, attempt) % len(self.index)
            chosen = int(self.index[place])
        return None

    def _patiently(self, number: int, epoch: int) -> Tensor:
        """The frames; what the system said no to may be there a moment later."""
        for pause in _PAUSES:
            try:
                return self._frames(number, epoch)
            except VideoAccessError:
                time.sleep(pause)
        return self._frames(number, epoch)

    def _frames(self, number: int, epoch: int) -> Tensor:
        training, index = epoch >= 0, torch.tensor([number])
        key = (self.seed, epoch) if training else (FIXED_SEED,)
        length = torch.tensor([int(self.clips.lengths[number])])
        draws = uniform(index, 2, Stream.FRAME_PAIR, *key)
        places = draw_pairs(length, self.delay, draws, centred=not training)[0].tolist()
        images = self.clips.read(number, places)
        box = centre_box(*images[0].size)
        if training:
            box = draw_box(
                uniform(index, 4, Stream.FRAME_BOX, *key)[0], *images[0].size, self.scale
            )
        parts = [self._cut_out(image, box, images[0].size) for image in images]
        if training and self.magnitude:
            parts = rand_augment(parts, self.magnitude, fold(Stream.RAND_AUGMENT, *key, number))
        return torch.from_numpy(np.stack([*map(np.asarray, parts)])).permute(0, 3, 1, 2)

    def _cut_out(
        self, image: Image.Image, box: tuple[float, float, float, float], size: tuple[int, int]
    ) -> Image.Image:
        """The part of a frame that a box is of one of this size, as a square of S pixels.

        Some videos change their resolution on the way; both frames show the same part all the same.
        """
        if image.size != size:
            x, y = image.width / size[0], image.height / size[1]
            box = box[0] * x, box[1] * y, box[2] * x, box[3] * y
        return image.convert("RGB").resize((self.size, self.size), Image.Resampling.BICUBIC, box)


class _Draws(EpochLoader):
    """Indices as arrays: torch would send tensors through shared memory, however small."""

    def __iter__(self) -> Iterator[Any]:
        for draw in super().__iter__():
            yield draw._replace(index=draw.index.numpy())  # type: ignore[arg-type]


def _sent(batch: Any) -> Any:
    """A batch as a worker sends it: frames through shared memory, else all through a pipe.

    Where shared memory is full (containers have 64 MB of it by default), torch would notice in a
    thread of the worker's, lose the batch, and have training wait for it for ever.
    """
    if isinstance(batch, UserError) or get_worker_info() is None:
        return batch
    pixels = batch.pixels
    try:
        pixels.share_memory_()
    except (RuntimeError, OSError):
        pixels = pixels.numpy()
    draw = batch.draw._replace(index=batch.draw.index.numpy())
    return ClipBatch(draw, pixels, batch.target.numpy(), batch.broken)


class ClipLoader(HasWorkers, EpochLoader):
    """An :class:`.EpochLoader` whose batches are decoded by workers.

    Workers run ahead of training, so the state counts the batches that were taken, not those that
    were begun: a checkpoint resumes with the next batch.

    Args:
        part: of the stored data that the samples are taken from.
        sampler: which of them make up which batch.
        dataset: reads them.
        num_workers: processes that decode; 0 decodes in this one.
    """

    def __init__(
        self, part: str, sampler: EpochSampler, dataset: ClipDataset, num_workers: int
    ) -> None:
        super().__init__(part, sampler)
        self._taken = 0
        self.workers = DataLoader(
            dataset,
            # Each "sample" of torch's loader is a whole batch of ours.
            batch_size=None,
            sampler=_Draws(part, sampler),
            num_workers=min(num_workers, len(sampler)),
            persistent_workers=num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=_sent,
        )

    def __iter__(self) -> Iterator[Any]:
        try:
            batches = iter(self.workers)
        except OSError as error:
            raise UserError(
                f"num_workers={self.workers.num_workers} processes cannot be started: "
                f"{error.strerror}; see to /dev/shm, memory and limits, or set fewer."
            ) from error
        for batch in batches:
            if isinstance(batch, UserError):
                raise batch
            self._taken = batch.draw.batch + 1
            yield self._received(batch)

    def _received(self, batch: Any) -> ClipBatch:
        """A batch of tensors again."""
        if not isinstance(batch.pixels, Tensor):
            tell(
                "Shared memory (/dev/shm) has no room for the batches of num_workers="
                f"{self.workers.num_workers} processes, which go through pipes instead and take "
                "longer; make it larger (docker run --shm-size=8g), or set fewer workers."
            )
        draw = batch.draw._replace(index=torch.as_tensor(batch.draw.index))
        pixels, target = torch.as_tensor(batch.pixels), torch.as_tensor(batch.target)
        return ClipBatch(draw, pixels, target, batch.broken)

    def state_dict(self) -> dict[str, Any]:
        """The epoch and how many of its batches were taken."""
        return {**super().state_dict(), "batches": self._taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on with the batch after those."""
        super().load_state_dict(state)
        self._taken = state["batches"]
