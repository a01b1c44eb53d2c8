"""Files in a folder for each class, as pictures and videos are laid out."""

import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from pytorch_lightning.utilities.rank_zero import rank_zero_only

from critical_periods.core.errors import UserError, near

# What systems and programs leave in folders, beside names that begin with a dot; in small letters.
_SYSTEM = {
    "__macosx", "__pycache__", "@eadir", "$recycle.bin", "desktop.ini", "ehthumbs.db", "lost+found",
    "system volume information", "thumbs.db",
}  # fmt: skip
_BESIDE = "beside the classes' folders"

_log = logging.getLogger(__name__)


class ClassFolders(NamedTuple):
    """Files by class.

    Attributes:
        folder: that holds a folder for each class.
        classes: the names of those folders, in order.
        paths: of the files, relative to ``folder``, in the order of classes and then of names.
        empty: the classes that have no files.
        left_out: how many other files there are, by what they are.
    """

    folder: Path
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    empty: tuple[str, ...]
    left_out: tuple[tuple[str, int], ...]

    @property
    def labels(self) -> list[str]:
        """The class of each file."""
        return [path.split("/")[0] for path in self.paths]

    @property
    def aside(self) -> str:
        """What is left out, as an aside in a sentence; empty where nothing is."""
        return f" (left out: {describe(dict(self.left_out))})" if self.left_out else ""

    @property
    def loose(self) -> int:
        """How many files of the wanted kind are in no class's folder."""
        return dict(self.left_out).get(_BESIDE, 0)


def find_class_files(folder: Path, suffixes: Collection[str], kind: str) -> ClassFolders:
    """The files with certain endings in the folders of the classes.

    Hidden files and folders, and those that systems leave behind (``__MACOSX``, ``Thumbs.db``), are
    ignored. The files of all classes lie in one place: right in the class's folder, or in a folder
    in it that has the same name for every class (``<class>/images/*``).

    Args:
        folder: holds a folder for each class.
        suffixes: the endings, in small letters and with their dots.
        kind: what the files are, in the plural.

    Raises:
        UserError: files lie deeper, so that it is open which folders are the classes; two classes
            are one folder; a folder cannot be read.
    """
    found: dict[str, list[str]] = {}
    left_out: Counter[str] = Counter()
    above = frozenset({_identity(folder)})
    places: dict[tuple[int, int], str] = {}
    for entry in _entries(folder):
        if not _is_folder(entry):
            is_wanted = _ending(entry.name) in suffixes
            left_out[_BESIDE if is_wanted else _ending(entry.name)] += 1
            continue
        if (same := places.setdefault(_identity(Path(entry.path)), entry.name)) != entry.name:
            raise UserError(
                f"the class folders {same!r} and {entry.name!r} in {folder} are one and the same, "
                "by a link; keep one of them."
            )
        files = found[entry.name] = []
        for path in _files(Path(entry.path), above):
            if _ending(path) in suffixes:
                files.append(path)
            else:
                left_out[_ending(path)] += 1
    inner = {os.path.dirname(path) for files in found.values() for path in files}
    if len(inner) > 1 or (len(found) == 1 and inner - {""}):
        raise _nested(folder, found, kind)
    tell_alike(folder, found)
    return ClassFolders(
        folder,
        tuple(found),
        tuple(f"{name}/{path}" for name, files in found.items() for path in files),
        tuple(name for name, files in found.items() if not files),
        tuple(sorted(left_out.items())),
    )


def is_hidden(name: str) -> bool:
    """Whether a file or a folder is no data, but hidden or a system's.

    Example:
        >>> [is_hidden(name) for name in ("._1.png", ".ipynb_checkpoints", "Thumbs.db", "cat")]
        [True, True, True, False]
    """
    return name.startswith(".") or name.lower() in _SYSTEM


def describe(left_out: Mapping[str, int]) -> str:
    """How many files are left out and why, as part of a sentence.

    Example:
        >>> describe({".txt": 3, "": 1})
        '3 that end in .txt, 1 without an ending'
    """
    named = {"": "without an ending", _BESIDE: _BESIDE}
    most = Counter(left_out).most_common()
    shown = [f"{count} {named.get(what) or f'that end in {what}'}" for what, count in most[:5]]
    if rest := sum(count for _, count in most[5:]):
        shown.append(f"{rest} others")
    return ", ".join(shown)


def tell_left_out(where: Path, kind: str, used: int, left_out: Mapping[str, int]) -> None:
    """Says in one line how many files are left out and why, if any are."""
    if count := sum(left_out.values()):
        total = used + count
        tell(f"{count} of {total} files under {where} are left out, as no {kind}"
             f" of a class: {describe(left_out)}.")  # fmt: skip


@cache
def tell(line: str) -> None:
    """Logs a warning in the first process, once: data are looked for several times before use."""
    if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        _log.warning("%s", line)


def like(name: str, names: Collection[str]) -> str:
    """How a class may be written elsewhere, as the end of a sentence.

    Example:
        >>> like("Yoga", ["archery", "yoga"]), like("yogo", ["yoga"]), like("tennis", ["archery"])
        ("; there it is written 'yoga'.", "; did you mean 'yoga'?", '.')
    """
    if same := [other for other in names if _folded(other) == _folded(name)]:
        # Two ways to write ü look alike, but not as ASCII.
        shown = repr if same[0].casefold() == name.casefold() else ascii
        return f"; there it is written {shown(same[0])}."
    hint = near(name, names)
    return f"; {hint}" if hint.startswith("did") else "."


def _folded(name: str) -> str:
    """Alike for names that differ only in capitals, or in how Unicode writes a letter."""
    return unicodedata.normalize("NFC", name).casefold()


def tell_alike(where: Path, classes: Collection[str]) -> None:
    """Says which two classes of a folder or a list may be meant to be one."""
    known: dict[str, str] = {}
    for name in classes:
        if (other := known.setdefault(_folded(name), name)) != name:
            tell(f"{where} holds the classes {other!a} and {name!a}, which may be meant as one.")


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, in the order of names."""
    try:
        with os.scandir(folder) as entries:
            seen = [entry for entry in entries if not is_hidden(entry.name)]
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be read: {error.strerror}.") from error
    return sorted(seen, key=lambda entry: entry.name)


def _files(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[str]:
    """All files below a folder, but for what a link to one of the folders above shows again."""
    here = _identity(folder)
    if here in above:
        return
    for entry in _entries(folder):
        if _is_folder(entry):
            for path in _files(Path(entry.path), above | {here}):
                yield f"{entry.name}/{path}"
        else:
            yield entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    # A link to itself, which is told of where it is opened.
    except OSError:
        return False


def _identity(folder: Path) -> tuple[int, int]:
    try:
        status = os.stat(folder)
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be read: {error.strerror}.") from error
    return status.st_dev, status.st_ino


def _ending(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _nested(folder: Path, found: Mapping[str, list[str]], kind: str) -> UserError:
    inner = {
        name: list(dict.fromkeys(path.split("/")[0] for path in files if "/" in path))
        for name, files in found.items()
    }
    name = next(name for name, folders in inner.items() if folders)
    shown = ", ".join(map(repr, inner[name][:3])) + ", …" * (len(inner[name]) > 3)
    return UserError(
        f"{folder / name} holds {kind} in folders of its own ({shown}), so that it may be one "
        f"class or several; {folder} must hold a folder for every class with its {kind} right in "
        "it."
    )
