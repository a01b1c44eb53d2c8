"""One run, built from its config: ``critical-periods fit|validate|test|predict``."""

import argparse
import copy
import logging
import os
import sys
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
import yaml
from jsonargparse import ArgumentParser, Namespace
from pytorch_lightning.cli import (
    ArgsType,
    LightningArgumentParser,
    LightningCLI,
    SaveConfigCallback,
)
from pytorch_lightning.loggers import CSVLogger, Logger
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities.enums import LightningEnum
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from critical_periods.core.errors import UserError
from critical_periods.core.files import no_space
from critical_periods.core.internals import add_option_type, set_option_type
from critical_periods.core.seeds import LARGEST_SEED
from critical_periods.core.trainer import callbacks_of, is_ours, validate_allocation
from critical_periods.runs.checkpoints import (
    ReplacingCheckpointIO,
    of_another_run,
    read_checkpoint,
    validate_checkpoint,
)
from critical_periods.runs.config_classes import load_classes, validate_nulls
from critical_periods.runs.config_files import config_files, read_yaml
from critical_periods.runs.dry_run import dry_run
from critical_periods.runs.epoch_sums import EpochSums
from critical_periods.runs.lightning_callbacks import listed, sentence_of, try_folder
from critical_periods.runs.messages import sentence, whole
from critical_periods.runs.precision import resolved_precision
from critical_periods.runs.tracking import is_disabled, wandb_logger

# Settings of the trainer that are numbers of batches, or shares of them.
_BATCHES = (
    "limit_train_batches", "limit_val_batches", "limit_test_batches", "limit_predict_batches",
    "overfit_batches",
)  # fmt: skip
# Far more threads end in a crash of torch's, without a word.
_THREADS = 1024
# Settings of Timer are an enumeration by default, for which YAML has no words.
yaml.SafeDumper.add_multi_representer(
    LightningEnum, lambda dumper, value: dumper.represent_str(value.value)
)
# Without Lightning's advertisements.
logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(
    lambda record: "Tip:" not in str(record.msg)
)


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
        self._checkpoint: dict[str, Any] | None = None
        words = args if isinstance(args, list) else sys.argv[1:] if args is None else []
        self._command = words[0] if words else None
        try:
            super().__init__(
                pl.LightningModule,
                pl.LightningDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                auto_configure_optimizers=False,
                save_config_callback=_ConfigCallback if run else None,
                save_config_kwargs={"overwrite": True},
                seed_everything_default=0,
                parser_kwargs={"exit_on_error": False, "prog": "critical-periods"},
                args=args,
                run=run,
                # It takes as long as all the rest; a study loads its checkpoints by itself.
                load_from_checkpoint_support=run,
            )
        except argparse.ArgumentError as error:
            raise UserError(sentence(str(error))) from error
        except UserError:
            raise
        except (RuntimeError, ValueError) as error:
            # Weights of a third party's model are first compared when Lightning loads them.
            if text := sentence_of(error):
                raise UserError(text) from error
            path = self._of_run(self.config).get("ckpt_path")
            if not path or not str(error).startswith("Error(s) in loading state_dict for "):
                raise
            raise of_another_run(path, error) from error

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """A parser that takes no abbreviations, which would hide misspelt fields."""
        return super().init_parser(allow_abbrev=False, **kwargs)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The one that is asked for, as the parser of each takes its time; all where none is."""
        every = super().subcommands()
        return {name: of for name, of in every.items() if name == self._command} or every

    def add_arguments_to_parser(self, parser: ArgumentParser) -> None:
        """Adds what a run's bits depend on beside the trainer, the model and the data."""
        text = "CPU threads of this run; sums, and so bits, depend on it. All cores by default."
        parser.add_argument("--num_threads", type=int | None, default=None, help=text)
        # Lightning takes 1 for one batch and 1.0 for all of them. jsonargparse tries float first.
        for name in _BATCHES:
            set_option_type(parser, f"--trainer.{name}", int | float | None)
        # It may be a time, too.
        interval = int | float | str | dict[str, int] | None
        set_option_type(parser, "--trainer.val_check_interval", interval)
        add_option_type(parser, "--trainer.precision", Literal["auto"])

    def parse_arguments(self, parser: ArgumentParser, args: ArgsType) -> None:
        """Reads the config, and loads the checkpoint that it names."""
        is_config = isinstance(args, (dict, Namespace))
        if is_config:
            args = copy.deepcopy(args)  # jsonargparse changes it
        argv = [] if is_config else args or sys.argv[1:]
        text = str([args, argv, *(read_yaml(Path(file)) for file in config_files(argv))])
        load_classes(None if "help" in text else text)
        parse: Any = parser.parse_object if is_config else parser.parse_args
        try:
            self.config = parse(args)
        except argparse.ArgumentError:
            # A config can name other files, with more classes in them.
            load_classes()
            self.config = parse(args)
        settings = self._of_run(self.config)
        validate_nulls(settings.as_dict())
        if precision := resolved_precision(settings["trainer"]):
            settings["trainer"]["precision"] = precision
        seed = settings.get("seed_everything")
        if seed is not None and not isinstance(seed, bool) and not 0 <= seed <= LARGEST_SEED:
            raise UserError(f"seed_everything is {seed}, but must lie in 0 to {LARGEST_SEED}.")
        if settings.get("ckpt_path") is not None:
            self._checkpoint = read_checkpoint(str(settings["ckpt_path"]), _folder(settings))
        # Loading executes nothing, from wherever it is.
        if "weights_only" in settings and settings["weights_only"] is None:
            settings["weights_only"] = True

    def before_instantiate_classes(self) -> None:
        """Sets the threads before anything is computed; refuses numbers that mean nothing."""
        settings = self._of_run(self.config)
        threads = settings["num_threads"]
        for name in ("accumulate_grad_batches", "check_val_every_n_epoch"):
            if (count := settings["trainer"][name]) is not None and count < 1:
                raise UserError(f"trainer.{name} is {count}, but must be 1 or more.")
        if threads is not None and threads < 1:
            raise UserError(f"num_threads is {threads}, but must be at least 1.")
        if threads is not None and threads > (most := max(_THREADS, os.cpu_count() or 1)):
            raise UserError(f"num_threads is {threads}, but must be at most {most}.")
        if threads is not None:
            torch.set_num_threads(threads)
            # Other processes of a distributed run know of it by this, and so does Lightning, which
            # shares out the cores in each of them where it says nothing.
            os.environ["OMP_NUM_THREADS"] = str(threads)

    def instantiate_classes(self) -> None:
        """Builds the trainer, the model and the data, and says which value does not suit them."""
        try:
            super().instantiate_classes()
        # A package may be missing, or a folder not be made. Lightning raises the last two, such as
        # for two callbacks with one state.
        except (
            ImportError, OSError, ValueError, TypeError, MisconfigurationException, RuntimeError,
        ) as error:  # fmt: skip
            if isinstance(error, UserError) or no_space(error):
                raise
            raise UserError(whole(str(error))) from error

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """The trainer, with default loggers; a dry run comes before it, and leaves no files."""
        settings = self._of_run(self.config_init)
        folder = _folder(settings)
        kwargs.setdefault("default_root_dir", folder)
        if self._logger is not None:
            kwargs["logger"] = self._logger
        else:
            self._try_run(settings)
            kwargs |= self._loggers(settings["trainer"], folder)
        trainer = super().instantiate_trainer(**kwargs)
        callbacks_of(trainer).insert(0, EpochSums())
        # Plugins and strategies may have brought others.
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = ReplacingCheckpointIO()
        return trainer

    def _try_run(self, settings: Namespace) -> None:
        model = self.model if is_ours(self.model) else None
        optimizers: list[torch.optim.Optimizer] | None = [] if self.subcommand == "fit" else None
        # Other processes of a distributed run wait for the first one. Classes of this package can
        # be set up twice; what others do in their setup is not known.
        is_first = rank_zero_only.rank == 0  # type: ignore[attr-defined]
        if optimizers is not None and is_first and model is not None and is_ours(self.datamodule):
            optimizers = dry_run(settings["trainer"], model, self.datamodule)
        if self._checkpoint is not None:
            validate_checkpoint(self._checkpoint, settings["ckpt_path"], model, optimizers)
            self._checkpoint = None

    def _loggers(self, trainer: Namespace, folder: Path) -> dict[str, Any]:
        """The default loggers, where the settings of a trainer have no others."""
        for one in listed(trainer["logger"]):
            if place := getattr(one, "save_dir", None):
                try_folder(f"save_dir of {type(one).__name__} of trainer.logger", str(place))
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"trainer.default_root_dir: the folder {folder} cannot be made: {error.strerror}."
            ) from error
        # A trainer without anything beside the training refuses loggers.
        if trainer["logger"] not in (None, True) or trainer["barebones"]:
            return {}
        loggers: list[Logger | None] = [CSVLogger(folder, name="")]
        # A run for trial is none; Lightning takes its loggers away, but one has begun by then.
        if not trainer["fast_dev_run"] and not is_disabled():
            config = self._of_run(yaml.safe_load(self.parser.dump(self.config)))
            loggers.append(wandb_logger(folder, config=config))
        return {"logger": [*filter(None, loggers)]}

    def before_fit(self) -> None:
        """Refuses a job of a cluster that has other processes than the run asks for."""
        validate_allocation(self.trainer)

    def _of_run(self, config: Any) -> Any:
        """The part of a config that is of the subcommand, or all where there is none."""
        return config.get(self.config.get("subcommand") or "") or config


def _folder(settings: Namespace) -> Path:
    return Path(settings["trainer"]["default_root_dir"] or "runs")


class _ConfigCallback(SaveConfigCallback):
    """Saves the config beside the logs, or in the trainer's folder where these are elsewhere."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.save_to_log_dir = trainer.log_dir is not None
        super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if not self.save_to_log_dir:
            file = Path(trainer.default_root_dir, self.config_filename)
            self.parser.save(self.config, file, skip_none=False, overwrite=True)
