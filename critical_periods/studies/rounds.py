"""The rounds of an adaptive study as its folder keeps them."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from pydantic import TypeAdapter

from critical_periods.core.files import write_text
from critical_periods.reliability.architecture import Choice
from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.space import Point

RECORD = "adaptive.json"


@dataclass(frozen=True)
class Chosen:
    """A run with a deficit.

    Attributes:
        point: the deficit.
        seed: of the run.
        epochs: that it trained anew when it was chosen, with its control.
        loss: what was predicted for it; ``None`` in the initial design.
        sd: standard deviation of that, the noise of seeds included.
    """

    point: Point
    seed: int
    epochs: int
    loss: float | None = None
    sd: float | None = None


@dataclass(frozen=True)
class Fit:
    """What the runs before a round say.

    Attributes:
        runs: how many have given a loss.
        impaired: the probability that a deficit of the stated distribution impairs.
        low: of those that impair by the mean minus 1.96 standard deviations.
        high: the same, plus.
        choice: of the network and its training.
        chosen_at: how many runs there were when that was chosen.
    """

    runs: int
    impaired: float
    low: float
    high: float
    choice: Choice
    chosen_at: int

    @property
    def sentence(self) -> str:
        """The probability, for people."""
        interval = f"95 % interval {self.low:.3f} to {self.high:.3f}"
        return f"a deficit impairs with probability {self.impaired:.3f} ({interval})"


@dataclass(frozen=True)
class Round:
    """Runs that are trained together, and the fit that they were chosen by."""

    runs: tuple[Chosen, ...]
    fit: Fit | None = None


@dataclass(frozen=True)
class Record:
    """The rounds of a study.

    Attributes:
        key: a hash of all that they follow from but the budget.
        rounds: in order; the last is without runs where the study has ended.
    """

    key: str
    rounds: tuple[Round, ...]


def read_record(folder: StudyFolder) -> Record | None:
    """What the folder has; ``None`` where that is nothing, or damaged."""
    try:
        text = (folder.path / RECORD).read_text(encoding="utf-8")
        return TypeAdapter(Record).validate_json(text)
    except (OSError, ValueError):
        return None


def has_ended(folder: StudyFolder) -> bool:
    """Whether no round is to come."""
    record = read_record(folder)
    return record is not None and not record.rounds[-1].runs


def stage(folder: StudyFolder) -> str:
    """How far the rounds are, for people."""
    record = read_record(folder)
    if record is None or (fit := record.rounds[-1].fit) is None:
        return "Round 1 is yet to be chosen, when the initial design is trained."
    if not record.rounds[-1].runs:
        return f"It has ended: by {fit.runs} runs {fit.sentence}."
    number = len(record.rounds) - 1
    return (
        f"Round {number} was chosen by {fit.runs} runs: {fit.sentence}. Round {number + 1} is yet "
        "to be chosen, when that is trained."
    )


def write_record(folder: StudyFolder, key: str, rounds: Sequence[Round]) -> None:
    """Keeps the rounds."""
    tree = asdict(Record(key, tuple(rounds)))
    write_text(folder.path / RECORD, json.dumps(tree, indent=1) + "\n")
