"""A study file: which runs to make of which base run."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from critical_periods.core.errors import UserError, near
from critical_periods.core.randomness import LARGEST_SEED
from critical_periods.runs.config_files import parse_yaml, read_yaml

Tree = dict[str, Any]

_FIELDS = (
    "base", "deficit", "window", "windows", "finetuning", "seeds", "set", "variants", "vary",
    "threshold",
)  # fmt: skip
_REMOVALS = ("removal", "epochs_after")
_ONSETS = ("onset", "length", "epochs")
# What belongs to a study itself; all other fields that are set are of the run.
_SCHEDULED = ("deficit", "window")
_FINETUNING = "finetuning"
_STAGE_FIELDS = ("base", "set")


class Window(NamedTuple):
    """A run of ``epochs`` with a deficit from epoch onset to removal - 1; onset = removal: none."""

    onset: int
    removal: int
    epochs: int


class Variation(NamedTuple):
    """What sets some runs of a study apart from others.

    Attributes:
        columns: what the results call it: ``variant`` and every varied field with its value.
        fields: the settings, by their names with dots.
    """

    columns: dict[str, Any]
    fields: dict[str, Any]

    @property
    def name(self) -> str:
        """What messages call it; empty where a study has but one."""
        return ", ".join(f"{column} {value!r}" for column, value in self.columns.items())


@dataclass(frozen=True)
class Study:
    """One base run and one deficit, with many windows, seeds and settings.

    Attributes:
        name: the file's name without its ending.
        base: the run's config, with ``set`` applied.
        scheduled: ``deficit``, a deficit as a config (``class_path``, ``init_args``), or
            ``window``, a callback that takes an onset and a removal, such as
            ``RegularizationWindow``; neither, where the variants say it.
        windows: the windows with a deficit, and every one's control: no deficit, as many epochs.
        seeds: one run of each window for each seed.
        variations: each combination of a variant and of the varied fields' values.
        threshold: the loss of final accuracy at which a critical period is said to begin.
        base_file: where the base config was read.
        finetuning: the config of the second stage that ends every run, or ``None``: anew, without
            a deficit, from the weights that the run leaves behind.
    """

    name: str
    base: Tree
    scheduled: Tree
    windows: tuple[Window, ...]
    seeds: tuple[int, ...]
    variations: tuple[Variation, ...] = field(default=(Variation({}, {}),))
    threshold: float = 0.01
    base_file: Path = Path()
    finetuning: Tree | None = None

    def configured(self, variation: Variation) -> tuple[Tree, Tree]:
        """The run's config, with a list of callbacks, and the window's callback, of a variation.

        Raises:
            UserError: a field cannot be set, the callbacks are not a list of classes, or there is
                not one deficit or window.
        """
        scheduled, base = copy.deepcopy(self.scheduled), copy.deepcopy(self.base)
        for name, value in variation.fields.items():
            first = name.split(".")[0]
            if first != _FINETUNING:
                _assign(scheduled if first in _SCHEDULED else base, name, copy.deepcopy(value))
        return _with_callbacks(base), _window_callback(scheduled, variation)

    def configured_finetuning(self, variation: Variation) -> Tree | None:
        """The second stage's config, with a list of callbacks, of a variation.

        Raises:
            UserError: a field cannot be set, the epochs are not said, or the callbacks are not a
                list of classes.
        """
        tree = copy.deepcopy(self.finetuning)
        for name, value in variation.fields.items():
            first, _, rest = name.partition(".")
            if first == _FINETUNING:
                if tree is None:
                    raise UserError(f"{name} is varied, but the study has no finetuning.")
                _assign(tree, rest, copy.deepcopy(value))
        if tree is None:
            return None
        tree = _with_callbacks(tree)
        where = f"{_FINETUNING}: trainer.max_epochs"
        _whole_number(tree["trainer"].get("max_epochs"), where, least=1)
        return tree


def with_weights(config: Tree, path: Path) -> Tree:
    """A second stage's config whose network starts from the weights in a file.

    Raises:
        UserError: the config has no network by its class.
    """
    config = copy.deepcopy(config)
    network: Any = config
    for name in ("model", "init_args", "network"):
        network = network.get(name) if isinstance(network, dict) else None
    if not isinstance(network, dict) or "class_path" not in network:
        raise UserError("model.init_args.network.class_path is missing; name the network's class.")
    network["init_args"] = {**(network.get("init_args") or {}), "weights": str(path)}
    return config


def _with_callbacks(tree: Tree) -> Tree:
    trainer = _mapping(tree, "trainer")
    callbacks = _callbacks(trainer.get("callbacks"))
    return {**tree, "trainer": {**trainer, "callbacks": callbacks}}


def _window_callback(scheduled: Tree, variation: Variation) -> Tree:
    if len(scheduled) != 1:
        found = "both a deficit and a window" if scheduled else "neither a deficit nor a window"
        raise UserError(f"{variation.name or 'the study'} has {found}; give one of them.")
    ((kind, tree),) = scheduled.items()
    if not isinstance(tree, dict) or not isinstance(tree.get("class_path"), str):
        example = "a deficit, such as Blur" if kind == "deficit" else "a callback with a window"
        raise UserError(f"{kind}.class_path is missing; it names {example}.")
    if kind == "window":
        return {"class_path": tree["class_path"], "init_args": dict(_mapping(tree, "init_args"))}
    return {"class_path": "DeficitWindow", "init_args": {"deficit": tree}}


def read_study(path: Path, overrides: Sequence[str] = ()) -> Study:
    """Reads a study file.

    Its fields: ``base``, the config file of one run, beside the study file; ``deficit``, or
    ``window`` for another callback with an onset and a removal; ``windows``, either ``{removal:
    [...], epochs_after: n}`` (a deficit from epoch 0 to each removal, then n clean epochs) or
    ``{onset: [...], length: n, epochs: m}`` (a deficit of n epochs, or of each of a list of
    lengths, from each onset, m epochs in all; to the end without a length); ``seeds``; optionally
    ``set``, fields of the base config to change; ``finetuning``, a second stage at the end of every
    run: its ``base``, a config file whose network has the setting ``weights``, which is given the
    run's last checkpoint, and its ``set``; ``variants``, names for groups of fields that change
    together; ``vary``, fields to try with each of a list of values; and ``threshold``, the loss of
    final accuracy at which a critical period is said to begin (0.01, one point). Fields are
    written with dots: ``model.init_args.lr_scheduler``; ``deficit.…``, ``window.…`` and
    ``finetuning.…`` name fields of the deficit, of the window and of the second stage's config.

    Args:
        path: of the YAML file.
        overrides: ``field=value`` from the command line, of the study or of the base config.

    Raises:
        UserError: a file or field is missing, unknown or of the wrong form.
    """
    tree = read_yaml(path)
    changes = {}
    for override in overrides:
        name, separator, value = override.partition("=")
        if not separator:
            raise UserError(f"--set {override!r} must have the form field=value.")
        first, _, rest = name.partition(".")
        parsed = parse_yaml(value, f"--set {override!r}")
        if first in ("set", "variants", "vary") and rest:
            # What these hold is named with dots itself.
            tree[first] = _mapping(tree, first) | {rest: parsed}
        elif first == _FINETUNING and rest and rest not in _STAGE_FIELDS:
            stage = _mapping(tree, first)
            tree[first] = {**stage, "set": {**_mapping(stage, "set"), rest: parsed}}
        elif first in _FIELDS:
            _assign(tree, name, parsed)
        else:
            changes[name] = parsed
    unknown = [name for name in tree if name not in _FIELDS]
    if unknown:
        raise UserError(f"{path}: unknown field {unknown[0]!r}; {near(str(unknown[0]), _FIELDS)}")
    missing = [name for name in ("base", "windows") if name not in tree]
    if missing:
        raise UserError(f"{path}: the field {missing[0]!r} is missing; a study needs it.")
    try:
        if not isinstance(tree["base"], str):
            raise UserError(f"base is {tree['base']!r}; it names the config file of a run.")
        base_file = path.parent / tree["base"]
        base = read_yaml(base_file)
        for name, value in {**_mapping(tree, "set"), **changes}.items():
            _look_if_settled(name, "setting")
            _assign(base, name, value)
        return Study(
            name=path.stem,
            base=base,
            scheduled={name: tree[name] for name in _SCHEDULED if name in tree},
            windows=_windows(_mapping(tree, "windows")),
            seeds=_seeds(tree.get("seeds", [0])),
            variations=_variations(_mapping(tree, "variants"), _mapping(tree, "vary")),
            threshold=_threshold(tree.get("threshold", 0.01)),
            base_file=base_file,
            finetuning=_finetuning(tree, path),
        )
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _finetuning(tree: Tree, path: Path) -> Tree | None:
    if tree.get(_FINETUNING) is None:
        return None
    stage = _mapping(tree, _FINETUNING)
    for name in stage:
        if name not in _STAGE_FIELDS:
            raise UserError(f"unknown field '{_FINETUNING}.{name}'; {near(name, _STAGE_FIELDS)}")
    if "base" not in stage:
        raise UserError(f"{_FINETUNING}.base is missing; it names the second stage's config file.")
    try:
        config = read_yaml(path.parent / str(stage["base"]))
        for name, value in _mapping(stage, "set").items():
            _assign(config, name, value)
    except UserError as error:
        raise UserError(f"{_FINETUNING}: {error}") from error
    return config


def _windows(tree: Tree) -> tuple[Window, ...]:
    unknown = [name for name in tree if name not in _REMOVALS + _ONSETS]
    if unknown:
        known = _REMOVALS + _ONSETS
        raise UserError(f"unknown field 'windows.{unknown[0]}'; {near(unknown[0], known)}")
    if set(tree) == set(_REMOVALS):
        after = _whole_number(tree["epochs_after"], "windows.epochs_after", least=1)
        removals = _whole_numbers(tree["removal"], "windows.removal")
        deficits = [Window(0, removal, removal + after) for removal in removals]
    elif set(tree) | {"length"} == set(_ONSETS):
        epochs = _whole_number(tree["epochs"], "windows.epochs", least=1)
        onsets = _whole_numbers(tree["onset"], "windows.onset")
        lengths = tree.get("length")
        if lengths is None:
            deficits = [Window(onset, epochs, epochs) for onset in onsets]
        else:
            lengths = lengths if isinstance(lengths, list) else [lengths]
            lengths = _whole_numbers(lengths, "windows.length", least=1)
            deficits = [
                Window(onset, onset + length, epochs) for length in lengths for onset in onsets
            ]
        late = [one for one in deficits if one.removal > epochs or one.onset >= epochs]
        if late:
            raise UserError(
                f"the window of windows.onset={late[0].onset} to epoch {late[0].removal} reaches "
                f"beyond the last epoch, windows.epochs={epochs}."
            )
    else:
        raise UserError(
            f"windows has {sorted(tree)}; it needs either removal and epochs_after, or onset and "
            "epochs, and optionally length."
        )
    controls = [Window(0, 0, window.epochs) for window in deficits]
    return tuple(dict.fromkeys([*deficits, *controls]))


# What a study itself says of its runs, and where.
_SETTLED = {"seed_everything": "seeds", "trainer.max_epochs": "windows"}


def _variations(variants: Tree, vary: Tree) -> tuple[Variation, ...]:
    for label, fields in variants.items():
        if not isinstance(fields, dict):
            raise UserError(f"variants.{label} is {fields!r}; it must hold fields and values.")
        _named(fields, f"variants.{label}")
    for name, values in vary.items():
        if not isinstance(values, list) or not values:
            raise UserError(f"vary.{name} is {values!r}; it must be a list of values.")
    for name in [*vary, *(name for fields in variants.values() for name in fields)]:
        _look_if_settled(name, "varying")
    groups = [({"variant": str(label)}, fields) for label, fields in variants.items()]
    variations = []
    for columns, fields in groups or [({}, {})]:
        for values in itertools.product(*vary.values()):
            varied = dict(zip(vary, values, strict=True))
            variation = Variation({**columns, **varied}, {**fields, **varied})
            # A value that is there twice, such as 0.05 and 5e-2, is one.
            if variation not in variations:
                variations.append(variation)
    return tuple(variations)


def _look_if_settled(name: str, what: str) -> None:
    if name in _SETTLED:
        raise UserError(f"{what} {name} changes nothing in a study; set {_SETTLED[name]} instead.")


def _threshold(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
        raise UserError(f"threshold is {value!r}; it must be a loss of accuracy between 0 and 1.")
    return float(value)


def _assign(tree: Tree, name: str, value: Any) -> None:
    *parents, last = name.split(".")
    for depth, parent in enumerate(parents):
        inner: Any = tree.get(parent)
        if inner is None:
            inner = tree[parent] = {}
        if not isinstance(inner, dict):
            where = ".".join(parents[: depth + 1])
            raise UserError(f"the field {name!r} cannot be set: {where} holds no fields.")
        tree = inner
    tree[last] = value


def _callbacks(value: Any) -> list[Tree]:
    """The callbacks of a config, each with a ``class_path``; one alone or a bare name will do."""
    found = [] if value is None else value if isinstance(value, list) else [value]
    callbacks = [{"class_path": one} if isinstance(one, str) else one for one in found]
    for callback in callbacks:
        if not isinstance(callback, dict) or not isinstance(callback.get("class_path"), str):
            raise UserError(f"trainer.callbacks holds {callback!r}; each one needs a class_path.")
    return callbacks


def _mapping(tree: Tree, name: str) -> Tree:
    value = tree.get(name) or {}
    if not isinstance(value, dict):
        raise UserError(f"{name} is {value!r}; it must hold fields.")
    # The names of variants are what anyone likes.
    return value if name == "variants" else _named(value, name)


def _named(tree: Tree, where: str) -> Tree:
    """The fields, all of which have a text as their name."""
    strange = [name for name in tree if not isinstance(name, str)]
    if strange:
        raise UserError(
            f"{where} has a field named {strange[0]!r}, which is no text; YAML takes numbers, yes, "
            "no, on and off for something else, so put a name like that between quotes."
        )
    return tree


def _whole_numbers(value: Any, name: str, least: int = 0) -> tuple[int, ...]:
    if not isinstance(value, list) or not value:
        raise UserError(f"{name} is {value!r}; it must be a list of whole numbers.")
    numbers = [_whole_number(number, name, least) for number in value]
    return tuple(dict.fromkeys(numbers))


def _seeds(value: Any) -> tuple[int, ...]:
    seeds = _whole_numbers(value, "seeds")
    if max(seeds) > LARGEST_SEED:
        raise UserError(f"seeds holds {max(seeds)}; the largest seed is {LARGEST_SEED}.")
    return seeds


def _whole_number(value: Any, name: str, least: int = 0) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UserError(f"{name} holds {value!r}; it must be a whole number of at least {least}.")
    return value
