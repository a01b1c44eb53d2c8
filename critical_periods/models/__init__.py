"""Networks: ordinary modules of one tensor per view, `network(left, right) -> logits`."""

from critical_periods.models.all_cnn import AllCNN, SplitAllCNN
from critical_periods.models.split import SplitNetwork
from critical_periods.models.split_resnet import SplitResNet18
from critical_periods.models.split_timm import SplitTimm

__all__ = ["AllCNN", "SplitAllCNN", "SplitNetwork", "SplitResNet18", "SplitTimm"]
