"""The All-CNN, with one eye and split for several."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from critical_periods.models.checks import check_probability, check_sizes
from critical_periods.models.one_view import OneViewNetwork
from critical_periods.models.split import Heads, SplitNetwork


class AllCNN(OneViewNetwork):
    """The network of Achille, Rovere & Soatto (ICLR 2019), of convolutions alone.

    With width w (96 in the paper): conv w, conv w, conv 2w stride 2, conv 2w, conv 2w,
    conv 2w stride 2, conv 2w, a 1x1 convolution 2w, a 1x1 convolution to the classes and an
    average pool. All but the last are followed by batch norm and ReLU and have no bias of
    their own; the last gives a logit per class and position. The layers are called ``conv1`` …
    ``conv7``, ``conv1x1`` and ``head``. Within a layer the ReLU overwrites the output of
    ``norm``: hook the layer or its ``conv``.

    With a depth n it is the network of the paper's depth study instead: conv w (``stem``), for
    i = 1 … n conv 2^(i-1) w and conv 2^i w with stride 2 (``stage1`` … ``stage<n>``, each ``conv``
    and ``down``), conv 2^n w (``conv``), ``conv1x1`` 2^n w, ``head`` and the pool.

    Args:
        width: channels of the first layer (w).
        num_classes: how many logits.
        in_channels: channels of the view.
        depth: how many times the depth study's network halves the image (n); the paper's default
            network if None.
        dropout: the probability of dropout after every layer of stride 2, where Springenberg et al.
            (ICLR 2015 workshop) have it; the paper's network has none.

    Raises:
        UserError: an argument is not a whole number of at least one, or no probability.

    Example:
        >>> import torch
        >>> network = AllCNN(width=8)
        >>> network(torch.randn(2, 3, 32, 32)).shape
        torch.Size([2, 10])
        >>> [name for name, _ in network.named_children()][-4:]
        ['conv1x1', 'head', 'pool', 'flatten']
        >>> [name for name, _ in AllCNN(width=8, depth=2).named_children()][:5]
        ['stem', 'stage1', 'stage2', 'conv', 'conv1x1']
    """

    def __init__(
        self,
        width: int = 96,
        num_classes: int = 10,
        in_channels: int = 3,
        depth: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        check_sizes(width=width, num_classes=num_classes, in_channels=in_channels)
        check_probability(dropout=dropout)
        if depth is None:
            layers = OrderedDict[str, nn.Module](
                conv1=_conv(in_channels, width),
                conv2=_conv(width, width),
                conv3=_conv(width, 2 * width, stride=2, dropout=dropout),
                conv4=_conv(2 * width, 2 * width),
                conv5=_conv(2 * width, 2 * width),
                conv6=_conv(2 * width, 2 * width, stride=2, dropout=dropout),
                conv7=_conv(2 * width, 2 * width),
                **_end(2 * width, num_classes),
            )
        else:
            check_sizes(depth=depth)
            layers = _start(depth, width, in_channels, dropout)
            layers.update(_middle_and_end(depth, width, num_classes))
        super().__init__(layers)


class SplitAllCNN(SplitNetwork):
    """The All-CNN with a pathway a view and a depth to choose, for Fig. 5 (right).

    With width w and depth n, a pathway is conv w (``stem``) and, for i = 1 … n, conv 2^(i-1) w and
    conv 2^i w with stride 2 (``stage1`` … ``stage<n>``, each ``conv`` and ``down``). The sum goes
    through conv 2^n w (``trunk.conv``), a 1x1 convolution 2^n w (``trunk.conv1x1``), a 1x1
    convolution to the classes (``trunk.head``) and an average pool. Batch norm, ReLU and biases
    are as in :class:`AllCNN`. Kleinman, Achille & Soatto, CVPR 2023, appendix A.4, after
    the depth study of Achille, Rovere & Soatto, ICLR 2019.

    Args:
        depth: how many times a pathway halves the image (n).
        width: channels of the first layer (w).
        num_classes: how many logits.
        in_channels: channels of a view.
        num_views: how many pathways.
        heads: what each of several heads answers for, such as ``["both", 0, 1]``, whose logits are
            stacked, [B, heads, num_classes]; by default there is one, for both views.

    Raises:
        UserError: an argument is not a whole number of at least one, or the heads are not those of
            both views and of single ones.

    Example:
        >>> import torch
        >>> network = SplitAllCNN(depth=2, width=8)
        >>> network.pathways[0](torch.randn(2, 3, 32, 32)).shape
        torch.Size([2, 32, 8, 8])
        >>> network(*torch.randn(2, 2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        depth: int = 1,
        width: int = 96,
        num_classes: int = 10,
        in_channels: int = 3,
        num_views: int = 2,
        heads: Heads = None,
    ) -> None:
        check_sizes(
            depth=depth,
            width=width,
            num_classes=num_classes,
            in_channels=in_channels,
            num_views=num_views,
        )
        answers = num_classes * len(heads or [None])
        super().__init__(
            pathways=[nn.Sequential(_start(depth, width, in_channels)) for _ in range(num_views)],
            trunk=nn.Sequential(_middle_and_end(depth, width, answers)),
            heads=heads,
        )


def _start(
    depth: int, width: int, in_channels: int, dropout: float = 0.0
) -> OrderedDict[str, nn.Module]:
    layers = OrderedDict[str, nn.Module](stem=_conv(in_channels, width))
    for i in range(1, depth + 1):
        narrow, wide = width * 2 ** (i - 1), width * 2**i
        stage = OrderedDict[str, nn.Module](
            conv=_conv(narrow, narrow), down=_conv(narrow, wide, stride=2, dropout=dropout)
        )
        layers[f"stage{i}"] = nn.Sequential(stage)
    return layers


def _middle_and_end(depth: int, width: int, num_classes: int) -> OrderedDict[str, nn.Module]:
    wide = width * 2**depth
    return OrderedDict[str, nn.Module](conv=_conv(wide, wide), **_end(wide, num_classes))


def _end(width: int, num_classes: int) -> OrderedDict[str, nn.Module]:
    return OrderedDict[str, nn.Module](
        conv1x1=_conv(width, width, kernel_size=1),
        head=nn.Conv2d(width, num_classes, kernel_size=1),
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
    )


def _conv(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 3,
    stride: int = 1,
    dropout: float = 0.0,
) -> nn.Sequential:
    padding = kernel_size // 2
    layers = OrderedDict[str, nn.Module](
        conv=nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False),
        norm=nn.BatchNorm2d(out_channels),
        relu=nn.ReLU(inplace=True),
    )
    if dropout:
        layers["dropout"] = nn.Dropout(dropout)
    return nn.Sequential(layers)
