"""How the modes of a task grew in the paths of a study's linear networks."""

from __future__ import annotations

import re
from statistics import mean
from typing import Any

from critical_periods.studies.folder import StudyFolder, read_table
from critical_periods.studies.histories import done_segments
from critical_periods.studies.plan import Plan
from critical_periods.studies.results import short

_KEY = re.compile(r"modes/(ode/)?path_(\d+)/(\d+)")


def mode_histories(study: StudyFolder, plan: Plan) -> list[dict[str, Any]]:
    """One row for each window, epoch, path and mode: means over the seeds that are done.

    Columns: ``variant`` and every varied field, ``onset``, ``removal``, ``epochs``, ``seeds``,
    ``epoch``, ``path``, ``mode``; ``strength``, which a
    :class:`~critical_periods.callbacks.ModeMonitor` measured, and ``ode``, what theory says.
    """
    rows = []
    for known, segments in done_segments(study, plan):
        found: dict[tuple[int, int, int], dict[str, list[float]]] = {}
        for segment in segments:
            for row in read_table(segment.metrics):
                for key, value in row.items():
                    place = _KEY.fullmatch(key)
                    if place and value:
                        ode, path, mode = place.groups()
                        here = found.setdefault((int(row["epoch"]), int(path), int(mode)), {})
                        here.setdefault("ode" if ode else "strength", []).append(float(value))
        for (epoch, path, mode), values in found.items():
            means = {name: short(mean(of)) for name, of in values.items()}
            rows.append({**known, "epoch": epoch, "path": path, "mode": mode, **means})
    return rows
