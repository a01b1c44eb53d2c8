"""What a launcher is: a module beside this one that has the functions of :class:`Launcher`.

``local`` trains on this machine and ``slurm`` on a cluster; a third would be a third module, named
in :data:`LAUNCHERS`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, cast

from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.plan import Plan
from critical_periods.studies.study import Study

LAUNCHERS = ("local", "slurm")


@dataclass(frozen=True)
class Request:
    """How a study is to be trained.

    Attributes:
        study: what its file says.
        commands: the words of the commands that jobs run by their names: ``plot`` writes tables and
            figures, ``prepare`` plans, ``advance`` chooses the next round of an adaptive study,
            ``submit`` submits what is planned.
        jobs: runs at once on this machine; ``None``: one a device.
        whole: whether a job of a cluster trains a whole path of the tree; without, one segment.
    """

    study: Study
    commands: Mapping[str, Sequence[str]]
    jobs: int | None = None
    whole: bool = True


class Launcher(Protocol):
    """Where segments are trained."""

    WAITS: bool
    """Whether :meth:`launch` goes on until all has ended; without, that goes on elsewhere."""

    def launch(self, folder: StudyFolder, plan: Plan, request: Request) -> Sequence[str]:
        """Trains what is missing of a plan, or has it trained; why it has ended before, if so."""

    def launch_planning(self, folder: StudyFolder, request: Request, why: str) -> None:
        """Has a study planned and trained elsewhere, as that cannot be done here, and why not."""

    def planning(self, folder: StudyFolder) -> str | None:
        """The state of planning that goes on elsewhere; ``None`` where there is none."""

    def planning_goes_on(self, folder: StudyFolder) -> Callable[[], bool]:
        """What says, whenever it is called, whether planning goes on elsewhere."""

    def states(self, folder: StudyFolder) -> dict[str, str]:
        """What is known of segments beside what the folder says."""

    def going_on(self, folder: StudyFolder, plan: Plan) -> Callable[[], bool]:
        """What says, whenever it is called, whether anything of the study waits or runs."""

    def cancel(self, folder: StudyFolder) -> int:
        """Ends what waits and runs of the study, and nothing else; returns how many jobs."""


def launcher(name: str) -> Launcher:
    """The launcher of this name."""
    return cast(Launcher, import_module(f"{__package__}.{name}"))


def launcher_of(folder: StudyFolder) -> Launcher:
    """The launcher that a study was last given to; the local one where no other has been used."""
    used = [name for name in LAUNCHERS if (folder.path / name).is_dir()]
    return launcher(used[-1] if used else "local")
