"""Classification with the optimiser and the learning rate that transformers need."""

from typing import Any

from torch import nn

from critical_periods.models.network import Network
from critical_periods.tasks.classification import ClassificationTask
from critical_periods.tasks.transformer_recipe import TransformerRecipe


class TransformerClassificationTask(ClassificationTask):
    """A :class:`ClassificationTask` trained by a :class:`TransformerRecipe`, from scratch or not.

    It fine-tunes a network that starts from a
    :class:`~critical_periods.tasks.MaskedReconstructionTask` by the network's own ``weights``.
    What is logged, and how, is the same.

    Args:
        network: takes one tensor [B, C, H, W] a view and returns logits [B, num_classes].
        recipe: of the optimiser and the rate.
        num_classes: K.
        label_smoothing: ε, which moves targets to (1 - ε) target + ε / K in training.

    Example:
        >>> from critical_periods.models import MultiViewTransformer
        >>> recipe = TransformerRecipe(
        ...     epochs=20, base_rate=5e-4, warmup_epochs=5, final_rate=1e-6, layer_decay=0.65
        ... )
        >>> network = MultiViewTransformer(width=8, depth=1, heads=2, drop_path=0.1)
        >>> task = TransformerClassificationTask(network, recipe, label_smoothing=0.1)
    """

    def __init__(
        self,
        network: Network | nn.Module,
        recipe: TransformerRecipe,
        num_classes: int = 10,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(network, num_classes, label_smoothing=label_smoothing)
        self.recipe = recipe

    def configure_optimizers(self) -> Any:
        """AdamW, and its rate at every step (:meth:`TransformerRecipe.configure`)."""
        return self.recipe.configure(self)
