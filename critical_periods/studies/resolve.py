"""What a study's configs mean, with every default filled in; and whether they can be run at all."""

from __future__ import annotations

import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml

from critical_periods.callbacks import DeficitWindow
from critical_periods.cli import CLI
from critical_periods.errors import UserError
from critical_periods.studies.study import Study, Tree, with_weights
from critical_periods.studies.tree import Resolved, without_watchers


def resolve(study: Study) -> tuple[list[Resolved], list[Resolved]]:
    """Builds each variation once, without training it.

    Returns:
        For each variation its runs, and their second stage; none without a second stage.

    Raises:
        UserError: a class, field, value, data folder, layer or view does not exist or fit.
    """
    runs, stages = [], []
    epochs = max(window.epochs for window in study.windows)
    for variation in study.variations:
        config, window = study.configured(variation)
        run, model = _resolved(config, window, epochs)
        runs.append(run)
        finetuning = study.configured_finetuning(variation)
        if finetuning is not None:
            stages.append(_resolved_finetuning(finetuning, model))
    return runs, stages


def _resolved_finetuning(config: Tree, model: pl.LightningModule) -> Resolved:
    """A second stage, built from the weights of an untrained first one: they must fit."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "pretrained.ckpt"
        torch.save({"state_dict": model.state_dict()}, checkpoint)
        try:
            epochs = config["trainer"]["max_epochs"]
            stage, _ = _resolved(with_weights(config, checkpoint), {}, epochs)
        except UserError as error:
            text = str(error).replace(str(checkpoint), "a checkpoint of the base's network")
            raise UserError(f"finetuning: {text}") from error
    del stage.config["model"]["init_args"]["network"]["init_args"]["weights"]
    return stage


def _resolved(config: Tree, window: Tree, epochs: int) -> tuple[Resolved, pl.LightningModule]:
    if window:
        for setting in ("onset", "removal"):
            if setting in window["init_args"]:
                raise UserError(f"window.init_args.{setting} is what windows sweeps; leave it out.")
    callbacks = without_watchers(config["trainer"]["callbacks"])
    config["trainer"]["callbacks"] = [window, *callbacks] if window else callbacks
    config["trainer"]["max_epochs"] = epochs
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cli = CLI(config, run=False, logger=False)
        fingerprint = _check(cli)
    tree: Tree = _without_nulls(yaml.safe_load(cli.parser.dump(cli.config)))
    if not window:
        return Resolved(tree, {}, fingerprint), cli.model
    # A segment has it in its schedule, and one without a window not at all.
    window = tree["trainer"]["callbacks"].pop(0)
    # Its default; that of removal may be null.
    if "onset" not in window.setdefault("init_args", {}):
        raise UserError(
            f"window.class_path={window['class_path']} has no onset and removal; choose a "
            "callback with a window, such as RegularizationWindow."
        )
    for setting in ("onset", "removal"):
        window["init_args"].pop(setting, None)
    return Resolved(tree, window, fingerprint), cli.model


def _check(cli: CLI) -> str:
    """Finds before training what would go wrong in it; returns the data's fingerprint."""
    data, trainer, model = cli.datamodule, cli.trainer, cli.model
    if not hasattr(data, "fingerprint"):
        raise UserError(
            f"{type(data).__name__} cannot be used in a study; it needs setup(), "
            "measurement_loader() and fingerprint() like the DataModules of critical_periods."
        )
    data.prepare_data()
    data.setup("fit")
    trainer.datamodule = data  # type: ignore[attr-defined]
    if _is_ours(model):
        model.trainer = trainer
        model.setup("fit")
        trainer.strategy.connect(model)
        trainer.strategy.setup_optimizers(trainer)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if _is_ours(callback):
            callback.setup(trainer, model, "fit")
            callback.on_fit_start(trainer, model)
        if isinstance(callback, DeficitWindow):
            draw = next(iter(data.measurement_loader("train", 2)))
            images = data.transfer_batch_to_device(draw, model.device, 0)
            callback.deficit.check(data.on_after_batch_transfer(images, 0))
    return str(data.fingerprint())


def _without_nulls(tree: Any) -> Any:
    """A config without fields that are null, which jsonargparse's versions write or leave out."""
    if isinstance(tree, list):
        return [_without_nulls(part) for part in tree]
    if isinstance(tree, dict):
        return {name: _without_nulls(part) for name, part in tree.items() if part is not None}
    return tree


def _is_ours(part: object) -> bool:
    """Whether a class is of this package, so that it is known what its ``setup`` does."""
    return type(part).__module__.startswith("critical_periods.")
