"""The good eye covered for a while, as amblyopia is treated."""

from typing import ClassVar

from critical_periods.callbacks.windows.deficit_window import DeficitWindow
from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.core.project import Project
from critical_periods.deficits.occlusion import Occlusion


class Patching(DeficitWindow):
    """The good eye covered from ``onset`` to ``removal - 1``, so that the other one has to learn.

    It is a :class:`DeficitWindow` with an :class:`~critical_periods.deficits.Occlusion` of one view
    of several, and logs ``patching/active``. In a study's ``recovery`` its epochs are counted from
    the removal of the deficit.

    Args:
        view: the good eye; by default the first view.
        onset: the first epoch in which it is covered.
        removal: the first one in which it sees again; ``None`` means to the end.
        project: where inputs and target are in a third party's batches (:class:`Project`).

    Raises:
        UserError: before the first step, the data has one view alone, or not this one.

    Example:
        >>> remedy = Patching(view=0, onset=20, removal=30)
    """

    kind: ClassVar[str] = "patching"
    changes_nothing_before: ClassVar[str] = "onset"

    def __init__(
        self,
        view: int = 0,
        onset: int = 0,
        removal: int | None = None,
        project: Project | None = None,
    ) -> None:
        super().__init__(_Patch([view]), onset, removal, project=project)
        self.view = view

    @property
    def state_key(self) -> str:
        """What tells this remedy from others in a checkpoint."""
        return f"Patching(view={self.view}, onset={self.onset})"


class _Patch(Occlusion):
    """Occlusion where another view is left."""

    def check(self, batch: Batch) -> None:
        """Checks that there are views to choose from, and this one among them."""
        count = len(batch.inputs)
        if count < 2:
            raise UserError(
                "Patching covers the good eye of two or more, but the data has 1 view; leave it "
                "out, or choose data of two eyes, such as StereoDigitsDataModule."
            )
        assert self.views is not None
        if self.views[0] >= count:
            raise UserError(
                f"view={self.views[0]} of Patching must lie from 0 to {count - 1}: the data has "
                f"{count} views."
            )
        super().check(batch)
