"""What lies in the files of Weights & Biases."""

import json
import struct
from pathlib import Path
from typing import Any


def read_records(file: Path) -> list[Any]:
    """Protocol buffers in LevelDB's log format, in blocks of 32 KiB."""
    from wandb.proto import wandb_internal_pb2

    content, place = file.read_bytes(), 7
    found, parts = [], b""
    while place < len(content):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        header = content[place : place + 7].ljust(7, b"\0")
        _, length, kind = struct.unpack("<IHB", header)
        if place + 7 + length > len(content):
            break  # it is still written
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # the whole of a record, or its last part
            record = wandb_internal_pb2.Record()  # type: ignore[attr-defined]
            record.ParseFromString(parts)
            found.append(record)
            parts = b""
    return found


def logged(records: list[Any], key: str) -> list[Any]:
    """The values that a run's rows have of a key, as they were logged."""
    items = [item for record in records for item in record.history.item]
    names = [item.key or ".".join(item.nested_key) for item in items]
    found = zip(names, items, strict=True)
    return [json.loads(item.value_json) for name, item in found if name == key]
