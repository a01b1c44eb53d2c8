"""The design of a ladder study, which is settled before what counts is trained."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import Self


@dataclass(frozen=True)
class Design:
    """What the verdicts of a ladder study rest on.

    Attributes:
        removal: the removals.
        epochs_after: the rungs: how many epochs follow each removal.
        cooldown: the last epochs of each rung, over which the learning rate goes to zero.
        seeds: those that count in the verdicts.
        calibration_seeds: those that the rule was chosen by, which do not.
        margin: the loss of accuracy that tells a scar from a lag; ``None`` without a verdict.
        level: of the intervals.
        control: the variant that the others are compared with.
        trained: the hash of the names of all runs, and so of all that is trained.
        hash: of all of the above.
    """

    removal: tuple[int, ...] = ()
    epochs_after: tuple[int, ...] = ()
    cooldown: int = 0
    seeds: tuple[int, ...] = ()
    calibration_seeds: tuple[int, ...] = ()
    margin: float | None = None
    level: float = 0.95
    control: str | None = None
    trained: str = ""
    hash: str = ""

    def of(self, runs: Iterable[str]) -> Self:
        """The design of a plan, by the names of its runs' last segments."""
        settled = replace(self, trained=_hash(sorted(runs)), hash="")
        return replace(settled, hash=_hash(asdict(settled)))

    def changes(self, now: "Design") -> str:
        """What is another in a later design with a verdict, in words; '' where nothing is.

        Example:
            >>> before = Design(removal=(20,), seeds=(0, 1), margin=0.005)
            >>> before.changes(Design(removal=(20,), seeds=(0, 1, 2), margin=0.05))
            'seeds [0, 1] → [0, 1, 2]; margin 0.005 → 0.05'
        """
        if now.margin is None:
            return ""
        if self.margin is None:
            return "the verdict was added"
        found = []
        for name in (field.name for field in fields(self)[:-2]):
            both = (getattr(one, name) for one in (self, now))
            old, new = (list(value) if isinstance(value, tuple) else value for value in both)
            found += [f"{name} {old} → {new}"] if old != new else []
        return "; ".join(found) or "what is trained" * (self.trained != now.trained)


def _hash(tree: object) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]
