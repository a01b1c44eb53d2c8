"""Whether a video file is shorter than its container says."""

import os
import struct
from pathlib import Path
from typing import BinaryIO

# What an MP4 file consists of; anything else after them is no promise of more to come.
_BOXES = {b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"mfra", b"sidx", b"free", b"skip", b"uuid"}
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def is_cut_off(path: str | Path) -> bool:
    """Whether the file is shorter than its container says.

    Knows the boxes of MP4 and QuickTime, the segment of Matroska and WebM, and the RIFF chunks of
    AVI; other files, and those that leave their length open, are taken to be complete. Decoders
    go on to the last byte of a file and do not say what is missing after it.

    Example:
        >>> is_cut_off(__file__)
        False
    """
    with open(path, "rb") as file:
        start = file.read(16)
        file.seek(0)
        if start[4:8] in _BOXES:
            end = _mp4(file)
        elif start[:4] == _EBML:
            end = _matroska(file)
        elif start[:4] == b"RIFF" and start[8:12] == b"AVI ":
            end = 8 + struct.unpack("<I", start[4:8])[0]
        else:
            return False
        return end > os.fstat(file.fileno()).st_size


def _mp4(file: BinaryIO) -> int:
    """Where the last box ends."""
    place = 0
    while len(head := file.read(16)) >= 8:
        size, kind = struct.unpack(">I4s", head[:8])
        if size == 1 and len(head) == 16:
            size = struct.unpack(">Q", head[8:])[0]
        # A size of 0 means to the end of the file.
        if kind not in _BOXES or size < 8:
            break
        place += size
        file.seek(place)
    return place


def _matroska(file: BinaryIO) -> int:
    """Where the segment ends; 0 where that is left open."""
    file.seek(4)
    file.seek(_length(file) or 0, os.SEEK_CUR)
    size = _length(file) if file.read(4) == _SEGMENT else None
    return 0 if size is None else file.tell() + size


def _length(file: BinaryIO) -> int | None:
    """A number that says by its leading zero bits how many bytes it has; all ones: unknown."""
    first = (file.read(1) or b"\xff")[0]
    more = 8 - first.bit_length()
    value = int.from_bytes(bytes([first & (0x7F >> more)]) + file.read(more), "big")
    return None if value == (1 << 7 * (more + 1)) - 1 else value
