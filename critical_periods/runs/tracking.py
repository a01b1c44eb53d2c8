"""Weights & Biases, without an account too, and without ever waiting for anyone."""

import os
import warnings
from contextlib import suppress
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from critical_periods.core.errors import UserError, near

if TYPE_CHECKING:
    from wandb import Run

_MODES = ("online", "offline", "disabled", "shared")
_OLD_MODES = {"run": "online", "dryrun": "offline"}
# Long enough for a slow line; a study must not stand still for a server that is not there.
_SECONDS_TO_CONNECT = 30


def wandb_logger(folder: Path, **settings: Any) -> WandbLogger | None:
    """A logger for Weights & Biases, with every curve against the epoch.

    ``WANDB_MODE`` decides where it writes; without it and without an account, offline, into
    ``<folder>/wandb``. There is never a prompt: where ``WANDB_MODE`` is ``online`` but there is no
    account, or no answer from the server, it warns and writes offline.

    Args:
        folder: where the run's files lie.
        **settings: of ``wandb.init``, such as ``group`` and ``name``.

    Returns:
        The logger, or ``None`` where ``WANDB_MODE`` is ``disabled``.

    Raises:
        UserError: there is no such mode.
    """
    wanted = os.environ.get("WANDB_MODE", "")
    mode = _OLD_MODES.get(wanted, wanted)
    if mode and mode not in _MODES:
        raise UserError(f"WANDB_MODE={mode!r} in the environment is unknown; {near(mode, _MODES)}")
    if mode == "disabled":
        return None
    os.environ.setdefault("WANDB_SILENT", "true")
    # Absolute, as a service of its own writes there, which may have started somewhere else.
    settings = {"project": "critical-periods", "dir": str(folder.absolute()), **settings}
    run = None
    # The other processes of a run get a logger that does nothing.
    if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        folder.mkdir(parents=True, exist_ok=True)
        run = _start(mode, settings)
        run.define_metric("*", step_metric="epoch", step_sync=False)
    return WandbLogger(project=settings["project"], save_dir=folder, experiment=run)


def _start(mode: str, settings: dict[str, Any]) -> "Run":
    import wandb

    if not mode:
        mode = "online" if _has_account() else "offline"
    elif mode != "offline" and not _has_account():
        mode = _offline(f"WANDB_MODE={mode}, but there is no account (see `wandb login`)")
    limits = wandb.Settings(init_timeout=_SECONDS_TO_CONNECT)
    try:
        return wandb.init(mode=mode, settings=limits, **settings)  # type: ignore[arg-type]
    except wandb.errors.Error as error:
        if mode == "offline":
            raise
        reason = " ".join(str(error).split())
        mode = _offline(f"Weights & Biases cannot be reached ({reason})")
        return wandb.init(mode=mode, **settings)  # type: ignore[arg-type]


def _offline(why: str) -> str:
    warnings.warn(f"{why}; logging offline, to be sent later with `wandb sync`.", stacklevel=2)
    # The next run of this process need not try again.
    os.environ["WANDB_MODE"] = "offline"
    return "offline"


def _has_account() -> bool:
    """Whether there is a key for the server, in the environment or where `wandb login` put it."""
    import wandb

    settings = wandb.setup().settings
    servers = {urlsplit(url).hostname or "" for url in (settings.base_url, "https://api.wandb.ai")}
    names = [os.environ["NETRC"]] if "NETRC" in os.environ else ["~/.netrc", "~/_netrc"]
    file = next((path for name in names if (path := Path(name).expanduser()).exists()), None)
    # A file that cannot be read holds no key.
    with suppress(OSError, NetrcParseError):
        if file is not None and any(map(netrc(file).authenticators, servers)):
            return True
    return bool(settings.api_key)
