"""The fields of a study file, and one sentence for whatever is wrong with them."""

from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)  # fmt: skip

from critical_periods.core.errors import UserError, near
from critical_periods.core.seeds import LARGEST_SEED
from critical_periods.studies.adaptive_settings import Adaptive, AdaptiveSettings
from critical_periods.studies.schedule import Schedule
from critical_periods.studies.slurm_settings import SlurmSettings

LEAST_RUNGS = 4
"""Of a ladder with a verdict: a scar, a lag's size and its speed, and one to tell them apart."""
NO_REMEDY = "none"
"""What the baseline of all remedies is called."""
# Settings of a run that fields of the study decide, and those fields.
_DECIDED = {"seed_everything": "seeds", "trainer.max_epochs": "windows"}
# What a value must be or do, by pydantic's name for what is wrong with it.
_WANTED = {
    "dict_type": "hold fields",
    "bool_type": "be true or false",
    "float_type": "be a number",
    "greater_than_equal": "be at least {ge}",
    "int_type": "be a whole number",
    "less_than_equal": "be at most {le}",
    "list_type": "be a list",
    "model_type": "hold fields",
    "string_type": "be text",
    "too_long": "hold at most {max_length} values",
    "too_short": "hold at least {min_length} values",
}

# YAML has null for a field that is left empty.
_empty = BeforeValidator(lambda value: {} if value is None else value)
_Settings = Annotated[dict[str, Any], _empty]
_Epochs = Annotated[list[NonNegativeInt], Field(min_length=1)]
_Counts = Annotated[list[PositiveInt], Field(min_length=1)]
_as_list = BeforeValidator(
    lambda value: value if isinstance(value, list) else [value],
    json_schema_input_type=PositiveInt | _Counts,
)
# Variants may complete it, so it is checked with them.
_CLASS = {"class_path": {"type": "string"}, "init_args": {"type": "object"}}
_Class = Annotated[Any, WithJsonSchema({"type": "object", "properties": _CLASS})]


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class Removals(_Fields):
    """Deficits from epoch 0 to each of several removals, each followed by epochs without it."""

    removal: _Epochs
    """The first epochs without the deficit; at 0 there is none."""
    epochs_after: PositiveInt
    """How many epochs follow each removal."""

    def schedules(self) -> list[Schedule]:
        """The runs with a deficit."""
        return [Schedule(0, removal, removal + self.epochs_after) for removal in self.removal]


class Ladder(_Fields):
    """Deficits to each of several removals, each followed by each of several numbers of epochs.

    After a removal the learning rate stays as it is. At each rung a branch leaves this trunk and
    anneals its rate, so that every rung is a finished training.
    """

    removal: _Epochs
    """The first epochs without the deficit; at 0 there is none."""
    epochs_after: _Counts
    """The rungs: how many epochs follow each removal, from the fewest to the most."""
    cooldown: PositiveInt
    """Over how many epochs, the last ones of each rung, the learning rate goes to zero."""

    def schedules(self) -> list[Schedule]:
        """The runs with a deficit."""
        return [Schedule(0, end, end + rung) for end in self.removal for rung in self.epochs_after]

    @model_validator(mode="after")
    def _climbs(self) -> Self:
        rungs = self.epochs_after
        if any(rung >= after for rung, after in pairwise(rungs)):
            raise UserError(
                f"windows.epochs_after is {rungs}; the rungs of a ladder must increase."
            )
        if self.cooldown > rungs[0]:
            raise UserError(
                f"windows.cooldown={self.cooldown} is longer than the first rung of "
                f"windows.epochs_after, {rungs[0]}; let it be as long or shorter."
            )
        return self


class Onsets(_Fields):
    """Deficits from each of several onsets, in runs of the same number of epochs."""

    onset: _Epochs
    """The first epochs with the deficit."""
    length: Annotated[_Counts, _as_list] | None = None
    """How many epochs it is there, or a list to combine with the onsets; by default to the end."""
    epochs: PositiveInt
    """How many epochs each run has."""

    def schedules(self) -> list[Schedule]:
        """The runs with a deficit."""
        if self.length is None:
            return [Schedule(onset, self.epochs, self.epochs) for onset in self.onset]
        starts = [(onset, length) for length in self.length for onset in self.onset]
        return [Schedule(onset, onset + length, self.epochs) for onset, length in starts]

    @model_validator(mode="after")
    def _end_in_time(self) -> Self:
        for onset, removal, epochs in self.schedules():
            if removal > epochs or onset >= epochs:
                beyond = f"reaches beyond the last epoch, windows.epochs={epochs}."
                raise UserError(f"the window of windows.onset={onset} to epoch {removal} {beyond}")
        return self


def _form(value: Any) -> Removals | Ladder | Onsets | Adaptive:
    """The windows in that one of the forms whose fields are there."""
    if isinstance(value, dict) and "adaptive" in value:
        return Adaptive.model_validate(value)
    removals, onsets = set(Removals.model_fields), set(Onsets.model_fields)
    names = set(value) if isinstance(value, dict) else removals
    known = removals | onsets | {"cooldown"}
    for name in names - known:
        if isinstance(name, str):
            raise UserError(f"unknown field 'windows.{name}'; {near(name, {*known, 'adaptive'})}")
    if isinstance(value, dict) and names | {"cooldown"} == set(Ladder.model_fields):
        is_list = isinstance(value["epochs_after"], list)
        if is_list and "cooldown" not in names:
            raise UserError(
                "windows.epochs_after is a ladder, which needs windows.cooldown: over how many "
                "epochs the rate of each rung goes to zero."
            )
        if "cooldown" in names:
            if not is_list:
                raise UserError(
                    "windows.cooldown is of a ladder, but windows.epochs_after is "
                    f"{value['epochs_after']!r}; make that a list, or leave cooldown out."
                )
            return Ladder.model_validate(value)
    if names <= known and names != removals and names | {"length"} != onsets:
        raise UserError(
            f"windows has {sorted(names)}; it needs either removal and epochs_after, or onset and "
            "epochs, and optionally length, or removal, epochs_after and cooldown."
        )
    return (Removals if names <= removals else Onsets).model_validate(value)


class Verdict(_Fields):
    """The rule by which each removal of a ladder is called a scar, a lag, or undecided.

    It is kept in ``plan.json`` with the hash of the design before what counts is trained; where
    it, or the design, is another afterwards, every table says so.
    """

    margin: Annotated[float, Field(gt=0, lt=1)]
    """The loss of accuracy that counts: a scar is larger, of a lag nothing as large stays."""
    level: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    """Of the intervals: a verdict is given where the interval of the scar does not hold the margin.
    """
    control: str | None = None
    """A variant that keeps all information, which the others are compared with."""


class Ends(_Fields):
    """A detector of the end of the critical period; ``study predict`` judges it by its regret."""

    measure: str
    """A logged key, such as ``fisher/trace``."""
    rule: Literal["falls", "rises"]
    """The period ends when the measure is, for the first time, below or above the one before."""


class Finetuning(_Fields):
    """A second stage at the end of every run, from the weights that the run leaves behind."""

    base: str
    """Its config file, beside the study file; its network takes the setting ``weights``."""
    set: _Settings = {}
    """Settings of its config to change."""


class StudyFile(_Fields):
    """Many runs of one config, with and without a deficit.

    Names of settings are written with dots, such as ``model.init_args.lr_scheduler``. Those that
    begin with ``deficit.``, ``window.`` or ``finetuning.`` are of the deficit, of the window or of
    the second stage's config, all others of the run's.
    """

    model_config = ConfigDict(json_schema_extra={"not": {"required": ["deficit", "window"]}})

    base: str
    """The config file of one run, beside the study file."""
    deficit: _Class = None
    """What is wrong with the senses for a while, such as ``Blur``."""
    window: _Class = None
    """Instead of a deficit, a callback with a window, such as ``RegularizationWindow``."""
    windows: Annotated[Removals | Ladder | Onsets | Adaptive, BeforeValidator(_form), _empty]
    """When the deficit is there. Every run with one has its control: as many epochs without it."""
    recovery: Annotated[dict[str, list[Any]], _empty] = {}
    """Remedies by name, each a list of callbacks that begin at the removal, from which their epochs
    are counted. All are tried on networks without a deficit, too, and compared with none."""
    finetuning: Finetuning | None = None
    """A second stage at the end of every run."""
    seeds: Annotated[
        list[Annotated[NonNegativeInt, Field(le=LARGEST_SEED)]], Field(min_length=1)
    ] = [0]
    """One run of each window for each seed."""
    set: _Settings = {}
    """Settings of the run's config to change."""
    variants: Annotated[dict[str, dict[str, Any]], _empty] = {}
    """Names for groups of settings that change together."""
    vary: Annotated[dict[str, Annotated[list[Any], Field(min_length=1)]], _empty] = {}
    """Settings and, for each, a list of values, of which all combinations are run."""
    slurm: Annotated[SlurmSettings, _empty] = SlurmSettings()
    """How jobs are submitted by ``study run --launcher slurm``."""
    packed: Annotated[PositiveInt, Field(le=60)] | None = None
    """How many paths (or segments) a job of a cluster trains side by side. Those on one GPU share
    its memory; that they fit into it together is the user's concern."""
    log_artifacts: bool = False
    """Whether the runs' last checkpoints, the plan and the tables go to Weights & Biases, too."""
    verdict: Verdict | None = None
    """The rule by which each removal of a ladder is called a scar, a lag, or undecided."""
    calibration_seeds: list[Annotated[NonNegativeInt, Field(le=LARGEST_SEED)]] = []
    """Seeds that the rule was chosen by: they are trained, too, and do not count in the verdict."""
    ends: Ends | None = None
    """A detector of the end of the critical period, for ``study predict``."""
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """The loss of final accuracy at which a critical period is said to begin: 0.01 is one point."""

    @field_validator("variants", "recovery", mode="before")
    @classmethod
    def _labels(cls, value: Any) -> Any:
        """Names as text, which numbers and dates will do for, too."""
        is_dict = isinstance(value, dict)
        return {str(label): fields for label, fields in value.items()} if is_dict else value

    @field_validator("recovery")
    @classmethod
    def _remedies(cls, value: dict[str, list[Any]]) -> dict[str, list[Any]]:
        for name, callbacks in value.items():
            if bool(callbacks) == (name == NO_REMEDY):
                what = "the baseline" if callbacks else "no callback"
                raise UserError(
                    f"recovery.{name} is {what}; leave it out: {NO_REMEDY!r} is always tried."
                )
            callbacks[:] = [
                {"class_path": one} if isinstance(one, str) else one for one in callbacks
            ]
            for one in callbacks:
                if not isinstance(one, dict) or not isinstance(one.get("class_path"), str):
                    raise UserError(f"recovery.{name} holds {one!r}; each needs a class_path.")
        return {NO_REMEDY: [], **value} if value else {}

    @field_validator("set", "variants", "vary")
    @classmethod
    def _undecided(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        verb = "setting" if info.field_name == "set" else "varying"
        for fields in value.values() if info.field_name == "variants" else [value]:
            for name in _DECIDED.keys() & fields.keys():
                way_out = f"set {_DECIDED[name]} instead"
                raise UserError(f"{verb} {name} changes nothing in a study; {way_out}.")
        return value

    @model_validator(mode="after")
    def _has_removals_to_compare(self) -> Self:
        if isinstance(self.windows, Removals):
            return self
        for name in ("recovery", "ends"):
            if getattr(self, name):
                others = {"a ladder": Ladder, "onsets": Onsets, "adaptive": Adaptive}
                has = next(word for word, form in others.items() if isinstance(self.windows, form))
                raise UserError(
                    f"{name} compares runs that go on for as many epochs after each removal, but "
                    f"windows has {has}; give windows.removal and one number as "
                    f"windows.epochs_after, and nothing else there, or leave {name} out."
                )
        return self

    @model_validator(mode="after")
    def _can_adapt(self) -> Self:
        if isinstance(self.windows, Adaptive):
            for name in _DECIDED.keys() & self.windows.adaptive.axes.keys():
                raise UserError(
                    f"windows.adaptive.{name} is no axis; set {_DECIDED[name]} instead."
                )
            for name in ("vary", "variants"):
                if getattr(self, name):
                    raise UserError(
                        f"{name} is of a study with all its runs; leave it out of one with "
                        "windows.adaptive, and give a setting that varies as an axis there."
                    )
            if "threshold" in self.model_fields_set:
                raise UserError(
                    "threshold is where a curve is said to begin, which an adaptive study has "
                    "not; set windows.adaptive.threshold alone."
                )
        return self

    @model_validator(mode="after")
    def _can_give_a_verdict(self) -> Self:
        if not isinstance(self.windows, Ladder):
            for name in ("verdict", "calibration_seeds"):
                if getattr(self, name):
                    raise UserError(
                        f"{name} is of a ladder; give windows.epochs_after as a list, and cooldown."
                    )
            return self
        rungs, rule = self.windows.epochs_after, self.verdict
        if rule is not None and len(rungs) < LEAST_RUNGS:
            raise UserError(
                f"windows.epochs_after is {rungs}; a verdict needs at least {LEAST_RUNGS} rungs."
            )
        if not set(self.seeds) - set(self.calibration_seeds):
            raise UserError("calibration_seeds holds all seeds, so that none counts; add others.")
        if rule is not None and rule.control is not None and rule.control not in self.variants:
            hint = near(rule.control, self.variants) if self.variants else "there are none."
            raise UserError(f"verdict.control is {rule.control!r}, which is no variant; {hint}")
        return self


def message(error: ValidationError) -> str:
    """One sentence for the first mistake that pydantic has found in a study file."""
    # One that is missing may be there under a misspelt name.
    first = min(error.errors(), key=lambda one: one["type"] == "missing")
    kind, value, context = first["type"], first["input"], first.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    where = first["loc"]
    if where[-1] == "int" and len(where) > 1:  # The first of two that an end of an axis may be.
        where, kind = where[:-1], "float_type"
    *owners, last = map(str, where)
    owner, name = ".".join(owners), ".".join([*owners, last])
    if kind == "missing":
        return f"the field {name!r} is missing; {owner or 'a study'} needs it."
    if kind == "extra_forbidden":
        models: dict[str, type[BaseModel]] = {
            "ends": Ends, "finetuning": Finetuning, "slurm": SlurmSettings, "verdict": Verdict,
            "windows": Adaptive, "windows.adaptive": AdaptiveSettings,
        }  # fmt: skip
        known = models.get(owner, StudyFile).model_fields
        return f"unknown field {name!r}; {near(last, known)}"
    if kind == "invalid_key" or last == "[key]":
        owner = owner if kind == "invalid_key" else ".".join(owners[:-1])
        return (
            f"{owner or 'a study'} has a field named {value!r}, which is no text; put it between "
            "quotes, as YAML takes numbers, yes, no, on and off for something else."
        )
    if name in ("base", "finetuning.base"):
        return f"{name} is {value!r}; it must name a config file."
    must = _WANTED.get(kind, first["msg"].removeprefix("Input should ")).format(**context)
    must = must.replace("at least 1 values", "at least one value")
    subject = f"{owner} holds" if isinstance(where[-1], int) else f"{name} is"
    return f"{subject} {value!r}; it must {must}."
