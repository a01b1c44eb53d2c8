"""ResNet-18 for small images, with one eye and split for several."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn.functional import relu

from critical_periods.models.checks import check_sizes
from critical_periods.models.one_view import OneViewNetwork
from critical_periods.models.split import Heads, SplitNetwork


class PreActivationBlock(nn.Module):
    """Two 3x3 convolutions, each after batch norm and ReLU, and a way around them.

    With a = ReLU(BN(x)) it computes y = conv(ReLU(BN(conv(a)))) + s, where s = x when the shape
    stays and otherwise a 1x1 convolution of a (He et al., *Identity Mappings in Deep Residual
    Networks*, 2016). No convolution has a bias. The ReLUs overwrite the outputs of ``norm1``
    and ``norm2``: hook the block or its convolutions, not its norms.

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
    """ResNet-18 with a stem for small images, as in Achille, Rovere & Soatto (ICLR 2019).

    A 3x3 convolution with stride 1, batch norm and ReLU and no pool (``stem``), ``stage1`` (width
    w), ``stage2``, ``stage3`` and ``stage4`` (2w, 4w and 8w, stride 2), global average ``pool`` and
    the linear ``head``. Every stage is two pre-activation blocks: :class:`SplitResNet18` computes
    the same with a single view, under other names.

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
    """ResNet-18 with a pathway a view up to stage 2, added there.

    A pathway is a 3x3 convolution with batch norm and ReLU (``stem``), ``stage1`` (width w) and
    ``stage2`` (2w, stride 2); the trunk is ``stage3`` (4w, stride 2), ``stage4`` (8w, stride 2),
    global average ``pool`` and the linear ``head``. Every stage is two pre-activation blocks, and
    nothing stands between the last block and the pool. On 32x32 images ``trunk.stage4`` gives
    8w x 4 x 4: the units whose source variance Kleinman, Achille & Soatto (CVPR 2023) show
    in Fig. 4 and 6. Appendix A.4 describes the split; with the defaults the network has
    11,846,282 parameters, as the authors' has.

    Args:
        width: channels of the first stage (w).
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
        check_sizes(
            width=width, num_classes=num_classes, in_channels=in_channels, num_views=num_views
        )
        answers = num_classes * len(heads or [None])
        super().__init__(
            pathways=[nn.Sequential(_start(width, in_channels)) for _ in range(num_views)],
            trunk=nn.Sequential(_end(width, answers)),
            heads=heads,
        )


def _start(width: int, in_channels: int) -> OrderedDict[str, nn.Module]:
    stem = OrderedDict[str, nn.Module](
        conv=nn.Conv2d(in_channels, width, 3, padding=1, bias=False),
        norm=nn.BatchNorm2d(width),
        relu=nn.ReLU(inplace=True),
    )
    return OrderedDict[str, nn.Module](
        stem=nn.Sequential(stem),
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
