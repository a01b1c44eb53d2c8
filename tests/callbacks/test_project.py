"""What a Project says is where deficits act and what monitors measure, in anyone's project."""

import copy
import math
from argparse import Namespace
from typing import Any

import lightning.pytorch
import pytest
import pytorch_lightning as pl
import torch
from jsonargparse import ArgumentParser
from small_runs import Untrained, quiet_trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset

from critical_periods.callbacks import (
    DeficitWindow,
    FisherMonitor,
    FreezeWindow,
    Project,
    RobustnessMonitor,
    SourceVarianceMonitor,
    UsableInformationMonitor,
    WeightInformationMonitor,
)
from critical_periods.core.errors import UserError
from critical_periods.deficits import (
    Blur,
    Dissociation,
    GaussianNoise,
    LabelNoise,
    LabelPermutation,
    Occlusion,
    VerticalFlip,
)
from critical_periods.metrics.functional import relative_source_variance, source_variance

SIZE = 12
TWO = Project([0, 1], 2)
Y = torch.arange(SIZE) % 3
INDEX = torch.arange(SIZE)


def normal(*shape: int) -> Tensor:
    return torch.randn(SIZE, *shape, generator=torch.Generator().manual_seed(sum(shape)))


IMAGE, TONE, SENSOR = normal(1, 8, 8), normal(1, 20), normal(6, 4)


class Samples(Dataset):
    """Tuples, or dicts, of one sample's tensors."""

    def __init__(self, parts: Any) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, place: int) -> Any:
        if isinstance(self.parts, dict):
            return {name: part[place] for name, part in self.parts.items()}
        return tuple(part[place] for part in self.parts)


class Flat(nn.Module):
    """A linear map for each input, their sum, and a head."""

    def __init__(self, *features: int, outputs: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.maps = nn.ModuleList(nn.Linear(size, 5) for size in features)
        self.sum = nn.Tanh()
        self.head = nn.Linear(5, outputs)

    def forward(self, *inputs: Tensor) -> Tensor:
        maps = zip(self.maps, inputs, strict=True)
        return self.head(self.sum(sum(one(x.to(one.weight).flatten(1)) for one, x in maps)))


class Module(pl.LightningModule):
    """A stranger's module, which remembers the batches that it was given."""

    def __init__(self, model: nn.Module, inputs: Any = (0,), target: Any = 1) -> None:
        super().__init__()
        self.model, self.inputs, self.target = model, inputs, target
        self.seen: list[tuple[int, Any]] = []

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.model(*inputs)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output, target)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.seen.append((self.current_epoch, copy.deepcopy(batch)))
        return self.loss(self(*(batch[one] for one in self.inputs)), batch[self.target])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """There is a validation split."""

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(module: Any, parts: Any, *callbacks: Any, epochs: int = 1) -> dict[str, float]:
    """What is logged of a run on two batches an epoch, in their order."""
    loader = DataLoader(Samples(parts), SIZE // 2)
    trainer = quiet_trainer(*callbacks, max_epochs=epochs)
    trainer.fit(module, loader, DataLoader(Samples(parts), SIZE))
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def per_frame(video: Tensor, deficit: Any) -> Tensor:
    """A deficit frame by frame on [B, T, C, H, W]."""
    return torch.stack([deficit.degrade(frame) for frame in video.unbind(1)], 1)


FRAMES = normal(4, 3, 8, 8)
PERMUTATION = LabelPermutation(seed=1, num_classes=3)
BLUR = Blur(4)
RENAMED = PERMUTATION.permutation[Y]

# Parts of a batch, the project, a deficit, and the parts that it changes.
ACTS: dict[str, tuple[Any, Project, Any, dict[Any, Tensor]]] = {
    "index first": ((IMAGE, INDEX, Y), Project(target=2), PERMUTATION, {2: RENAMED}),
    "one of two labels": (
        {"image": IMAGE, "coarse_label": Y // 2, "fine_label": Y},
        Project(target="fine_label"), PERMUTATION, {"fine_label": RENAMED},
    ),
    "image and mask": (
        {"image": IMAGE, "label": IMAGE}, Project("image", "label"), BLUR,
        {"image": BLUR.degrade(IMAGE)},
    ),
    "labels in a column": ((IMAGE, Y[:, None]), Project(), PERMUTATION, {1: RENAMED[:, None]}),
    "video, colours first": (
        (FRAMES.movedim(2, 1), Y), Project(0, 1, "BCTHW"), BLUR,
        {0: per_frame(FRAMES, BLUR).movedim(2, 1)},
    ),
    "video, time first": (
        (FRAMES, Y), Project(0, 1, "BTCHW"), VerticalFlip(), {0: FRAMES.flip(-2)},
    ),
    "colours last": (
        (FRAMES[:, 0].movedim(1, -1), Y), Project(axes="BHWC"), BLUR,
        {0: BLUR.degrade(FRAMES[:, 0]).movedim(1, -1)},
    ),
    "without colours": (
        (IMAGE[:, 0], Y), Project(0, 1, "BHW"), BLUR, {0: BLUR.degrade(IMAGE)[:, 0]},
    ),
    "three views of a stack": (
        (FRAMES[:, :3], Y), Project(axes="BVCHW"), Occlusion(views=[1]),
        {0: FRAMES[:, :3] * torch.tensor([1, 0, 1]).view(3, 1, 1, 1)},
    ),
    "audio": ((TONE, Y), Project(0, 1), Occlusion(), {0: TONE * 0}),
    "series": ((SENSOR, Y), Project(0, 1, "BTF"), Occlusion(), {0: SENSOR * 0}),
    "tokens": ((INDEX[:, None] + 1, Y), Project(0, 1), Occlusion(), {0: INDEX[:, None] * 0}),
    "the tone of two sources": (
        (TONE, IMAGE, Y), Project([0, 1], 2), Occlusion(views=[0]), {0: TONE * 0},
    ),
    "the picture of two sources": (
        (TONE, IMAGE, Y), Project([0, 1], 2), Blur(4, views=[1]), {1: BLUR.degrade(IMAGE)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ACTS)
def test_a_deficit_acts_in_its_epoch_on_what_the_project_says(case):
    parts, project, deficit, changed = ACTS[case]
    places = list(parts) if isinstance(parts, dict) else list(range(len(parts)))
    inputs = [place for place in places if parts[place].ndim > 1][:1]
    module = Module(Flat(parts[inputs[0]][0].numel()), inputs, places[0])
    module.loss = lambda output, target: output.sum()  # type: ignore[method-assign]
    fit(module, parts, DeficitWindow(deficit, 1, 2, project=project), epochs=3)
    assert [epoch for epoch, _ in module.seen] == [0, 0, 1, 1, 2, 2]
    for number, (epoch, batch) in enumerate(module.seen):
        half = slice(SIZE // 2) if number % 2 == 0 else slice(SIZE // 2, None)
        for place in places:
            wanted = changed.get(place, parts[place]) if epoch == 1 else parts[place]
            assert torch.equal(batch[place], wanted[half]), (epoch, place)
            assert batch[place].dtype == parts[place].dtype


def test_noise_on_sound_is_normal_and_of_the_run(capsys):
    module = Module(Flat(20))
    fit(module, (TONE, Y), DeficitWindow(GaussianNoise(), project=Project(0, 1)), epochs=2)
    noise = torch.cat([batch[0] for _, batch in module.seen])
    assert abs(float(noise.mean())) < 0.15 and 0.85 < float(noise.std()) < 1.15
    assert len(noise.unique()) == noise.numel()


def test_dissociation_of_a_tone_and_a_picture():
    deficit = DeficitWindow(Dissociation(), project=Project([0, 1], 2))
    module = Module(Flat(20, 64), (0, 1), 2)
    fit(module, (TONE, IMAGE, Y), deficit)
    for half, (_, (tone, image, target)) in zip(INDEX.split(SIZE // 2), module.seen, strict=True):
        assert torch.equal(tone, TONE[half])
        moved = [half[[torch.equal(one, x) for x in IMAGE[half]].index(True)] for one in image]
        assert all(a != b for a, b in zip(moved, half, strict=True))
        own, other = Y[half], Y[torch.stack(moved)]
        assert ((target == own) | (target == other)).all()


def test_a_part_of_the_batches_of_several_loaders_may_be_named():
    parts, other = Samples((IMAGE, Y)), Samples((IMAGE + 1, Y))
    loaders = {"a": DataLoader(parts, 6), "b": DataLoader(other, 6)}
    module, project = Module(Flat(64)), Project("a.0", "a.1")
    module.training_step = lambda batch, batch_idx: Module.training_step(module, batch["a"], 0)  # type: ignore
    both = DeficitWindow(BLUR, project=project), FisherMonitor(project=project)
    trainer = quiet_trainer(*both, max_epochs=1)
    trainer.fit(module, loaders)
    seen = torch.cat([batch[0] for _, batch in module.seen])
    assert torch.equal(seen, BLUR.degrade(IMAGE))
    model = copy.deepcopy(module.model).double()
    wanted = fisher_loop(model, model, [IMAGE.double()])
    assert float(trainer.callback_metrics["fisher/trace"]) == pytest.approx(wanted, rel=1e-4)


class OfPixels(nn.Conv2d):
    """Three classes at each pixel."""

    def __init__(self) -> None:
        super().__init__(1, 3, 1)


ONE_SHAPE: dict[str, tuple[Any, Any, Any]] = {
    "one batch": (
        nn.Linear(1, 3), lambda split, p: WeightInformationMonitor(
            split=split, samples=8, steps=2, project=p
        ), [(torch.ones(4, size), Y[:4]) for size in (5, 6)],
    ),
    "class maps": (
        OfPixels(), lambda split, p: UsableInformationMonitor(split=split, project=p),
        [(torch.ones(4, 1, s, s), Y[:4, None, None].expand(4, s, s)) for s in (5, 6)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("case", ONE_SHAPE)
def test_samples_of_other_shapes_are_refused_before_the_second_step(case, split):
    model, monitor, samples = ONE_SHAPE[case]
    batches, module = DataLoader(samples, batch_size=None), Module(copy.deepcopy(model))
    if case == "one batch":
        module.forward = lambda x: module.model(x.mean(1, keepdim=True))  # type: ignore[method-assign]
    trainer = quiet_trainer(monitor(split, Project(0, 1)), max_epochs=1)
    with pytest.raises(UserError, match=rf"{split}' gives .* shapes, such as \[.*5\] and \[.*6\]"):
        trainer.fit(module, batches, batches)
    assert len(module.seen) == (1 if split == "train" else 0)


def test_features_of_more_than_the_classes_are_refused():
    for owner in ("module", "hparams", "network", "namespace"):
        module = Module(Flat(64, outputs=5))
        held = module.hparams if owner == "hparams" else module
        if owner in ("network", "namespace"):
            module.network = module.model  # type: ignore[assignment]
            held = module.network  # type: ignore[assignment]
        if owner == "namespace":
            held.hparams = held = Namespace()  # type: ignore[assignment, union-attr]
        held.num_classes = 3  # type: ignore[union-attr]
        sentence = r"shape \[2, 5\], but num_classes=3 of .*Project\(network"
        with pytest.raises(UserError, match=sentence):
            fit(module, (IMAGE, Y), Untrained(), FisherMonitor())
        # Where they are said to be logits, or are no more than a background besides, they are.
        project = Project(network="model")
        assert "fisher/trace" in fit(module, (IMAGE, Y), FisherMonitor(project=project))
        held.num_classes = 4  # type: ignore[union-attr]
        assert "fisher/trace" in fit(module, (IMAGE, Y), FisherMonitor())


class Encoding(Module):
    """Has no forward: its steps give what the network returns to a head, near or far."""

    forward = pl.LightningModule.forward
    between = staticmethod(lambda z: z)
    automatic = True

    def __init__(self) -> None:
        super().__init__(nn.Identity())
        self.network, self.head = Flat(64, outputs=6), nn.Linear(6, 3)
        self.automatic_optimization = self.automatic

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = F.cross_entropy(self.head(self.between(self.network(batch[0]))), batch[1])
        if not self.automatic:
            self.manual_backward(loss)
            self.optimizers().step()
        return loss


@pytest.mark.parametrize(
    "settings", [{}, {"between": lambda z: z.relu()[:, None].mean(1)}, {"automatic": False}]
)
def test_what_a_head_takes_is_no_output(settings):
    held = {name: staticmethod(one) if callable(one) else one for name, one in settings.items()}
    kind = type("Kind", (Encoding,), held)
    # Nobody looks where something was compiled.
    torch.compiler.reset()
    with pytest.raises(UserError, match=r"measure the attribute network of Kind .* to 'head'"):
        fit(module := kind(), (IMAGE, Y), FisherMonitor(), Untrained())
    assert not module.network._forward_hooks
    logged = fit(kind(), (IMAGE, Y), FisherMonitor(project=Project(network="network")))
    assert logged["fisher/trace"] > 0


def test_a_module_that_is_named_need_not_be_of_the_target():
    project = Project(network="model", likelihood="gaussian")
    logged = fit(Module(Flat(64)), (IMAGE, Y), FisherMonitor(project=project))
    assert logged["fisher/trace"] > 0
    with pytest.raises(UserError, match="as many numbers a sample"):
        fit(Module(Flat(64)), (IMAGE, Y), FisherMonitor(project=Project(
            network="model", likelihood="gaussian", target=1
        )))  # fmt: skip


# What is measured, against loops in float64.


def fisher_loop(call: Any, module: nn.Module, inputs: list[Tensor]) -> float:
    parameters, total = [p for p in module.parameters() if p.requires_grad], 0.0
    for place in range(len(inputs[0])):
        log_p = call(*(x[place : place + 1] for x in inputs)).log_softmax(1)[0]
        for one in log_p:
            grads = torch.autograd.grad(one, parameters, retain_graph=True, allow_unused=True)
            squares = sum(float(g.square().sum()) for g in grads if g is not None)
            total += math.exp(float(one)) * squares
    return total / len(inputs[0])


def bits(logits: Tensor, target: Tensor) -> float:
    share = torch.bincount(target).double() / len(target)
    loss = F.cross_entropy(logits.double(), target)
    return float((-(share * share.log()).sum() - loss) / math.log(2))


TOKENS = torch.randint(9, (SIZE, 7), generator=torch.Generator().manual_seed(0))
SOURCES: dict[str, list[Tensor]] = {
    "audio": [TONE],
    "series": [SENSOR],
    "table": [normal(20)],
    "tokens": [TOKENS],
    "tone and picture": [TONE, IMAGE],
    "sensors": [SENSOR, normal(3, 2)],
}


@pytest.mark.parametrize("case", SOURCES)
def test_fisher_and_information_without_images(case):
    inputs = SOURCES[case]
    number = len(inputs)
    project = Project(list(range(number)), number)
    module = Module(Flat(*(x[0].numel() for x in inputs)), range(number), number)
    clean = copy.deepcopy(module)
    logged = fit(
        module, (*inputs, Y),
        FisherMonitor(split="val", samples=5, project=project),
        UsableInformationMonitor(project=project),
        WeightInformationMonitor(samples=4, steps=2, project=project),
    )  # fmt: skip
    fit(clean, (*inputs, Y))
    assert all(map(torch.equal, module.parameters(), clean.parameters()))

    model = copy.deepcopy(module.model).double()
    some = [x[:5] for x in inputs]
    assert logged["fisher/trace"] == pytest.approx(fisher_loop(model, model, some), rel=1e-4)
    assert logged["information/both"] == pytest.approx(bits(module(*inputs), Y), abs=1e-5)
    for view in range(number) if number > 1 else ():
        alone = [x if place == view else x * 0 for place, x in enumerate(inputs)]
        wanted = bits(module(*alone), Y)
        assert logged[f"information/view_{view}"] == pytest.approx(wanted, abs=1e-5)
    assert logged["information/weights"] > 0


@pytest.mark.parametrize("case", ["tone and picture", "sensors"])
def test_rsv_of_two_sources_without_images(tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    inputs, project = SOURCES[case], Project([0, 1], 2)
    module = Module(Flat(*(x[0].numel() for x in inputs)), (0, 1), 2)
    layers = ["model.maps.0", "model.sum"]
    monitor = SourceVarianceMonitor(layers, pairs=3, project=project)
    logged = fit(module, (*inputs, Y), monitor)

    def units(*views: Tensor) -> Tensor:
        maps = zip(module.model.maps, views, strict=True)
        return torch.tanh(sum(one(x.flatten(1)) for one, x in maps))

    fixed = [x[:3] for x in inputs]
    with torch.no_grad():
        variances = [source_variance(units, fixed, x, view) for view, x in enumerate(inputs)]
    wanted = relative_source_variance(torch.stack(variances))
    assert logged["rsv/model.sum/mean"] == pytest.approx(float(wanted.nanmean()), abs=1e-4)
    assert logged["rsv/model.maps.0/mean"] == 1  # it hears the first source alone


class Sigmoid(Module):
    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(output, target.float())


class Square(Module):
    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(output, target)


@pytest.mark.parametrize(
    ("kind", "target", "likelihood"),
    [
        (Sigmoid, (Y % 2)[:, None], "bernoulli"),
        (Sigmoid, (normal(4) > 0).float(), "bernoulli"),
        (Square, normal(2), "gaussian"),
        (Square, normal(), "gaussian"),
    ],
)
def test_monitors_measure_by_the_likelihood(kind, target, likelihood):
    project = Project(likelihood=likelihood)
    module = kind(Flat(64, outputs=target[0].numel()))
    if target.ndim == 1:
        module.model.head = nn.Sequential(module.model.head, nn.Flatten(0))
    logged = fit(
        module, (IMAGE, target),
        FisherMonitor(split="val", project=project),
        UsableInformationMonitor(project=project),
        WeightInformationMonitor(samples=4, steps=2, project=project),
    )  # fmt: skip
    model, total = copy.deepcopy(module.model).double(), 0.0
    for x in IMAGE.double():
        z = model(x[None]).flatten()
        weights = z.sigmoid() * (1 - z.sigmoid()) if likelihood == "bernoulli" else z * 0 + 1
        for one, weight in zip(z, weights, strict=True):
            grads = torch.autograd.grad(one, model.parameters(), retain_graph=True)
            total += float(weight) * sum(float(g.square().sum()) for g in grads)
    assert logged["fisher/trace"] == pytest.approx(total / SIZE, rel=1e-4)

    z, mean = module(IMAGE).double(), target.double().mean(0)
    if likelihood == "gaussian":
        gain = ((target - mean).square() - (target - z).square()).sum() / SIZE / 2
    else:
        losses = [F.binary_cross_entropy(p, target.double()) for p in (mean + z * 0, z.sigmoid())]
        gain = (losses[0] - losses[1]) * target.shape[1]
    assert logged["information/both"] == pytest.approx(float(gain) / math.log(2), abs=1e-5)


@pytest.mark.parametrize("shape", [(SIZE, 4, 4), (SIZE, 1, 4, 4)])
def test_a_segmentation_has_a_class_at_each_pixel(shape):
    classes = torch.randint(3, shape, generator=torch.Generator().manual_seed(5))
    module, project = Module(nn.Conv2d(1, 3, 2, 2)), Project(target=1)
    module.loss = lambda z, y: F.cross_entropy(z, y.view(len(z), 4, 4))  # type: ignore[method-assign]
    logged = fit(
        module, (IMAGE, classes),
        FisherMonitor(split="val", project=project),
        UsableInformationMonitor(project=project),
        WeightInformationMonitor(samples=4, steps=2, project=project),
    )  # fmt: skip
    pixels, at = IMAGE.double().unfold(2, 2, 2).unfold(3, 2, 2).flatten(4), classes.view(-1, 16)
    linear = nn.Linear(4, 3).double()
    linear.load_state_dict(
        {n: p.view(3, *[4] * (p.ndim > 1)) for n, p in module.model.state_dict().items()}
    )
    each = [pixels.view(SIZE, 16, 4)[:, place] for place in range(16)]
    fisher = sum(fisher_loop(linear, linear, [x]) for x in each)
    assert logged["fisher/trace"] == pytest.approx(fisher, rel=1e-4)
    gained = sum(bits(linear(x), at[:, place]) for place, x in enumerate(each))
    assert logged["information/both"] == pytest.approx(gained, abs=1e-4)
    assert logged["information/weights"] > 0


class Parts(nn.Module):
    """A dict of logits in half their size, and features."""

    def __init__(self) -> None:
        super().__init__()
        self.flat = Flat(64)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"scores": self.flat(x) / 2, "features": x}


def doubled(output: Any) -> Tensor:
    return output["scores"] * 2


class OfParts(Module):
    def loss(self, output: Any, target: Tensor) -> Tensor:
        return F.cross_entropy(output["scores"] * 2, target)


@pytest.mark.parametrize("logits", [doubled, "test_project.doubled"])
def test_logits_are_what_a_function_makes_of_the_output(logits):
    module = OfParts(Parts())
    monitors = (
        FisherMonitor(split="val", project=Project(logits=logits)),
        UsableInformationMonitor(project=Project(logits=logits, network="model")),
    )
    logged = fit(module, (IMAGE, Y), *monitors)
    model = copy.deepcopy(module.model).double()

    def call(x: Tensor) -> Tensor:
        return doubled(model(x))

    assert logged["fisher/trace"] == pytest.approx(fisher_loop(call, model, [IMAGE]), rel=1e-4)
    assert logged["information/both"] == pytest.approx(bits(call(IMAGE), Y), abs=1e-5)


class Probable(Module):
    """Its forward gives probabilities."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return super().forward(*inputs).softmax(1)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return F.nll_loss(output.log(), target)


def test_probabilities_are_refused_and_their_logarithm_is_measured():
    with pytest.raises(UserError, match=r"probabilities.*Project\(logits=torch\.log\)"):
        fit(Probable(Flat(64)), (IMAGE, Y), Untrained(), FisherMonitor())
    module, project = Probable(Flat(64)), Project(logits="torch.log")
    monitors = (
        FisherMonitor(split="val", project=project),
        UsableInformationMonitor(project=project),
    )
    logged = fit(module, (IMAGE, Y), *monitors)
    model = copy.deepcopy(module.model).double()
    assert logged["fisher/trace"] == pytest.approx(fisher_loop(model, model, [IMAGE]), rel=1e-4)
    assert logged["information/both"] == pytest.approx(bits(module.model(IMAGE), Y), abs=1e-5)


def test_a_sigmoid_is_no_logit():
    parts, project = (IMAGE, Y % 2), Project(0, 1, likelihood="bernoulli")

    def module() -> Module:
        made = OneLogit(nn.Sequential(Flat(64, outputs=1), nn.Sigmoid(), nn.Flatten(0)))
        made.loss = lambda p, y: F.binary_cross_entropy(p, y.float())  # type: ignore[method-assign]
        return made

    with pytest.raises(UserError, match=r"a sigmoid.*Project\(logits=torch\.logit\)"):
        fit(module(), parts, Untrained(), FisherMonitor(project=project))
    with pytest.raises(UserError, match=r"last step is a sigmoid, but the likelihood 'categori"):
        probable = Module(nn.Sequential(Flat(64), nn.Sigmoid()))
        probable.forward = lambda x: probable.model(x).clamp(0.01, 0.99)  # type: ignore[method-assign]
        fit(probable, (IMAGE, Y), Untrained(), FisherMonitor())
    said = Project(0, 1, logits="torch.logit", likelihood="bernoulli")
    assert fit(module(), parts, FisherMonitor(project=said))["fisher/trace"] > 0


# Which module is measured.


class Named(Module):
    """Its model is called network."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.network = model


class Normalising(Named):
    def forward(self, x: Tensor) -> Tensor:
        return self.network((x - 3) / 5)


class Headed(Named):
    """Its network gives features, as wide as classes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.top = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.top(self.network(x))


class Predicting(Named):
    """Its forward is for prediction, and training goes by the network."""

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x).softmax(1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.network(batch[0]), batch[1])


class Telling(Predicting):
    def forward(self, x: Tensor) -> Any:  # type: ignore[override]
        logits = self.network(x)
        return {"loss": None, "classes": [logits.argmax(1), logits]}


@pytest.mark.parametrize("kind", [Named, Normalising, Headed, Predicting, Telling])
def test_a_module_is_measured_through_its_own_forward(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = kind(Flat(64))
    logged = fit(
        module, (IMAGE, Y),
        FisherMonitor(split="val"), UsableInformationMonitor(),
        WeightInformationMonitor(samples=4, steps=2, layers=["head"]),
    )  # fmt: skip
    by_forward = kind in (Normalising, Headed)
    measured = copy.deepcopy(module if by_forward else module.network).double()
    wanted = fisher_loop(measured, measured, [IMAGE.double()])
    assert logged["fisher/trace"] == pytest.approx(wanted, rel=1e-4)
    assert logged["information/both"] == pytest.approx(bits(measured(IMAGE.double()), Y), abs=1e-5)
    layer = "model.head" if by_forward else "head"  # by its first name
    assert {f"fisher/trace/{layer}", f"information/weights/{layer}"} <= logged.keys()


def test_a_monitor_finds_its_layers_in_the_network_of_each_fit():
    monitor = WeightInformationMonitor(samples=4, steps=2, layers=["head"])
    for _ in range(2):
        logged = fit(Normalising(Flat(64)), (IMAGE, Y), monitor)
        assert "information/weights/model.head" in logged


def test_a_network_that_draws_is_the_same_network_in_its_module():
    class Noisy(Flat):
        def forward(self, *inputs: Tensor) -> Tensor:
            return super().forward(*inputs) + torch.randn(3)

    module = Named(Noisy(64))
    fit(module, (IMAGE, Y), monitor := UsableInformationMonitor())
    assert monitor.network_of(module) is module.network
    with pytest.raises(UserError, match=r"\(its attribute network\).* draws random"):
        fit(module, (IMAGE, Y), Untrained(), FisherMonitor())


@pytest.mark.parametrize("reentrant", [False, True])
def test_fisher_goes_through_checkpoints_and_past_backward_hooks(reentrant):
    class Checkpointed(Flat):
        def forward(self, *inputs: Tensor) -> Tensor:
            features = self.maps[0](inputs[0].flatten(1))
            return self.head(checkpoint(self.sum, features, use_reentrant=reentrant))

    module = Module(Checkpointed(64))
    calls: list[Any] = []
    module.model.sum.register_full_backward_hook(lambda *_: calls.append(1))
    logged = fit(module, (IMAGE, Y), FisherMonitor(split="val"))
    assert len(calls) == 2  # of the steps alone
    plain = Flat(64)
    plain.load_state_dict(module.model.state_dict())
    plain = plain.double()
    assert logged["fisher/trace"] == pytest.approx(fisher_loop(plain, plain, [IMAGE]), rel=1e-4)


@pytest.mark.parametrize("target", [INDEX + 50, Y.where(Y > 0, -100), Y.int()])
def test_fisher_needs_no_targets_and_takes_them_as_they_are(target):
    module = Module(Flat(64))
    module.loss = lambda z, y: F.cross_entropy(z, (y % 3).long())  # type: ignore[method-assign]
    monitors = [FisherMonitor(split="val")]
    if target.dtype == torch.int32:
        monitors += [UsableInformationMonitor(), WeightInformationMonitor(samples=4, steps=2)]
    logged = fit(module, (IMAGE, target), *monitors)
    wanted = fisher_loop(module.double(), module, [IMAGE.double()])
    assert logged["fisher/trace"] == pytest.approx(wanted, rel=1e-4)


def test_the_project_may_name_the_module():
    module = Normalising(Flat(64))
    monitor = FisherMonitor(split="val", project=Project(network="network"))
    logged = fit(module, (IMAGE, Y), monitor, FreezeWindow(["head"], project=monitor.project))
    network = copy.deepcopy(module.network).double()
    assert logged["fisher/trace"] == pytest.approx(fisher_loop(network, network, [IMAGE]), rel=1e-4)
    assert torch.equal(module.network.head.weight, Flat(64).head.weight)
    with pytest.raises(UserError, match=r"network='netwrk' of Project .* did you mean 'network'"):
        fit(module, (IMAGE, Y), FisherMonitor(project=Project(network="netwrk")))


def test_rsv_through_a_forward_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    class Halving(Named):
        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            return self.network(left, right * 0)

    halving = Halving(Flat(64, 64))
    halving.inputs, halving.target = (0, 1), 2
    logged = fit(
        halving, (IMAGE, IMAGE.flip(0), Y), SourceVarianceMonitor(["sum"], pairs=2, project=TWO)
    )
    assert logged["rsv/sum/mean"] == 1


@pytest.mark.parametrize("heads", [4, "both", ["left", "right"], nn.ModuleList([nn.Identity()])])
def test_an_attribute_heads_of_theirs_does_not_matter(heads):
    module, model = Module(Flat(64)), Flat(64)
    module.heads = model.heads = heads
    fit(module, (IMAGE, Y), FisherMonitor(split="val"), UsableInformationMonitor())
    fit(Module(model), (IMAGE, Y), FisherMonitor(), UsableInformationMonitor())


def test_pathways_of_theirs_do_not_matter(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = Flat(64, 64)
    model.pathways, model.fuse = nn.ModuleList([nn.Linear(2, 2)]), "late"
    monitor = SourceVarianceMonitor(["model.sum"], pairs=2, project=TWO)
    logged = fit(Module(model, (0, 1), 2), (IMAGE, IMAGE.flip(0), Y), monitor)
    assert "rsv/model.sum/mean" in logged


# What is refused, before the first step and in a sentence.


def pixels(size: int) -> Any:
    """Logits [B, 3] spread over pixels."""
    return lambda z: z[:, :, None, None].expand(-1, -1, size, size)


def one_each(z: Tensor) -> Tensor:
    return z[:, :1, None].expand(-1, 70, 70)


WINDOW, NOISY = DeficitWindow(Blur(4)), DeficitWindow(LabelNoise())
REFUSED: list[tuple[Any, Any, str]] = [
    ((IMAGE, INDEX, Y), NOISY, r"2 tensors .* target: 1 \(int64 \[6\]\), 2 .*Project\(target=2\)"),
    ({"img": IMAGE, "idx": INDEX, "category": Y}, NOISY, "'idx' .*, 'category' .*target='categ"),
    ({"image": IMAGE, "idx": INDEX}, NOISY, "no target was found"),
    ({"image": IMAGE, "coarse_label": Y, "fine_label": Y}, NOISY, "'coarse_label' .*'fine_label'"),
    ({"image": IMAGE, "label": Y, "label_id": Y}, NOISY, "'label' .*'label_id'"),
    ({"image": IMAGE, "vector": normal(8), "category": Y}, NOISY, "'vector' .*'category'"),
    ((IMAGE, INDEX, Y), UsableInformationMonitor(), r"1 \(int64 \[12\]\), 2 \(int64 \[12\]\)"),
    ({"image": IMAGE, "label": IMAGE}, WINDOW, "'image' .*, 'label' .*Project.inputs='image'"),
    ({"image": IMAGE, "depth": IMAGE, "y": Y}, FisherMonitor(), "'image' .*, 'depth'"),
    ({"image": IMAGE, "pose": normal(2, 4, 4), "y": Y}, WINDOW, "'image' .*, 'pose'"),
    ((IMAGE, IMAGE), WINDOW, "views, or an image and its mask"),
    ((IMAGE, (IMAGE > 0).float(), Y), WINDOW, "views, or an image and its mask"),
    ((IMAGE, normal(2, 3, 8, 8), Y), WINDOW, "differ .*Project.inputs=0"),
    ((FRAMES.movedim(2, 1), Y), WINDOW, r"or a video \[B, C, T, H, W\].*axes='BCTHW'"),
    ((FRAMES, Y), FisherMonitor(), r"or a video"),
    ((TONE, Y), FisherMonitor(), r"no images were found .* such as Project\(inputs=0\)"),
    ((IMAGE, normal(3)), FisherMonitor(), "no class numbers; .*'bernoulli'.* 'gaussian'"),
    ((IMAGE, Y + 1), FisherMonitor(), "targets run from 1 to 3 but logits have 3 classes"),
    ((IMAGE, Y[:, None] + 1), UsableInformationMonitor(), "run from 1 to 3 but"),
    ((TONE, Y), DeficitWindow(Blur(4), project=Project(0, 1)), "Blur needs images, but these"),
    ((TONE, Y), DeficitWindow(VerticalFlip(), project=Project(0, 1)), "VerticalFlip needs images"),
    ((normal(1, 8, 9), Y), DeficitWindow(Blur(2), project=Project(0, 1, "BECT")), "needs images"),
    ((TOKENS, Y), DeficitWindow(GaussianNoise(), project=Project(0, 1)), "torch.int64"),
    ((IMAGE, Y.float()), DeficitWindow(PERMUTATION, project=Project(0, 1)), "no class numbers"),
    ((IMAGE, Y), DeficitWindow(Blur(4), project=Project("imag")), "inputs='imag' of Project names"),
    ((IMAGE, Y), FisherMonitor(project=Project(axes="BHW")), "has 3 letters, but the input 0 is"),
    ((IMAGE, Y), FisherMonitor(project=Project([0, 1], axes=["BCHW"])), "lists 1 inputs, but"),
    ((IMAGE, Y), FisherMonitor(project=Project(logits=pixels(5))), "each pixel or token"),
    ((IMAGE, Y), UsableInformationMonitor(project=Project(logits=pixels(5))), "each pixel or tok"),
    (
        (IMAGE, Y, normal(70, 70) > 0),
        FisherMonitor(project=Project(0, 2, logits=one_each, likelihood="bernoulli")),
        "backward 4900 times for each sample.*set num_draws",
    ),
    ((IMAGE, Y), FisherMonitor(project=Project(logits="score")), "logits='score' of Project is n"),
    (
        (IMAGE, Y),
        RobustnessMonitor(project=Project(likelihood="gaussian")),
        "RobustnessMonitor measures accuracies, not outputs of the likelihood 'gaussian'",
    ),
]


@pytest.mark.parametrize(("parts", "callback", "sentence"), REFUSED)
def test_what_is_open_is_refused_before_the_first_step(parts, callback, sentence):
    module = Module(Flat(1), range(1), 1)
    size = next(iter(parts.values() if isinstance(parts, dict) else parts))[0].numel()
    module.model = Flat(size)
    with pytest.raises(UserError, match=sentence) as caught:
        fit(module, parts, Untrained(), copy.deepcopy(callback))
    assert "\n" not in str(caught.value)
    if not isinstance(callback, DeficitWindow):
        assert "deficit" not in str(caught.value)


class OneLogit(Module):
    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(output.view(-1), (target % 2).float())


@pytest.mark.parametrize(
    "monitor",
    [FisherMonitor(), UsableInformationMonitor(), WeightInformationMonitor(samples=4, steps=2)],
)
def test_one_logit_is_told_its_likelihood(monitor):
    for top in (nn.Identity(), nn.Flatten(0)):
        module = OneLogit(nn.Sequential(Flat(64, outputs=1), top))
        with pytest.raises(UserError, match=r"for one logit of two classes.*'bernoulli'"):
            fit(module, (IMAGE, Y % 2), Untrained(), copy.deepcopy(monitor))


class ByName(Module):
    def forward(self, *, x: Tensor) -> Tensor:
        return self.model(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self(x=batch[0]), batch[1])


def test_a_forward_by_keywords_is_told_what_it_has_to_take():
    with pytest.raises(UserError, match=r"ByName\.forward\(\*, x.*Project\(network='model'\)"):
        fit(ByName(Flat(64)), (IMAGE, Y), Untrained(), FisherMonitor())
    logged = fit(ByName(Flat(64)), (IMAGE, Y), FisherMonitor(project=Project(network="model")))
    assert logged["fisher/trace"] > 0


@pytest.mark.parametrize("framework", [pl, lightning.pytorch])
def test_a_module_without_a_forward_is_told_to_name_one(framework):
    class Silent(framework.LightningModule):
        def __init__(self, **parts: nn.Module) -> None:
            super().__init__()
            for name, part in parts.items():
                setattr(self, name, part)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return F.cross_entropy(next(self.children())(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    def run(module: Any) -> Any:
        trainer = quiet_trainer(FisherMonitor(), framework=framework, max_epochs=1)
        trainer.fit(module, DataLoader(Samples((IMAGE, Y)), SIZE))
        return trainer.callback_metrics

    with pytest.raises(UserError, match=r"Silent has neither .*Project\(network='net'\)"):
        run(Silent(net=Flat(64)))
    assert run(Silent(network=Flat(64)))["fisher/trace"] > 0


def test_which_of_two_forwards_is_open_where_only_the_network_can_be_called():
    class OfBatch(Named):
        def forward(self, batch: Any) -> Tensor:
            return self.network(batch["x"] - 3)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return F.cross_entropy(self({"x": batch[0]}), batch[1])

    with pytest.raises(UserError, match=r"OfBatch has an attribute network and a forward of its"):
        fit(OfBatch(Flat(64)), (IMAGE, Y), Untrained(), FisherMonitor())


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"likelihood": "poisson"}, "likelihood='poisson' of Project is unknown; choose one of"),
        ({"axes": "CHWB"}, "axes='CHWB' of Project must be a letter for each axis"),
        ({"axes": ["BCHW", "BTT"]}, "axes='BTT'"),
        ({"inputs": []}, "inputs of Project is empty"),
    ],
)
def test_settings_that_cannot_be(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        Project(**settings)


def test_a_config_writes_it_down():
    parser = ArgumentParser()
    parser.add_argument("--callbacks", type=list[pl.Callback])
    written = {
        "inputs": ["left.image", 1], "target": "fine", "axes": ["BCHW", "BCT"],
        "network": "model", "logits": "torch.log", "likelihood": "gaussian",
    }  # fmt: skip
    made = []
    for kind in (FisherMonitor, UsableInformationMonitor, WeightInformationMonitor):
        made.append((kind, {}))
    made += [(SourceVarianceMonitor, {"layers": ["a"]}), (FreezeWindow, {"modules": ["a"]})]
    blur = {"class_path": "critical_periods.deficits.Blur"}
    made.append((DeficitWindow, {"deficit": blur}))
    config = [
        {
            "class_path": f"critical_periods.callbacks.{kind.__name__}",
            "init_args": {"project": written, **more},
        }
        for kind, more in made
    ]
    parsed = parser.parse_object({"callbacks": config})
    again = parser.parse_string(parser.dump(parsed))
    # Later versions of jsonargparse call it otherwise.
    make = getattr(parser, "instantiate", parser.instantiate_classes)
    for callback in make(again).callbacks:
        assert callback.project == Project(**written)
