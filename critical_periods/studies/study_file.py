"""The fields of a study file, and one sentence for whatever is wrong with them."""

from typing import Annotated, Any, Self

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
from critical_periods.studies.schedule import Schedule
from critical_periods.studies.slurm_settings import SlurmSettings

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
    "too_short": "hold at least one value",
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


def _form(value: Any) -> Removals | Onsets:
    """The windows in that one of the two forms whose fields are there."""
    removals, onsets = set(Removals.model_fields), set(Onsets.model_fields)
    names = set(value) if isinstance(value, dict) else removals
    for name in names - removals - onsets:
        if isinstance(name, str):
            raise UserError(f"unknown field 'windows.{name}'; {near(name, removals | onsets)}")
    if names <= removals | onsets and names != removals and names | {"length"} != onsets:
        raise UserError(
            f"windows has {sorted(names)}; it needs either removal and epochs_after, or onset and "
            "epochs, and optionally length."
        )
    return (Removals if names <= removals else Onsets).model_validate(value)


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
    windows: Annotated[Removals | Onsets, BeforeValidator(_form), _empty]
    """When the deficit is there. Every run with one has its control: as many epochs without it."""
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
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """The loss of final accuracy at which a critical period is said to begin: 0.01 is one point."""

    @field_validator("variants", mode="before")
    @classmethod
    def _labels(cls, value: Any) -> Any:
        """The names of variants as text, which numbers and dates will do for, too."""
        is_dict = isinstance(value, dict)
        return {str(label): fields for label, fields in value.items()} if is_dict else value

    @field_validator("set", "variants", "vary")
    @classmethod
    def _undecided(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        verb = "setting" if info.field_name == "set" else "varying"
        for fields in value.values() if info.field_name == "variants" else [value]:
            for name in _DECIDED.keys() & fields.keys():
                way_out = f"set {_DECIDED[name]} instead"
                raise UserError(f"{verb} {name} changes nothing in a study; {way_out}.")
        return value


def message(error: ValidationError) -> str:
    """One sentence for the first mistake that pydantic has found in a study file."""
    # One that is missing may be there under a misspelt name.
    first = min(error.errors(), key=lambda one: one["type"] == "missing")
    kind, value, context = first["type"], first["input"], first.get("ctx", {})
    *owners, last = map(str, first["loc"])
    owner, name = ".".join(owners), ".".join([*owners, last])
    if kind == "value_error":
        return str(context["error"])
    if kind == "missing":
        return f"the field {name!r} is missing; {owner or 'a study'} needs it."
    if kind == "extra_forbidden":
        models: dict[str, type[BaseModel]] = {"finetuning": Finetuning, "slurm": SlurmSettings}
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
    subject = f"{owner} holds" if isinstance(first["loc"][-1], int) else f"{name} is"
    return f"{subject} {value!r}; it must {must}."
