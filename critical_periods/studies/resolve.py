"""What a study's configs mean, with every default filled in; and whether they can be run at all."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import yaml

from critical_periods.callbacks import DeficitWindow
from critical_periods.cli import CLI
from critical_periods.errors import UserError
from critical_periods.studies.study import Study, Tree
from critical_periods.studies.tree import without_watchers


def resolve(study: Study) -> tuple[list[tuple[Tree, Tree]], list[str]]:
    """Builds each variation once, without training it.

    Returns:
        For each variation the config and the window with all defaults, and the hash of its data.

    Raises:
        UserError: a class, field, value, data folder, layer or view does not exist or fit.
    """
    resolved, fingerprints = [], []
    for variation in study.variations:
        config, window = study.configured(variation)
        for setting in ("onset", "removal"):
            if setting in window["init_args"]:
                raise UserError(f"window.init_args.{setting} is what windows sweeps; leave it out.")
        callbacks = without_watchers(config["trainer"]["callbacks"])
        config["trainer"]["callbacks"] = [window, *callbacks]
        config["trainer"]["max_epochs"] = max(window.epochs for window in study.windows)
        for name in ("pytorch_lightning", "lightning_fabric"):
            logging.getLogger(name).setLevel(logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cli = CLI(config, run=False, logger=False)
            fingerprints.append(_check(cli))
        tree: Tree = _without_nulls(yaml.safe_load(cli.parser.dump(cli.config)))
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
        resolved.append((tree, window))
    return resolved, fingerprints


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
