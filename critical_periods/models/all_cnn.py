"""The All-CNN, for one view and split for several."""

from collections import OrderedDict

from torch import nn

from critical_periods.models.checks import check_dropout, check_sizes
from critical_periods.models.network import OneViewNetwork, norm_relu
from critical_periods.models.split import Heads, SplitNetwork, outputs


class AllCNN(OneViewNetwork):
    """A network of convolutions alone, of width w and, in its depth study, depth n.

    Channels of the layers, "/2" where the stride is 2; kernels are 3x3, the last two 1x1::

        conv1  conv2  conv3   conv4  conv5  conv6   conv7  conv1x1  head
        w      w      2w /2   2w     2w     2w /2   2w     2w       num_classes

    and with a depth n, for i = 1 … n::

        stem   stage<i>.conv  stage<i>.down         conv   conv1x1  head
        w      2^(i-1) w      2^i w /2              2^n w  2^n w    num_classes

    then an average pool (``pool``).

    All convolutions but the head have no bias and are followed by batch norm and ReLU, which
    overwrites the output of ``norm``: hook the layer or its ``conv``. With the defaults there are
    1,620,010 parameters.

    Source: Achille, Rovere & Soatto (ICLR 2019), with w = 96.

    Args:
        width: channels of the first layer (w).
        num_classes: how many logits.
        in_channels: channels of the view.
        depth: how many times the network of the depth study halves the image (n); the default
            network if None.
        dropout: the probability of dropout after every layer of stride 2, as in Springenberg et al.
            (ICLR 2015 workshop); the paper's network has none.

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
        check_dropout(dropout)
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
            layers = _start(depth, width, in_channels, dropout)
            layers |= _middle_and_end(depth, width, num_classes)
        super().__init__(layers)


class SplitAllCNN(SplitNetwork):
    """The All-CNN of depth n with a pathway for each view.

    Layers are those of :class:`AllCNN` with a depth: a pathway is its ``stem`` and ``stage1`` …
    ``stage<n>``, the trunk is its ``conv``, ``conv1x1``, ``head`` and average ``pool``.

    Source: Kleinman, Achille & Soatto (CVPR 2023), appendix A.4 and Fig. 5 (right), after the depth
    study of Achille, Rovere & Soatto (ICLR 2019).

    Args:
        depth: how many times a pathway halves the image (n).
        width: channels of the first layer (w).
        num_classes: how many logits.
        in_channels: channels of a view.
        num_views: how many pathways.
        heads: of :class:`~critical_periods.models.split.SplitNetwork`.

    Raises:
        UserError: an argument is not a whole number of at least one, or see ``SplitNetwork``.

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
        check_sizes(width=width, in_channels=in_channels)
        check_sizes(num_classes=num_classes, num_views=num_views)
        super().__init__(
            [nn.Sequential(_start(depth, width, in_channels)) for _ in range(num_views)],
            nn.Sequential(_middle_and_end(depth, width, outputs(num_classes, heads))),
            heads,
        )


def _start(
    depth: int, width: int, in_channels: int, dropout: float = 0.0
) -> OrderedDict[str, nn.Module]:
    check_sizes(depth=depth)
    layers = OrderedDict[str, nn.Module](stem=_conv(in_channels, width))
    for i in range(1, depth + 1):
        narrow, wide = width * 2 ** (i - 1), width * 2**i
        conv, down = _conv(narrow, narrow), _conv(narrow, wide, stride=2, dropout=dropout)
        layers[f"stage{i}"] = nn.Sequential(OrderedDict(conv=conv, down=down))
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
    in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1, dropout: float = 0.0
) -> nn.Sequential:
    padding = kernel_size // 2
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
    return norm_relu(dropout, conv=conv, norm=nn.BatchNorm2d(out_channels))
