"""The window in which an agent is guided."""

from typing import ClassVar

import pytorch_lightning as pl

from critical_periods.callbacks.windows.window import Window
from critical_periods.core.errors import UserError
from critical_periods.core.trainer import Unit, datamodule_of
from critical_periods.guidance.environment import Environment
from critical_periods.guidance.guidances import Guidance


class GuidanceWindow(Window):
    """From epoch ``onset`` to ``removal - 1``, a guidance is added to what an agent is trained on.

    Several windows are stages of a curriculum (sparse, then dense, then sparse); where several are
    open, their guidances add up. Validation is on the environment's own reward, always. Logs
    ``guidance/active``.

    Source: Park et al. 2022, *On the Importance of Critical Period in Multi-stage Reinforcement
    Learning*.

    Args:
        guidance: what is added, such as ``Potential``.
        onset: the first epoch with it.
        removal: the first epoch without it; ``None`` means to the end.
        unit: ``epoch``; ``step`` is refused, as an epoch is collected and trained on as a whole.

    Raises:
        UserError: the unit is a step; before training, the data is no
            :class:`~critical_periods.guidance.EnvironmentDataModule`, or its environment has no
            goal.

    Example:
        >>> from critical_periods.guidance.guidances import Potential
        >>> window = GuidanceWindow(Potential(), onset=5, removal=10)
        >>> [window.is_open(epoch) for epoch in (4, 5, 9, 10)]
        [False, True, True, False]
    """

    kind: ClassVar[str] = "guidance"
    changes_nothing_while_closed: ClassVar[bool] = True

    def __init__(
        self, guidance: Guidance, onset: int = 0, removal: int | None = None, unit: Unit = "epoch"
    ) -> None:
        super().__init__(onset, removal, unit)
        if unit == "step":
            raise UserError(
                "unit='step' of GuidanceWindow: an epoch of an agent is one batch, within which "
                "nothing can change; give onset and removal in epochs."
            )
        self.guidance = guidance

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Checks that the window lies within the run and that there is a goal to guide to."""
        super().setup(trainer, pl_module, stage)
        environment = getattr(datamodule_of(trainer), "environment", None)
        if not isinstance(environment, Environment):
            raise UserError(
                f"GuidanceWindow guides an agent in an environment, which "
                f"{type(datamodule_of(trainer)).__name__} does not have; use "
                "EnvironmentDataModule with ActorCriticTask."
            )
        self.guidance.check(environment)
