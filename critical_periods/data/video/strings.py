"""Many strings in two arrays, which processes share instead of copying."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np


class Strings:
    """A sequence of strings as one row of bytes and the places where each one ends.

    A list of 100,000 paths is 100,000 objects whose reference counts every worker writes to, so
    that each soon has a copy of its own; two arrays are not.

    Args:
        text: all strings in UTF-8, one after the other, uint8.
        ends: where each one ends in it, int64 [N].

    Example:
        >>> names = Strings.of(["left", "", "right"])
        >>> len(names), names[2], list(names)
        (3, 'right', ['left', '', 'right'])
    """

    def __init__(self, text: np.ndarray, ends: np.ndarray) -> None:
        self.text, self.ends = text, ends

    @classmethod
    def of(cls, strings: Sequence[str]) -> Strings:
        """The arrays of some strings; paths that are no proper UTF-8 keep their bytes."""
        parts = [string.encode("utf-8", "surrogateescape") for string in strings]
        ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
        return cls(np.frombuffer(b"".join(parts), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, place: int) -> str:
        start = int(self.ends[place - 1]) if place else 0
        return bytes(self.text[start : self.ends[place]]).decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return (self[place] for place in range(len(self)))

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """The two arrays, by names that :meth:`load` finds again in an ``.npz`` file."""
        return {f"{name}_text": self.text, f"{name}_ends": self.ends}

    @classmethod
    def load(cls, arrays: Any, name: str) -> Strings:
        """The strings that :meth:`arrays` named so."""
        return cls(arrays[f"{name}_text"], arrays[f"{name}_ends"])


def save_arrays(path: Path, **arrays: Any) -> None:
    """Writes an ``.npz`` file beside its place and moves it there: it is never half written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    with open(beside, "wb") as file:
        np.savez(file, **arrays)
    os.replace(beside, path)
