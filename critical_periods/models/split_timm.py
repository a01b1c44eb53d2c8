"""Convolutional networks of timm, split for several views."""

from typing import Any

import torch
from torch import Tensor, nn

from critical_periods.core.errors import UserError, near, reason
from critical_periods.models.checks import check_sizes
from critical_periods.models.split import Heads, SplitNetwork, outputs
from critical_periods.models.timm_classifier import create_timm, feature_info, fixed_size


class SplitTimm(SplitNetwork):
    """A network of timm with a pathway for each view up to a named stage.

    A pathway holds all layers up to and including ``fuse_after``; the trunk is the network with
    those layers replaced by identities. Layers keep timm's names, so ``layer1.0.conv1.weight`` of a
    ResNet is ``pathways.0.layer1.0.conv1.weight``, and ``trunk.<fuse_after>`` is an identity whose
    output is the sum of the pathways. Weights are random; nothing is downloaded.

    At construction a small image is passed through the network before and after the split. If
    feature maps or logits differ (layers registered in another order, branches around the stage),
    the split is refused. So is a network whose ``fuse_after`` gives no feature map [B, C, H, W], or
    that takes a single image size, as most transformers do.

    Source: the split of Kleinman, Achille & Soatto (CVPR 2023, appendix A.4), for other networks.

    Args:
        name: a model of timm, such as "resnet18" or "convnext_atto".
        fuse_after: the last module of the pathways, as in timm's ``feature_info``: "layer2" of a
            ResNet, "stages.1" of a ConvNeXt, "blocks.2" of an EfficientNet.
        num_classes: how many logits.
        in_channels: channels of a view.
        num_views: how many pathways.
        cifar_stem: for small images, give the first convolution (all of them, where several see
            the image) stride 1 and a 3x3 kernel in place of a larger one, and replace a max pool of
            the stem by an identity.
        heads: of :class:`~critical_periods.models.split.SplitNetwork`.

    Raises:
        UserError: timm has no such model, the model no such module, it cannot be split there, an
            argument is not a whole number of at least one, or see ``SplitNetwork``.

    Example:
        >>> network = SplitTimm("resnet18", fuse_after="layer2", cifar_stem=True)
        >>> network.pathways[0](torch.randn(2, 3, 32, 32)).shape
        torch.Size([2, 128, 16, 16])
        >>> network(*torch.randn(2, 2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        name: str,
        fuse_after: str,
        num_classes: int = 10,
        in_channels: int = 3,
        num_views: int = 2,
        cifar_stem: bool = False,
        heads: Heads = None,
    ) -> None:
        check_sizes(num_classes=num_classes, in_channels=in_channels, num_views=num_views)
        answers = outputs(num_classes, heads)
        trunk = create_timm(name, answers, in_channels, cifar_stem)
        if fixed_size(trunk):
            raise UserError(
                f"{name} is tied to one image size, as transformers are; choose a convolutional "
                "network such as 'resnet18' or 'convnext_atto'."
            )
        modules = [path for path, _ in trunk.named_modules() if path]
        stages = [info["module"] for info in feature_info(trunk) if info["module"] in modules]
        stages = stages or [path for path, _ in trunk.named_children()]
        if fuse_after not in modules:
            raise UserError(
                f"{name} has no module fuse_after={fuse_after!r}; {near(fuse_after, stages)}"
            )
        try:
            pathway = _split(trunk, fuse_after, in_channels)
        except Exception as error:  # a model cut in the wrong place may raise anything
            raise UserError(
                f"{name} cannot be split at fuse_after={fuse_after!r} ({reason(error)}); choose "
                f"another of its stages ({', '.join(stages[:8])}) or another convolutional network."
            ) from error
        others = (create_timm(name, answers, in_channels, cifar_stem) for _ in range(1, num_views))
        super().__init__([pathway, *(_cut(other, fuse_after) for other in others)], trunk, heads)


def _split(model: nn.Module, fuse_after: str, in_channels: int) -> nn.Sequential:
    """Cuts the pathway out of a model, which becomes the trunk, and checks both against it."""
    image = torch.linspace(-2, 2, in_channels * 96 * 96).sin().view(1, in_channels, 96, 96)
    model.eval()
    with torch.no_grad():
        features, logits = _run_uncut(model, fuse_after, image)
        channels = {info["module"]: info["num_chs"] for info in feature_info(model)}
        if features.ndim != 4 or features.shape[1] != channels.get(fuse_after, features.shape[1]):
            raise ValueError(f"it gives {tuple(features.shape)}, no feature map [B, C, H, W]")
        pathway = _cut(model, fuse_after).eval()
        if not (_equal(pathway(image), features) and _equal(model(features), logits)):
            raise ValueError("cut there, it no longer computes the same")
    model.train()
    return pathway.train()


def _run_uncut(model: nn.Module, fuse_after: str, image: Tensor) -> tuple[Tensor, Tensor]:
    """The feature map of the stage and the logits, as timm computes them."""
    outputs: list[Any] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        # a copy, as the next layer may work in place
        outputs.append(output.clone() if isinstance(output, Tensor) else output)

    with model.get_submodule(fuse_after).register_forward_hook(keep):
        logits = model(image)
    if len(outputs) != 1:
        raise ValueError(f"it runs {len(outputs)} times in a forward pass")
    if not isinstance(outputs[0], Tensor) or not isinstance(logits, Tensor):
        raise ValueError("it gives more than one tensor")
    return outputs[0], logits


def _equal(actual: Tensor, expected: Tensor) -> bool:
    """Equal up to rounding, measured against the largest value (fresh logits can be tiny)."""
    tolerance = 1e-4 * expected.abs().max().item()
    return actual.shape == expected.shape and torch.allclose(actual, expected, 0.0, tolerance)


def _cut(module: nn.Module, path: str) -> nn.Sequential:
    """Moves all children up to and including ``path`` to a new module; leaves identities."""
    name, _, rest = path.partition(".")
    taken = nn.Sequential()
    for child_name, child in list(module.named_children()):
        if child_name == name and rest:
            taken.add_module(name, _cut(child, rest))
            break
        taken.add_module(child_name, child)
        setattr(module, child_name, nn.Identity())
        if child_name == name:
            break
    return taken
