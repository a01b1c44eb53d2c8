"""The multi-view transformer: MultiMAE's outputs, its formulas written out, masks and weights."""

import argparse
import itertools
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from critical_periods.core.errors import UserError
from critical_periods.models import MultiViewTransformer
from critical_periods.models.multi_view.decoder import ViewDecoder
from critical_periods.models.multi_view.masking import hidden_patches, random_visible, visible_total
from critical_periods.models.multi_view.patches import (
    fit_positions,
    patch_grid,
    sincos_positions,
    to_image,
    to_patches,
)
from critical_periods.models.multi_view.published import from_state_dict

SMALL: dict[str, Any] = {"width": 24, "depth": 2, "heads": 3, "patch": 4, "image_size": 8}


def small(**settings: Any) -> MultiViewTransformer:
    """A network of random float64 weights, norms and biases too."""
    torch.manual_seed(0)
    network = MultiViewTransformer(**(SMALL | settings)).double()
    shake(network)
    return network


def shake(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)


def views_of(network: MultiViewTransformer, batch: int = 3, side: int = 8) -> list[Tensor]:
    torch.manual_seed(1)
    shape = (network.num_views, batch, network.in_channels, side, side)
    return list(torch.randn(shape, dtype=torch.float64))


# The published architecture, by an instance of it that somebody else computed.

MULTIMAE = os.environ.get("CRITICAL_PERIODS_MULTIMAE", "")


@pytest.mark.real_data
@pytest.mark.skipif(
    not MULTIMAE,
    reason="CRITICAL_PERIODS_MULTIMAE names no .npz with weights and outputs of a MultiMAE",
)
@torch.no_grad()
def test_weights_and_outputs_of_multimae():
    with np.load(MULTIMAE) as file:
        held = {name: torch.from_numpy(file[name]) for name in file.files}
    inside = "state_dict/"
    state = {n.removeprefix(inside): v for n, v in held.items() if n.startswith(inside)}
    count = sum(name.startswith("input/") for name in held)
    views = [held[f"input/view_{view}"] for view in range(count)]
    masks = torch.cat([held[f"mask/view_{view}"] for view in range(count)], dim=1)
    shared = state["global_tokens"].shape[1]
    # The instance was computed by the published code, which, given masks, orders patches by an
    # unstable sort of them, and shows of each sample as many as are visible in the whole batch: two
    # samples of 8 see 16 patches each, 8 of them masked ones. Its outputs are those of the patches
    # that it did show.
    shown = held["encoder_tokens_sorted_visible"].shape[1] - shared
    visible = masks.argsort(dim=1)[:, :shown]
    assert shown in (int((masks == 0).sum()), int((masks[0] == 0).sum()), masks.shape[1])
    everything = torch.zeros_like(masks).argsort(dim=1)

    def encodes(heads: int) -> bool:
        network, _ = from_state_dict(state, heads)
        cases = (("all", everything), ("sorted", visible))
        return all(
            near(network.encode(views, some), held[f"encoder_tokens_{name}_visible"])
            for name, some in cases
        )

    def decodes(decoder_heads: int) -> bool:
        network, decoders = from_state_dict(state, heads, decoder_heads)
        tokens = network.encode(views, visible)
        grid = patch_grid(views[0], network.patch)
        names = [name for name in held if name.startswith("prediction/")]
        predictions = [decoders[name.split("/")[1]](tokens, visible, grid) for name in names]
        return all(
            near(to_image(patches, grid, network.patch), held[name])
            for name, patches in zip(names, predictions, strict=True)
        )

    # Heads leave no trace in the weights; one number fits, and no other.
    (heads,) = filter(encodes, divisors(state["global_tokens"].shape[2]))
    width = state["output_adapters.view_0.mask_token"].shape[2]
    assert len(list(filter(decodes, divisors(width)))) == 1


def divisors(number: int) -> list[int]:
    return [part for part in range(1, number + 1) if number % part == 0]


def near(actual: Tensor, expected: Tensor) -> bool:
    assert actual.dtype == expected.dtype == torch.float64
    return actual.shape == expected.shape and bool((actual - expected).abs().max() < 1e-9)


# The formulas, written out.


def test_patches_and_positions():
    width, rows, columns = 12, 3, 5
    table = sincos_positions(width, rows, columns)
    frequencies = [10000 ** (-i / 3) for i in range(3)]
    for y, x in itertools.product(range(rows), range(columns)):
        waves = itertools.product((y, x), (math.sin, math.cos), frequencies)
        expected = [wave(place * frequency) for place, wave, frequency in waves]
        torch.testing.assert_close(table[0, :, y, x], torch.tensor(expected))
    assert fit_positions(table, rows, columns) is table
    image = torch.randn(2, 3, 8, 12)
    patches = to_patches(image, 4)
    assert torch.equal(patches[1, 4].view(3, 4, 4), image[1, :, 4:8, 4:8])
    assert torch.equal(to_image(patches, (2, 3), 4), image)
    # The same share of a larger image has the same code, but at the border.
    finer = fit_positions(sincos_positions(8, 9, 9), 27, 27)[0, :, 13, 13]
    torch.testing.assert_close(finer, sincos_positions(8, 9, 9)[0, :, 4, 4])
    # Bilinearly a patch halfway between two has their mean, half a patch inside the border.
    double = fit_positions(table, 6, 10, mode="bilinear")[0]
    assert torch.equal(double[:, 0, 0], table[0, :, 0, 0])
    torch.testing.assert_close(double[:, 0, 1], (3 * table[0, :, 0, 0] + table[0, :, 0, 1]) / 4)


@torch.no_grad()
def test_the_sequence_is_views_then_global_tokens():
    network = small(num_views=3, global_tokens=2, in_channels=2)
    network.encoder = nn.Sequential()  # leaves the sequence as it goes in
    views = views_of(network)
    sequence = network.encode(views)
    assert sequence.shape == (3, 3 * 4 + 2, 24)
    for v, view in enumerate(views):
        adapter: Any = network.input_adapters[f"view_{v}"]
        for place, (y, x) in enumerate(itertools.product(range(2), repeat=2)):
            patch = view[:, :, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4]
            token = torch.einsum("bcij,dcij->bd", patch, adapter.proj.weight) + adapter.proj.bias
            token += sincos_positions(24, 2, 2)[0, :, y, x]
            torch.testing.assert_close(sequence[:, 4 * v + place], token)
    assert torch.equal(sequence[:, -2:], network.global_tokens.expand(3, -1, -1))
    visible = torch.tensor([[7, 0, 11]]).expand(3, -1)
    assert torch.equal(network.encode(views, visible)[:, :3], sequence[:, [7, 0, 11]])


@torch.no_grad()
def test_the_order_of_visible_patches_is_that_of_the_tokens_and_changes_nothing_else():
    network = small()
    views, visible = views_of(network), torch.tensor([[0, 2, 5], [1, 6, 7], [3, 4, 5]])
    order = torch.tensor([2, 0, 1])
    tokens, moved = network.encode(views, visible), network.encode(views, visible[:, order])
    torch.testing.assert_close(moved, tokens[:, [2, 0, 1, 3]])
    decoder = network.make_decoder(1, width=8, heads=2).double()
    grid = network.grid
    torch.testing.assert_close(
        decoder(moved, visible[:, order], grid), decoder(tokens, visible, grid)
    )
    # What is hidden has no say; what is visible has.
    for place, sees in ((1, False), (2, True)):
        other = views[0].clone()
        other[0, :, 4 * (place // 2) :, 4 * (place % 2) :] += 1
        assert torch.equal(network.encode([other, views[1]], visible)[0], tokens[0]) is not sees


@torch.no_grad()
def test_logits_are_linear_in_the_norm_of_the_mean_token():
    network = small(num_classes=7)
    views, (first, second) = views_of(network), network.classifier
    means = network.encode(views).mean(1)
    expected = torch.stack([linear(norm(mean, first), second) for mean in means])
    torch.testing.assert_close(network(*views), expected)


def norm(x: Tensor, layer: Any) -> Tensor:
    deviation = torch.sqrt(((x - x.mean()) ** 2).mean() + 1e-6)
    return (x - x.mean()) / deviation * layer.weight + layer.bias


def linear(x: Tensor, layer: Any) -> Tensor:
    return layer.weight @ x + layer.bias


def mlp(x: Tensor, layer: Any) -> Tensor:
    hidden = linear(x, layer.fc1)
    return linear(hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2, layer.fc2)


def attend(queries: Any, keys: Any, values: Any, heads: int) -> Iterator[Tensor]:
    """Attention, query by query and head by head."""
    size = len(queries[0]) // heads
    for query in queries:
        parts = []
        for head in range(heads):
            own = slice(head * size, head * size + size)
            scores = torch.stack([query[own] @ key[own] / math.sqrt(size) for key in keys])
            weights = torch.exp(scores) / torch.exp(scores).sum()
            parts.append(sum(w * value[own] for w, value in zip(weights, values, strict=True)))
        yield torch.cat(parts)


def decode_by_hand(decoder: Any, heads: int, tokens: list[Tensor], visible: list[int]) -> Tensor:
    """The patches of a view of one sample, 4 a view of 2, with everything in loops."""
    width = decoder.mask_token.shape[-1]
    context = [linear(token, decoder.proj_context) for token in tokens]

    def embedding(place: int) -> Tensor:
        v, patch = divmod(place, 4)
        position = sincos_positions(width, 2, 2)[0, :, patch // 2, patch % 2]
        return position.double() + decoder.task_embeddings[f"view_{v}"][0, 0]

    seen = {place: context[i] + embedding(place) for i, place in enumerate(visible)}
    own = range(4 * decoder.view, 4 * decoder.view + 4)
    hidden = {place: decoder.mask_token[0, 0] + embedding(place) for place in own}
    queries = [norm((hidden | seen)[place], decoder.query_norm) for place in own]
    everything = [*seen.values(), *context[len(visible) :]]
    pairs = [linear(norm(c, decoder.context_norm), decoder.decoder.kv) for c in everything]
    keys, values = zip(*(pair.split(width) for pair in pairs), strict=True)
    attended = attend([linear(q, decoder.decoder.q) for q in queries], keys, values, heads)
    ys = [linear(a, decoder.decoder.proj) for a in attended]
    ys = [y + mlp(norm(y, decoder.out_norm), decoder.mlp) for y in ys]
    for block in decoder.decoder_transformer:
        threes = [linear(norm(y, block.norm1), block.attn.qkv).chunk(3) for y in ys]
        attended = attend(*zip(*threes, strict=True), heads)
        ys = [y + linear(a, block.attn.proj) for y, a in zip(ys, attended, strict=True)]
        ys = [y + mlp(norm(y, block.norm2), block.mlp) for y in ys]
    return torch.stack([linear(y, decoder.out_proj) for y in ys])


@pytest.mark.parametrize("view", [0, 1])
@pytest.mark.parametrize(("visible", "depth"), [([1, 3, 6], 2), ([4, 5, 6, 7], 0), ([2], 1)])
@torch.no_grad()
def test_the_decoder_against_loops(view, visible, depth):
    torch.manual_seed(2)
    decoder = ViewDecoder(
        view, 2, (2, 2), encoder_width=6, outputs=5, width=8, depth=depth, heads=2, mlp_ratio=1.5
    ).double()
    shake(decoder)
    tokens = torch.randn(2, len(visible) + 2, 6, dtype=torch.float64)
    predicted = decoder(tokens, torch.tensor([visible]).expand(2, -1), (2, 2))
    for sample, prediction in zip(tokens, predicted, strict=True):
        expected = decode_by_hand(decoder, 2, list(sample), visible)
        torch.testing.assert_close(prediction, expected, rtol=1e-6, atol=1e-6)


# Masks.


def draws(samples: int, views: int, patches: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(samples, views + views * patches, generator=generator)


@pytest.mark.parametrize(
    ("views", "patches", "total"), [(2, 196, 98), (2, 4, 7), (3, 5, 1), (3, 5, 14), (1, 9, 4)]
)
def test_every_sample_shows_exactly_as_many_patches(views, patches, total):
    visible = random_visible(draws(500, views, patches), views, total)
    assert visible.shape == (500, total) and visible.dtype == torch.int64
    assert (visible.diff(dim=1) > 0).all() and (visible >= 0).all()
    assert (visible < views * patches).all()
    hidden = hidden_patches(visible, views, patches)
    assert hidden.shape == (500, views, patches)
    assert (hidden.sum((1, 2)) == views * patches - total).all()
    seen = torch.zeros(500, views * patches).scatter(1, visible, 1.0)
    assert torch.equal(hidden.flatten(1), seen == 0)


def test_shares_of_two_views_are_uniform():
    # λ ~ Dirichlet(1, 1) is uniform, so that of n patches view 0 shows 0 or n with probability
    # 1/(2n) each, and anything between with 1/n.
    samples, total = 40_000, 10
    visible = random_visible(draws(samples, 2, 16), 2, total)
    number = (visible < 16).sum(1).bincount(minlength=total + 1) / samples
    expected = torch.full((total + 1,), 1 / total)
    expected[[0, total]] /= 2
    deviation = (expected * (1 - expected) / samples).sqrt()
    assert ((number - expected).abs() < 4.5 * deviation).all()


def test_moments_of_the_shares_of_three_views():
    # Dirichlet(1, 1, 1): mean 1/3, variance 2/36; rounding is small beside a total of 60.
    samples, total = 10_000, 60
    visible = random_visible(draws(samples, 3, 60), 3, total)
    share = torch.stack([(visible // 60 == v).double().mean(1) for v in range(3)])
    torch.testing.assert_close(share.mean(1), torch.full((3,), 1 / 3).double(), atol=1e-2, rtol=0)
    torch.testing.assert_close(share.var(1), torch.full((3,), 1 / 18).double(), atol=3e-3, rtol=0)
    correlation = torch.corrcoef(share)[~torch.eye(3, dtype=torch.bool)]
    torch.testing.assert_close(correlation, torch.full((6,), -0.5).double(), atol=0.04, rtol=0)


@pytest.mark.parametrize("total", [3, 9])
def test_within_a_view_all_patches_are_alike(total):
    samples, views, patches = 40_000, 2, 5
    visible = random_visible(draws(samples, views, patches), views, total)
    seen = torch.zeros(samples, views * patches).scatter(1, visible, 1.0)
    chance = total / (views * patches)
    deviation = math.sqrt(chance * (1 - chance) / samples)
    assert ((seen.mean(0) - chance).abs() < 4.5 * deviation).all()
    # Neighbours are no likelier to be seen together than others.
    together = (seen[:, :patches].T @ seen[:, :patches] / samples)[*torch.triu_indices(5, 5, 1)]
    assert together.max() - together.min() < 0.02


def test_a_full_views_surplus_goes_to_the_others():
    # Both of two views of 4 show 3 or 4 of 7, whatever their shares.
    visible = random_visible(draws(2000, 2, 4), 2, 7)
    numbers = (visible < 4).sum(1).bincount()
    assert numbers[:3].sum() == 0 and (numbers[3:] > 800).all()


def test_mask_ratios_that_leave_nothing_to_do():
    for ratio in (0.0, -1, 0.999):
        with pytest.raises(UserError, match=f"mask_ratio={ratio} hides all or none of the 392"):
            visible_total(ratio, 2, 196)


# The network's sizes.


@pytest.mark.parametrize(
    ("size", "blocks"),
    [("tiny", 5_338_368), ("small", 21_293_568), ("base", 85_054_464), ("large", 302_309_376)],
)
def test_sizes(size, blocks):
    # 12 w² + 13 w a block of width w.
    with torch.device("meta"):
        network = MultiViewTransformer(size)
    assert sum(parameter.numel() for parameter in network.encoder.parameters()) == blocks
    width = network.width
    others = 2 * (3 * 256 * width + width) + width + 2 * width + 10 * width + 10
    assert sum(parameter.numel() for parameter in network.parameters()) == blocks + others
    assert network.grid == (14, 14)


def test_drop_path_rises_to_the_last_block():
    network = small(depth=3, drop_path=0.2)
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in network.encoder]
    assert rates == pytest.approx([0.0, 0.1, 0.2])
    views = views_of(network)
    assert not torch.equal(network(*views), network(*views))
    network.eval()
    assert torch.equal(network(*views), network(*views))


def test_images_of_another_size():
    network = small()
    views = views_of(network, side=16)
    assert network.encode(views).shape == (3, 2 * 16 + 1, 24)
    # A constant image differs from patch to patch by its position alone.
    network.encoder = nn.Sequential()
    grey = [torch.zeros(1, 3, 16, 16, dtype=torch.float64)] * 2
    adapter: Any = network.input_adapters["view_0"]
    places = network.encode(grey)[0, :16] - adapter.proj.bias
    expected = fit_positions(adapter.pos_emb, 4, 4).flatten(2)[0].T
    torch.testing.assert_close(places, expected)
    wide = MultiViewTransformer(**(SMALL | {"image_size": (8, 12)}))
    assert wide.grid == (2, 3) and wide(*torch.randn(2, 5, 3, 8, 12)).shape == (5, 10)


@torch.no_grad()
def test_decoders_of_images_of_another_size():
    # Without a say of tokens and blocks, a patch's output is its query: its bilinear position.
    network = small()
    decoder: Any = network.make_decoder(0, width=24, depth=0, heads=2).double()
    queries: list[Tensor] = []
    decoder.query_norm.register_forward_pre_hook(lambda _, args: queries.append(args[0]))
    decoder(torch.zeros(1, 1, 24).double(), torch.zeros(1, 0, dtype=torch.int64), (4, 6))
    places = queries[0][0] - decoder.mask_token[0] - decoder.task_embeddings["view_0"][0]
    expected = nn.functional.interpolate(decoder.pos_emb, (4, 6), mode="bilinear")[0]
    torch.testing.assert_close(places, expected.flatten(1).T)


# Weights.


def encoder_state(network: MultiViewTransformer) -> dict[str, Tensor]:
    state = network.state_dict()
    return {name: value for name, value in state.items() if not name.startswith("classifier.")}


@torch.no_grad()
def test_any_sizes_are_read_off_a_state_dict():
    sizes = {"width": 28, "heads": 7, "depth": 3, "image_size": (8, 12), "num_views": 3}
    network = small(**sizes, in_channels=2, global_tokens=4, mlp_ratio=55.5 / 28)
    state = encoder_state(network)
    decoders = nn.ModuleDict()
    for name, view in (("view_0", 0), ("norm_view_2", 2)):
        decoders[name] = network.make_decoder(view, 12, depth=view, heads=3, mlp_ratio=2).double()
    shake(decoders)
    state |= {f"output_adapters.{name}": value for name, value in decoders.state_dict().items()}
    # A file's own positions count.
    state["input_adapters.view_1.pos_emb"] = torch.randn(1, 28, 2, 3, dtype=torch.float64)
    network.input_adapters["view_1"].pos_emb = state["input_adapters.view_1.pos_emb"]
    built = from_state_dict(state, heads=7, decoder_heads=3)
    torch.manual_seed(5)
    views = list(torch.randn(3, 2, 2, 8, 12, dtype=torch.float64))
    visible = random_visible(draws(2, 3, 6), 3, 5)
    tokens = network.encode(views, visible)
    assert torch.equal(built.network.encode(views, visible), tokens)
    assert built.decoders.keys() == decoders.keys()
    for name, decoder in decoders.items():
        expected = decoder(tokens, visible, (2, 3))
        assert torch.equal(built.decoders[name](tokens, visible, (2, 3)), expected)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: s.pop("encoder.0.mlp.fc1.weight"), "must hold 'encoder.0.mlp.fc1.weight'"),
        (lambda s: s.pop("encoder.1.norm1.bias"), "no multi-view .*encoder.1.norm1.bias"),
        (lambda s: s.update(odd=torch.zeros(1)), 'no multi-view .*Unexpected key.*"network.odd"'),
        (lambda s: s.pop("global_tokens"), "must hold 'global_tokens' with 3 dimensions"),
        (
            lambda s: s.update({"output_adapters.depth.mask_token": torch.zeros(1, 1, 8)}),
            "has a decoder 'depth'; names are view_0 to view_1",
        ),
    ],
)
def test_state_dicts_of_nothing_known(change: Callable[[dict[str, Tensor]], Any], sentence):
    state = encoder_state(small())
    change(state)
    with pytest.raises(UserError, match=f"(?s){sentence}"):
        from_state_dict(state, heads=3)


def published(folder: Path) -> Path:
    """A file as MultiMAE's are: under "model", with other inputs, and its command line."""
    torch.manual_seed(3)
    state = encoder_state(MultiViewTransformer(**(SMALL | {"num_views": 1})))
    rgb = {name.replace("view_0", "rgb"): value for name, value in state.items()}
    rgb["input_adapters.depth.proj.weight"] = torch.zeros(24, 1, 4, 4)
    rgb["output_adapters.rgb.mask_token"] = torch.zeros(1, 1, 8)
    path = folder / "multimae.pth"
    torch.save({"model": rgb, "epoch": 1600, "args": argparse.Namespace(lr=1e-4)}, path)
    return path


@pytest.mark.parametrize("views", [None, [0], [1]])
def test_published_weights_go_to_the_chosen_views(tmp_path, views):
    path = published(tmp_path)
    settings: dict[str, Any] = {**SMALL, "image_size": 16, "weights": path, "weights_views": views}
    with pytest.warns(UserWarning, match=r"multimae\.pth: .* CC BY-NC 4\.0 .* not for commercial"):
        network = MultiViewTransformer(**settings)
    interpolated = fit_positions(sincos_positions(24, 2, 2), 4, 4)
    rgb = torch.load(path, weights_only=False)["model"]
    for view in range(2):
        adapter: Any = network.input_adapters[f"view_{view}"]
        loaded = torch.equal(adapter.proj.weight, rgb["input_adapters.rgb.proj.weight"])
        assert loaded == (views is None or view in views)
        if loaded:
            torch.testing.assert_close(adapter.pos_emb, interpolated)
    for name, value in network.encoder.state_dict().items():
        assert torch.equal(value, rgb[f"encoder.{name}"])
    assert torch.equal(network.global_tokens, rgb["global_tokens"])


X = torch.zeros(1)


def write(content: Any) -> Callable[[Path], Path]:
    def into(folder: Path) -> Path:
        path = folder / "file.pt"
        path.write_text(content) if isinstance(content, str) else torch.save(content, path)
        return path

    return into


@pytest.mark.parametrize(
    ("make", "settings", "sentence"),
    [
        (lambda folder: folder / "none.pt", {}, r"weights: the file .*none\.pt does not exist; "),
        (write("text"), {}, r"weights: .*file\.pt is damaged, or holds more than tensors"),
        (write(nn.Linear(1, 1)), {}, r"file\.pt is damaged, or holds more than tensors"),
        (write([1, 2]), {}, r"file\.pt holds no weights by names"),
        (write({"state_dict": {}}), {}, r"file\.pt holds no weights by names"),
        (write({"a": X}), {}, r"lacks 31 of the 31 .*'encoder\.0\.attn\.proj\.bias' \(it holds 'a"),
        (published, {"depth": 1}, r"multimae\.pth holds 'encoder\.1\.attn\.proj\.bias', .*depth"),
        (published, {"depth": 3}, r"multimae\.pth lacks 12 of the 40 tensors .*'encoder\.2\."),
        (published, {"width": 12}, r"global_tokens in .*multimae\.pth has the shape \[1, 1, 24\]"),
        (published, {"patch": 8}, r"input_adapters\.rgb\.proj\.weight in .* \[24, 3, 8, 8\]"),
        (published, {"weights_views": [2]}, r"weights_views=\[2\] names view 2, .*views 0 to 1"),
    ],
)
def test_weights_that_do_not_fit(tmp_path, make, settings, sentence):
    path = make(tmp_path)
    with pytest.raises(UserError, match=sentence):
        MultiViewTransformer(**(SMALL | settings), weights=path)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"size": "huge"}, "size='huge' of MultiViewTransformer is unknown"),
        ({"width": 22, "heads": 2}, "width=22 must be a multiple of 4"),
        ({"heads": 5}, "width=24 must be a multiple of heads=5"),
        ({"depth": 0}, "depth must be a whole number of at least 1, not 0"),
        ({"global_tokens": 0}, "global_tokens must be a whole number of at least 1"),
        ({"image_size": -64}, "image_size must be a whole number of at least 1, not -64"),
        ({"mlp_ratio": 0}, "mlp_ratio=0 leaves an MLP no hidden layer; choose a positive number"),
        ({"image_size": 10}, "images of 10x10 pixels cannot be cut into patches of 4x4"),
        ({"drop_path": 1.0}, r"drop_path=1\.0 of MultiViewTransformer must lie in \[0, 1\)"),
    ],
)
def test_settings_without_a_meaning(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        MultiViewTransformer(**(SMALL | settings))


def test_views_that_do_not_fit():
    network = MultiViewTransformer(**SMALL)
    with pytest.raises(UserError, match="MultiViewTransformer takes 2 views but was given 1"):
        network(torch.zeros(1, 3, 8, 8))
    with pytest.raises(UserError, match="images of 8x9 pixels cannot be cut"):
        network(*torch.zeros(2, 1, 3, 8, 9))
