"""Classifiers of timm, for one view."""

from itertools import takewhile
from typing import Any

from torch import Tensor, nn

from critical_periods.core.errors import UserError, near, reason
from critical_periods.models.checks import check_dropout, check_sizes, check_views
from critical_periods.models.network import Network


class TimmClassifier(Network):
    """A network of timm, unchanged, as the child ``model``: its layers are ``model.layer1`` ….

    Weights are random; nothing is downloaded. For the experiments of Achille, Rovere & Soatto (ICLR
    2019) with other networks.

    Args:
        name: a model of timm, such as "resnet18" or "convnext_atto".
        num_classes: how many logits.
        in_channels: channels of the view.
        cifar_stem: for small images, as in :class:`~critical_periods.models.SplitTimm`.
        image_size: of networks that are built for one size, as most transformers are (timm's
            ``img_size``); timm's own size by default.
        dropout: the probability of dropout before the classifier (timm's ``drop_rate``).

    Raises:
        UserError: timm has no such model or cannot build it so, the stem cannot be changed, an
            argument is not a whole number of at least one or no probability, or (by ``forward``)
            there is not one view or the network is tied to another image size.

    Example:
        >>> import torch
        >>> network = TimmClassifier("resnet10t", cifar_stem=True)
        >>> network(torch.randn(2, 3, 32, 32)).shape
        torch.Size([2, 10])
        >>> transformer = TimmClassifier("vit_tiny_patch16_224", image_size=32)
        >>> transformer(torch.randn(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        name: str,
        num_classes: int = 10,
        in_channels: int = 3,
        cifar_stem: bool = False,
        image_size: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        check_sizes(num_classes=num_classes, in_channels=in_channels)
        check_dropout(dropout)
        super().__init__()
        self.name = name
        settings: dict[str, Any] = {"drop_rate": dropout} if dropout else {}
        if image_size is not None:
            check_sizes(image_size=image_size)
            settings["img_size"] = image_size
        self.model = create_timm(name, num_classes, in_channels, cifar_stem, **settings)
        size = fixed_size(self.model)
        self._size = (image_size, image_size) if size and image_size else size

    def forward(self, *views: Tensor) -> Tensor:
        """Logits [B, num_classes] of exactly one view [B, C, H, W]."""
        check_views("TimmClassifier", len(views), 1)
        given, size = tuple(views[0].shape[-2:]), self._size
        if size is not None and size != given:
            raise UserError(
                f"{self.name} takes images of {size[0]}x{size[1]} pixels alone but was given "
                f"{given[0]}x{given[1]}; set image_size, or choose a convolutional network such as "
                "'resnet18'."
            )
        logits: Tensor = self.model(views[0])
        return logits


def create_timm(
    name: str, num_classes: int, in_channels: int, cifar_stem: bool, **settings: Any
) -> nn.Module:
    """A network of timm with random weights; ``settings`` are further arguments by timm's names.

    Raises:
        UserError: timm has no such model or cannot build it, or the stem cannot be changed.

    Example:
        >>> create_timm("resnet10t", 5, 1, cifar_stem=False).fc.out_features
        5
    """
    import timm  # here, because it takes seconds to import and no other network needs it

    if not timm.is_model(name):
        raise UserError(f"timm has no model {name!r}; {near(name, timm.list_models())}")
    try:
        model: nn.Module = timm.create_model(
            name, pretrained=False, num_classes=num_classes, in_chans=in_channels, **settings
        )
    except Exception as error:  # each model checks its arguments in its own way
        given = {"num_classes": num_classes, "in_channels": in_channels, **settings}
        raise UserError(
            f"timm cannot build {name!r} with {', '.join(f'{k}={v}' for k, v in given.items())} "
            f"({reason(error)}); choose another model."
        ) from error
    if cifar_stem:
        _use_cifar_stem(model, name)
    return model


def fixed_size(model: nn.Module) -> tuple[int, int] | None:
    """The only image size (H, W) that a network of timm takes, as most transformers do, if any.

    Example:
        >>> fixed_size(create_timm("vit_tiny_patch16_224", 10, 3, cifar_stem=False))
        (224, 224)
        >>> fixed_size(create_timm("resnet10t", 10, 3, cifar_stem=False)) is None
        True
    """
    config = _config(model)
    return tuple(config["input_size"][1:]) if config.get("fixed_input_size") else None


def feature_info(model: nn.Module) -> list[dict[str, Any]]:
    """The stages of a network of timm, if it names them.

    Example:
        >>> model = create_timm("resnet10t", 10, 3, cifar_stem=False)
        >>> [stage["module"] for stage in feature_info(model)]
        ['act1', 'layer1', 'layer2', 'layer3', 'layer4']
    """
    return list(getattr(model, "feature_info", []))


def _use_cifar_stem(model: nn.Module, name: str) -> None:
    """Changes the stem so that it keeps the full size of the image."""
    first = _config(model).get("first_conv") or "none"
    for path in [first] if isinstance(first, str) else first:
        conv = dict(model.named_modules()).get(path)
        # the first convolution of a network of one image size cuts it into patches
        if fixed_size(model) or not isinstance(conv, nn.Conv2d):
            raise UserError(
                f"cifar_stem needs a first convolution, which {name} lacks; set cifar_stem to "
                "false or choose another model."
            )
        if max(conv.kernel_size) > 3:
            bias = conv.bias is not None
            # timm's own kinds of convolution (weight standardisation, …) stay what they are
            small = type(conv)(conv.in_channels, conv.out_channels, 3, padding=1, bias=bias)
            model.set_submodule(path, small)
        else:
            conv.stride = (1, 1)
    # all that is registered before the first stage at a quarter of the image's size
    first_stage = next((i["module"] for i in feature_info(model) if i["reduction"] >= 4), None)
    for path, module in takewhile(lambda item: item[0] != first_stage, list(model.named_modules())):
        has_max_pool = any(isinstance(part, nn.MaxPool2d) for part in module.modules())
        is_pool = "pool" in path.rpartition(".")[2].lower() and has_max_pool
        if is_pool or isinstance(module, nn.ConstantPad2d):  # the pad belongs to the pool
            model.set_submodule(path, nn.Identity())


def _config(model: nn.Module) -> dict[str, Any]:
    return dict(getattr(model, "default_cfg", {}))
