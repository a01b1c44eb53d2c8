"""What a study file says of an adaptive study."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

from critical_periods.core.errors import UserError, near
from critical_periods.studies.schedule import Schedule

if TYPE_CHECKING:
    from critical_periods.reliability.marginals import Marginal

LEAST_INITIAL = 10
"""Runs that a fit needs: two for each of five folds of its cross-validation."""
_MARGINALS = {"normal": "Normal", "lognormal": "LogNormal", "exponential": "Exponential"}

_Ends = Annotated[list[NonNegativeInt], Field(min_length=2, max_length=2)]
_Range = Annotated[list[int | float], Field(min_length=2, max_length=2)]


class AdaptiveSettings(BaseModel):
    """Deficits whose onsets and lengths the study chooses itself, to find where harm begins.

    Any setting of the run with a number, by its name with dots, is a further axis with the lowest
    and the highest value, such as ``deficit.init_args.p: [0, 1]``.
    """

    model_config = ConfigDict(extra="allow", strict=True, use_attribute_docstrings=True)
    __pydantic_extra__: dict[str, _Range] = {}

    onset: _Ends
    """The earliest and the latest first epoch with the deficit."""
    length: _Ends
    """The fewest and the most epochs that it is there."""
    epochs: PositiveInt
    """How many epochs each run has."""
    threshold: Annotated[float, Field(gt=0, lt=1)]
    """The loss from which on a network is impaired: 0.02 is two points of final accuracy."""
    budget: PositiveInt
    """How many runs with a deficit are trained at most."""
    initial: Annotated[int, Field(ge=LEAST_INITIAL)]
    """How many of them begin it, spread evenly over the axes."""
    batch: PositiveInt
    """How many follow in each round."""
    kernel: Literal["either", "deep", "plain"] | None = None
    """``plain``, a Gaussian process on the axes themselves, ``deep``, on what a network makes of
    them, or ``either``, as cross-validation decides; by default ``plain`` where up to three axes
    vary, and ``either`` beyond."""
    distribution: dict[str, dict[str, list[float]]] = {}
    """Which deficits the probability of impairment is about: for an axis ``{normal: [mean, sd]}``,
    ``{lognormal: [mean, sd]}`` or ``{exponential: [mean]}``, cut to its ends; by default all values
    are as likely."""

    WINDOW: ClassVar[tuple[str, str]] = ("onset", "length")

    @property
    def axes(self) -> dict[str, list[int | float]]:
        """The ends of each axis, those of the window first."""
        return {"onset": [*self.onset], "length": [*self.length], **(self.__pydantic_extra__ or {})}

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        where = "windows.adaptive"
        fields = [name for name in type(self).model_fields]
        for name, (low, high) in self.axes.items():
            if name not in self.WINDOW and "." not in name:
                raise UserError(
                    f"unknown field '{where}.{name}'; {near(name, fields)} A further axis is a "
                    "setting with dots, such as deficit.init_args.p."
                )
            if low > high:
                raise UserError(f"{where}.{name} is {[low, high]}; give the lower end first.")
        if all(low == high for low, high in self.axes.values()):
            raise UserError(f"no axis of {where} has two ends; give one a range, such as [0, 40].")
        if self.length[0] < 1:
            raise UserError(f"{where}.length begins at 0, which is no deficit; begin at 1.")
        if (end := self.onset[1] + self.length[1]) > self.epochs:
            raise UserError(
                f"the latest onset and the most epochs of {where}.length reach to epoch {end}, "
                f"beyond the last, {where}.epochs={self.epochs}."
            )
        if self.budget < self.initial:
            raise UserError(
                f"{where}.budget is {self.budget}, less than the {self.initial} runs of "
                f"{where}.initial; give a larger budget or a smaller design."
            )
        for name, of in self.distribution.items():
            if name not in self.axes:
                raise UserError(f"{where}.distribution.{name} is no axis; {near(name, self.axes)}")
            if len(of) != 1 or (kind := next(iter(of))) not in _MARGINALS:
                raise UserError(
                    f"{where}.distribution.{name} is {of}; give one of {', '.join(_MARGINALS)}."
                )
            try:
                if len(of[kind]) != 1 + (kind != "exponential"):
                    raise TypeError
                marginal(of)
            except (TypeError, UserError) as error:
                needs = "[mean]" if kind == "exponential" else "[mean, sd]"
                raise UserError(
                    f"{where}.distribution.{name}.{kind} is {of[kind]}; it must be {needs}, "
                    "positive where it has to be."
                ) from error
        return self


def marginal(distribution: dict[str, list[float]]) -> "Marginal":
    """The distribution of an axis, such as ``{"normal": [10, 5]}``."""
    from critical_periods.reliability import marginals

    ((kind, parameters),) = distribution.items()
    found: Marginal = getattr(marginals, _MARGINALS[kind])(*parameters)
    return found


class Adaptive(BaseModel):
    """Windows that the study chooses itself."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    adaptive: AdaptiveSettings
    """Which ones, and how many."""

    def schedules(self) -> list[Schedule]:
        """The control, which is all that is known before training."""
        return [Schedule(0, 0, self.adaptive.epochs)]
