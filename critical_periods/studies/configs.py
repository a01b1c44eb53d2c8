"""Configs of runs as a study changes them: dictionaries as YAML gives them."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from critical_periods.core.errors import UserError

Config = dict[str, Any]


def assign(config: Config, path: Sequence[str], value: Any) -> None:
    """Sets one field of a config, at the end of a path of names.

    Raises:
        UserError: something on the path holds no fields.
    """
    *parents, last = path
    for depth, parent in enumerate(parents):
        if config.get(parent) is None:
            config[parent] = {}
        if not isinstance(config[parent], dict):
            where = ".".join(parents[: depth + 1])
            raise UserError(f"the field {'.'.join(path)!r} cannot be set: {where} holds no fields.")
        config = config[parent]
    config[last] = value


def changed(config: Config, fields: Mapping[str, Any]) -> Config:
    """A copy of a config with some fields set, as by :func:`assign`, which are named with dots.

    Example:
        >>> changed({"trainer": None}, {"trainer.devices": 2, "model.init_args": {}})
        {'trainer': {'devices': 2}, 'model': {'init_args': {}}}
    """
    config, fields = copy.deepcopy((config, fields))
    for name, value in fields.items():
        assign(config, name.split("."), value)
    return config


def with_callbacks(config: Config) -> Config:
    """The config with its callbacks as a list, each with a ``class_path``.

    As Lightning's command line has it, one alone or a bare name will do.

    Raises:
        UserError: the trainer holds no fields, or a callback is no class.
    """
    trainer = _fields(config, "trainer")
    found = trainer.get("callbacks")
    found = found if isinstance(found, list) else [] if found is None else [found]
    callbacks = [{"class_path": one} if isinstance(one, str) else one for one in found]
    for callback in callbacks:
        if not isinstance(callback, dict) or not isinstance(callback.get("class_path"), str):
            raise UserError(f"trainer.callbacks holds {callback!r}; each one needs a class_path.")
    return {**config, "trainer": {**trainer, "callbacks": callbacks}}


def with_precision(config: Config) -> Config:
    """The config with what ``trainer.precision: auto`` means on this machine in its place."""
    if config["trainer"].get("precision") != "auto":
        return config
    # A study is read where there is no torch, too.
    from critical_periods.runs.precision import resolved_precision

    trainer = config["trainer"]
    return {**config, "trainer": {**trainer, "precision": resolved_precision(trainer)}}


def window_callback(scheduled: Config, owner: str) -> Config:
    """The callback of a study's or variation's ``deficit`` or ``window``, by this name.

    Raises:
        UserError: the owner has both or neither, or what it has is no class.
    """
    if len(scheduled) != 1:
        found = "both a deficit and a window" if scheduled else "neither a deficit nor a window"
        raise UserError(f"{owner} has {found}; give one of them.")
    ((kind, config),) = scheduled.items()
    if not isinstance(config, dict) or not isinstance(config.get("class_path"), str):
        example = "a deficit, such as Blur" if kind == "deficit" else "a callback with a window"
        raise UserError(f"{kind}.class_path is missing; it names {example}.")
    if kind == "deficit":
        course = {name: config[name] for name in config if name == "strength"}
        deficit = {name: config[name] for name in config if name != "strength"}
        return {"class_path": "DeficitWindow", "init_args": {"deficit": deficit, **course}}
    return {"class_path": config["class_path"], "init_args": dict(_fields(config, "init_args"))}


def is_pretraining(window: Config) -> bool:
    """Whether a window, by its config, is one of epochs on another data set.

    Example:
        >>> is_pretraining({"class_path": "SourceWindow"}), is_pretraining({})
        (True, False)
    """
    return str(window.get("class_path")).rpartition(".")[2] == "SourceWindow"


def with_weights(config: Config, path: Path) -> Config:
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


def _fields(config: Config, name: str) -> Config:
    fields = config.get(name) or {}
    if not isinstance(fields, dict):
        raise UserError(f"{name} is {fields!r}; it must hold fields.")
    return fields
