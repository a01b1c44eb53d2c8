"""The networks against parameter counts, written-out forwards and timm itself."""

import copy
import itertools
import socket
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import batch_norm, conv2d, cross_entropy, linear

from critical_periods.core.errors import UserError
from critical_periods.models import (
    MLP,
    AllCNN,
    ResNet18,
    SplitAllCNN,
    SplitResNet18,
    SplitTimm,
    TimmClassifier,
)
from critical_periods.models.heads import answering_together, own_head

Build = Callable[..., Any]
SPLIT: dict[str, Build] = {
    "resnet": lambda **kwargs: SplitResNet18(width=4, **kwargs),
    "all_cnn": lambda **kwargs: SplitAllCNN(depth=2, width=4, **kwargs),
    "timm": lambda **kwargs: SplitTimm("resnet10t", "layer2", cifar_stem=True, **kwargs),
}
ONE_VIEW: dict[str, Build] = {
    "all_cnn": lambda **kwargs: AllCNN(width=4, **kwargs),
    "deep_all_cnn": lambda **kwargs: AllCNN(width=4, depth=2, **kwargs),
    "resnet": lambda **kwargs: ResNet18(width=4, **kwargs),
    "mlp": lambda **kwargs: MLP(hidden=[7, 6], in_features=3 * 32 * 32, **kwargs),
    "timm": lambda **kwargs: TimmClassifier("resnet10t", cifar_stem=True, **kwargs),
}
NETWORKS = {f"split {name}": (build, 2) for name, build in SPLIT.items()}
NETWORKS |= {name: (build, 1) for name, build in ONE_VIEW.items()}
each_split = pytest.mark.parametrize("build", SPLIT.values(), ids=SPLIT.keys())
each_network = pytest.mark.parametrize(("build", "count"), NETWORKS.values(), ids=NETWORKS.keys())


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def scramble(module: Any) -> Any:
    """Move every weight and statistic away from values that hide mistakes (0, 1, 1e-6)."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn(p.shape, generator=generator), alpha=0.1)
        for name, b in module.named_buffers():
            if b.is_floating_point():
                low = 0.5 if name.endswith("running_var") else -0.5
                b.copy_(low + torch.rand(b.shape, generator=generator))
    return module


def keep_outputs(network: nn.Module, *paths: str) -> list[Any]:
    """A list that the outputs of the named modules are put into, as they are computed."""
    kept: list[Any] = []
    for path in paths:
        network.get_submodule(path).register_forward_hook(lambda *args: kept.append(args[2]))
    return kept


def views(count: int, batch: int = 3, size: int = 32, **kwargs: Any) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(count, batch, 3, size, size, generator=generator).to(**kwargs).unbind()


# --- what holds for every network ----------------------------------------------------------------


@each_network
def test_the_seed_alone_decides_and_every_parameter_learns(build: Build, count: int) -> None:
    networks = []
    for _ in range(2):
        torch.manual_seed(3)
        networks.append(build(num_classes=7))
    network, again = networks
    assert all(map(torch.equal, network.state_dict().values(), again.state_dict().values()))
    logits = network(*views(count))
    assert logits.shape == (3, 7)
    cross_entropy(logits, torch.tensor([0, 1, 2])).backward()
    assert all(bool(p.grad.isfinite().all()) for p in network.parameters())


@each_network
def test_channels_last_gives_the_same_numbers(build: Build, count: int) -> None:
    network = scramble(build()).double()
    images = views(count, dtype=torch.float64)
    other = copy.deepcopy(network).to(memory_format=torch.channels_last)
    others = [x.contiguous(memory_format=torch.channels_last) for x in images]
    for training in (False, True):
        expected = network.train(training)(*images)
        actual = other.train(training)(*others)
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


@each_network
def test_bf16_autocast_trains(build: Build, count: int) -> None:
    network = build()
    exact = network(*views(count))
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(*views(count))
        loss = cross_entropy(logits, torch.tensor([0, 1, 2]))
    assert logits.dtype == torch.bfloat16
    assert (logits.float() - exact).norm() < 0.1 * exact.norm()
    loss.backward()
    assert all(bool(p.grad.isfinite().all()) for p in network.parameters())


@each_network
def test_a_wrong_number_of_views_is_one_sentence(build: Build, count: int) -> None:
    network = build()
    for given in {0, 1, 2, 3} - {count}:
        name = type(network).__name__
        sentence = rf"^{name} takes {count} views? but was given {given}; choose a network "
        for call in (network, getattr(network, "fuse", network)):
            with pytest.raises(UserError, match=sentence):
                call(*views(3)[:given])


@pytest.mark.parametrize("name", [name for name in NETWORKS if "timm" not in name])
def test_no_output_but_a_norms_is_overwritten(name: str) -> None:
    """A hook keeps a reference; what it refers to must still be the layer's output at the end."""
    build, count = NETWORKS[name]
    network, kept = build(), []
    for path, module in network.named_modules():
        if not isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.register_forward_hook(
                lambda _, __, output, path=path: kept.append((path, output, output.clone()))
            )
    network(*views(count))
    assert len(kept) > (8 if name == "mlp" else 20)
    assert [path for path, output, copy in kept if not torch.equal(output, copy)] == []


MEANINGLESS = [
    (network, {field: value}, rf"{field} must be a whole number of at least 1, not {value!r}\.")
    for network in (SplitResNet18, SplitAllCNN, AllCNN, ResNet18)
    for field, value in (("width", 0), ("width", -2), ("num_classes", 1.5), ("in_channels", "64"))
]
MEANINGLESS += [
    (ONE_VIEW[name], {"dropout": dropout}, r"dropout must be a probability .* below 1, not")
    for name in ("all_cnn", "mlp", "timm")
    for dropout in (-0.1, 1.0, float("nan"))
]
MEANINGLESS += [
    (AllCNN, {"depth": 0}, "depth must be a whole number of at least 1, not 0"),
    (SplitAllCNN, {"depth": 0}, "depth must be a whole number of at least 1, not 0"),
    (MLP, {"hidden": [4, 0]}, r"hidden\[1\] must be a whole number .* not 0\."),
    (MLP, {"hidden": [4], "in_features": 0}, "in_features must be a whole number"),
    (TimmClassifier, {"name": "resnet81"}, "no model 'resnet81'; did you mean 'resnet18'"),
    (TimmClassifier, {"name": "resnet18", "in_channels": 0}, "in_channels must .* 1, not 0"),
]


@pytest.mark.parametrize(("build", "settings", "sentence"), MEANINGLESS)
def test_settings_without_a_meaning(build: Build, settings: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        build(**settings)


# --- what holds for every split network ----------------------------------------------------------


@each_split
@pytest.mark.parametrize("num_views", [1, 2, 3])
def test_shapes_and_the_contract_of_fuse(build: Build, num_views: int) -> None:
    network = build(num_views=num_views, num_classes=7).double().eval()
    images = views(num_views, dtype=torch.float64)
    assert len(network.pathways) == num_views
    seen: list[Tensor] = []
    network.trunk.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    features = [path(image) for path, image in zip(network.pathways, images, strict=True)]
    logits = network.fuse(*features)
    assert logits.shape == (3, 7)
    assert torch.equal(network(*images), logits)
    expected = [torch.stack(features).sum(0)] * 2
    torch.testing.assert_close(seen, expected, rtol=1e-14, atol=1e-14)


@each_split
def test_pathways_have_weights_of_their_own(build: Build) -> None:
    network = build()
    left, right = (p.state_dict() for p in network.pathways)
    assert list(left) == list(right)
    assert not any(torch.equal(left[key], right[key]) for key in left if left[key].ndim == 4)
    assert len({p.data_ptr() for p in network.parameters()}) == len(list(network.parameters()))


@each_split
def test_per_sample_gradients_by_vmap_equal_a_loop(build: Build) -> None:
    network = scramble(build()).double().eval()
    weights = {name: p.detach() for name, p in network.named_parameters()}
    left, right = views(2, dtype=torch.float64)

    def loss(weights: dict[str, Tensor], a: Tensor, b: Tensor) -> Tensor:
        logits: Tensor = functional_call(network, weights, (a[None], b[None]))
        return cross_entropy(logits, torch.tensor([1]))

    together = vmap(grad(loss), in_dims=(None, 0, 0))(weights, left, right)
    for i in range(3):
        network.zero_grad()
        cross_entropy(network(left[i : i + 1], right[i : i + 1]), torch.tensor([1])).backward()
        alone = {name: p.grad for name, p in network.named_parameters()}
        sample = {name: gradients[i] for name, gradients in together.items()}
        torch.testing.assert_close(sample, alone, rtol=1e-8, atol=1e-10)


# --- several heads -------------------------------------------------------------------------------


@each_split
def test_each_sample_is_answered_by_its_own_head(build: Build) -> None:
    # Not in the usual order, and without a head for view 0.
    network = build(heads=[2, "both", 1], num_views=3, num_classes=4).double().eval()
    whose = torch.tensor([-1, 0, 1, 2, 2, -1])
    stacked = network(*views(3, batch=6, dtype=torch.float64))
    assert stacked.shape == (6, 3, 4)
    head = {-1: 1, 0: 1, 1: 2, 2: 0}
    one_by_one = torch.stack([stacked[i, head[int(view)]] for i, view in enumerate(whose)])
    assert torch.equal(own_head(network, stacked, whose), one_by_one)
    assert torch.equal(own_head(network, stacked), stacked[:, 1])
    assert len(stacked.detach().flatten().unique()) == stacked.numel()


@each_split
def test_a_network_of_one_nameless_head_is_left_alone(build: Build) -> None:
    network = build().double().eval()
    images = views(2, dtype=torch.float64)
    logits = network(*images)
    assert own_head(network, logits, torch.tensor([0, 1, 1])) is logits
    assert own_head(nn.Identity(), logits) is logits
    with answering_together(network):
        assert torch.equal(network(*images), logits)


@each_split
def test_every_parameter_has_a_gradient_whichever_heads_are_asked(build: Build) -> None:
    network = build(heads=["both", 0, 1]).double()
    for whose in ([-1, -1], [0, 0], [0, 1]):
        network.zero_grad()
        logits = network(*views(2, batch=2, dtype=torch.float64))
        answers = own_head(network, logits, torch.tensor(whose))
        cross_entropy(answers, torch.tensor([0, 1])).backward()
        assert all(p.grad is not None for p in network.parameters())


def test_heads_are_separate_linear_maps_of_the_same_features() -> None:
    network: Any = SplitResNet18(width=4, heads=["both", 0, 1]).double().eval()
    images = views(2, dtype=torch.float64)
    fused = sum(path(x) for path, x in zip(network.pathways, images, strict=True))
    features = network.trunk[:-1](fused)
    weight, bias = network.trunk.head.weight, network.trunk.head.bias
    answers = network(*images)
    for head in range(3):
        rows = slice(10 * head, 10 * head + 10)
        expected = linear(features, weight[rows], bias[rows])
        torch.testing.assert_close(answers[:, head], expected, rtol=1e-12, atol=1e-12)


def test_heads_that_are_none_are_one_sentence() -> None:
    none: list[Any] = [[], [0, 1], ["both", "both"], ["both", 2], ["both", "left"]]
    none += [["both", 0, 0], ["both", -1], ["both", 0.5]]
    cases = [(SPLIT["all_cnn"], heads) for heads in none]
    for build, heads in [*cases, (SPLIT["resnet"], [0, 1]), (SPLIT["timm"], [0, 1])]:
        with pytest.raises(UserError, match=r"hold 'both' once and, at will, numbers .* 0 to 1"):
            build(heads=heads)


# --- ResNet18 ------------------------------------------------------------------------------------


def test_split_resnet18_has_the_parameter_count_and_the_units_of_the_paper() -> None:
    network = SplitResNet18().eval()
    assert parameters(network) == 11_846_282
    kept = keep_outputs(network, "trunk.stage4")
    logits = network(*views(2, batch=1))
    (units,) = kept
    assert units.shape == (1, 512, 4, 4)
    assert bool((units < 0).any())  # raw: no ReLU behind it
    head = network.get_submodule("trunk.head")
    torch.testing.assert_close(logits, head(units.mean((2, 3))))


def written_out_resnet(s: dict[str, Tensor], images: tuple[Tensor, ...], training: bool) -> Tensor:
    """SplitResNet18 from its weights, one line of the paper at a time."""

    def norm_relu(x: Tensor, name: str) -> Tensor:
        mean, var = s[f"{name}.running_mean"].clone(), s[f"{name}.running_var"].clone()
        y = batch_norm(x, mean, var, s[f"{name}.weight"], s[f"{name}.bias"], training)
        return y.clamp(min=0)

    def block(x: Tensor, name: str, stride: int, project: bool) -> Tensor:
        a = norm_relu(x, f"{name}.norm1")
        h = conv2d(a, s[f"{name}.conv1.weight"], stride=stride, padding=1)
        h = conv2d(norm_relu(h, f"{name}.norm2"), s[f"{name}.conv2.weight"], padding=1)
        return h + (conv2d(a, s[f"{name}.shortcut.weight"], stride=stride) if project else x)

    def stage(x: Tensor, name: str, stride: int) -> Tensor:
        x = block(x, f"{name}.0", stride, project=stride == 2)
        return block(x, f"{name}.1", 1, project=False)

    fused = torch.zeros(())
    for v, image in enumerate(images):
        x = conv2d(image, s[f"pathways.{v}.stem.conv.weight"], padding=1)
        x = norm_relu(x, f"pathways.{v}.stem.norm")
        x = stage(x, f"pathways.{v}.stage1", 1)
        fused = fused + stage(x, f"pathways.{v}.stage2", 2)
    x = stage(stage(fused, "trunk.stage3", 2), "trunk.stage4", 2)
    return x.mean((2, 3)) @ s["trunk.head.weight"].T + s["trunk.head.bias"]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("num_views", [1, 2, 3])
def test_split_resnet18_equals_its_written_out_forward(training: bool, num_views: int) -> None:
    network = scramble(SplitResNet18(width=6, num_views=num_views)).double().train(training)
    images = views(num_views, dtype=torch.float64)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    expected = written_out_resnet(state, images, training)
    torch.testing.assert_close(network(*images), expected, rtol=1e-10, atol=1e-10)


def test_resnet18_is_the_split_one_with_one_pathway() -> None:
    network = scramble(ResNet18(width=6, in_channels=3)).double()
    split = SplitResNet18(width=6, num_views=1).double()
    state = network.state_dict()
    names = [name.removeprefix("pathways.0.").removeprefix("trunk.") for name in split.state_dict()]
    assert names == list(state)
    split.load_state_dict(dict(zip(split.state_dict(), state.values(), strict=True)))
    (image,) = views(1, dtype=torch.float64)
    for training in (False, True):
        expected = split.train(training)(image)
        assert expected.std() > 1e-3
        assert torch.equal(network.train(training)(image), expected)


def test_resnet18_has_four_stages_at_the_images_full_size() -> None:
    network = ResNet18()
    # The table of He et al. 2016 for 3x3 stems: convolutions, their norms, three shortcuts, a head.
    total = 9 * 3 * 64 + 2 * 64 + (512 + 1) * 10
    for wide, narrow in ((64, 64), (128, 64), (256, 128), (512, 256)):
        total += 9 * (narrow * wide + 3 * wide * wide) + 2 * (narrow + 3 * wide)
        total += narrow * wide if wide != narrow else 0
    assert parameters(network) == total == 11_171_274
    kept = keep_outputs(network, "stem", *(f"stage{i}" for i in range(1, 5)))
    network.eval()(*views(1, batch=1))
    sizes = [tuple(output.shape[1:]) for output in kept]
    assert sizes == [(64, 32, 32), (64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]


# --- All-CNN -------------------------------------------------------------------------------------

# channels in and out as multiples of the width (0: the image's or the classes'), kernel, stride
TABLE = [(0, 1, 3, 1), (1, 1, 3, 1), (1, 2, 3, 2), (2, 2, 3, 1), (2, 2, 3, 1), (2, 2, 3, 2)]
TABLE += [(2, 2, 3, 1), (2, 2, 1, 1), (2, 0, 1, 1)]


def split_table(depth: int) -> tuple[list[tuple[int, int, int, int]], ...]:
    path = [(0, 1, 3, 1)]
    for i in range(1, depth + 1):
        path += [(2 ** (i - 1), 2 ** (i - 1), 3, 1), (2 ** (i - 1), 2**i, 3, 2)]
    wide = 2**depth
    return path, [(wide, wide, 3, 1), (wide, wide, 1, 1), (wide, 0, 1, 1)]


def count(table: list[tuple[int, int, int, int]], width: int) -> int:
    """Convolution weights, and a scale and a shift or a bias; three colours, ten classes."""
    total = 0
    for i, o, kernel, _ in table:
        total += (i * width or 3) * (o * width or 10) * kernel**2 + (2 * o * width or 10)
    return total


def written_out_cnn(module: nn.Module, table: list[tuple[int, int, int, int]], x: Tensor) -> Tensor:
    convs = [m for m in module.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(convs) == len(table)
    for (_, o, kernel, stride), conv in zip(table, convs, strict=True):
        x = conv2d(x, conv.weight, conv.bias, stride, kernel // 2)
        if o:
            s = {key: value[..., None, None] for key, value in norms.pop(0).state_dict().items()}
            x = (x - s["running_mean"]) / (s["running_var"] + 1e-5).sqrt()
            x = (x * s["weight"] + s["bias"]).clamp(min=0)
    assert norms == []
    return x if table[-1][1] else x.mean((2, 3))


@pytest.mark.parametrize("depth", [None, 1, 2, 3])
def test_all_cnn_is_the_papers_table(depth: int | None) -> None:
    start, end = split_table(depth or 0)
    table = TABLE if depth is None else start + end
    names = [f"conv{i}" for i in range(1, 8)]
    if depth is not None:
        names = ["stem", *(f"stage{i}" for i in range(1, depth + 1)), "conv"]
    assert parameters(AllCNN(depth=depth)) == count(table, 96)
    assert count(TABLE, 96) == 1_620_010
    network = scramble(AllCNN(width=5, depth=depth)).double().eval()
    children = [name for name, _ in network.named_children()]
    assert children == [*names, "conv1x1", "head", "pool", "flatten"]
    (image,) = views(1, dtype=torch.float64)
    expected = written_out_cnn(network, table, image)
    torch.testing.assert_close(network(image), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_split_all_cnn_is_the_papers_table(depth: int) -> None:
    path, trunk = split_table(depth)
    assert parameters(SplitAllCNN(depth)) == 2 * count(path, 96) + count(trunk, 96)
    network = scramble(SplitAllCNN(depth, width=5)).double().eval()
    images = views(2, dtype=torch.float64)
    left, right = map(written_out_cnn, network.pathways, (path, path), images)
    expected = written_out_cnn(network.trunk, trunk, left + right)
    torch.testing.assert_close(network(*images), expected, rtol=1e-10, atol=1e-10)


# --- MLP -----------------------------------------------------------------------------------------


def test_mlp_is_the_papers() -> None:
    sizes, network = [1024, 2500, 2000, 1500, 1000, 500], MLP()
    layers = sum(i * o + 2 * o for i, o in itertools.pairwise(sizes))
    assert parameters(network) == layers + 500 * 10 + 10 == 12_580_010
    names = ["flatten", "fc1", "fc2", "fc3", "fc4", "fc5", "head"]
    assert [name for name, _ in network.named_children()] == names


@pytest.mark.parametrize("hidden", [[], [5], [6, 4, 3]])
@pytest.mark.parametrize("training", [True, False])
def test_mlp_equals_its_written_out_forward(hidden: list[int], training: bool) -> None:
    network = scramble(MLP(hidden, in_features=2 * 3 * 4, num_classes=5)).double()
    s = {name: value.clone() for name, value in network.state_dict().items()}
    image = torch.randn(9, 2, 3, 4, dtype=torch.float64)
    x = image.reshape(9, 24)
    for i in range(1, len(hidden) + 1):
        x = x @ s[f"fc{i}.linear.weight"].T
        mean, var = s[f"fc{i}.norm.running_mean"], s[f"fc{i}.norm.running_var"]
        if training:
            mean, var = x.mean(0), x.var(0, correction=0)
        x = (x - mean) / (var + 1e-5).sqrt() * s[f"fc{i}.norm.weight"] + s[f"fc{i}.norm.bias"]
        x = x.clamp(min=0)
    expected = x @ s["head.weight"].T + s["head.bias"]
    actual = network.train(training)(image)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def test_mlp_says_what_does_not_fit() -> None:
    sentence = r"^MLP takes views of in_features=1024 numbers but was given 1x24x24; set .* 576\.$"
    with pytest.raises(UserError, match=sentence):
        MLP([4])(torch.randn(2, 1, 24, 24))


# --- TimmClassifier ------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "layer"), [("resnet18", "layer1"), ("convnext_atto", "stages.0")])
def test_timm_classifier_has_the_cifar_stem_of_the_split_one(name: str, layer: str) -> None:
    network = TimmClassifier(name, cifar_stem=True)
    split = SplitTimm(name, layer, num_views=1, cifar_stem=True)
    kept = keep_outputs(network, f"model.{layer}")
    (image,) = views(1)
    network(image)
    (output,) = kept
    assert output.shape == split.pathways[0](image).shape
    assert output.shape[-2:] == image.shape[-2:]


def test_timm_classifier_is_the_network_of_huang_et_al() -> None:
    network = TimmClassifier("seresnet18", num_classes=7)
    assert sum(one.numel() for one in network.parameters()) == pytest.approx(11.27e6, abs=5e3)
    assert [f"layer{stage}.{block}.se" for stage in (1, 2, 3, 4) for block in (0, 1)] == [
        name.removeprefix("model.") for name, _ in network.named_modules() if name.endswith(".se")
    ]


def test_timm_classifier_takes_a_transformer_at_its_own_size() -> None:
    network = TimmClassifier("vit_tiny_patch16_224").eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 224, 224)).shape == (1, 10)
    sentence = r"vit_tiny_patch16_224 takes images of 224x224 pixels alone but was given 32x32;"
    with pytest.raises(UserError, match=sentence):
        network(*views(1))
    with pytest.raises(UserError, match=r"cifar_stem needs a first convolution, which vit_tiny_p"):
        TimmClassifier("vit_tiny_patch16_224", cifar_stem=True)


# --- SplitTimm -----------------------------------------------------------------------------------

FAMILIES = [
    ("resnet18", "layer2"), ("resnet10t", "layer1.0"), ("resnext26ts", "stages.1"),
    ("resnetv2_18", "stages.0"), ("convnext_atto", "stages.1"), ("regnetx_002", "s2"),
    ("efficientnet_lite0", "blocks.2"), ("mobilenetv3_small_050", "blocks.1"),
    ("densenet121", "features.denseblock1"), ("ghostnet_050", "blocks.3"),
    ("repvgg_a0", "stages.0"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "stage"), FAMILIES)
def test_networks_of_one_view_equal_timms_own(name: str, stage: str) -> None:
    torch.manual_seed(4)
    whole = scramble(timm.create_model(name, num_classes=5, in_chans=1)).double().eval()
    torch.manual_seed(4)
    classifier = scramble(TimmClassifier(name, num_classes=5, in_channels=1)).double().eval()
    weights = whole.state_dict()
    assert list(classifier.state_dict()) == [f"model.{key}" for key in weights]
    split = SplitTimm(name, stage, num_classes=5, num_views=1, in_channels=1).double().eval()
    path, trunk = split.pathways[0].state_dict(), split.trunk.state_dict()
    assert path and trunk and sorted([*path, *trunk]) == sorted(weights)
    split.pathways[0].load_state_dict({key: weights[key] for key in path})
    split.trunk.load_state_dict({key: weights[key] for key in trunk})
    image = views(1, batch=2, size=64, dtype=torch.float64)[0][:, :1]
    expected = whole(image)
    assert expected.std() > 1e-3
    assert torch.equal(classifier(image), expected)
    torch.testing.assert_close(split(image), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "stage"), [FAMILIES[0], FAMILIES[4], FAMILIES[7]])
def test_only_pathways_multiply_and_the_trunk_has_their_sum(name: str, stage: str) -> None:
    whole = parameters(timm.create_model(name, num_classes=10, in_chans=1))
    split = SplitTimm(name, stage, num_views=3, in_channels=1).eval()
    assert parameters(split) == whole + 2 * parameters(split.pathways[0])
    images, kept = torch.randn(3, 2, 1, 48, 80), keep_outputs(split, f"trunk.{stage}")
    assert split(*images).shape == (2, 10)
    features = [path(image) for path, image in zip(split.pathways, images, strict=True)]
    torch.testing.assert_close(kept[0], sum(features))


def test_building_leaves_training_mode_and_statistics_alone() -> None:
    split = SplitTimm("resnet10t", "layer2")
    assert all(module.training for module in split.modules())
    buffers = dict(split.named_buffers())
    assert all(int(b) == 0 for name, b in buffers.items() if name.endswith("num_batches_tracked"))
    assert all(not b.any() for name, b in buffers.items() if name.endswith("running_mean"))


def test_nothing_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError(f"a connection to {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    SplitTimm("resnet10t.c3_in1k", "layer2")
    with pytest.raises(UserError, match="timm has no model 'hf-hub:timm/resnet18'"):
        SplitTimm("hf-hub:timm/resnet18", "layer2")


@pytest.mark.parametrize(
    ("name", "stage", "convs", "reduction", "cifar_reduction"),
    [
        ("resnet18", "layer1", ["conv1"], 4, 1),  # 7x7 stride 2, max pool
        ("resnet26d", "layer1", ["conv1.0"], 4, 1),  # a deep stem of 3x3
        ("resnetblur18", "layer1", ["conv1"], 4, 1),  # an antialiased max pool
        ("resnetv2_50x1_bit", "stages.0", ["stem.conv"], 4, 1),  # weight-standardised, padded pool
        ("convnext_atto", "stages.0", ["stem.0"], 4, 1),  # 4x4 patches
        ("densenet121", "features.denseblock1", ["features.conv0"], 4, 1),
        ("repvgg_a0", "stages.0", ["stem.conv_kxk.conv", "stem.conv_1x1.conv"], 4, 2),  # parallel
        ("efficientnet_lite0", "blocks.1", ["conv_stem"], 4, 2),
        ("ese_vovnet19b_dw", "stages.1", ["stem.0.conv"], 8, 4),  # a pool of a stage stays
    ],
)
def test_cifar_stem_keeps_the_image_at_full_size(
    name: str, stage: str, convs: list[str], reduction: int, cifar_reduction: int
) -> None:
    (image,) = views(1, batch=2)
    plain = SplitTimm(name, stage, num_views=1)
    small = SplitTimm(name, stage, num_views=1, cifar_stem=True)
    assert plain.pathways[0](image).shape[-1] == 32 // reduction
    assert small.pathways[0](image).shape[-1] == 32 // cifar_reduction
    for path in convs:
        conv = small.pathways[0].get_submodule(path)
        assert conv.stride == (1, 1)
        assert conv.kernel_size == ((1, 1) if "1x1" in path else (3, 3))
        assert type(conv) is type(plain.pathways[0].get_submodule(path))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("resnet81", "layer2"), "timm has no model 'resnet81'; did you mean 'resnet18'"),
        (("resnet18", "layer5"), "resnet18 has no module fuse_after='layer5'; did you mean 'layer"),
        (("resnet18", ""), "resnet18 has no module fuse_after=''; choose one of 'act1', 'layer1'"),
        (("convnext_atto", "stage.1"), "did you mean 'stages.1'"),
        (("resnet18", "layer1.0.conv1"), "'layer1.0.conv1' (cut there, it no longer computes the"),
        (("resnet18", "fc"), "'fc' (it gives (1, 10), no feature map [B, C, H, W])"),
        (("mambaout_femto", "stages.0"), "'stages.0' (it gives (1, 24, 24, 48), no feature map"),
        (("hrnet_w18_small", "stage2"), "'stage2' (it gives more than one tensor)"),
        (("swin_tiny_patch4_window7_224", "layers.0"), "is tied to one image size"),
        (("vit_tiny_patch16_224", "blocks.2"), "is tied to one image size, as transformers are"),
        (("resnet18", "layer2", 0), "num_classes must be a whole number of at least 1, not 0."),
    ],
)
def test_what_cannot_be_split_is_one_sentence(arguments: Any, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        SplitTimm(*arguments)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value) and str(caught.value)[-1] in ".?"
