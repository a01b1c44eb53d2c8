"""Regularisers of networks and projects that do not keep them in layers: what is off is off."""

import random
from collections import OrderedDict
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torchvision
from small_runs import Untrained, quiet_trainer
from timm import create_model
from timm.layers import DropBlock2d, PatchDropout
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

from critical_periods.callbacks import RegularizationWindow
from critical_periods.core.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:.*non-reentrant", "ignore:dropout option adds")

IMAGES = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Project(pl.LightningModule):
    """Keeps what two passes of each batch give, in training mode, before its step."""

    def __init__(self, network: Any = None, step: Any = None, optimizer: Any = None) -> None:
        super().__init__()
        self.network = network or nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
        self.step, self.optimizer, self.is_random = step, optimizer, []  # type: ignore[var-annotated]
        # So that there is something to switch.
        self.one_more = nn.Dropout(0.5)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        def forward(x: Tensor) -> Tensor:
            given = self.step(self, x) if self.step else self.network(x)
            return given["logits"] if isinstance(given, dict) else given

        with torch.no_grad():
            results = [forward(batch[0]) for _ in range(20)]
        self.is_random.append(any(not torch.equal(results[0], other) for other in results))
        return forward(batch[0]).square().mean()

    def configure_optimizers(self) -> Any:
        return self.optimizer(self) if self.optimizer else torch.optim.SGD(self.parameters(), 0.01)


def fit(module: Any, *callbacks: Any, **settings: Any) -> Any:
    trainer = quiet_trainer(*callbacks, **({"max_epochs": 2} | settings))
    trainer.fit(module, DataLoader(TensorDataset(IMAGES), 4))
    return trainer


class Layer(nn.Module):
    """A function between two linear layers, with settings as attributes."""

    def __init__(self, function: Callable[[Any, Tensor], Tensor], **settings: Any) -> None:
        super().__init__()
        self.before, self.after, self.function = nn.Linear(192, 16), nn.Linear(16, 4), function
        for name, value in settings.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.function(self, self.before(x.flatten(1))))


class Sequence(nn.Module):
    """A layer for sequences, its first output taken."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.embed, self.layer, self.head = nn.Linear(24, 8), layer, nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x.flatten(2).transpose(1, 2).flatten(1).view(len(x), 8, 24))
        attends = isinstance(self.layer, nn.MultiheadAttention)
        out = self.layer(tokens, tokens, tokens) if attends else self.layer(tokens)
        return self.head((out[0] if isinstance(out, tuple) else out)[:, -1])


def attention(owner: Any, x: Tensor, p: float) -> Tensor:
    return F.scaled_dot_product_attention(*[x.view(-1, 1, 4, 4)] * 3, dropout_p=p).flatten(1)


def masked(x: Tensor, p: float) -> Tensor:
    return x * (torch.rand_like(x) >= p)


def convolved(layer: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), layer, nn.Flatten())


class Caching(Layer):
    class Inner(nn.Module):
        attn_drop = 0.0

        def forward(self, x: Tensor, cache: list[Tensor]) -> Tensor:
            assert not cache
            cache.append(x)
            return F.dropout(x, self.attn_drop)

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.inner = self.Inner()
        self.inner.attn_drop = 0.3

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(super().forward(x), [])


def swin() -> nn.Module:
    return torchvision.models.SwinTransformer(
        [2, 2], 4, [1, 1], [2, 2], [2, 2], 0.5, 0.2, 0.2, 0.3, num_classes=4
    )


SWITCHED: dict[str, Callable[[], nn.Module]] = {
    "LSTM": lambda: Sequence(nn.LSTM(8, 8, 2, dropout=0.4, batch_first=True)),
    "GRU": lambda: Sequence(nn.GRU(8, 8, 2, dropout=0.4, batch_first=True)),
    "RNN": lambda: Sequence(nn.RNN(8, 8, 2, dropout=0.4, batch_first=True)),
    "attention": lambda: Sequence(nn.MultiheadAttention(8, 2, dropout=0.4, batch_first=True)),
    "transformer": lambda: Sequence(nn.TransformerEncoderLayer(8, 2, 9, 0.3, batch_first=True)),
    "by attribute": lambda: Layer(lambda m, x: F.dropout(x, m.dropout), dropout=0.3),
    "attention_dropout": lambda: Layer(
        lambda m, x: attention(m, x, m.attention_dropout), attention_dropout=0.3
    ),
    "hidden_dropout_prob": lambda: Layer(
        lambda m, x: masked(x, m.hidden_dropout_prob), hidden_dropout_prob=0.3
    ),
    "layerdrop": lambda: Layer(
        lambda m, x: x if random.random() >= m.layerdrop else 0 * x, layerdrop=0.5
    ),
    # As those of wav2vec2, whose config all modules share.
    "a config's layerdrop": lambda: Layer(
        lambda m, x: x if random.random() >= m.config.layerdrop else 0 * x,
        config=SimpleNamespace(layerdrop=0.5),
    ),
    "stochastic depth": lambda: convolved(torchvision.ops.StochasticDepth(0.4, "row")),
    "torchvision's DropBlock": lambda: convolved(torchvision.ops.DropBlock2d(0.4, 3)),
    "timm's DropBlock": lambda: convolved(DropBlock2d(0.4, 3)),
    "PatchDropout": lambda: Sequence(PatchDropout(0.4, num_prefix_tokens=0, ordered=True)),
    "swin": swin,
    # A cache that each pass adds to, as in generation.
    "a cache": lambda: Caching(
        lambda m, x: attention(m, F.dropout(x, m.attn_drop), m.attn_drop), attn_drop=0.3
    ),
    "timm's transformer": lambda: create_model(
        "vit_tiny_patch16_224", img_size=8, patch_size=4, embed_dim=8, depth=2, num_heads=2,
        num_classes=4, drop_rate=0.2, attn_drop_rate=0.2, drop_path_rate=0.2, proj_drop_rate=0.2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SWITCHED)
def test_what_is_known_is_off_outside_of_the_window(name: str):
    torch.manual_seed(0)
    module = Project(SWITCHED[name]())
    fit(module, RegularizationWindow("dropout", 0, 1))
    assert module.is_random == [True, True, False, False]


class Answer(OrderedDict):  # as those of transformers
    pass


class Answering(Layer):
    def forward(self, x: Tensor) -> Any:
        return Answer(logits=super().forward(x))


class GaussianDropout(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + torch.randn_like(x))


class Kept(nn.Module):
    keep_prob = 0.7

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.empty(len(x), 1, 1, 1).bernoulli_(self.keep_prob)


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "its number in the call": (
        lambda: Layer(lambda m, x: F.dropout(x, 0.3)),
        r"'network' \(Layer\) drops by dropout,",
    ),
    "its default": (lambda: Layer(lambda m, x: F.dropout1d(x)), r"'network' \(Layer\) drops by"),
    "attention": (
        lambda: Layer(lambda m, x: attention(m, x, 0.3)),
        "drops by scaled_dot_product_attention",
    ),
    # A setting that is there, but not what drops.
    "another setting": (
        lambda: Layer(lambda m, x: F.dropout(F.dropout(x, m.dropout), 0.3), dropout=0.3),
        "drops by dropout,",
    ),
    "a mask": (lambda: Layer(lambda m, x: masked(x, 0.3)), "drops by rand_like"),
    "bernoulli": (
        lambda: nn.Sequential(convolved(Kept()), nn.Linear(144, 4)),
        r"'network.0.2' \(Kept\) drops by bernoulli_",
    ),
    "python's": (
        lambda: Layer(lambda m, x: x if random.random() > 0.5 else 0 * x),
        "drops by random numbers",
    ),
    "numpy's": (
        lambda: Layer(lambda m, x: x if np.random.rand() > 0.5 else 0 * x),
        "drops by random numbers",
    ),
    "gaussian": (lambda: convolved(GaussianDropout()), r"'network.2' \(GaussianDropout\)"),
    "a generator of its own": (
        lambda: Layer(
            lambda m, x: x * (torch.rand(x.shape, generator=m.draws) > 0.5),
            draws=torch.Generator(),
        ),
        r"'network' \(Layer\) drops by rand,",
    ),
    "NumPy's of its own": (
        lambda: Layer(lambda m, x: x * (m.draws.random() > 0.5), draws=np.random.default_rng(0)),
        "drops by random numbers",
    ),
    # Of little weight, and in an output that is no tuple.
    "now and then": (
        lambda: Layer(lambda m, x: x if random.random() > 0.1 else 1.001 * x),
        "drops by random numbers",
    ),
    "in a named output": (
        lambda: Answering(lambda m, x: F.dropout(x, 0.3)),
        r"'network.inner' \(Layer\) drops by|'network' \(Answering\) drops by",
    ),
    "a checkpoint": (
        lambda: Layer(lambda m, x: checkpoint(F.dropout, x, 0.3, use_reentrant=False)),
        "drops by",
    ),
}


class Jitter(nn.Module):
    """Noise in training, of any name and without a weight of its own."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x) if self.training else x


@pytest.mark.parametrize("in_step", [False, True])
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x: x + torch.randn_like(x), "randn_like"),
        (lambda x: x * torch.normal(1.0, 0.1, x.shape), "normal"),
        (lambda x: x.addcmul(x, torch.empty_like(x).exponential_()), "exponential_"),
    ],
)
def test_noise_in_training_alone_is_refused(function: Any, name: str, in_step: bool):
    noise = Jitter(function)
    module = Project(Layer(lambda m, x: m.noise(x), noise=noise))
    if in_step:  # on features, which an augmentation does not get
        module.network, module.jitter = nn.Flatten(), noise  # type: ignore[assignment]
        module.head = nn.Linear(192, 192)  # type: ignore[assignment]
        module.step = lambda m, x: m.jitter(m.head(m.network(x)))
    place = "jitter" if in_step else "network.noise"
    with pytest.raises(UserError, match=rf"training: '{place}' \(Jitter\) adds noise by {name}"):
        fit(module, RegularizationWindow("dropout", 1), Untrained())


class Every(nn.Module):
    """Drops in each so manieth call, or from then on."""

    def __init__(self, number: int, drop: Any, held: Any) -> None:
        super().__init__()
        self.number, self.drop = number, drop
        self.linear = nn.Linear(4, 4)
        self.register_buffer("calls", held)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and torch.is_grad_enabled():
            self.calls += 1
        return self.linear(self.drop(x) if self.calls >= self.number else x)


@pytest.mark.parametrize(
    "drop",
    [
        lambda x: F.dropout(x, 0.3),
        lambda x: x * (torch.rand(len(x), 1) > 0.2),
        lambda x: x * (np.random.rand() > 0.2),
        lambda x: x + torch.randn_like(x) * (2 - 1),
    ],
)
def test_what_drops_later_is_refused_then(drop: Any):
    inner = Jitter(drop)
    steps: list[int] = []

    class Steps(pl.Callback):
        def on_before_zero_grad(self, trainer: Any, *args: Any) -> None:
            steps.append(trainer.global_step)

    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), Every(3, inner, torch.tensor(0)))
    with pytest.raises(UserError, match=r"(drops|adds noise) by"):
        fit(Project(network), RegularizationWindow("dropout", 3, unit="step"), Steps())
    # Nothing has been trained on it.
    assert max(steps) <= 2
    module = Project(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)))

    class Grown(pl.Callback):
        def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
            if trainer.global_step == 2:
                module.network.append(nn.Dropout(0.5))

    with pytest.raises(UserError, match=r"set p=0.5 of .network\.2"):
        fit(module, Grown(), RegularizationWindow("dropout", 3, unit="step"))


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("onset", [0, 1])
def test_what_is_not_known_is_refused_before_the_first_step(name: str, onset: int):
    network, sentence = REFUSED[name]
    torch.manual_seed(0)
    with pytest.raises(UserError, match=f"cannot switch all that drops: .*{sentence}") as caught:
        fit(Project(network()), RegularizationWindow("dropout", onset, 2), Untrained())
    assert "\n" not in str(caught.value)


def test_dropout_of_the_step_itself():
    # Functions are looked at where nothing is compiled.
    torch.compiler.reset()
    for dropout, is_known in ((0.3, True), (0.4, False)):
        module = Project(step=lambda m, x: F.dropout(m.network(x), 0.3))
        module.dropout = dropout  # type: ignore[assignment]
        if is_known:
            # By its setting, but a number of the call: seen once the window is closed.
            module.step = lambda m, x: F.dropout(m.network(x), m.dropout)
            fit(module, RegularizationWindow("dropout", 0, 1))
            assert module.is_random == [True, True, False, False]
            continue
        with pytest.raises(UserError, match="Project itself drops by dropout,"):
            fit(module, RegularizationWindow("dropout", 0, 1), Untrained())


def test_a_forward_of_the_module_itself():
    class Whole(Project):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(self.network(x), 0.3, self.training)

    with pytest.raises(UserError, match="Whole itself drops by dropout,"):
        fit(Whole(step=lambda m, x: m(x)), RegularizationWindow("dropout", 0, 1), Untrained())

    class Logging(Project):
        def forward(self, x: Tensor) -> Tensor:
            self.log("calls", 1.0, reduce_fx="sum", on_step=False, on_epoch=True)
            return self.network(x) + torch.randn(4)

    with pytest.warns(match="alone what Logging itself draws by randn,"):
        trainer = fit(Logging(step=lambda m, x: m(x)), RegularizationWindow("dropout", 0, 1))
    assert trainer.callback_metrics["calls"] == 2 * 21


class Flip(nn.Module):
    """Augmentation, as Kornia's: it learns nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return x if torch.rand([]) > 0.5 else x.flip(-1)


ALLOWED: dict[str, Callable[[], Project]] = {
    "mixup": lambda: Project(step=lambda m, x: m.network(x * torch.rand(1) + x[torch.randperm(4)])),
    "augmentation": lambda: Project(nn.Flatten(), lambda m, x: m.network(m.flip(x))),
    "noise": lambda: Project(Layer(lambda m, x: x + torch.randn_like(x))),
    "gumbel": lambda: Project(Layer(lambda m, x: F.gumbel_softmax(x, hard=True))),
    "a number that is 0": lambda: Project(
        Layer(lambda m, x: x if torch.rand([]) >= m.layerdrop else 0 * x, layerdrop=0.0)
    ),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_random_numbers_that_drop_nothing(name: str):
    module = ALLOWED[name]()
    module.flip, module.learns = Flip(), nn.Linear(1, 1)  # type: ignore[assignment]
    if name == "augmentation":
        module.network = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    # What may be noise is said.
    said = pytest.warns(match="leaves alone what 'network' .* evaluation mode, too")
    with said if name in ("noise", "gumbel") else nullcontext():
        assert fit(module, RegularizationWindow("dropout", 0, 1)).global_step == 4


def test_looking_changes_nothing():
    """Buffers, attributes, random numbers and weights are as in a run without the window."""

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.calls, self.dropout = nn.BatchNorm2d(3), 0, 0.3
            self.register_buffer("mean", torch.zeros(3))
            self.head = nn.Linear(192, 4)
            self.draws = torch.Generator().manual_seed(0)

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            x = x + torch.randn(1, generator=self.draws)
            self.mean = 0.9 * self.mean + x.detach().mean((0, 2, 3))
            return self.head(F.dropout(self.norm(x).relu_(), self.dropout).flatten(1))

    def run(*callbacks: Any) -> Any:
        pl.seed_everything(3, verbose=False)
        module = Project(Counting())
        fit(module, *callbacks)
        return module

    alone, watched = run(), run(RegularizationWindow("dropout"))
    assert alone.network.calls == watched.network.calls == 4 * 21
    for name, value in alone.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name]), name


def test_a_run_that_sets_its_own_dropout():
    class Scheduled(Project):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            self.one_more.p = 0.1 + 0.1 * self.global_step

    module = Scheduled()
    fit(module, RegularizationWindow("dropout"))
    assert module.one_more.p == pytest.approx(0.4)
    with pytest.raises(UserError, match=r"is off, but this run has set p=0.1 of 'one_more' \(Drop"):
        fit(Scheduled(), RegularizationWindow("dropout", 1), Untrained())


def test_compiled_parts_are_left_compiled():
    calls: list[bool] = []

    def backend(graph: Any, inputs: Any) -> Any:
        calls.append(True)
        return graph.forward

    for whole in (torch.compile, lambda layer, backend: (layer.compile(backend=backend), layer)[1]):
        torch.manual_seed(0)
        calls.clear()
        torch.compiler.reset()
        module = Project()
        known = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.Dropout(0.3))
        module.network = whole(known, backend=backend)
        fit(module, RegularizationWindow("dropout", 0, 1))
        # A graph with dropout and one without, each with gradients and without.
        assert len(calls) == 4 and module.is_random == [True, True, False, False]
        module.network = whole(Layer(lambda m, x: F.dropout(x, 0.3)), backend=backend)
        with pytest.raises(UserError, match=r"'network' .* drops by dropout,"):
            fit(module, RegularizationWindow("dropout", 0, 1), Untrained())


def test_a_compiled_function_of_a_step_is_not_compiled_anew():
    graphs, calls = [], [0]

    def backend(graph: Any, inputs: Any) -> Any:
        def call(*args: Any) -> Any:
            calls[0] += 1
            return graph.forward(*args)

        graphs.append(graph)
        return call

    torch.compiler.reset()
    norm = torch.compile(lambda x: x / (1 + x.square().sum()), backend=backend)
    fit(Project(step=lambda m, x: norm(m.network(x))), RegularizationWindow("dropout", 0, 1))
    # With gradients and without; in each pass of each step.
    assert (len(graphs), calls[0]) == (2, 4 * 21)
    torch.compiler.reset()


# Weight decay.


def decay(module: Any, **settings: Any) -> Any:
    return torch.optim.SGD(module.parameters(), lr=0.1, weight_decay=0.5)


class Decayed(Project):
    """A network without a gradient, so that a step is w ← (1 - lr · decay) w; decay as in DINO."""

    hook, unless_zero = "on_before_optimizer_step", False

    def __init__(self) -> None:
        super().__init__(optimizer=decay)
        self.factors: list[float] = []
        setattr(self, self.hook, self.set_decay)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.before = self.network[1].weight.clone()
        return 0 * self.network(batch[0]).sum()

    def set_decay(self, *args: Any) -> None:
        for group in self.trainer.optimizers[0].param_groups:
            if group["weight_decay"] != 0 or not self.unless_zero:
                group["weight_decay"] = 0.5 + 0.1 * self.global_step

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        ratio = (self.network[1].weight / self.before).mean()
        self.factors.append(round(float((1 - ratio) / 0.1), 4))


@pytest.mark.parametrize("unless_zero", [False, True])
@pytest.mark.parametrize("hook", ["on_before_optimizer_step", "on_train_batch_start"])
def test_a_run_that_sets_its_own_weight_decay(hook: str, unless_zero: bool):
    kind = type("Kind", (Decayed,), {"hook": hook, "unless_zero": unless_zero})
    alone, closed, late = kind(), kind(), kind()
    fit(alone)
    fit(closed, RegularizationWindow("weight_decay", 0, 1))
    fit(late, RegularizationWindow("weight_decay", 1))
    schedule = [0.5, 0.6, 0.7, 0.8]
    assert alone.factors == pytest.approx(schedule, abs=1e-3)
    assert closed.factors == pytest.approx([*schedule[:2], 0, 0], abs=1e-3)
    assert late.factors == pytest.approx([0, 0, *schedule[2:]], abs=1e-3)
    # Nothing is left in the optimiser.
    assert not late.trainer.optimizers[0]._optimizer_step_pre_hooks


def test_weight_decay_of_steps_by_hand():
    class ByHand(Decayed):
        automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            self.manual_backward(loss)
            self.set_decay()
            self.optimizers().step()
            self.factors.append(
                round(float((1 - (self.network[1].weight / self.before).mean()) / 0.1), 4)
            )

        optimizer_step = pl.LightningModule.optimizer_step

    module = ByHand()
    fit(module, RegularizationWindow("weight_decay", 1))
    assert module.factors == pytest.approx([0, 0, 0.7, 0.8], abs=1e-3)


def test_groups_that_are_added_while_the_window_is_closed():
    class Growing(Decayed):
        def set_decay(self, *args: Any) -> None: ...

        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            if self.trainer.global_step == 1:
                added = {"params": self.head.parameters(), "weight_decay": 0.25}
                self.trainer.optimizers[0].add_param_group(added)

        def configure_optimizers(self) -> Any:
            self.head = nn.Linear(2, 1)
            return torch.optim.SGD(self.network.parameters(), lr=0.1, weight_decay=0.5)

    module = Growing()
    before: list[Tensor] = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            before.append(module.head.weight.clone())

    fit(module, RegularizationWindow("weight_decay", 3, unit="step"), Watch())
    assert module.factors == pytest.approx([0, 0, 0, 0.5], abs=1e-3)
    assert torch.equal(before[0], before[2])
    assert [group["weight_decay"] for group in module.trainer.optimizers[0].param_groups] == [
        0.5, 0.25,
    ]  # fmt: skip
