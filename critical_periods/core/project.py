"""Where things are in a third party's project, written once for all windows and monitors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import Tensor

from critical_periods.core.errors import UserError, near

Likelihood = Literal["categorical", "bernoulli", "gaussian"]
"""What a network's outputs z [B, K] say about targets: p(y|x) = softmax(z)_y of one class among K;
K independent labels of probability sigmoid(z); or a mean z with unit variance."""


@dataclass(frozen=True)
class Project:
    """Where inputs, target, network and logits are in a third party's project.

    What is left out is found where there is but one candidate, and refused before the first step
    where there are several (:func:`critical_periods.core.batch.find`). A config writes it as
    ``project: {inputs: image, target: fine_label}``.

    Attributes:
        inputs: where a batch has what the network takes: a key, a place, or a dotted path of them
            (``image``, ``0``, ``views.left``); a list of them has one tensor a view.
        target: where a batch has the target, likewise.
        axes: a letter for each axis of an input, beginning with B for samples: ``BTCHW`` and
            ``BCTHW`` are videos, ``BHWC`` colours last, ``BVCHW`` all views in one tensor (V),
            ``BCT`` audio. What has H and W is made of images. By default, inputs of four axes are
            images [B, C, H, W]. A list has the axes of each input.
        network: the dotted name of the module that is measured, such as ``model.backbone``; ``""``
            is the LightningModule itself. By default its attribute ``network`` where it computes
            what the LightningModule's ``forward`` does, and the LightningModule otherwise.
        logits: how the measured module's output becomes what the likelihood is of: a key or
            attribute (``logits``, ``0``), or a function of the output (in a config its dotted
            path, such as ``torch.log`` for a network that gives probabilities).
        likelihood: ``categorical`` (logits [B, K] of K classes), ``bernoulli`` (one logit, [B] or
            [B, 1], or [B, K] for K labels that do not exclude each other) or ``gaussian`` (means of
            unit variance, for regression).

    Raises:
        UserError: axes do not begin with B or repeat a letter, or the likelihood is unknown.

    Example:
        >>> project = Project(inputs=["left.image", "right.image"], target="fine_label")
        >>> project.likelihood
        'categorical'
    """

    inputs: int | str | Sequence[int | str] | None = None
    target: int | str | None = None
    axes: str | Sequence[str] | None = None
    network: str | None = None
    logits: Callable[[Any], Tensor] | int | str | None = None
    likelihood: Likelihood = "categorical"

    def __post_init__(self) -> None:
        known = get_args(Likelihood)
        if self.likelihood not in known:
            raise UserError(
                f"likelihood={self.likelihood!r} of Project is unknown; "
                f"{near(self.likelihood, known)}"
            )
        if isinstance(self.inputs, Sequence) and not self.inputs:
            raise UserError("inputs of Project is empty; name at least one place in a batch.")
        for axes in [self.axes] if isinstance(self.axes, str) else self.axes or ():
            if axes[:1] != "B" or len(set(axes)) < len(axes) or not axes.isalpha():
                raise UserError(
                    f"axes={axes!r} of Project must be a letter for each axis, all different and "
                    "the first of them B for samples, such as BCHW."
                )

    @property
    def places(self) -> list[int | str] | None:
        """The inputs as a list, or None where they are to be found."""
        if self.inputs is None:
            return None
        return [self.inputs] if isinstance(self.inputs, (int, str)) else list(self.inputs)

    def axes_of(self, number: int) -> list[str | None]:
        """The axes of each of so many inputs; a UserError where another number is listed."""
        if self.axes is None or isinstance(self.axes, str):
            return [self.axes] * number
        if number != len(self.axes):
            raise UserError(
                f"axes of Project lists {len(self.axes)} inputs, but there are {number}; give one "
                "entry each, or one for all."
            )
        return list(self.axes)
