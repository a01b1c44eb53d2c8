"""Networks: ordinary modules of one tensor per view, `network(left, right) -> logits`."""

from critical_periods.models.all_cnn import AllCNN, SplitAllCNN
from critical_periods.models.linear import MultiPathLinear
from critical_periods.models.mlp import MLP
from critical_periods.models.multi_view import MultiViewTransformer
from critical_periods.models.network import Network
from critical_periods.models.split import SplitNetwork
from critical_periods.models.split_resnet import ResNet18, SplitResNet18
from critical_periods.models.split_timm import SplitTimm
from critical_periods.models.timm_classifier import TimmClassifier

__all__ = [
    "MLP",
    "AllCNN",
    "MultiPathLinear",
    "MultiViewTransformer",
    "Network",
    "ResNet18",
    "SplitAllCNN",
    "SplitNetwork",
    "SplitResNet18",
    "SplitTimm",
    "TimmClassifier",
]
