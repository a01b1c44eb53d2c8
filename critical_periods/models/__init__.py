"""Networks: ordinary modules of one tensor a view, ``network(left, right) -> logits``."""

from typing import TYPE_CHECKING

from critical_periods.core.lazy import lazy_names

if TYPE_CHECKING:
    from .all_cnn import AllCNN as AllCNN
    from .all_cnn import SplitAllCNN as SplitAllCNN
    from .mlp import MLP as MLP
    from .multi_view.transformer import MultiViewTransformer as MultiViewTransformer
    from .network import Network as Network
    from .split import SplitNetwork as SplitNetwork
    from .split_resnet import ResNet18 as ResNet18
    from .split_resnet import SplitResNet18 as SplitResNet18
    from .split_timm import SplitTimm as SplitTimm
    from .timm_classifier import TimmClassifier as TimmClassifier

# Everything about linear networks, and about agents, lives in a room of its own; these names are
# known here, too.
_ELSEWHERE = {
    "AgentMLP": "critical_periods.guidance.network",
    "MultiPathLinear": "critical_periods.linear.multi_path_linear",
}
__getattr__, __dir__, __all__ = lazy_names(__name__, __file__, _ELSEWHERE)
