"""Where things are in a third party's project, written once for all windows and monitors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pkgutil import resolve_name
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
    where there are several (:func:`critical_periods.core.finding.find`). A config writes it as
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
    logits: int | str | Callable[[Any], Tensor] | None = None
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

    def logits_of(self, output: Any) -> Any:
        """The logits in a network's output, as ``logits`` says.

        Raises:
            UserError: the output does not have them.

        Example:
            >>> import torch
            >>> output = {"logits": torch.ones(2, 3), "hidden": [torch.zeros(2, 8)]}
            >>> Project(logits="hidden.0").logits_of(output).shape
            torch.Size([2, 8])
        """
        if self.logits is None:
            return output
        if callable(self.logits):
            return self.logits(output)
        found = output
        try:
            for key in str(self.logits).split("."):
                found = _part(found, key)
            return found
        except (AttributeError, IndexError, KeyError, TypeError):
            pass
        try:
            function = resolve_name(str(self.logits))
        except (AttributeError, ImportError, ValueError):
            raise UserError(
                f"logits={self.logits!r} of Project is neither a part of what the network returns, "
                f"a {type(output).__name__}, nor the dotted path of a function."
            ) from None
        return function(output)

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


def _part(output: Any, key: str) -> Any:
    """A part of an output by its key, its place or as its attribute."""
    if isinstance(output, Mapping) and key in output:
        return output[key]
    if isinstance(output, (list, tuple)) and key.lstrip("-").isdigit():
        return output[int(key)]
    # An attribute of every tensor, such as data, is no part of an output.
    if isinstance(output, Tensor):
        raise TypeError
    return getattr(output, key)
