"""What a study's configs mean, with every default filled in; and whether they can be run at all."""

import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml

from critical_periods.core.errors import UserError
from critical_periods.core.trainer import callbacks_of
from critical_periods.runs.dry_run import validate_run
from critical_periods.runs.lightning_cli import CLI
from critical_periods.studies.cadence import validate_cadence
from critical_periods.studies.configs import Config, with_weights
from critical_periods.studies.cooldown import validate_constant_rate
from critical_periods.studies.names import DATA_IGNORED, Resolved
from critical_periods.studies.remedy import begun, validate_remedy
from critical_periods.studies.roles import (
    class_at,
    is_window,
    segment_callbacks,
    validate_across_segments,
)
from critical_periods.studies.study import Study

_SWEPT = {"onset", "removal"}
# What ends a run but its epochs, and what these settings are where they do not.
_ENDS = {"max_steps": -1, "max_time": None, "fast_dev_run": False}


def resolve(study: Study) -> tuple[list[Resolved], list[Resolved]]:
    """Builds each variation once, without training it.

    Returns:
        For each variation its runs, and their second stage; none without a second stage.

    Raises:
        UserError: a class, field, value, data folder, layer or view does not exist or fit.
    """
    runs, stages = [], []
    ends = {window.epochs for window in study.windows}
    for variation in study.variations:
        try:
            config, window = study.configured(variation)
            remedy, start = study.recovery.get(variation.remedy, []), 0
            if remedy:
                validate_remedy(remedy, study.epochs_after)
                # Where it begins last stands for all: what follows is as long.
                start = max(study.remedied(variation))
                config["trainer"]["callbacks"] += begun(remedy, start)
            run, model = _resolved(config, window, ends, study.first_constant)
            if remedy:
                callbacks = run.config["trainer"]["callbacks"]
                callbacks[-len(remedy) :] = begun(callbacks[-len(remedy) :], -start)
            runs.append(run)
            finetuning = study.configured_finetuning(variation)
            if finetuning is not None:
                stages.append(_resolved_finetuning(finetuning, model))
        except UserError as error:
            if str(error).startswith(variation.name):
                raise
            raise UserError(f"{variation.name}: {error}") from error
    return runs, stages


def _resolved_finetuning(config: Config, model: pl.LightningModule) -> Resolved:
    """A second stage, built from the weights of an untrained first one: they must fit."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "pretrained.ckpt"
        torch.save({"state_dict": model.state_dict()}, checkpoint)
        try:
            ends = {config["trainer"]["max_epochs"]}
            stage, _ = _resolved(with_weights(config, checkpoint), {}, ends)
        except UserError as error:
            text = str(error).replace(str(checkpoint), "a checkpoint of the base's network")
            raise UserError(f"finetuning: {text}") from error
    del stage.config["model"]["init_args"]["network"]["init_args"]["weights"]
    return stage


def _resolved(
    config: Config, window: Config, ends: set[int], first_constant: int | None = None
) -> tuple[Resolved, pl.LightningModule]:
    for setting in sorted(_SWEPT & window.get("init_args", {}).keys()):
        raise UserError(f"window.init_args.{setting} is what windows sweeps; leave it out.")
    for setting, idle in _ENDS.items():
        if config["trainer"].get(setting) not in (None, idle):
            raise UserError(
                f"trainer.{setting}={config['trainer'][setting]} may end a run before its last "
                "epoch, which a study's runs must get to; leave it out."
            )
    if config["trainer"].get("limit_train_batches") == 0:
        raise UserError("trainer.limit_train_batches=0 trains nothing; leave it out.")
    if config["trainer"].get("barebones"):
        raise UserError("trainer.barebones=True measures nothing; leave it out.")
    callbacks = [window] if window else []
    callbacks += segment_callbacks(config["trainer"]["callbacks"])
    for callback in filter(is_window, callbacks):
        if (callback.get("init_args") or {}).get("unit", "epoch") != "epoch":
            raise UserError(
                f"the window {callback['class_path']} counts steps, but a study's segments begin "
                "and end with epochs; give it in epochs, and leave unit out."
            )
    config["trainer"]["callbacks"] = callbacks
    config["trainer"]["max_epochs"] = max(ends)
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cli = CLI(config, run=False, logger=False)
        data = cli.datamodule
        if not hasattr(data, "fingerprint"):
            raise UserError(
                f"{type(data).__name__} cannot be used in a study; it needs setup(), "
                "measurement_loader() and fingerprint() like the DataModules of critical_periods."
            )
        # Finds before training what would go wrong in it.
        validate_across_segments(callbacks_of(cli.trainer))
        validate_run(cli.trainer, cli.model, data)
        validate_cadence(cli.trainer, data, ends)
        if first_constant is not None:
            validate_constant_rate(cli.trainer, cli.model, data, first_constant, max(ends))
        fingerprint = str(data.fingerprint())
    resolved: Config = _without_nulls(
        yaml.safe_load(cli.parser.dump(cli.config, skip_validation=True))
    )
    for callback in filter(is_window, resolved["trainer"]["callbacks"]):
        # Settled by the above, and no part of what tells one segment from another.
        callback.get("init_args", {}).pop("unit", None)
    _name_data(resolved["trainer"]["callbacks"], callbacks_of(cli.trainer))
    if not window:
        return Resolved(resolved, {}, fingerprint), cli.model
    # A segment has it in its schedule, and one without a window not at all.
    window = resolved["trainer"]["callbacks"].pop(0)
    # Its default; that of removal may be null.
    if "onset" not in window.setdefault("init_args", {}):
        raise UserError(
            f"window.class_path={window['class_path']} has no onset and removal; choose a "
            "callback with a window, such as RegularizationWindow."
        )
    window["init_args"] = {n: of for n, of in window["init_args"].items() if n not in _SWEPT}
    return Resolved(resolved, window, fingerprint), cli.model


def _name_data(configs: list[Config], built: list[Any]) -> None:
    """Puts what the data of callbacks is in the place of where it lies."""
    has_data = [one for one in configs if hasattr(class_at(one["class_path"]), "fingerprint")]
    with_data = (one for one in built if hasattr(one, "fingerprint"))
    for config, callback in zip(has_data, with_data, strict=True):
        settings = config["init_args"]
        for data in [settings["data"]] if "data" in settings else settings["datasets"].values():
            kept = data.get("init_args", {}).items()
            data["init_args"] = {name: of for name, of in kept if name not in DATA_IGNORED}
        settings["fingerprint"] = callback.fingerprint()


def _without_nulls(config: Any) -> Any:
    """A config without fields that are null, which jsonargparse's versions write or leave out."""
    if isinstance(config, list):
        return [_without_nulls(part) for part in config]
    if isinstance(config, dict):
        return {name: _without_nulls(part) for name, part in config.items() if part is not None}
    return config
