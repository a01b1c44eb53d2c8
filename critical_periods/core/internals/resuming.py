"""Where a resumed run goes on, and what its checkpoint lacks.

A Trainer is Any where Lightning does not declare an attribute.
"""

import math
from typing import Any

import pytorch_lightning as pl
import torch


def finish_resumed_epoch(trainer: pl.Trainer, batches: int) -> None:
    """Has the epoch of a checkpoint count as done where the checkpoint is of its last batch.

    Lightning compares the batches that were done with those of the next epoch, and would go on in
    the middle of that if it has more. ``batches`` is no less than any epoch of the run has.
    """
    loop = trainer.fit_loop.epoch_loop
    if loop.restarted_on_train_batch_end and loop.batch_progress.is_last_batch:
        # Several windows may say so, each of its own epochs.
        current = loop.batch_progress.current
        current.completed = max(batches, current.completed)


def resume_in_place(trainer: Any) -> None:
    """Has a run that is resumed go on with the batch after the last that its checkpoint knows.

    To be called once the checkpoint is loaded, as the training loader is made. Three kinds of
    checkpoints are not resumed in place by Lightning alone:

    - of a run that stopped within an epoch (``max_steps``, ``max_time``, ``should_stop``), which
      counts it as done, as the hooks of an epoch's end were called: the rest would be left out;
    - of an epoch's end, in a run with ``max_steps``, which would end that epoch twice and so leave
      out the number of the next;
    - of an exception: its batch, which the loader has given out but which was not trained on,
      would be left out, or its epoch, if that was about to begin.
    """
    loop = trainer.fit_loop
    if not loop._loaded_from_state_dict:
        return
    epochs, batches = loop.epoch_progress, loop.epoch_loop.batch_progress
    for count in (epochs.total, epochs.current):
        count.ready = count.started
    ended = epochs.current.processed == epochs.current.ready
    if ended and batches.is_last_batch:
        loop._restarting = loop.epoch_loop.restarting = False
    elif ended and batches.current.processed:
        for count in (epochs.total, epochs.current):
            count.processed -= 1
            count.completed = min(count.completed, count.processed)
        loop.restarting = True
    # The loader follows the batches that were trained on.
    place = {"epoch": epochs.current.processed, "batches": batches.current.processed}
    for state in loop._combined_loader_states_to_load:
        if state.keys() == place.keys():
            state.update(place)


def epoch_sums(trainer: Any) -> dict[str, dict[str, torch.Tensor]]:
    """What is logged as means and the like of the training epoch so far, which no checkpoint holds.

    Tensors alone: metrics of torchmetrics have a state of their own.
    """
    results = trainer.fit_loop.epoch_loop._results
    return {
        key: {name: getattr(result, name).detach().cpu().clone() for name in result._defaults}
        for key, result in results.items()
        if result.is_tensor and result.meta.on_epoch and not result.has_reset
    }


def add_epoch_sums(
    trainer: Any, earlier: dict[str, dict[str, torch.Tensor]]
) -> dict[str, dict[str, torch.Tensor]]:
    """Adds what :func:`epoch_sums` gave to the sums of the first batch that follows.

    The same bits as if the epoch had not been interrupted: what is added to 0 is what it is.

    Returns:
        What is still to be added, as that batch has not logged it.
    """
    results, rest = trainer.fit_loop.epoch_loop._results, {}
    for key, states in earlier.items():
        result = results.get(key)
        if result is None:
            rest[key] = states
            continue
        for name, value in states.items():
            now = getattr(result, name)
            both = value.to(now.device), now
            is_sum = name == "cumulated_batch_size" or not (
                result.meta.is_max_reduction or result.meta.is_min_reduction
            )
            setattr(result, name, both[0] + both[1] if is_sum else result.meta.reduce_fx(*both))
    return rest


def batches_before_resuming(trainer: Any) -> int:
    """How many batches of its first epoch a run leaves out, as its checkpoint has them; else 0.

    To be asked as training starts.
    """
    loop = trainer.fit_loop
    return loop.epoch_loop.batch_progress.current.processed if loop.restarted_mid_epoch else 0


def measures_followed(trainer: Any) -> dict[str, float] | None:
    """The measures that schedulers follow, by their names, as far as they are known by now.

    Lightning steps such schedulers after it has saved an epoch's checkpoint, in which therefore
    these have to be. ``None`` where no scheduler follows any.
    """
    names = followed_by_schedulers(trainer)
    known = {name: float(of) for name, of in trainer.callback_metrics.items() if name in names}
    return known if names else None


def follow_measures(trainer: Any, measures: dict[str, float]) -> None:
    """Has schedulers that follow a measure go on where a checkpoint with these measures left them.

    Those that were to be stepped after it was saved are stepped now, or at the end of its epoch,
    where Lightning would leave them out. To be called as training starts.
    """
    loop = trainer.fit_loop
    trainer.callback_metrics.update(measures)
    loop._restarting = False
    for one in trainer.lr_scheduler_configs:
        is_behind = one.scheduler.last_epoch < loop.epoch_progress.current.processed
        if one.reduce_on_plateau and is_behind and one.monitor in measures:
            one.scheduler.step(measures[one.monitor])


def lacks_measures(trainer: Any) -> list[str]:
    """Measures that schedulers follow, but that the rest of a resumed epoch cannot give.

    They are means over the whole of it, or of a validation that was to come right after the batch
    of the checkpoint, which Lightning leaves out. To be asked as training starts.
    """
    loop, done = trainer.fit_loop.epoch_loop, batches_before_resuming(trainer)
    if not done:
        return []
    names = followed_by_schedulers(trainer)
    interval = trainer.val_check_batch or math.inf
    is_due = loop.restarted_on_train_batch_end and loop._should_check_val_epoch()
    is_last = done % interval == 0 and done + interval > trainer.num_training_batches
    return [name for name in names if name.startswith("train/") or (is_due and is_last)]


def followed_by_schedulers(trainer: Any) -> list[str]:
    """The measures that learning-rate schedulers of a Trainer follow."""
    return [one.monitor for one in trainer.lr_scheduler_configs if one.reduce_on_plateau]
