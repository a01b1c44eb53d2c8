"""ResNet-18 for small images, for one view and split for several."""

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn.functional import relu

from critical_periods.models.checks import check_sizes
from critical_periods.models.network import OneViewNetwork, norm_relu
from critical_periods.models.split import Heads, SplitNetwork, outputs


class PreActivationBlock(nn.Module):
    """Two 3x3 convolutions, each after batch norm and ReLU, and a shortcut.

        a = ReLU(BN(x)),    y = conv(ReLU(BN(conv(a)))) + s,

    where s = x if the shape stays and otherwise a 1x1 convolution of a. No convolution has a bias.
    The ReLUs overwrite the outputs of ``norm1`` and ``norm2``: hook the block or its convolutions.

    Source: He et al., *Identity Mappings in Deep Residual Networks* (2016).

    Args:
        in_channels: channels of x.
        out_channels: channels of y.
        stride: of the first convolution and of the shortcut.

    Example:
        >>> import torch
        >>> PreActivationBlock(4, 8, stride=2)(torch.randn(1, 4, 6, 6)).shape
        torch.Size([1, 8, 3, 3])
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """y [B, out_channels, H / stride, W / stride] from x [B, in_channels, H, W]."""
        active = relu(self.norm1(x), inplace=True)
        shortcut = x if self.shortcut is None else self.shortcut(active)
        hidden = relu(self.norm2(self.conv1(active)), inplace=True)
        output: Tensor = self.conv2(hidden) + shortcut
        return output


class ResNet18(OneViewNetwork):
    """ResNet-18 with a stem for small images, of width w.

    ============================ =========================================================
    ``stem``                     3x3 convolution, w, stride 1, batch norm, ReLU, no pool
    ``stage1``                   two :class:`PreActivationBlock` of w channels
    ``stage2``, ``3``, ``4``     the same of 2w, 4w and 8w channels, the first of stride 2
    ``pool``, ``head``           global average pool, linear to the classes
    ============================ =========================================================

    With the defaults there are 11,171,274 parameters. :class:`SplitResNet18` computes the same with
    a single view, under other names.

    Source: Achille, Rovere & Soatto (ICLR 2019).

    Args:
        width: channels of the first stage (w).
        num_classes: how many logits.
        in_channels: channels of the view.

    Raises:
        UserError: an argument is not a whole number of at least one.

    Example:
        >>> import torch
        >>> network = ResNet18(width=8)
        >>> network(torch.randn(2, 3, 32, 32)).shape
        torch.Size([2, 10])
        >>> network.stage4(network.stage3(torch.randn(1, 16, 16, 16))).shape
        torch.Size([1, 64, 4, 4])
    """

    def __init__(self, width: int = 64, num_classes: int = 10, in_channels: int = 3) -> None:
        check_sizes(width=width, num_classes=num_classes, in_channels=in_channels)
        super().__init__({**_start(width, in_channels), **_end(width, num_classes)})


class SplitResNet18(SplitNetwork):
    """ResNet-18 with a pathway for each view up to stage 2.

    Layers are those of :class:`ResNet18`: a pathway is its ``stem``, ``stage1`` and ``stage2``, the
    trunk is its ``stage3``, ``stage4``, ``pool`` and ``head``. On 32x32 images ``trunk.stage4``
    gives [B, 8w, 4, 4] without a final norm or ReLU. With the defaults there are 11,846,282
    parameters, as in the authors' network.

    Source: Kleinman, Achille & Soatto (CVPR 2023), appendix A.4; the source variance of the units
    of ``trunk.stage4`` is shown in Fig. 4 and 6.

    Args:
        width: channels of the first stage (w).
        num_classes: how many logits.
        in_channels: channels of a view.
        num_views: how many pathways.
        heads: of :class:`~critical_periods.models.split.SplitNetwork`.

    Raises:
        UserError: an argument is not a whole number of at least one, or see ``SplitNetwork``.

    Example:
        >>> import torch
        >>> network = SplitResNet18()
        >>> sum(p.numel() for p in network.parameters())
        11846282
        >>> left, right = torch.randn(2, 2, 3, 32, 32)
        >>> network(left, right).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        width: int = 64,
        num_classes: int = 10,
        in_channels: int = 3,
        num_views: int = 2,
        heads: Heads = None,
    ) -> None:
        check_sizes(width=width, in_channels=in_channels)
        check_sizes(num_classes=num_classes, num_views=num_views)
        super().__init__(
            [nn.Sequential(_start(width, in_channels)) for _ in range(num_views)],
            nn.Sequential(_end(width, outputs(num_classes, heads))),
            heads,
        )


def _start(width: int, in_channels: int) -> OrderedDict[str, nn.Module]:
    conv = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
    return OrderedDict[str, nn.Module](
        stem=norm_relu(conv=conv, norm=nn.BatchNorm2d(width)),
        stage1=_stage(width, width, stride=1),
        stage2=_stage(width, 2 * width, stride=2),
    )


def _end(width: int, num_classes: int) -> OrderedDict[str, nn.Module]:
    return OrderedDict[str, nn.Module](
        stage3=_stage(2 * width, 4 * width, stride=2),
        stage4=_stage(4 * width, 8 * width, stride=2),
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        head=nn.Linear(8 * width, num_classes),
    )


def _stage(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        PreActivationBlock(in_channels, out_channels, stride),
        PreActivationBlock(out_channels, out_channels),
    )
