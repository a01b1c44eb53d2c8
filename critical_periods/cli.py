"""The command line: ``critical-periods fit|validate|test|predict`` and ``critical-periods study``."""

from __future__ import annotations

import argparse
import inspect
import logging
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from jsonargparse import ArgumentParser, Namespace
from pytorch_lightning.cli import ArgsType, LightningCLI
from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from requests.utils import get_netrc_auth

from critical_periods import callbacks, data, deficits, models, tasks
from critical_periods.errors import UserError, near

_ROOMS = (callbacks, data, deficits, models, tasks)


class CLI(LightningCLI):
    """LightningCLI with this package's classes by their short names, and errors in one sentence.

    Without a ``trainer.logger`` of its own a run logs to CSV and to Weights & Biases, both under
    ``trainer.default_root_dir`` (``runs`` by default).

    Args:
        args: a whole config as a dict, or a list of command-line words; by default ``sys.argv``.
        run: whether to run the subcommand, or just to build what it needs.
        logger: used instead of what the config says; ``False`` for none.

    Raises:
        UserError: the config or the command line names something that does not exist.
    """

    def __init__(
        self, args: ArgsType = None, run: bool = True, logger: Logger | bool | None = None
    ) -> None:
        self._logger = logger
        super().__init__(
            pl.LightningModule,
            pl.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            save_config_kwargs={"overwrite": True},
            seed_everything_default=0,
            parser_kwargs={"exit_on_error": False},
            args=args,
            run=run,
        )

    def add_arguments_to_parser(self, parser: ArgumentParser) -> None:
        """Adds what a run's bits depend on beside the trainer, the model and the data."""
        parser.add_argument(
            "--num_threads",
            type=int | None,
            default=None,
            help="CPU threads of this run; sums, and so bits, depend on it. All cores by default.",
        )

    def parse_arguments(self, parser: ArgumentParser, args: ArgsType) -> None:
        """Reads the config; any mistake in it becomes one sentence."""
        try:
            is_tree = isinstance(args, (dict, Namespace))
            self.config = parser.parse_object(args) if is_tree else parser.parse_args(args)
        except argparse.ArgumentError as error:
            words = [] if is_tree else [str(word) for word in args or sys.argv[1:]]
            raise UserError(_sentence(str(error), words)) from error

    def before_instantiate_classes(self) -> None:
        """Sets the threads before anything is computed."""
        threads = self._get(self.config, "num_threads")
        if threads is not None:
            torch.set_num_threads(threads)

    def instantiate_classes(self) -> None:
        """Builds the trainer, the model and the data.

        Raises:
            UserError: a value does not suit the class that it is for.
        """
        try:
            super().instantiate_classes()
        except (ValueError, TypeError, MisconfigurationException) as error:
            raise UserError(_deepest(str(error), "")) from error

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """The trainer, with the default loggers where the config names none."""
        settings = self._get(self.config_init, "trainer")
        folder = Path(settings["default_root_dir"] or "runs")
        kwargs.setdefault("default_root_dir", folder)
        if self._logger is not None:
            kwargs["logger"] = self._logger
        elif settings["logger"] in (None, True):
            csv = CSVLogger(folder, name=None)  # type: ignore[arg-type]
            kwargs["logger"] = [csv, *filter(None, [wandb_logger(folder)])]
        return super().instantiate_trainer(**kwargs)


def wandb_logger(folder: Path, **settings: Any) -> WandbLogger | None:
    """A logger for Weights & Biases, with every curve against the epoch.

    ``WANDB_MODE`` decides where it writes; without it and without an account, offline, into
    ``<folder>/wandb``. There is never a prompt.

    Args:
        folder: where the run's files lie.
        **settings: of ``wandb.init``, such as ``group`` and ``name``.

    Returns:
        The logger, or ``None`` where ``WANDB_MODE`` is ``disabled``.
    """
    mode = os.environ.get("WANDB_MODE") or ("online" if _has_account() else "offline")
    if mode == "disabled":
        return None
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["WANDB_MODE"] = mode
    os.environ.setdefault("WANDB_SILENT", "true")
    logger = WandbLogger(**{"project": "critical-periods", "save_dir": folder, **settings})
    if logger.experiment is not None and hasattr(logger.experiment, "define_metric"):
        logger.experiment.define_metric("*", step_metric="epoch", step_sync=False)
    return logger


def _has_account() -> bool:
    server = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    return bool(os.environ.get("WANDB_API_KEY")) or get_netrc_auth(server) is not None


def _sentence(message: str, words: Sequence[str]) -> str:
    """The one sentence in jsonargparse's account of everything that it tried."""
    files = [word for flag, word in zip(words, words[1:], strict=False) if flag in ("-c", "--config")]
    files += [word.split("=", 1)[1] for word in words if word.startswith("--config=")]
    where = f"{', '.join(files)}: " if files else ""
    field = ".".join(re.findall(r'Parser key "([^"]+)"', message))
    inside = re.findall(r"Problem with given class_path '([^']+)'", message)
    unknown_class = re.search(r"Expected a dot import path string: (\S+)", message)
    unknown_option = re.search(r"Option '([^']+)' is not accepted", message)
    unknown_key = re.search(r"does not accept (?:option|nested key) '([^']+)'", message)
    if unknown_class:
        name = unknown_class[1]
        return f"{where}unknown class {name!r} at {field}; {near(name, _class_names())}"
    if unknown_option and inside:
        option, owner = unknown_option[1], inside[-1]
        return (
            f"{where}unknown field {option!r} of {owner.rsplit('.', 1)[-1]} at {field}; "
            f"{near(option, _parameters(owner))}"
        )
    if unknown_key:
        *parents, name = unknown_key[1].split(".")
        known = inspect.signature(pl.Trainer).parameters if parents == ["trainer"] else _TOP_FIELDS
        return f"{where}unknown field {unknown_key[1]!r}; {near(name, known)}"
    return where + _deepest(message, field)


_TOP_FIELDS = ("seed_everything", "trainer", "model", "data", "num_threads", "ckpt_path")


def _class_names() -> list[str]:
    ours = [name for room in _ROOMS for name in room.__all__]
    return ours + torch.optim.__all__ + torch.optim.lr_scheduler.__all__


def _parameters(path: str) -> list[str]:
    module, name = path.rsplit(".", 1)
    return list(inspect.signature(getattr(sys.modules[module], name)).parameters)


_BOILERPLATE = re.compile(
    r"NoneType|Given value|a class path \(str\)|a dict with|a dict without|Not a valid subclass|"
    r"Subclass types expect|Subtypes:|Errors:|Does not validate against|<unicode string>"
)


def _deepest(message: str, field: str) -> str:
    """The innermost complaint among all that jsonargparse says it has tried."""
    lines = [line for line in message.splitlines() if line.strip()]
    lines = [line for line in lines if not _BOILERPLATE.search(line)] or lines
    inner = max(lines, key=lambda line: len(line) - len(line.lstrip()))
    text = " ".join(inner.strip(" -").split()).rstrip(".") + "."
    return text if not field or field in text else f"{field}: {text}"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; every mistake of its user ends in one sentence and exit code 2."""
    words = list(sys.argv[1:] if argv is None else argv)
    logging.getLogger("pytorch_lightning").addFilter(lambda record: "litlogger" not in record.msg)
    try:
        if words[:1] == ["study"]:
            from critical_periods.studies.command import study

            return study(words[1:])
        CLI(words)
    except (UserError, MisconfigurationException) as error:
        print(f"critical-periods: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0
