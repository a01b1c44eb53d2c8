"""Networks: ordinary modules of one tensor a view, ``network(left, right) -> logits``."""

from typing import TYPE_CHECKING

from critical_periods.core.lazy import lazy_names

if TYPE_CHECKING:
    from critical_periods.models.all_cnn import AllCNN as AllCNN
    from critical_periods.models.all_cnn import SplitAllCNN as SplitAllCNN
    from critical_periods.models.mlp import MLP as MLP
    from critical_periods.models.multi_view.transformer import (
        MultiViewTransformer as MultiViewTransformer,
    )
    from critical_periods.models.network import Network as Network
    from critical_periods.models.split import SplitNetwork as SplitNetwork
    from critical_periods.models.split_resnet import ResNet18 as ResNet18
    from critical_periods.models.split_resnet import SplitResNet18 as SplitResNet18
    from critical_periods.models.split_timm import SplitTimm as SplitTimm
    from critical_periods.models.timm_classifier import TimmClassifier as TimmClassifier

# Everything about linear networks lives in one room; these names are known here, too.
_LINEAR = {"MultiPathLinear": "critical_periods.linear.multi_path_linear"}
__getattr__, __dir__, __all__ = lazy_names(__name__, __file__, _LINEAR)
