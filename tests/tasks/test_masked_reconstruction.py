"""Masked reconstruction: its loss, its masks, its rate, and what follows from its checkpoints."""

import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
import yaml
from PIL import Image
from pytorch_lightning.callbacks import ModelCheckpoint
from small_runs import quiet_trainer
from torch import Tensor
from torch.nn import functional as F

from critical_periods.callbacks import DeficitWindow
from critical_periods.cli.main import main
from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.data import StereoDigitsDataModule
from critical_periods.deficits import Dissociation
from critical_periods.models import MultiViewTransformer, SplitAllCNN
from critical_periods.models.multi_view.masking import hidden_patches
from critical_periods.models.multi_view.patches import to_patches
from critical_periods.models.multi_view.published import from_state_dict
from critical_periods.tasks import (
    ClassificationTask,
    MaskedReconstructionTask,
    TransformerClassificationTask,
)
from critical_periods.tasks.masked_error import masked_error, normalised
from critical_periods.tasks.reconstruction_pictures import reconstruction_picture
from critical_periods.tasks.transformer_recipe import TransformerRecipe, parameter_groups

SIZES: dict[str, Any] = {
    "width": 16, "depth": 2, "heads": 2, "patch": 4, "image_size": 16, "in_channels": 1
}  # fmt: skip
STILL = TransformerRecipe(epochs=4, base_rate=0.0, warmup_epochs=0)
LONG = partial(TransformerRecipe, epochs=100)


def network(**settings: Any) -> MultiViewTransformer:
    return MultiViewTransformer(**(SIZES | settings))


def masked(recipe: TransformerRecipe = STILL, **settings: Any) -> MaskedReconstructionTask:
    torch.manual_seed(0)
    sizes = {"decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2, "pictures": 0}
    drop_path = settings.pop("drop_path", 0.0)
    return MaskedReconstructionTask(network(drop_path=drop_path), recipe, **(sizes | settings))


def data(**settings: Any) -> StereoDigitsDataModule:
    return StereoDigitsDataModule(
        **({"batch_size": 64, "limit_train": 160, "width": 16, "augment": "none"} | settings)
    )


def trainer(epochs: int, folder: Path | None = None, *callbacks: Any, **settings: Any) -> Any:
    settings = {"limit_val_batches": 2, "default_root_dir": folder} | settings
    return quiet_trainer(*callbacks, max_epochs=epochs, **settings)


class Spy(pl.Callback):
    """Keeps what the task draws, and what is logged, epoch by epoch."""

    def __init__(self, task: MaskedReconstructionTask) -> None:
        self.visible: dict[str, list[dict[int, list[int]]]] = {"train": [], "val": []}
        self.logged: list[dict[str, float]] = []
        draw = task._visible

        def watched(batch: Batch, batch_idx: int, *words: int) -> Tensor:
            visible = draw(batch, batch_idx, *words)
            rows = zip(batch.index.tolist(), visible.tolist(), strict=True)
            self.visible["train" if task.training else "val"][-1].update(rows)
            return visible

        task._visible = watched  # type: ignore[method-assign]

    def on_train_epoch_start(self, *args: Any) -> None:
        self.visible["train"].append({})
        self.visible["val"].append({})

    def on_train_epoch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self.logged.append({k: v.item() for k, v in trainer.callback_metrics.items()})


# The loss.


def test_the_error_against_loops():
    torch.manual_seed(0)
    prediction, target = torch.randn(2, 5, 4, 6, dtype=torch.float64)
    hidden = torch.rand(5, 4) < 0.5
    hidden[3] = False
    hidden[4] = True
    prediction.requires_grad_()
    error, counted = masked_error(prediction, target, hidden)
    for b in range(5):
        squares = (prediction[b] - target[b])[hidden[b]].square()
        assert bool(counted[b]) == bool(len(squares))
        expected = squares.mean().item() if len(squares) else 0.0
        assert error[b].item() == pytest.approx(expected, abs=1e-12)
    error.sum().backward()
    assert prediction.grad is not None
    assert torch.equal(prediction.grad.abs().sum(2) > 0, hidden)


def test_normalised_patches_against_loops():
    torch.manual_seed(0)
    patches = torch.randn(3, 2, 8, dtype=torch.float64) * 3 + 1
    patches[0, 0] = 4.0
    for values, result in zip(patches.view(6, 8), normalised(patches).view(6, 8), strict=True):
        centred = values - values.sum() / 8
        expected = centred / math.sqrt(centred.square().sum() / 7 + 1e-6)
        assert result.tolist() == pytest.approx(expected.tolist(), abs=1e-9)


def by_hand(task: MaskedReconstructionTask, batch: Batch, rows: list[list[int]]) -> list[list[Any]]:
    """For each view the errors of a batch, pixels' and normalised ones, sample by sample."""
    errors: list[list[Any]] = [[], []]
    for sample, visible in enumerate(rows):
        views = [view[sample : sample + 1] for view in batch.views.unbind(1)]
        place = torch.tensor([visible])
        tokens = task.network.encode(views, place)
        for v, view in enumerate(views):
            pixels = to_patches(view, 4)[0]
            hidden = [i for i in range(16) if 16 * v + i not in visible]
            total = 0.0
            for name, target in ((f"view_{v}", pixels), (f"norm_view_{v}", normalised(pixels))):
                predicted = task.output_adapters[name](tokens, place, (4, 4))[0]
                total += (predicted - target)[hidden].square().mean().item()
            errors[v].append(total)
    return errors


def test_what_is_logged_is_the_mean_over_samples():
    # At a rate of 0 the network that is trained is the one that is evaluated.
    task, module = masked(), data(limit_train=100)
    spy = Spy(task)
    fitting = trainer(2, None, spy)
    fitting.fit(task, module)
    loaders = {"train": module.measurement_loader("train"), "val": fitting.val_dataloaders}
    means: dict[str, list[float]] = {}
    for split, loader in loaders.items():
        errors: list[list[Any]] = [[], []]
        for number, draw in enumerate(loader):
            if split == "val" and number == 2:
                break
            batch = module.transfer_batch_to_device(draw, torch.device("cpu"), 0)
            batch = module.on_after_batch_transfer(batch, 0)
            rows = [spy.visible[split][0][index] for index in batch.index.tolist()]
            with torch.no_grad():
                for view, own in enumerate(by_hand(task, batch, rows)):
                    errors[view] += own
        means[split] = [float(np.mean(own)) for own in errors]
    first, second = spy.logged
    assert first.keys() == {"train/loss", "val/loss", "val/loss/view_0", "val/loss/view_1"}
    assert first["train/loss"] == pytest.approx(sum(means["train"]), rel=1e-4)
    assert first["val/loss"] == pytest.approx(sum(means["val"]), rel=1e-4)
    for view in range(2):
        assert first[f"val/loss/view_{view}"] == pytest.approx(means["val"][view], rel=1e-4)
    # Other masks in training, the same ones in validation.
    assert second["train/loss"] != first["train/loss"]
    assert second["val/loss"] == first["val/loss"]


# The masks.


def test_masks_follow_the_sample_the_epoch_and_the_seed():
    def draws(seed: int, **settings: Any) -> Spy:
        pl.seed_everything(seed, verbose=False)
        task = masked()
        spy = Spy(task)
        trainer(2, None, spy).fit(task, data(**settings))
        return spy

    first, other = draws(1).visible, draws(2).visible
    # Neither the batch nor what else is drawn matters.
    assert draws(1, batch_size=20, augment="shared").visible["train"] == first["train"]
    assert first["train"][0].keys() == first["train"][1].keys()
    pairs = ((first["train"][0], first["train"][1]), (first["train"][0], other["train"][0]))
    for one, two in pairs:
        assert sum(one[index] == two[index] for index in one.keys() & two.keys()) < 2
    assert first["val"][0] == first["val"][1] == other["val"][0]
    rows = [*first["train"][0].values(), *first["val"][0].values()]
    assert {len(row) for row in rows} == {8} and len(set(map(tuple, rows))) > 0.98 * len(rows)


def test_samples_without_an_index_have_masks_of_their_own():
    task = masked()
    task._trainer = SimpleNamespace(world_size=1, global_rank=0)  # type: ignore[assignment]
    unknown = torch.full((6,), -1)
    batch = Batch(torch.zeros(6, 2, 1, 16, 16), unknown, unknown, unknown)
    rows = [row for step in range(3) for row in task._visible(batch, step, 0, 0).tolist()]
    assert len(set(map(tuple, rows))) == 18


# Training.

RECIPE = TransformerRecipe(epochs=4, base_rate=0.02, warmup_epochs=1)


def train(
    folder: Path, epochs: int = 4, resume: Path | None = None
) -> tuple[MaskedReconstructionTask, dict[str, Tensor]]:
    """Trains through a window of dissociation and leaves checkpoints on the way."""
    pl.seed_everything(7, verbose=False)
    task = masked(RECIPE, drop_path=0.1)
    window = DeficitWindow(Dissociation(), onset=1, removal=3 if epochs == 4 else None)
    saver = ModelCheckpoint(folder, save_top_k=-1, filename="{step}", every_n_train_steps=2)
    fitting = trainer(epochs, folder, window, saver, enable_checkpointing=True)
    module = data(augment="shared")
    fitting.fit(task, module, ckpt_path=resume, weights_only=True)
    return task, {name: value.clone() for name, value in task.state_dict().items()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    folder = tmp_path_factory.mktemp("trained")
    return folder, train(folder)[1]


@pytest.mark.parametrize("step", [2, 6, 10])  # 3 an epoch
def test_a_resumed_run_has_the_same_bits(trained, tmp_path, step):
    folder, expected = trained
    _, resumed = train(tmp_path, resume=folder / f"step={step}.ckpt")
    assert resumed.keys() == expected.keys()
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


def test_a_run_that_stops_early_goes_the_same_way(trained, tmp_path):
    folder, _ = trained
    _, stopped = train(tmp_path, epochs=2)
    there = torch.load(folder / "step=6.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(stopped[name], there[name]) for name in there)


def test_it_learns_all_but_the_classifier():
    task = masked(TransformerRecipe(epochs=8, base_rate=0.02, warmup_epochs=1))
    spy = Spy(task)
    before = {name: value.clone() for name, value in task.named_parameters()}
    trainer(8, None, spy).fit(task, data(limit_train=500))
    # Saying the mean of each patch costs its variance; that of normalised ones is 15/16.
    assert spy.logged[0]["val/loss"] > 2.5
    assert spy.logged[-1]["val/loss"] < 0.8 * spy.logged[0]["val/loss"]
    for name, value in task.named_parameters():
        classifier = name.startswith("network.classifier.")
        # Distributed training would wait for a gradient that never comes.
        assert value.requires_grad is not classifier
        assert torch.equal(value, before[name]) is classifier


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed", "bf16-true"])
def test_every_precision(precision):
    task = masked()
    spy = Spy(task)
    trainer(1, None, spy, precision=precision, limit_train_batches=1).fit(task, data())
    assert math.isfinite(spy.logged[0]["train/loss"]) and spy.logged[0]["val/loss"] > 0


# The rate.


def test_the_rate_at_every_step():
    recipe = TransformerRecipe(epochs=5, base_rate=0.01, warmup_epochs=2, final_rate=0.001)
    rates: list[float] = []

    class Rates(pl.Callback):
        def on_before_optimizer_step(self, trainer: Any, *args: Any) -> None:
            rates.extend(group["lr"] for group in trainer.optimizers[0].param_groups)

    settings = {"accumulate_grad_batches": 2, "limit_val_batches": 0}
    trainer(5, None, Rates(), **settings).fit(masked(recipe), data())
    # 160 samples in batches of 64, two of which make a step: 2 steps an epoch.
    peak = 0.01 * (64 * 2) / 256
    rise = [peak * step / 4 for step in range(4)]
    fall = [0.001 + (peak - 0.001) * (1 + math.cos(math.pi * k / 6)) / 2 for k in range(6)]
    assert rates == pytest.approx([rate for rate in rise + fall for _ in range(2)])
    assert recipe.share(10, 2, peak) == pytest.approx(0.001 / peak)
    assert recipe.share(99, 2, peak) == pytest.approx(0.001 / peak)


def test_what_decays_and_how_fast_layers_learn():
    task = masked()
    names = {id(value): name for name, value in task.named_parameters()}
    groups = parameter_groups(task, 1.0, weight_decay=0.05, layer_decay=0.5)
    found = {
        names[id(value)]: (group["lr"], group["weight_decay"])
        for group in groups
        for value in group["params"]
    }
    assert found.keys() == {name for name, v in task.named_parameters() if v.requires_grad}
    for name, (rate, decay) in found.items():
        token = any(word in name for word in ("global_tokens", "mask_token", "task_embeddings"))
        free = token or name.endswith("bias") or "norm1" in name or "norm2" in name
        free = free or any(f"{norm}_norm." in name for norm in ("query", "context", "out"))
        assert decay == (0.0 if free else 0.05), name
        # The input, two blocks, and the classifier and all decoders on top.
        layer = 0 if ".input_adapters." in name or name == "network.global_tokens" else 3
        if ".encoder." in name:
            layer = 1 + int(name.split(".")[2])
        assert rate == 0.5 ** (3 - layer), name
    assert len(parameter_groups(task, 1.0, weight_decay=0.05)) == 2


def split() -> SplitAllCNN:
    return SplitAllCNN(depth=1, width=2, in_channels=1)


def test_recipes_that_do_not_suit_the_run():
    task = TransformerClassificationTask(split(), TransformerRecipe(epochs=50, layer_decay=0.5))
    with pytest.raises(UserError, match=r"layer_decay=0\.5 needs .* but this is SplitAllCNN"):
        trainer(1).fit(task, data())
    task = TransformerClassificationTask(split(), TransformerRecipe(epochs=50))
    sentence = r"epochs=50 .* less than trainer\.max_epochs=51, .* at final_rate=0\.0; set"
    with pytest.raises(UserError, match=sentence):
        trainer(51).fit(task, data())
    with pytest.raises(UserError, match="the data has no attribute batch_size"):
        trainer(1).fit(task, torch.utils.data.DataLoader([0]))


@pytest.mark.parametrize(
    ("make", "settings", "sentence"),
    [
        (TransformerRecipe, {"epochs": 0}, "epochs=0 of TransformerRecipe must be at least 1"),
        (TransformerRecipe, {"epochs": 40}, "warmup_epochs=40 .* between 0 and 39, as epochs=40"),
        (LONG, {"base_rate": -1e-4}, r"base_rate=-0\.0001 .* must not be negative"),
        (LONG, {"final_rate": -1.0}, r"final_rate=-1\.0 .* must not be negative"),
        (LONG, {"betas": (0.9, 1.0)}, r"betas=\(0\.9, 1\.0\) .* must lie in \[0, 1\)"),
        (LONG, {"weight_decay": -0.1}, r"weight_decay=-0\.1 .* must not be negative"),
        (LONG, {"layer_decay": 0.0}, r"layer_decay=0\.0 .* must lie in \(0, 1\]"),
        (masked, {"mask_ratio": 1.0}, r"mask_ratio=1\.0 hides all or none of the 32 patches"),
        (masked, {"decoder_width": 10}, "width=10 must be a multiple of 4"),
        (masked, {"decoder_heads": 3}, "width=8 must be a multiple of heads=3"),
        (masked, {"decoder_depth": -1}, "depth of a decoder must be a whole .* at least 0, not -1"),
        (masked, {"pictures": -3}, "pictures=-3 of MaskedReconstructionTask must not be negative"),
        (masked, {"pictures_every_n_epochs": 0}, "pictures_every_n_epochs=0 .* must be at least 1"),
    ],
)
def test_settings_without_a_meaning(make, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        make(**settings)


# What follows.


def test_fine_tuning_starts_from_the_checkpoint(trained):
    folder, weights = trained
    path = folder / "step=12.ckpt"
    tuned = network(weights=path, num_classes=5, drop_path=0.1)
    for name, value in tuned.state_dict().items():
        if not name.startswith("classifier."):
            assert torch.equal(value, weights[f"network.{name}"]), name
    assert tuned.classifier[1].weight.shape == (5, 16)
    recipe = TransformerRecipe(epochs=2, base_rate=0.005, warmup_epochs=1, layer_decay=0.65)
    task = TransformerClassificationTask(
        network(weights=path, drop_path=0.1), recipe, label_smoothing=0.1
    )
    fitting = trainer(2)
    fitting.fit(task, data())
    assert {"train/loss", "val/loss", "val/accuracy"} <= fitting.callback_metrics.keys()
    rates = sorted({group["initial_lr"] for group in fitting.optimizers[0].param_groups})
    assert rates == pytest.approx([0.005 * 64 / 256 * 0.65**power for power in (3, 2, 1, 0)])
    # The whole pre-training is in the checkpoint, decoders too.
    state = {
        name.removeprefix("network."): value
        for name, value in weights.items()
        if not name.startswith("network.classifier.")
    }
    built = from_state_dict(state, heads=2, decoder_heads=2)
    assert set(built.decoders) == {"view_0", "view_1", "norm_view_0", "norm_view_1"}


def test_heads_are_those_of_the_weights(trained, tmp_path):
    path = trained[0] / "step=12.ckpt"
    with pytest.raises(UserError, match=r"step=12\.ckpt is of .* heads=2, .* has heads=4; choose"):
        network(weights=path, heads=4)
    # Weights alone do not say, nor did older checkpoints.
    content = torch.load(path, weights_only=True)
    torch.save({"state_dict": content["state_dict"]}, tmp_path / "older.ckpt")
    assert network(weights=tmp_path / "older.ckpt", heads=4).attention_heads == 4


def test_what_it_predicts():
    task, module = masked(mask_ratio=0.5), data()
    spy = Spy(task)
    spy.visible["val"].append({})
    predictions = trainer(1, limit_predict_batches=2).predict(task, module)
    validated = spy.visible["val"].pop()
    spy.visible["val"].append({})
    trainer(1).validate(task, module, verbose=False)
    # The masks are those of validation.
    assert spy.visible["val"] == [validated]
    rows = iter(validated.values())
    for one in predictions:
        assert one.prediction.shape[1:] == (2, 1, 16, 16)
        assert one.hidden.shape == (len(one.prediction), 2, 4, 4)
        for hidden in one.hidden.flatten(1):
            assert (~hidden).nonzero().flatten().tolist() == next(rows)
    assert next(rows, None) is None


def test_label_smoothing():
    torch.manual_seed(0)
    views, hard = torch.randn(6, 2, 1, 16, 16), torch.tensor([0, 3, 1, 1, 2, 9])
    soft = F.one_hot(hard, 10).float().roll(1, 0) * 0.3 + F.one_hot(hard, 10) * 0.7
    nothing = torch.full((6,), -1)
    task = ClassificationTask(split(), label_smoothing=0.1)
    task.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    chances = task(*views.unbind(1)).log_softmax(1)
    for target, shares in ((hard, F.one_hot(hard, 10).float()), (soft, soft)):
        expected = -((0.9 * shares + 0.01) * chances).sum(1).mean()
        loss = task.training_step(Batch(views, target, nothing, nothing), 0)
        torch.testing.assert_close(loss, expected)


def test_a_picture_shows_what_was_hidden():
    torch.manual_seed(0)
    views, predictions = torch.randn(2, 3, 1, 48, 48), torch.randn(2, 3, 1, 48, 48) / 3
    hidden = hidden_patches(torch.tensor([[0, 10]]).expand(3, -1), 2, 9)
    picture = reconstruction_picture(views.unbind(), hidden, predictions.unbind(), patch=16)
    pixels = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[:, 16:]
    assert pixels.shape == (3, 3 * 100, 8 * 100)
    tiles = pixels.unfold(1, 96, 100).unfold(2, 96, 100)[..., ::2, ::2].float() / 255
    for sample in range(3):
        for view in range(2):
            shown, mask, predicted, target = tiles[0, sample, 4 * view : 4 * view + 4]
            image = views[view, sample, 0]
            low, high = image.min(), image.max()
            expected = (predictions[view, sample, 0] - low) / (high - low)
            assert (predicted - expected.clamp(0, 1)).abs().max() < 0.003
            assert (target - (image - low) / (high - low)).abs().max() < 0.003
            # Of view 0 its first patch is seen, of view 1 its second.
            seen = torch.zeros(48, 48, dtype=torch.bool)
            seen[:16, 16 * view : 16 * view + 16] = True
            assert torch.equal(mask, seen.float())
            assert torch.equal(shown[seen], target[seen])
            assert ((shown[~seen] - 0.5).abs() < 0.003).all()


# The command line.


def test_a_run_from_a_config(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    decoders = {"decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}
    config: dict[str, Any] = {
        "num_threads": 1,
        "trainer": {"max_epochs": 3, "accelerator": "cpu", "limit_val_batches": 2},
        "model": {
            "class_path": "MaskedReconstructionTask",
            "init_args": {
                "network": {"class_path": "MultiViewTransformer", "init_args": SIZES},
                "recipe": {"epochs": 3, "base_rate": 0.01, "warmup_epochs": 1},
                "pictures": 2,
                "pictures_every_n_epochs": 2,
                **decoders,
            },
        },
        "data": {
            "class_path": "StereoDigitsDataModule",
            "init_args": {"limit_train": 100, "batch_size": 50},
        },
    }
    config["trainer"] |= {"enable_progress_bar": False, "enable_model_summary": False}
    Path("run.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", "run.yaml"]) == 0
    folder = tmp_path / "runs" / "version_0"
    rows = pd.read_csv(folder / "metrics.csv")
    for key in ("train/loss", "val/loss", "val/loss/view_0", "val/loss/view_1"):
        assert rows[key].count() == 3
    pictures = sorted(path.name for path in (folder / "reconstructions").iterdir())
    assert pictures == ["epoch_0001.png", "epoch_0002.png"]
    with Image.open(folder / "reconstructions" / "epoch_0001.png") as picture:
        assert picture.size == (8 * 100, 2 * 100 + 16)
    (checkpoint,) = (folder / "checkpoints").iterdir()
    tuning = config["model"] | {"class_path": "TransformerClassificationTask"}
    sizes = SIZES | {"weights": str(checkpoint), "drop_path": 0.1}
    tuning["init_args"] = {
        "network": {"class_path": "MultiViewTransformer", "init_args": sizes},
        "recipe": {"epochs": 2, "warmup_epochs": 1, "betas": [0.9, 0.999], "layer_decay": 0.65},
        "label_smoothing": 0.1,
    }
    config["trainer"]["max_epochs"] = 2
    Path("tune.yaml").write_text(yaml.safe_dump(config | {"model": tuning}))
    assert main(["predict", "--config", "run.yaml", "--ckpt_path", str(checkpoint)]) == 0
    assert main(["fit", "--config", "tune.yaml"]) == 0
    # Its checkpoint does without the file that it started from, where the config does.
    (tuned,) = (tmp_path / "runs").glob("version_*/checkpoints/*epoch=1*")
    checkpoint.rename("elsewhere.ckpt")
    test = ["test", "--config", "tune.yaml", "--ckpt_path", str(tuned)]
    assert main(test) == main(["fit", "--config", "tune.yaml"]) == 2
    assert "does not exist; say where it is now, or leave weights out" in capsys.readouterr().err
    del sizes["weights"]
    Path("tune.yaml").write_text(yaml.safe_dump(config | {"model": tuning}))
    assert main(test) == 0


def test_the_test_split_is_tested_as_it_is_validated(tmp_path):
    task = masked(TransformerRecipe(epochs=1, base_rate=0.01, warmup_epochs=0))
    fitting = trainer(1, tmp_path, limit_val_batches=1.0)
    fitting.fit(task, data(limit_train=50))
    validated = dict(fitting.callback_metrics)
    # The test split validates, unless training images are held back.
    (tested,) = fitting.test(task, data(), verbose=False)
    for key in ("loss", "loss/view_0", "loss/view_1"):
        assert tested[f"test/{key}"] == validated[f"val/{key}"].item()
