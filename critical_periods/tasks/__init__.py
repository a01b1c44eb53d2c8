"""Tasks: what a network is trained to do."""

from typing import TYPE_CHECKING

from critical_periods.core.lazy import lazy_names

if TYPE_CHECKING:
    from .classification import ClassificationTask as ClassificationTask
    from .masked_reconstruction import MaskedReconstructionTask as MaskedReconstructionTask
    from .transformer_classification import (
        TransformerClassificationTask as TransformerClassificationTask,
    )

# Everything about linear networks, and about agents, lives in a room of its own; these names are
# known here, too.
_ELSEWHERE = {
    "ActorCriticTask": "critical_periods.guidance.actor_critic",
    "RegressionTask": "critical_periods.linear.regression",
    "MatrixCompletionTask": "critical_periods.linear.matrix_completion",
}
__getattr__, __dir__, __all__ = lazy_names(__name__, __file__, _ELSEWHERE)
