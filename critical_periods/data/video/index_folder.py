"""Where the index of a folder of videos lies."""

import hashlib
import os
from pathlib import Path
from tempfile import TemporaryFile

from critical_periods.core.errors import UserError

BESIDE = "critical_periods_index"
_SPLITS = ("train", "val")


def index_folder(root: Path, index_dir: Path | None = None) -> Path:
    """Where the index and the report of a data set are written; the folder is made.

    That is ``root/critical_periods_index``. Where it cannot be written to, as it is read-only or
    another user's, it is ``$XDG_CACHE_HOME/critical_periods/<hash of root>`` (of ``~/.cache`` where
    that is not set). ``index_dir/<hash of root>`` takes the place of both.

    Raises:
        UserError: nothing can be written there.
    """
    name = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
    if index_dir is not None:
        places = [index_dir / name]
    else:
        places = [root / BESIDE]
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        # Who has no home, as users of containers may, has it spelt out.
        if os.path.isabs(cache):
            places.append(Path(cache, "critical_periods", name))
    refusals = []
    for place in places:
        try:
            _try_to_write(place, beside=place.name == BESIDE)
            return place
        except OSError as error:
            refusals.append(f"{place} ({error.strerror or error})")
    raise UserError(
        f"the index of the videos under root={str(root)!r} cannot be written to "
        f"{' or '.join(refusals)}; set data.init_args.index_dir to a folder that can be written to."
    )


def index_file(folder: Path, split: str) -> Path:
    """The index of what lists and folders have named for a split."""
    return folder / f"{split}.npz"


def lock_file(index: Path) -> Path:
    """The lock that whoever changes an index holds."""
    return index.with_suffix(".lock")


def _try_to_write(folder: Path, beside: bool) -> None:
    """Raises an OSError where an index could not be written."""
    folder.mkdir(parents=True, exist_ok=True)
    if beside and not os.access(folder, os.W_OK):
        raise PermissionError(None, "not writable")
    # Some file systems only say so when something is written.
    with TemporaryFile(dir=folder) as file:
        file.write(b"1")
    # Another user's locks may be there, in a folder that everyone may write to.
    for split in _SPLITS:
        with open(lock_file(index_file(folder, split)), "ab"):
            pass
