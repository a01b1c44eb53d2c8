"""The All-CNN, with one eye and split for several."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from critical_periods.models.checks import check_sizes, check_views
from critical_periods.models.split import SplitNetwork


class AllCNN(nn.Module):
    """The network of Achille, Rovere & Soatto (ICLR 2019), of convolutions alone.

    With width w (96 in the paper): conv w, conv w, conv 2w stride 2, conv 2w, conv 2w,
    conv 2w stride 2, conv 2w, a 1x1 convolution 2w, a 1x1 convolution to the classes and an
    average pool. All but the last are followed by batch norm and ReLU and have no bias of
    their own; the last gives a logit per class and position. The layers are called ``conv1`` …
    ``conv7``, ``conv1x1`` and ``head``. Within a layer the ReLU overwrites the output of
    ``norm``: hook the layer or its ``conv``.

    Args:
        width: channels of the first layer (w).
        num_classes: how many logits.
        in_channels: channels of the view.

    Raises:
        UserError: an argument is not a whole number of at least one.

    Example:
        >>> import torch
        >>> network = AllCNN(width=8)
        >>> network(torch.randn(2, 3, 32, 32)).shape
        torch.Size([2, 10])
        >>> [name for name, _ in network.named_children()][-4:]
        ['conv1x1', 'head', 'pool', 'flatten']
    """

    def __init__(self, width: int = 96, num_classes: int = 10, in_channels: int = 3) -> None:
        check_sizes(width=width, num_classes=num_classes, in_channels=in_channels)
        super().__init__()
        self.conv1 = _conv(in_channels, width)
        self.conv2 = _conv(width, width)
        self.conv3 = _conv(width, 2 * width, stride=2)
        self.conv4 = _conv(2 * width, 2 * width)
        self.conv5 = _conv(2 * width, 2 * width)
        self.conv6 = _conv(2 * width, 2 * width, stride=2)
        self.conv7 = _conv(2 * width, 2 * width)
        self.conv1x1 = _conv(2 * width, 2 * width, kernel_size=1)
        self.head = nn.Conv2d(2 * width, num_classes, kernel_size=1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()

    def forward(self, *views: Tensor) -> Tensor:
        """Logits of a batch.

        Args:
            *views: exactly one tensor [B, C, H, W].

        Returns:
            Logits [B, num_classes].

        Raises:
            UserError: there is more than one view, or none.
        """
        check_views("AllCNN", len(views), 1)
        x = self.conv3(self.conv2(self.conv1(views[0])))
        x = self.conv6(self.conv5(self.conv4(x)))
        x = self.head(self.conv1x1(self.conv7(x)))
        logits: Tensor = self.flatten(self.pool(x))
        return logits


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

    Raises:
        UserError: an argument is not a whole number of at least one.

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
    ) -> None:
        check_sizes(
            depth=depth,
            width=width,
            num_classes=num_classes,
            in_channels=in_channels,
            num_views=num_views,
        )
        wide = width * 2**depth
        super().__init__(
            pathways=[_pathway(depth, width, in_channels) for _ in range(num_views)],
            trunk=nn.Sequential(
                OrderedDict[str, nn.Module](
                    conv=_conv(wide, wide),
                    conv1x1=_conv(wide, wide, kernel_size=1),
                    head=nn.Conv2d(wide, num_classes, kernel_size=1),
                    pool=nn.AdaptiveAvgPool2d(1),
                    flatten=nn.Flatten(),
                )
            ),
        )


def _pathway(depth: int, width: int, in_channels: int) -> nn.Sequential:
    layers = OrderedDict[str, nn.Module](stem=_conv(in_channels, width))
    for i in range(1, depth + 1):
        narrow, wide = width * 2 ** (i - 1), width * 2**i
        stage = OrderedDict[str, nn.Module](
            conv=_conv(narrow, narrow), down=_conv(narrow, wide, stride=2)
        )
        layers[f"stage{i}"] = nn.Sequential(stage)
    return nn.Sequential(layers)


def _conv(
    in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1
) -> nn.Sequential:
    padding = kernel_size // 2
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            conv=nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False),
            norm=nn.BatchNorm2d(out_channels),
            relu=nn.ReLU(inplace=True),
        )
    )
