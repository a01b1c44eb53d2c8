"""Training one segment: from its parent's checkpoint to its own."""

import copy
import pickle
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.plugins.environments import SLURMEnvironment

from critical_periods.core.errors import UserError
from critical_periods.core.files import write_text
from critical_periods.core.processes import STOPPED, exit_code
from critical_periods.core.trainer import callbacks_of, validate_allocation
from critical_periods.runs.lightning_cli import CLI
from critical_periods.studies.configs import Config, with_weights
from critical_periods.studies.cooldown import Cooldown
from critical_periods.studies.divergence import DivergenceCheck
from critical_periods.studies.folder import (
    SegmentFolder,
    StudyFolder,
    checksum_file,
    finalize_checkpoint,
    is_intact,
)  # fmt: skip
from critical_periods.studies.paths import leaf_of
from critical_periods.studies.plan import Plan, Segment
from critical_periods.studies.roles import class_at, derives, segment_callbacks
from critical_periods.studies.tables import write_table
from critical_periods.studies.tracking import PathTracking, track

# A segment that is killed loses at most this much training.
_SECONDS_BETWEEN_CHECKPOINTS = 300
# Settings of a segment's trainer, whatever the run says.
_SILENT = {"enable_model_summary": False, "num_sanity_val_steps": 0, "logger": False}
# Those that are on just where a third party's class asks for them, as Lightning insists on.
_ASKED_FOR = {"enable_checkpointing": "Checkpoint", "enable_progress_bar": "ProgressBar"}


_NO_REQUEUE = {
    "class_path": "pytorch_lightning.plugins.environments.SLURMEnvironment",
    "init_args": {"auto_requeue": False},
}


class StoppedError(Exception):
    """A segment was told to end, and has saved what it has."""


class SegmentRecord(pl.Callback):
    """Keeps a run's metrics epoch by epoch, writes its checkpoints and says how far it is.

    The metrics of all epochs since the run's first travel in the checkpoints, so a branch knows
    the history of its trunk, and a resumed segment that of its interrupted beginning.

    Args:
        folder: of the segment.
        stop: the epoch after the segment's last.
        run_epochs: of the run to its end, which callbacks compare their epochs with.
        is_told_to_end: whether the segment is to save what it has, be it within an epoch, and to
            end in a :class:`StoppedError`; ``None`` where nothing tells it to.
    """

    def __init__(
        self,
        folder: SegmentFolder,
        stop: int,
        run_epochs: int,
        is_told_to_end: Callable[[], bool] | None = None,
    ) -> None:
        self.folder, self.stop, self.run_epochs = folder, stop, run_epochs
        self.is_told_to_end = is_told_to_end
        self.history: dict[int, dict[str, float]] = {}
        self._earlier: dict[str, torch.Tensor] = {}
        self._saved = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """The metrics of all epochs so far."""
        return {"history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on with the metrics of the checkpoint."""
        self.history = dict(state_dict["history"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Says that training has begun."""
        if trainer.is_global_zero:
            write_text(self.folder.progress, str(trainer.current_epoch))

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remembers what was measured in earlier epochs, which Lightning goes on to show."""
        self._earlier = dict(trainer.callback_metrics)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Records the epoch; saves at the end, and every few minutes on the way there."""
        epoch = trainer.current_epoch
        self.history[epoch] = {
            key: float(value)
            for key, value in trainer.callback_metrics.items()
            if value is not self._earlier.get(key)
        }
        is_last = epoch + 1 == self.stop
        elapsed = time.monotonic() - self._saved
        ends = self._ends(trainer)
        # All processes must agree on when to save.
        is_due = trainer.strategy.broadcast(elapsed > _SECONDS_BETWEEN_CHECKPOINTS)
        if is_last or is_due or ends:
            self._save(trainer, self.folder.checkpoint if is_last else self.folder.halfway)
        if trainer.is_global_zero:
            write_text(self.folder.progress, str(epoch + 1))
        if ends and not is_last:
            raise StoppedError

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Saves and ends within an epoch where it is told to."""
        # Gradients that are gathered over several batches are in no checkpoint, and after the last
        # batch comes the end of the epoch.
        is_between = (batch_idx + 1) % trainer.accumulate_grad_batches or trainer.is_last_batch
        if not is_between and self._ends(trainer):
            self._save(trainer, self.folder.halfway)
            raise StoppedError

    def _ends(self, trainer: pl.Trainer) -> bool:
        """Whether any process is told to end."""
        if self.is_told_to_end is None:
            return False
        told = self.is_told_to_end()
        if trainer.world_size == 1:
            return told
        return bool(trainer.strategy.reduce_boolean_decision(told, all=False))

    def _save(self, trainer: pl.Trainer, checkpoint: Path) -> None:
        part = checkpoint.with_name(checkpoint.name + ".part")
        try:
            trainer.save_checkpoint(part)
            if trainer.is_global_zero:
                finalize_checkpoint(part, checkpoint)
        except BaseException:
            # The disk is full, or someone has lost patience. Shards lie in a folder.
            if trainer.is_global_zero and part.is_file():
                part.unlink()
            raise
        self._saved = time.monotonic()


def train_segment(
    study: StudyFolder, plan: Plan, name: str, is_told_to_end: Callable[[], bool] | None = None
) -> None:
    """Trains a segment and writes its checkpoint, metrics and ``done.json``.

    It starts from its own halfway checkpoint if there is an intact one, else from its parent's;
    fine-tuning starts anew, with the weights of its parent's network.
    Checkpoints are loaded as tensors and plain values (``weights_only``), executing nothing.
    Its parent must be done.

    Raises:
        UserError: its run cannot be built or does not get to its end, or the checkpoint that it
            starts from is not one.
        StoppedError: ``is_told_to_end`` has said so, and what is trained is saved.
    """
    segment, folder = plan.segments[name], study.segment(name)
    folder.path.mkdir(parents=True, exist_ok=True)
    config, before = segment_config(plan, segment), None
    if segment.parent is not None:
        before = study.segment(segment.parent).checkpoint
    origin = "its initialisation" if before is None else str(before)
    if segment.finetunes and before is not None:
        config, before = with_weights(config, before), None
    # What monitors write must not fall on what other segments wrote.
    config["trainer"]["default_root_dir"] = str(folder.path)
    epochs = segment.stop if segment.finetunes else max(run.window.epochs for run in plan.runs)
    record = SegmentRecord(folder, segment.stop, epochs, is_told_to_end)
    callbacks = DivergenceCheck(folder, origin), record
    tracking, code = track(study, plan, name, record, _run_config(plan, name)), 0
    try:
        facts = _train(segment, folder, config, before, callbacks, tracking)
    except BaseException as ended:
        # The latter is Lightning's, between the last batch of an epoch and its end.
        may_go_on = isinstance(ended, (StoppedError, SystemExit))
        told = may_go_on and is_told_to_end is not None and is_told_to_end()
        code = STOPPED if told else exit_code(ended)
        raise
    finally:
        if tracking is not None:
            tracking.finish(code)
    if facts:
        # After what is logged, as a segment that is done does not say it again.
        folder.mark_done(facts)
        for path in (folder.halfway, checksum_file(folder.halfway), folder.progress):
            path.unlink(missing_ok=True)


def _train(
    segment: Segment,
    folder: SegmentFolder,
    config: Config,
    before: Path | None,
    callbacks: tuple[DivergenceCheck, SegmentRecord],
    tracking: PathTracking | None,
) -> dict[str, Any]:
    """Trains it and writes its metrics; gives what ``done.json`` says, in the first process."""
    began = time.monotonic()
    first, record = callbacks
    resume = folder.halfway if is_intact(folder.halfway) else before
    if SLURMEnvironment.detect():
        # Jobs go back to the queue by their script (launchers/batch_script.py), not by Lightning.
        plugins = config["trainer"].get("plugins") or []
        config["trainer"]["plugins"] = [*plugins, _NO_REQUEUE]
    try:
        cli = CLI(config, run=False, logger=False if tracking is None else tracking.logger)
        validate_allocation(cli.trainer)
        callbacks_of(cli.trainer).insert(0, first)
        cooldown = Cooldown(segment.stop, segment.cooldown) if segment.cooldown else None
        callbacks_of(cli.trainer).extend(filter(None, [record, tracking, cooldown]))
        if cli.trainer.is_global_zero:
            write_text(folder.path / "config.yaml", yaml.safe_dump(config))
        cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=resume, weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{resume} holds more than tensors and plain values, so it was not loaded; delete the "
            "folder that it lies in and run the study again."
        ) from error
    if cli.trainer.current_epoch < segment.stop:
        raise UserError(
            f"training stopped after {cli.trainer.current_epoch} of {segment.stop} epochs; a study "
            "needs runs that go on to their last, without max_steps, max_time or early stopping."
        )
    if not cli.trainer.is_global_zero:
        return {}
    rows = [{"epoch": epoch, **record.history[epoch]} for epoch in sorted(record.history)]
    write_table(folder.metrics, rows)
    facts = {name: getattr(segment, name) for name in ("start", "stop", "parent", "window", "seed")}
    seconds = round(time.monotonic() - began, 2)
    facts |= {"seconds": seconds, "host": platform.node(), "device": _device(cli.trainer)}
    return facts | {"torch": torch.__version__, "precision": str(cli.trainer.precision)}


def segment_config(plan: Plan, segment: Segment) -> Config:
    """The run config of a segment: its base's, up to its last epoch, with its own window."""
    config, window = copy.deepcopy(plan.configs[segment.config])
    callbacks = segment_callbacks(config["trainer"]["callbacks"])
    if not segment.finetunes:
        window["init_args"] |= zip(("onset", "removal"), segment.window, strict=True)
        callbacks = [window, *callbacks]
    config["seed_everything"] = segment.seed
    kinds = [class_at(callback["class_path"]) for callback in callbacks]
    for setting, kind in _ASKED_FOR.items():
        config["trainer"][setting] = any(derives(one, kind) for one in kinds)
    config["trainer"] |= {"max_epochs": segment.stop, "callbacks": callbacks, **_SILENT}
    return config


def _run_config(plan: Plan, name: str) -> Config:
    """The config of the whole run that a segment is a part of in Weights & Biases."""
    segment = plan.segments[leaf_of(plan, name)]
    config = segment_config(plan, segment)
    if segment.finetunes and segment.parent is not None:
        pretraining = segment_config(plan, plan.segments[segment.parent])
        config = {**pretraining, "finetuning": config}
    return config


def _device(trainer: pl.Trainer) -> str:
    device = trainer.strategy.root_device
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
