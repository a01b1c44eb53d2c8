"""The checkpoint that a run begins with: whether it can be loaded, and fits the config."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from critical_periods.core.errors import UserError

# What Lightning takes instead of a file.
_WORDS = ("best", "last", "hpc", "registry")
# Characters of torch's list of all that does not fit.
_SHOWN = 200


def read_checkpoint(path: str, folder: Path) -> dict[str, Any] | None:
    """Loads a checkpoint, in which nothing is executed.

    Args:
        path: the setting ``ckpt_path``.
        folder: of the run.

    Returns:
        The checkpoint, or ``None`` where it is not one file of this machine.

    Raises:
        UserError: there is none, or it holds more than tensors and plain values.
    """
    if path in _WORDS:
        # Lightning finds the best among those that it has written since this process began.
        if path == "best" or (path == "hpc" and not any(folder.glob("hpc_ckpt_*.ckpt"))):
            where = "in this process" if path == "best" else f"in {folder}"
            raise UserError(
                f"ckpt_path: there is no checkpoint for {path!r} (none was written {where}); name "
                "a file."
            )
        return None
    if "://" in path:
        return None
    if not Path(path).exists():
        raise UserError(f"ckpt_path: the file {path} does not exist.")
    # Sharded checkpoints are folders.
    if Path(path).is_dir():
        if not (Path(path) / ".metadata").exists():
            raise UserError(f"ckpt_path: {path} is a folder, not a checkpoint.")
        return None
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"ckpt_path: {path} is damaged, or holds more than tensors and plain values, so it was "
            "not loaded."
        ) from error
    return checkpoint


def validate_checkpoint(
    checkpoint: dict[str, Any],
    path: str,
    model: pl.LightningModule | None,
    optimizers: Sequence[torch.optim.Optimizer] | None,
) -> None:
    """Loads a checkpoint into what a run will load it into.

    Args:
        checkpoint: as it was loaded.
        path: names it in an error.
        model: takes the weights; ``None`` where it is not known to have its layers already.
        optimizers: take their states, as far as they are known; ``None`` where nothing is trained.

    Raises:
        UserError: it is of another run.
    """
    try:
        weights = checkpoint["state_dict"]
        if model is not None:
            model.load_state_dict(weights)
        if optimizers is not None:
            _, states = checkpoint["lr_schedulers"], checkpoint["optimizer_states"]
            for optimizer, state in zip(optimizers, states, strict=False):
                optimizer.load_state_dict(state)
    except UserError:
        raise
    except (KeyError, RuntimeError, ValueError) as error:
        lines = [line.strip() for line in str(error).strip().splitlines()]
        problem = f"it has no {error}" if isinstance(error, KeyError) else " ".join(lines[:2])
        shown = problem.rstrip(":.")
        shown = f"{shown[:_SHOWN]}…" if len(shown) > _SHOWN else shown
        raise UserError(
            f"ckpt_path: {path} is of another run than this config describes ({shown}); give the "
            "config that it was trained with."
        ) from error
