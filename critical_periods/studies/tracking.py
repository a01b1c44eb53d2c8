"""The runs of a study in Weights & Biases: one for each path of its tree, whole from epoch 0."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytorch_lightning as pl
from PIL import Image

from critical_periods.core.processes import STOPPED
from critical_periods.core.trainer import attempt
from critical_periods.runs.tracking import PROJECT, FailSafeWandbLogger, wandb_logger
from critical_periods.studies.configs import Config
from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.measurements import histograms
from critical_periods.studies.paths import leaf_of
from critical_periods.studies.plan import Plan, Segment
from critical_periods.studies.results import Row, settings
from critical_periods.studies.seen import keep_seen

# What W&B cuts off, or refuses, of a tag.
_TAG = 64


class History(Protocol):
    """What a segment keeps of all epochs of its stage, of its ancestors too."""

    history: dict[int, dict[str, float]]


class _Gathered:
    """A run of W&B, as third parties' code sees it: what it logs goes into the row of its epoch."""

    def __init__(self, run: Any, row: Row) -> None:
        self._run, self._row = run, row

    def log(self, data: Mapping[str, Any], *args: Any, **settings: Any) -> None:
        self._row.update(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)


class _EpochLogger(FailSafeWandbLogger):
    """Gathers what is logged through an epoch, which :class:`PathTracking` sends at its end."""

    def __init__(self, run: Any, folder: Path) -> None:
        super().__init__(project=PROJECT, save_dir=folder, experiment=run)
        self.row: Row = {}

    @property
    def run(self) -> Any:
        """The run itself, which takes rows at once; ``None`` where another process has it."""
        return self._experiment

    @property
    def experiment(self) -> Any:
        """The run, whose rows wait for the end of the epoch."""
        return _Gathered(super().experiment, self.row)

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Gathers what a callback logs by itself; what a run logs, its record has by the epoch."""
        if "epoch" not in metrics:
            self.row.update(metrics)


class PathTracking(pl.Callback):
    """Sends every epoch of a path to its run once, those that were trained before this segment too.

    The rows of epochs that were trained elsewhere, or before the segment was killed, are made of
    the record in its checkpoint and of the files that monitors wrote; those of this process also
    hold what third parties' code logs.
    """

    def __init__(
        self, study: StudyFolder, plan: Plan, segment: Segment, record: History, config: Config
    ) -> None:
        self.study, self.plan, self.segment, self.record = study, plan, segment, record
        self.leaf = leaf_of(plan, segment.name)
        name, fields, tags = described(plan, self.leaf)
        self._settings: Row = {
            "id": self.leaf, "group": plan.study, "name": name, "job_type": "run", "tags": tags,
            "config": {**config, **fields},
        }  # fmt: skip
        self._failed = False
        self._next = 0
        opened = self._open()
        self.is_open = opened is not None
        run = None if opened is None else opened._experiment
        self.logger = _EpochLogger(run, study.segment(segment.name).path)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Sends what was trained before, and keeps a picture of what the network sees."""
        if trainer.is_global_zero:
            self._send()
            attempt(keep_seen, trainer, self.study.path)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Sends the epoch."""
        if trainer.is_global_zero:
            self._send()

    def finish(self, code: int) -> None:
        """Sends what is left and ends the run; says all again where its service was killed."""
        if self.logger._experiment is None:
            return
        self._send()
        self._end(code)
        if self._failed and (opened := self._open()) is not None:
            self.logger._experiment, self._failed = opened._experiment, False
            self._send()
            self._end(code)

    def _open(self) -> FailSafeWandbLogger | None:
        opened = wandb_logger(self.study.path, **self._settings)
        run = None if opened is None else opened._experiment
        if run is not None:
            # A run that goes on says how far it was; a new one, of which offline there is no other
            # kind, has nothing.
            self._next = int(dict(run.summary).get("epoch", -1)) + 1 if run.resumed else 0
        return opened

    def _end(self, code: int) -> None:
        if code == 0 and self.plan.log_artifacts and self.segment.name == self.leaf:
            attempt(self._log_checkpoint)
        if code == STOPPED:
            # It goes on when the queue lets it, so it has not failed.
            attempt(self.logger.run.mark_preempting)
        self._failed |= not self.logger.finish(code)

    def _log_checkpoint(self) -> bool:
        import wandb

        artifact = wandb.Artifact(f"checkpoint-{self.leaf}", type="model")
        artifact.add_file(str(self.study.segment(self.leaf).checkpoint))
        self.logger.run.log_artifact(artifact)
        return True

    def _send(self) -> None:
        # Of one that is gone, the rest is said once at the end.
        if not self._failed:
            self._failed = attempt(self._log_rows) is None

    def _log_rows(self) -> bool:
        for epoch, row in self._rows():
            self.logger.run.log({**row, "epoch": epoch})
            self._next = epoch + 1
        return True

    def _rows(self) -> Iterator[tuple[int, Row]]:
        """The epochs that are not sent yet; those of fine-tuning are counted on."""
        offset, name = 0, self.segment.name
        if self.segment.finetunes and self.segment.parent is not None:
            offset = self.plan.segments[self.segment.parent].stop
            if self._next < offset:
                before = self.study.segment(self.segment.parent).history()
                for epoch, cells in enumerate(before[self._next :], start=self._next):
                    found = {k: float(v) for k, v in cells.items() if v and k != "epoch"}
                    yield epoch, found | self._media(self.segment.parent, epoch)
        history = self.record.history
        for epoch in sorted(history):
            if offset + epoch >= self._next:
                live = dict(self.logger.row) if epoch == max(history) else {}
                yield offset + epoch, live | self._media(name, epoch) | history[epoch]
        self.logger.row.clear()

    def _media(self, name: str, epoch: int) -> Row:
        """What the monitors wrote in an epoch of a segment or of one before it in its stage."""
        finetunes = self.plan.segments[name].finetunes
        for one in self.plan.lineage(name):
            if one.finetunes == finetunes and one.start <= epoch < one.stop:
                return stored_media(self.study.segment(one.name).path, epoch)
        return {}


def track(
    study: StudyFolder, plan: Plan, name: str, record: History, config: Config
) -> PathTracking | None:
    """What logs a segment to its path's run; ``None`` where nothing is logged."""
    tracking = PathTracking(study, plan, plan.segments[name], record, config)
    return tracking if tracking.is_open else None


def described(plan: Plan, leaf: str) -> tuple[str, Row, list[str]]:
    """What a path's run is called, the fields by which one filters, and its tags.

    Fields: ``onset``, ``removal``, ``length``, ``epochs``, ``deficit`` (its class; ``none`` in a
    control), ``seed``, and every varied field by the shortest end of its name that says which one
    it is. Of a control of several variations, the values stand side by side.
    """
    runs = [run for run in plan.runs if run.segment == leaf]
    onset, removal, epochs = runs[0].window
    first = next(one for one in plan.lineage(leaf) if not one.finetunes)
    window = plan.configs[first.config][1]
    deficit = window.get("init_args", {}).get("deficit", window).get("class_path", "none")
    kind, what = plan.kind_of_window, deficit.rpartition(".")[2] if onset < removal else "none"
    fields: Row = {
        "onset": onset, "removal": removal, "length": removal - onset, "epochs": epochs,
        "deficit": what, "seed": runs[0].seed,
    }  # fmt: skip
    varied = [{n: settings(run)[n] for n in run.variation} for run in runs]
    for name, short in short_names(varied[0], {**plan.configs[0][0], **fields}).items():
        values = [one[name] for one in varied]
        is_one = all(value == values[0] for value in values)
        fields[short] = values[0] if is_one else ", ".join(dict.fromkeys(map(str, values)))
    span = f"{what} {onset}-{removal}" if onset < removal else f"no {kind}"
    # Those with a deficit differ in their epochs on the rungs of a ladder alone.
    span += f", {epochs} epochs" if onset == removal or plan.design else ""
    name = ", ".join(filter(None, [plan.labels()[leaf], span, f"seed {fields['seed']}"]))
    return name, fields, [plan.study[:_TAG], (what if onset < removal else "control")[:_TAG]]


def short_names(names: Mapping[str, Any], taken: Mapping[str, Any]) -> dict[str, str]:
    """The shortest ends of settings' names that no other one and nothing taken has.

    Example:
        >>> names = [
        ...     "variant", "model.init_args.optimizer.init_args.lr", "finetuning.lr", "seed",
        ... ]
        >>> list(short_names(dict.fromkeys(names), {"seed": 0}).values())
        ['variant', 'optimizer.lr', 'finetuning.lr', 'varied.seed']
    """
    parts = {n: ["varied", *(p for p in n.split(".") if p != "init_args")] for n in names}
    ends = {n: [".".join(of[-k:]) for k in range(1, len(of) + 1)] for n, of in parts.items()}
    often = Counter(end for of in ends.values() for end in of)
    return {
        n: next((end for end in of if often[end] == 1 and end not in taken), n)
        for n, of in ends.items()
    }


def stored_media(folder: Path, epoch: int) -> Row:
    """The histograms and pictures that a segment's monitors and task wrote in an epoch."""
    import wandb

    media: Row = {}
    for file in folder.glob(f"rsv/epoch_{epoch:04d}.npz"):
        for layer, pair in histograms(file).items():
            media[f"rsv/{layer}"] = wandb.Histogram(np_histogram=pair)
    for file in folder.glob(f"reconstruction*/epoch_{epoch:04d}*.png"):
        kind = file.stem.removeprefix(f"epoch_{epoch:04d}").strip("_")
        with Image.open(file) as picture:
            key = "/".join(filter(None, [file.parent.name, kind]))
            media[key] = wandb.Image(picture.convert("RGB"))
    return media
