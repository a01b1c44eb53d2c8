"""Every measure and every deficit in two processes of gloo, with uneven parts, and in one."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from batches import batches, place
from processes import WORLD, join_processes, start_processes
from torch import Tensor, nn
from torchmetrics import Metric

from critical_periods import deficits, metrics
from critical_periods.core.batch import Batch
from critical_periods.core.whole_batch import PartGenerator
from critical_periods.data import KineticsDataModule, MovingDigitsDataModule, StereoDigitsDataModule
from critical_periods.data.video.extraction import extract
from critical_periods.data.video.moving_digits_video import write_videos
from critical_periods.data.video.video_lists import find_videos
from critical_periods.metrics import FisherTrace, RelativeSourceVariance, UsableInformation
from critical_periods.metrics.functional import squared_score_norms

# Of 27 samples: the processes have 14 and 13, in batches of 5, 5, 4 and of 7, 6.
PARTS = (((0, 5), (5, 10), (10, 14)), ((14, 21), (21, 27)))


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def network(outputs: int) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, outputs)).double()


def function(left: Tensor, right: Tensor) -> dict[str, Tensor]:
    return {"product": left * right[:, :1], "sum": (left + 2 * right).tanh()}


INPUTS, LOGITS = draw(27, 4), draw(27, 3, seed=1)
CLASSES, LABELS = LOGITS.argmin(1), (draw(27, 3, seed=2) > 0).double()
POOL, FIXED = (
    [draw(number, 4, seed=10 * number + view) for view in range(3)] for number in (27, 5)
)
# How each is made, and what it is given; the likelihoods are all that there are.
MEASURES: dict[str, tuple[Callable[[], Metric], list[Tensor]]] = {
    **{
        f"FisherTrace {kind}": (
            lambda kind=kind: FisherTrace(network(3), likelihood=kind), [INPUTS],
        )
        for kind in ("categorical", "bernoulli", "gaussian")
    },
    "UsableInformation categorical": (lambda: UsableInformation(3), [LOGITS, CLASSES]),
    "UsableInformation bernoulli": (lambda: UsableInformation(3, "bernoulli"), [LOGITS, LABELS]),
    "UsableInformation gaussian": (lambda: UsableInformation(3, "gaussian"), [LOGITS, LABELS]),
    "UsableInformation of places": (
        lambda: UsableInformation(3, places=2),
        [draw(27, 3, 2, seed=5), torch.stack([CLASSES, 2 - CLASSES], 1)],
    ),
    "RelativeSourceVariance": (lambda: RelativeSourceVariance(function, FIXED[:2]), POOL[:2]),
    "RelativeSourceVariance of three views": (
        lambda: RelativeSourceVariance(lambda a, b, c: (a + 2 * b) * c, FIXED), POOL,
    ),
}  # fmt: skip
DEFICITS = [name for name in deficits.__all__ if not name.startswith("Deficit")]


def drawn(kind: str, generator: torch.Generator, rows: slice) -> Tensor:
    """The score norms of drawn labels, of a sample each."""
    norms = squared_score_norms(network(3), [INPUTS[rows]], 2, generator, likelihood=kind)
    return torch.stack([*norms.values()])


def measured(name: str, parts: Any) -> Any:
    make, given = MEASURES[name]
    metric = make()
    for start, stop in parts:
        metric.update(*(tensor[start:stop] for tensor in given))
    return metric.compute()


def data_of(folder: Path, kind: str, processes: int) -> Any:
    if kind == "videos":  # 10 and 7 of them, in shards of 4
        return KineticsDataModule(folder, batch_size=4 // processes, image_size=16, num_workers=0)
    # 70 samples in batches of 24, 24 and 22; of the 797 to validate on each process has others.
    return StereoDigitsDataModule(limit_train=70, batch_size=24 // processes, mask_probability=0.2)


def seen(folder: Path, kind: str, name: str, rank: int, processes: int) -> Iterator[list[Batch]]:
    """The batches of an epoch of training and of a validation with a deficit."""
    deficit = getattr(deficits, name)()
    data = data_of(folder, kind, processes)
    place(data, rank, processes, validating=True)
    data.setup()
    data.deficits.fill([deficit], [deficit])
    yield batches(data, data.train_dataloader(), epoch=3)
    yield batches(data, data.val_dataloader())


KINDS = [("images", name) for name in DEFICITS if name != "OtherMatrix"]
KINDS += [("videos", name) for name in ("Blur", "GaussianNoise", "Dissociation", "LabelNoise")]


def run_process(rank: int, folder: Path) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD
    )
    found: dict[str, Any] = {name: measured(name, PARTS[rank]) for name in MEASURES}
    for kind, name in KINDS:
        splits = seen(folder, kind, name, rank, WORLD)
        found[f"{kind} {name}"] = [[tuple(batch) for batch in split] for split in splits]
    torch.save(found, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("gloo")
    write_videos(folder / "films", MovingDigitsDataModule("motion"), train=10, val=7)
    for split in ("train", "val"):
        extract(find_videos(folder / "films", split), folder / split, videos_per_shard=4)
    join_processes(start_processes(run_process, folder))
    return folder, [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


def test_no_measure_and_no_deficit_is_left_out():
    assert {name.split()[0] for name in MEASURES} == set(metrics.__all__)
    # That of matrices is drawn by its seed alone, and its data is in every process as a whole.
    assert {name for _, name in KINDS} == set(DEFICITS) - {"OtherMatrix"}


@pytest.mark.parametrize("name", MEASURES)
def test_two_processes_measure_as_one(found, name):
    one = measured(name, [(0, 9), (9, 18), (18, 27)])
    for two in (rank[name] for rank in found[1]):
        torch.testing.assert_close(two, one, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", ["categorical", "bernoulli", "gaussian"])
def test_processes_draw_the_labels_of_one(kind):
    """Of parts of a batch, whose outputs the other processes do not know."""
    parts, whole = [], torch.Generator().manual_seed(3)
    for rank, rows in enumerate((slice(0, 14), slice(14, 27))):
        part = PartGenerator(torch.Generator().manual_seed(3), [14, 13], rank)
        parts.append(drawn(kind, part, rows))
    torch.testing.assert_close(
        torch.cat(parts, 1), drawn(kind, whole, slice(27)), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize(("kind", "name"), KINDS)
def test_two_processes_see_the_batches_of_one(found, kind, name):
    folder, ranks = found
    for number, whole in enumerate(seen(folder, kind, name, 0, 1)):
        parts = [rank[f"{kind} {name}"][number] for rank in ranks]
        assert len(parts[0]) == len(parts[1]) == len(whole) > 1
        for batch, *of in zip(whole, *parts, strict=True):
            assert all(map(torch.equal, map(torch.cat, zip(*of, strict=True)), batch))
