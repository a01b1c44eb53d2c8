"""Weights & Biases, without an account too, and without ever waiting for anyone."""

import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
import warnings
from contextlib import suppress
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pytorch_lightning import loggers
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from critical_periods.core.errors import UserError, near, reason
from critical_periods.core.internals import list_packages_once
from critical_periods.core.trainer import attempt

if TYPE_CHECKING:
    from wandb import Run

PROJECT = "critical-periods"
"""Where runs are logged to, unless ``WANDB_PROJECT`` says another project."""

_MODES = ("online", "offline", "disabled", "shared")
_OLD_MODES = {"run": "online", "dryrun": "offline"}
# A study must not stand still for a server that is not there: how long it may take to answer at
# all, to begin a run, and to take the rest of one that ends.
_SECONDS_TO_ANSWER = 5
_SECONDS_TO_CONNECT = 30
_SECONDS_TO_FINISH = 30
# Set by a sweep's agent for the one run that it has started.
_OF_A_SWEEP = ("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH")


class FailSafeWandbLogger(loggers.WandbLogger):
    """Lightning's logger, which no failure of Weights & Biases gets past.

    By another name than that, by which configs know Lightning's. Its service is a process of its
    own, which may be killed or lose its disk. From then on nothing is logged, and the training goes
    on.
    """

    def log_metrics(self, *args: Any, **settings: Any) -> None:
        """Logs scalars."""
        attempt(super().log_metrics, *args, **settings)

    def log_hyperparams(self, *args: Any, **settings: Any) -> None:
        """Logs settings."""
        attempt(super().log_hyperparams, *args, **settings)

    def finalize(self, status: str) -> None:
        """Logs what was saved."""
        attempt(super().finalize, status)

    def finish(self, code: int) -> bool:
        """Ends the run, with the exit code of what it is of; says whether that went well."""
        if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            return attempt(_finish, self._experiment, code) is not None
        return True


def wandb_logger(
    folder: Path, id: str | None = None, against: str = "epoch", **settings: Any
) -> FailSafeWandbLogger | None:
    """A logger for Weights & Biases, with every curve against the epoch.

    ``WANDB_MODE`` decides where it writes; without it and without an account, offline, into
    ``<folder>/wandb``. There is never a prompt: where ``WANDB_MODE`` is ``online`` but there is no
    account, or no answer from the server, it warns and writes offline. ``WANDB_PROJECT``,
    ``WANDB_ENTITY``, ``WANDB_DIR``, ``WANDB_RUN_GROUP``, ``WANDB_TAGS`` and the rest are those of
    Weights & Biases.

    Args:
        folder: where the run's files lie.
        id: of the run; one of this id that has begun goes on, and says by its last ``against`` how
            far it is. Offline, the files of a new one take the place of those of the earlier one
            that were not sent yet. By default a new one, or that of a sweep's agent
            (``WANDB_RUN_ID``), which is for one run alone.
        against: what is logged with every row and curves are drawn against.
        **settings: of ``wandb.init``, such as ``group`` and ``name``.

    Returns:
        The logger, or ``None`` where ``WANDB_MODE`` is ``disabled``.

    Raises:
        UserError: there is no such mode, or ``WANDB_DIR`` cannot be written to.
    """
    wanted = os.environ.get("WANDB_MODE", "")
    mode = _OLD_MODES.get(wanted, wanted)
    if mode and mode not in _MODES:
        raise UserError(f"WANDB_MODE={mode!r} in the environment is unknown; {near(mode, _MODES)}")
    if mode == "disabled":
        return None
    os.environ.setdefault("WANDB_SILENT", "true")
    folder = log_folder(folder)
    settings = _settings(settings) | {"dir": str(folder)}
    if id is not None:
        settings |= {"id": id, "resume": "allow"}
        for variable in _OF_A_SWEEP:
            os.environ.pop(variable, None)
    run = None
    # The other processes of a run get a logger that does nothing.
    if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"the folder {folder} of Weights & Biases cannot be made: {error.strerror}; set "
                "WANDB_DIR to another, or WANDB_MODE to disabled."
            ) from error
        run = attempt(_start_again, mode, settings)
        if run is None:
            return None
        attempt(run.define_metric, "*", step_metric=against, step_sync=False)
    return FailSafeWandbLogger(project=settings["project"], save_dir=folder, experiment=run)


def log_folder(folder: Path) -> Path:
    """Where the folder ``wandb`` of a run lies: in ``WANDB_DIR``, or in the folder of its files."""
    # Absolute, as a service of its own writes there, which may have started somewhere else.
    return Path(os.environ.get("WANDB_DIR") or folder).absolute()


def _settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run, with what the environment says of its project, group and tags."""
    settings = {"project": os.environ.get("WANDB_PROJECT") or PROJECT, **settings}
    if group := os.environ.get("WANDB_RUN_GROUP"):
        settings["group"] = group
    if tags := os.environ.get("WANDB_TAGS"):
        settings["tags"] = [*filter(None, tags.split(",")), *settings.get("tags", ())]
    return settings


def _forget_earlier(folder: Path, id: str) -> None:
    """Removes the files of an earlier run of this id that were not sent: the new one says it all.

    They go first, as an offline run is named by the second in which it begins. What was sent is
    left alone; sent again, rows take their own places in the run.
    """
    # wandb adds a number to the second folder of a second.
    name = re.compile(rf"offline-run-\d+_\d+-{re.escape(id)}(-\d+)?")
    for earlier in folder.glob("wandb/offline-run-*"):
        if name.fullmatch(earlier.name) and not any(earlier.glob("*.synced")):
            shutil.rmtree(earlier, ignore_errors=True)


def is_disabled() -> bool:
    """Whether ``WANDB_MODE`` says that nothing is logged."""
    return os.environ.get("WANDB_MODE") == "disabled"


def finish_all(code: int) -> None:
    """Ends the run of this process that is still going on, if there is one, with an exit code."""
    import wandb

    if wandb.run is not None:
        attempt(_finish, wandb.run, code)


def _finish(run: "Run", code: int) -> bool:
    import wandb

    began = time.monotonic()
    try:
        run.finish(exit_code=code)
        if time.monotonic() - began > _SECONDS_TO_FINISH:
            _offline("Weights & Biases does not take what is logged, which is kept")
        return True
    except Exception:
        # What is left of it must not be in the way of the next run, nor of this process's end.
        with suppress(Exception):
            wandb.teardown(code)
        raise


def _start_again(mode: str, settings: dict[str, Any]) -> "Run":
    """A run, even where an earlier one of this process has lost its service."""
    import wandb

    try:
        return _start(mode, settings)
    except Exception:  # of a lost service, most are neither wandb's Error nor an OSError
        with suppress(Exception):
            wandb.teardown()
        return _start(mode, settings)


def _start(mode: str, settings: dict[str, Any]) -> "Run":
    import wandb

    list_packages_once()
    if "id" in settings:
        _forget_earlier(Path(settings["dir"]), settings["id"])
    if not mode:
        mode = "online" if _has_account() else "offline"
    elif mode != "offline" and not _has_account():
        mode = _offline(f"WANDB_MODE={mode}, but there is no account (see `wandb login`)")
    if mode != "offline" and (silence := _silence(wandb.setup().settings)):
        mode = _offline(f"Weights & Biases cannot be reached ({silence})")
    seconds: dict[str, Any] = {
        "init_timeout": _SECONDS_TO_CONNECT,
        "finish_timeout": _SECONDS_TO_FINISH,
    }
    # The oldest versions know no bound on the end.
    known = wandb.Settings.model_fields
    limits = wandb.Settings(**{name: value for name, value in seconds.items() if name in known})
    try:
        return wandb.init(mode=mode, settings=limits, **settings)  # type: ignore[arg-type]
    except wandb.errors.Error as error:
        if mode == "offline":
            raise
        why = " ".join(str(error).split())
        mode = _offline(f"Weights & Biases cannot be reached ({why})")
        return wandb.init(mode=mode, **settings)  # type: ignore[arg-type]


def _silence(settings: Any) -> str:
    """Why a server does not answer at all, as wandb itself waits for long; empty where it may."""
    if any(getattr(settings, name, None) for name in ("http_proxy", "https_proxy")):
        return ""  # which only wandb asks
    try:
        urllib.request.urlopen(settings.base_url, timeout=_SECONDS_TO_ANSWER).close()
    except urllib.error.HTTPError:
        return ""  # is an answer, too
    except (OSError, ValueError) as error:
        # Of certificates wandb has settings of its own.
        return "" if isinstance(getattr(error, "reason", None), ssl.SSLError) else reason(error)
    return ""


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
