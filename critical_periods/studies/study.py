"""A study: the runs that a study file describes, and their configs."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from critical_periods.core.errors import UserError
from critical_periods.runs.config_files import parse_yaml, read_yaml
from critical_periods.studies import configs
from critical_periods.studies.adaptive_settings import Adaptive, AdaptiveSettings
from critical_periods.studies.configs import Config, assign, changed
from critical_periods.studies.design import Design
from critical_periods.studies.schedule import Schedule
from critical_periods.studies.slurm_settings import SlurmSettings
from critical_periods.studies.study_file import (
    Ends,
    Finetuning,
    Ladder,
    Removals,
    StudyFile,
    message,
)

# What settings of a study's own begin with; all others are of the run.
_SCHEDULED = ("deficit", "window")
_FINETUNING = "finetuning"
# What these hold is named with dots itself.
_OF_DOTTED = ("set", "variants", "vary", "windows.adaptive.distribution", "windows.adaptive")


class Variation(NamedTuple):
    """What sets some runs of a study apart from others.

    Attributes:
        columns: what the results call it: ``variant`` and every varied field with its value.
        fields: the settings, by their names with dots.
        remedy: the name of what begins at the removal; '' where the study compares none.
    """

    columns: dict[str, Any]
    fields: dict[str, Any]
    remedy: str = ""

    @property
    def name(self) -> str:
        """What messages call it; empty where a study has but one."""
        return ", ".join(f"{column} {value!r}" for column, value in self.columns.items())

    def of(self, *parts: str) -> dict[str, Any]:
        """The settings of some parts of a study: the first of their names with dots."""
        return {n: value for n, value in self.fields.items() if n.partition(".")[0] in parts}


@dataclass(frozen=True)
class Study:
    """One base run and one deficit, with many windows, seeds and settings.

    Attributes:
        name: the file's name without its ending.
        base: the run's config, with ``set`` applied.
        scheduled: ``deficit``, a deficit as a config (``class_path``, ``init_args``), or
            ``window``, a callback that takes an onset and a removal, such as
            ``RegularizationWindow``; neither, where the variants say it.
        windows: the runs with a deficit, and every one's control: no deficit, as many epochs; of a
            ``SourceWindow``, a second one of as many epochs on the target, too.
        seeds: one run of each window for each seed.
        variations: each combination of a variant and of the varied fields' values.
        threshold: the loss of final accuracy at which a critical period is said to begin.
        base_file: where the base config was read.
        finetuning: the config of the second stage that ends every run, or ``None``: anew, without
            a deficit, from the weights that the run leaves behind.
        slurm: how jobs are submitted on a cluster.
        log_artifacts: whether checkpoints, plan and tables go to Weights & Biases, too.
        packed: how many paths a job of a cluster trains side by side; ``None``: one.
        design: of a ladder, ``None`` of any other study.
        recovery: the callbacks of each remedy, with epochs counted from the removal.
        epochs_after: how many epochs follow each removal, where there are remedies.
        ends: a detector of the end of the critical period, if it has one.
        adaptive: of a study that chooses its runs itself, which has no windows but the control.
    """

    name: str
    base: Config
    scheduled: Config
    windows: tuple[Schedule, ...]
    seeds: tuple[int, ...]
    variations: tuple[Variation, ...] = (Variation({}, {}),)
    threshold: float = 0.01
    base_file: Path = Path()
    finetuning: Config | None = None
    slurm: SlurmSettings = field(default_factory=SlurmSettings)
    log_artifacts: bool = False
    packed: int | None = None
    design: Design | None = None
    recovery: dict[str, list[Config]] = field(default_factory=dict)
    epochs_after: int = 0
    ends: Ends | None = None
    adaptive: AdaptiveSettings | None = None

    def remedied(self, variation: Variation) -> dict[int, tuple[Schedule, ...]]:
        """The windows of a variation by the epoch in which its remedy begins; 0: it has none.

        In runs without a deficit the remedy begins where it does in those with one.
        """
        if not self.recovery.get(variation.remedy):
            return {0: self.windows}
        found: dict[int, tuple[Schedule, ...]] = {}
        for window in self.windows:
            start = window.epochs - self.epochs_after
            found[start] = (*found.get(start, ()), window)
        return found

    @property
    def cuts(self) -> set[int]:
        """Epochs in which remedies leave the runs without one."""
        return {run.epochs - self.epochs_after for run in self.windows} if self.recovery else set()

    @property
    def cooldown(self) -> int:
        """Over how many epochs the learning rate of each run goes to zero at its end."""
        return 0 if self.design is None else self.design.cooldown

    @property
    def first_constant(self) -> int | None:
        """The epoch from which on the rate of a ladder's runs must not change by itself."""
        if self.design is None:
            return None
        earliest = self.design.epochs_after[0] - self.design.cooldown
        return min(removal or earliest for removal in self.design.removal)

    def configured(self, variation: Variation) -> tuple[Config, Config]:
        """The run's config, with a list of callbacks, and the window's callback, of a variation.

        Raises:
            UserError: a field cannot be set, the callbacks are not a list of classes, or there is
                not one deficit or window.
        """
        owned = variation.of(*_SCHEDULED, _FINETUNING)
        fields = {n: value for n, value in variation.fields.items() if n not in owned}
        base = changed(self.base, fields)
        scheduled = changed(self.scheduled, variation.of(*_SCHEDULED))
        owner = variation.name or "the study"
        window = configs.window_callback(scheduled, owner)
        self._settle_strength(window["init_args"].get("strength"))
        return configs.with_precision(configs.with_callbacks(base)), window

    def _settle_strength(self, course: Any) -> None:
        """Has a strength change over so many epochs as the windows have, in each segment alike."""
        if not isinstance(course, dict) or "epochs" in course:
            return
        lengths = {window.removal - window.onset for window in self.windows} - {0}
        if len(lengths) > 1:
            raise UserError(
                f"strength changes over the deficit, which lasts {sorted(lengths)} epochs in turn, "
                "so that its runs would share no beginnings; set strength.epochs."
            )
        course["epochs"] = max(lengths, default=1)

    def configured_finetuning(self, variation: Variation) -> Config | None:
        """The second stage's config, with a list of callbacks, of a variation.

        Raises:
            UserError: as :meth:`configured`, or the epochs are not said.
        """
        fields = variation.of(_FINETUNING)
        if self.finetuning is None:
            for name in fields:
                raise UserError(f"{name} is varied, but the study has no finetuning.")
            return None
        config = changed({_FINETUNING: self.finetuning}, fields)[_FINETUNING]
        config = configs.with_precision(configs.with_callbacks(config))
        epochs = config["trainer"].get("max_epochs")
        if type(epochs) is not int or epochs < 1:
            must = "it must be a whole number of at least 1."
            raise UserError(f"{_FINETUNING}: trainer.max_epochs is {epochs!r}; {must}")
        return config


def read_study(path: Path, overrides: Sequence[str] = ()) -> Study:
    """Reads a study file, whose fields :class:`~critical_periods.studies.study_file.StudyFile` has.

    ``field=value`` overrides one of the study or of the base config, as on the command line.

    Raises:
        UserError: a file or field is missing, unknown or of the wrong form.
    """
    fields = read_yaml(path)
    changes = {}
    for override in overrides:
        name, separator, text = override.partition("=")
        if not separator:
            raise UserError(f"--set {override!r} must have the form field=value.")
        first, _, rest = name.partition(".")
        value = parse_yaml(text, f"--set {override!r}")
        if first not in StudyFile.model_fields:
            changes[name] = value
        elif holder := next((one for one in _OF_DOTTED if name.startswith(f"{one}.")), None):
            assign(fields, [*holder.split("."), name.removeprefix(f"{holder}.")], value)
        elif first == _FINETUNING and rest and rest not in Finetuning.model_fields:
            assign(fields, [first, "set", rest], value)
        else:
            assign(fields, name.split("."), value)
    for name, value in changes.items():
        assign(fields, ["set", name], value)
    try:
        file = StudyFile.model_validate(fields)
        adaptive = file.windows.adaptive if isinstance(file.windows, Adaptive) else None
        deficits = file.windows.schedules()
        controls = [Schedule(0, 0, schedule.epochs) for schedule in deficits]
        owners = [fields, *file.variants.values()]
        if any(configs.is_pretraining(of.get("window") or {}) for of in owners):
            # As many epochs on the target, too.
            controls += [Schedule(0, 0, one.outside) for one in deficits if one.outside]
        base_file = path.parent / file.base
        return Study(
            name=path.stem,
            base=changed(read_yaml(base_file), file.set),
            scheduled={name: fields[name] for name in _SCHEDULED if name in fields},
            windows=tuple(dict.fromkeys([*deficits, *controls])),
            seeds=tuple(dict.fromkeys([*file.seeds, *file.calibration_seeds])),
            variations=_variations(file.variants, file.vary, file.recovery),
            threshold=file.threshold,
            base_file=base_file,
            finetuning=_read_finetuning(file.finetuning, path.parent),
            slurm=file.slurm,
            log_artifacts=file.log_artifacts,
            packed=file.packed,
            design=_design(file),
            recovery=file.recovery,
            epochs_after=file.windows.epochs_after if isinstance(file.windows, Removals) else 0,
            ends=file.ends,
            adaptive=adaptive,
        )
    except (UserError, ValidationError) as error:
        text = message(error) if isinstance(error, ValidationError) else str(error)
        raise UserError(f"{path}: {text}") from error


def _design(file: StudyFile) -> Design | None:
    if not isinstance(file.windows, Ladder):
        return None
    aside = set(file.calibration_seeds)
    return Design(
        tuple(dict.fromkeys(file.windows.removal)),
        tuple(file.windows.epochs_after),
        file.windows.cooldown,
        tuple(sorted(set(file.seeds) - aside)),
        tuple(sorted(aside)),
        **({} if file.verdict is None else file.verdict.model_dump()),
    )


def _read_finetuning(stage: Finetuning | None, folder: Path) -> Config | None:
    try:
        return None if stage is None else changed(read_yaml(folder / stage.base), stage.set)
    except UserError as error:
        raise UserError(f"{_FINETUNING}: {error}") from error


def _variations(
    variants: Mapping[str, Config], vary: Mapping[str, Sequence[Any]], recovery: Iterable[str]
) -> tuple[Variation, ...]:
    groups = [({"variant": label}, fields) for label, fields in variants.items()] or [({}, {})]
    variations: list[Variation] = []
    for (columns, fields), *values in itertools.product(groups, *vary.values()):
        varied = dict(zip(vary, values, strict=True))
        variation = Variation({**columns, **varied}, {**fields, **varied})
        # A value that is there twice, such as 0.05 and 5e-2, is one.
        if variation not in variations:
            variations.append(variation)
    remedied = [
        Variation({**one.columns, "remedy": name}, one.fields, name)
        for one in variations
        for name in recovery
    ]
    return tuple(remedied or variations)
