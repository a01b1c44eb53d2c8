"""One run, built from its config: ``critical-periods fit|validate|test|predict``."""

from __future__ import annotations

import argparse
import logging
import re
import sys
import traceback
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from jsonargparse import ArgumentParser, Namespace
from pytorch_lightning.cli import ArgsType, LightningCLI, SaveConfigCallback
from pytorch_lightning.loggers import CSVLogger, Logger
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from pytorch_lightning.utilities.seed import isolate_rng

from critical_periods.core.errors import UserError
from critical_periods.core.randomness import LARGEST_SEED
from critical_periods.runs.config_files import read_yaml
from critical_periods.runs.dry_run import is_ours, rehearse
from critical_periods.runs.messages import deepest, sentence
from critical_periods.runs.nulls import look_for_nulls
from critical_periods.runs.short_names import load_classes
from critical_periods.runs.tracking import wandb_logger

_DESCRIPTION = """Put a deficit into a network's training, take it out again, measure what stays.
`critical-periods study` runs many such trainings: see `critical-periods study --help`.
`critical-periods kinetics` makes videos ready to train on."""
# Settings of the trainer that are numbers of batches, or shares of them.
_BATCHES = (
    "limit_train_batches", "limit_val_batches", "limit_test_batches", "limit_predict_batches",
    "overfit_batches", "val_check_interval",
)  # fmt: skip
# What ckpt_path may be instead of a file.
_CHECKPOINT_WORDS = ("best", "last", "hpc", "registry")
_MOST_THREADS = 1024
# What callbacks compare themselves with.
_REHEARSED = (
    "accumulate_grad_batches", "callbacks", "check_val_every_n_epoch", "fast_dev_run",
    "limit_train_batches", "limit_val_batches", "max_epochs", "max_steps", "max_time",
    "reload_dataloaders_every_n_epochs", "val_check_interval",
)  # fmt: skip
# Characters of torch's list of all that does not fit in a checkpoint.
_SHOWN = 200
SUBCOMMANDS = ("fit", "validate", "test", "predict")


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
        load_classes()
        super().__init__(
            pl.LightningModule,
            pl.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            save_config_callback=SaveConfigCallback if run else None,
            save_config_kwargs={"overwrite": True},
            seed_everything_default=0,
            parser_kwargs={
                "exit_on_error": False,
                "prog": "critical-periods",
                "description": _DESCRIPTION,
                "allow_abbrev": False,
                **{command: {"allow_abbrev": False} for command in SUBCOMMANDS},
            },
            args=args,
            run=run,
            # It takes as long as all the rest; a study loads its checkpoints in its own way.
            load_from_checkpoint_support=run,
        )

    def add_arguments_to_parser(self, parser: ArgumentParser) -> None:
        """Adds what a run's bits depend on beside the trainer, the model and the data."""
        parser.add_argument(
            "--num_threads",
            type=int | None,
            default=None,
            help="CPU threads of this run; sums, and so bits, depend on it. All cores by default.",
        )
        # Lightning takes 1 for one batch and 1.0 for all of them. jsonargparse tries float first.
        for name in _BATCHES:
            action: Any = parser._option_string_actions[f"--trainer.{name}"]
            action._typehint = int | float | None

    def parse_arguments(self, parser: ArgumentParser, args: ArgsType) -> None:
        """Reads the config; any mistake in it becomes one sentence."""
        try:
            if isinstance(args, (dict, Namespace)):
                self.config = parser.parse_object(args)
            else:
                for file in config_files(args or sys.argv[1:]):
                    read_yaml(Path(file))
                self.config = parser.parse_args(args)
        except argparse.ArgumentError as error:
            raise UserError(sentence(str(error))) from error
        look_for_nulls(self._settings().as_dict())
        seed = self._settings().get("seed_everything")
        if seed is not None and not isinstance(seed, bool) and not 0 <= seed <= LARGEST_SEED:
            raise UserError(f"seed_everything is {seed}, but must lie in 0 to {LARGEST_SEED}.")

    def _parse_ckpt_path(self) -> None:
        """Finds out before anything is built whether a checkpoint can be loaded."""
        settings = self._settings()
        path = settings.get("ckpt_path")
        if path and "://" not in str(path) and str(path) not in _CHECKPOINT_WORDS:
            if not Path(path).exists():
                raise UserError(f"ckpt_path: the file {path} does not exist.")
            # Sharded checkpoints are folders.
            if Path(path).is_dir() and not (Path(path) / ".metadata").exists():
                raise UserError(f"ckpt_path: {path} is a folder, not a checkpoint.")
            try:
                super()._parse_ckpt_path()
            except Exception as error:
                raise UserError(
                    f"ckpt_path: {path} is damaged, or holds more than tensors and plain values, "
                    "so it was not loaded."
                ) from error
        # Loading executes nothing, from wherever it is.
        if "weights_only" in settings and settings["weights_only"] is None:
            settings["weights_only"] = True

    def before_instantiate_classes(self) -> None:
        """Sets the threads before anything is computed.

        Raises:
            UserError: there would be none, or no batch to a step.
        """
        batches = self._get(self.config, "trainer")["accumulate_grad_batches"]
        if batches < 1:
            raise UserError(f"trainer.accumulate_grad_batches is {batches}, but must be 1 or more.")
        threads = self._get(self.config, "num_threads")
        if threads is not None and threads < 1:
            raise UserError(f"num_threads is {threads}, but must be at least 1.")
        if threads is not None and threads > _MOST_THREADS:
            raise UserError(f"num_threads is {threads}, but must be at most {_MOST_THREADS}.")
        if threads is not None:
            torch.set_num_threads(threads)

    def instantiate_classes(self) -> None:
        """Builds the trainer, the model and the data.

        Raises:
            UserError: a value does not suit the class that it is for.
        """
        try:
            super().instantiate_classes()
        # Lightning raises the last, such as for two callbacks with one state.
        except (ValueError, TypeError, MisconfigurationException, RuntimeError) as error:
            raise UserError(deepest(str(error))) from error

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """The trainer, with the default loggers where the config names none.

        Before it starts them, what would go wrong is looked for: a refused run leaves nothing
        behind.
        """
        settings = self._get(self.config_init, "trainer")
        folder = Path(settings["default_root_dir"] or "runs")
        kwargs.setdefault("default_root_dir", folder)
        if self._logger is not None:
            kwargs["logger"] = self._logger
            return super().instantiate_trainer(**kwargs)
        if self.subcommand == "fit":
            self._rehearse(settings)
        self._compare_checkpoint()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"trainer.default_root_dir: the folder {folder} cannot be made: {error.strerror}."
            ) from error
        if settings["logger"] in (None, True):
            csv = CSVLogger(folder, name="")
            config = yaml.safe_load(self._parser(self.subcommand).dump(self._settings()))
            wandb = wandb_logger(folder, config=config)
            kwargs["logger"] = [csv, *filter(None, [wandb])]
        return super().instantiate_trainer(**kwargs)

    def _settings(self) -> Namespace:
        """The config of the subcommand, or of the run where there is none."""
        return self.config.get(self.config.get("subcommand") or "") or self.config

    def _rehearse(self, settings: Namespace) -> None:
        """Looks for what would go wrong in training, with a trainer that does not train."""
        # The processes of a distributed run wait for the first one.
        if rank_zero_only.rank != 0:  # type: ignore[attr-defined]
            return
        # Ours can be set up twice; what others do in theirs is not known.
        if not (is_ours(self.model) and is_ours(self.datamodule)):
            return
        chosen = {name: settings[name] for name in _REHEARSED}
        with _quiet(), isolate_rng():
            trainer = pl.Trainer(
                accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
                enable_progress_bar=False, enable_model_summary=False, **chosen,
            )  # fmt: skip
            try:
                rehearse(trainer, self.model, self.datamodule)
            finally:
                for callback in trainer.callbacks:  # type: ignore[attr-defined]
                    if is_ours(callback):
                        callback.teardown(trainer, self.model, "fit")
                self.model.trainer = None

    def _compare_checkpoint(self) -> None:
        """Tries the weights of the checkpoint that the run begins with."""
        path = self._settings().get("ckpt_path")
        if not path or not Path(path).is_file() or not is_ours(self.model):
            return
        state = torch.load(path, map_location="cpu", weights_only=True)
        try:
            self.model.load_state_dict(state["state_dict"])
        except (KeyError, RuntimeError) as error:
            raise self._of_another_run(error) from error

    def _of_another_run(self, error: Exception) -> UserError:
        path = self._settings()["ckpt_path"]
        lines = [line.strip() for line in str(error).strip().splitlines()]
        problem = " ".join(lines[:2]).rstrip(":.")
        if str(path) in _CHECKPOINT_WORDS:
            return UserError(f"ckpt_path: there is no checkpoint for {path!r} ({problem}).")
        if isinstance(error, KeyError):
            problem = f"it has no {problem}"
        if len(problem) > _SHOWN:
            problem = f"{problem[:_SHOWN]}…"
        return UserError(
            f"ckpt_path: {path} is of another run than this config describes ({problem}); give "
            "the config that it was trained with."
        )

    def _run_subcommand(self, subcommand: str) -> None:
        """Runs it; a checkpoint that does not fit ends in a sentence."""
        try:
            super()._run_subcommand(subcommand)
        except (RuntimeError, KeyError, ValueError) as error:
            frames = traceback.extract_tb(error.__traceback__)
            if isinstance(error, UserError) or not any(
                "checkpoint_connector" in frame.filename for frame in frames
            ):
                raise
            raise self._of_another_run(error) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what Lightning tells and warns of."""
    log = logging.getLogger("pytorch_lightning")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def config_files(words: Iterable[str]) -> list[str]:
    """The config files that a command line names.

    Example:
        >>> config_files(["fit", "--config", "a.yaml", "--config=b.yaml", "--data.width", "8"])
        ['a.yaml', 'b.yaml']
    """
    text = "\n".join(str(word) for word in words)
    return re.findall(r"^(?:-c|--config)[\n=](.+)$", text, re.MULTILINE)
