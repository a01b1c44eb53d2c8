"""Checkpoints: whether the one that a run begins with fits its config, and writing whole ones."""

import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.cloud_io import get_filesystem
from pytorch_lightning.plugins.io import TorchCheckpointIO

from critical_periods.core.errors import UserError, reason
from critical_periods.core.files import replacing

# Characters of torch's list of all that does not fit.
_SHOWN = 200


def read_checkpoint(path: str, folder: Path) -> dict[str, Any] | None:
    """Loads the ``ckpt_path`` of the run in a folder; nothing in it is executed.

    Returns:
        The checkpoint, or ``None`` where it is not one file of this machine.

    Raises:
        UserError: there is none, or it holds more than tensors and plain values.
    """
    if not path:
        raise UserError("ckpt_path is empty; name a file, or leave it out.")
    # The best is one of those that have been written since this process began.
    if path == "best" or (path == "hpc" and not any(folder.glob("hpc_ckpt_*.ckpt"))):
        raise UserError(f"ckpt_path: there is no checkpoint for {path!r} (yet); name a file.")
    if path in ("hpc", "last") or (path.startswith("registry") and find_spec("litmodels")):
        return None
    if "://" in path:
        _find_elsewhere(path)
        return None
    if not Path(path).exists():
        raise UserError(f"ckpt_path: the file {path} does not exist.")
    # Sharded checkpoints are folders.
    if (Path(path) / ".metadata").exists():
        return None
    if Path(path).is_dir():
        raise UserError(f"ckpt_path: {path} is a folder, not a checkpoint.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"ckpt_path: {path} is damaged, or holds more than tensors and plain values, so it was "
            "not loaded."
        ) from error


def _find_elsewhere(path: str) -> None:
    """Raises a UserError where there is no such file on another machine, or no way to it."""
    try:
        if get_filesystem(path).exists(path):
            return
        problem = "there is no such file"
    except Exception as error:  # of as many kinds as there are file systems
        problem = reason(error)
    raise UserError(f"ckpt_path: {path} cannot be read: {problem}.")


def validate_checkpoint(
    checkpoint: dict[str, Any],
    path: str,
    model: pl.LightningModule | None,
    optimizers: Sequence[torch.optim.Optimizer] | None,
) -> None:
    """Loads a checkpoint into what a run will load it into.

    Args:
        checkpoint: as it was read.
        path: names it in an error.
        model: takes the weights; ``None`` where it is not known to have its layers already.
        optimizers: take their states, as far as they are known; ``None`` where nothing is trained.

    Raises:
        UserError: it is of another run.
    """
    try:
        weights, _ = checkpoint["state_dict"], checkpoint["pytorch-lightning_version"]
        if model is not None:
            model.load_state_dict(weights)
        if optimizers is not None:
            states, _ = checkpoint["optimizer_states"], checkpoint["lr_schedulers"]
            for optimizer, state in zip(optimizers, states, strict=False):
                optimizer.load_state_dict(state)
    except UserError:
        raise
    except (KeyError, RuntimeError, ValueError) as error:
        raise of_another_run(path, error) from error


def of_another_run(path: str, error: Exception) -> UserError:
    """The sentence for a checkpoint that does not fit, from what torch says of it."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    problem = f"it has no {error}" if isinstance(error, KeyError) else " ".join(lines[:2])
    shown = problem if len(problem) <= _SHOWN else f"{problem[:_SHOWN]}…"
    return UserError(
        f"ckpt_path: {path} is of another run than this config describes ({shown.rstrip(':.')}); "
        "give the config that it was trained with."
    )


class ReplacingCheckpointIO(TorchCheckpointIO):
    """Lightning's writer of checkpoints, whose files are never half written.

    Its own moves a file from the folder for temporary files, which is a copy where that is on
    another disk, and stops half way where the disk is full or the process is killed.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Writes a checkpoint beside its place, and renames it; elsewhere as Lightning does."""
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        buffer, file = io.BytesIO(), Path(path)
        torch.save(checkpoint, buffer)
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as part:
            part.write_bytes(buffer.getbuffer())
