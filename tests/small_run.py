"""The smallest run that has everything, and what changes one thing about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from small_study import BASE, changed

Config = dict[str, Any]


def write_run(changes: Config | None = None) -> str:
    """Writes run.yaml, a run of two epochs, with some fields changed."""
    Path("run.yaml").write_text(yaml.safe_dump(changed(BASE, changes or {})))
    return "run.yaml"
