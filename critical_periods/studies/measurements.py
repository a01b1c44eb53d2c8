"""What was measured through the epochs of a study's runs, and how RSV is spread at their ends."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np

from critical_periods.core.errors import UserError
from critical_periods.studies.folder import SegmentFolder, StudyFolder
from critical_periods.studies.plan import Plan
from critical_periods.studies.results import Row, settings
from critical_periods.studies.statistics import spread
from critical_periods.studies.tables import short

# Names under which networks keep all their layers, which say little by themselves.
_WRAPPERS = ("pathways", "trunk", "model")
_OF_LAYERS = {"fisher/trace/": "fisher_trace", "information/weights/": "information"}
_COUNTS = "/counts"


class _Cell(NamedTuple):
    """Where a logged value belongs: a column, and what its row has beside the epoch."""

    column: str
    place: tuple[tuple[str, Any], ...] = ()


def _of_network(pattern: str) -> Callable[[str], _Cell | None]:
    """A column for each key of a pattern."""
    return lambda key: _Cell(key.replace("/", "_")) if re.fullmatch(pattern, key) else None


def _of_layer(key: str) -> _Cell | None:
    for prefix, column in _OF_LAYERS.items():
        if key.startswith(prefix):
            return _Cell(column, (("layer", block(key.removeprefix(prefix))),))
    return None


def _of_mode(key: str) -> _Cell | None:
    found = re.fullmatch(r"modes/(ode/)?path_(\d+)/(\d+)", key)
    if found is None:
        return None
    ode, path, mode = found.groups()
    return _Cell("ode" if ode else "strength", (("path", int(path)), ("mode", int(mode))))


def _histories(
    study: StudyFolder,
    plan: Plan,
    cell: Callable[[str], _Cell | None],
    has_spread: bool = False,
    least: int = 1,
) -> list[Row]:
    """One row for each window, epoch and place: means over the seeds that are done.

    Args:
        study: the folder of the study.
        plan: its plan.
        cell: where what was logged under a key belongs; ``None`` leaves it out. Of one run, the
            values of one cell add up.
        has_spread: whether to add standard deviations, where there are several seeds.
        least: in how many epochs something must have been logged.
    """
    rows, cell = [], cache(cell)
    for known, segments in _done(study, plan):
        found: dict[tuple[Any, ...], dict[str, list[float]]] = {}
        for segment in segments:
            for epoch in segment.history():
                sums: dict[_Cell, float] = {}
                for key, value in epoch.items():
                    if value and (here := cell(key)):
                        sums[here] = sums.get(here, 0.0) + float(value)
                for (column, place), total in sums.items():
                    row = found.setdefault((("epoch", int(epoch["epoch"])), *place), {})
                    row.setdefault(column, []).append(total)
        for place, columns in found.items() if len(found) >= least else ():
            line = {**known, **dict(place)}
            for column, values in columns.items():
                line[column] = short(mean(values))
                if has_spread and len(values) > 1:
                    line[f"{column}_sd"] = short(spread(values))
            rows.append(line)
    return rows


def _distributions(study: StudyFolder, plan: Plan) -> list[Row]:
    """One row for each window, layer and bin of the histogram of RSV at the end of the run."""
    rows = []
    for known, segments in _done(study, plan):
        counts: dict[str, Any] = {}
        edges: dict[str, Any] = {}
        for segment in segments:
            # The last one's name says the epoch, in digits of which there are always as many.
            for file in sorted(segment.path.glob("rsv/epoch_*.npz"))[-1:]:
                for layer, (of_layer, its_edges) in _histograms(file).items():
                    counts[layer] = counts.get(layer, 0) + of_layer
                    edges[layer] = its_edges
        for layer, of_layer in counts.items():
            shares = of_layer / max(of_layer.sum(), 1)
            for numbers in zip(edges[layer], edges[layer][1:], shares, strict=False):
                low, high, share = (short(float(number)) for number in numbers)
                rows.append({**known, "layer": layer, "low": low, "high": high, "share": share})
    return rows


def _histograms(file: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Counts and edges of each layer's histogram, as a ``SourceVarianceMonitor`` kept them."""
    try:
        with np.load(file) as arrays:
            layers = [key.removesuffix(_COUNTS) for key in arrays if key.endswith(_COUNTS)]
            return {one: (arrays[one + _COUNTS], arrays[f"{one}/edges"]) for one in layers}
    # What NumPy, zipfile and zlib say of a file that was cut or altered has no common name.
    except Exception as error:
        raise UserError(
            f"{file} is damaged; delete the segment's folder {file.parents[1]} and run the study "
            "again."
        ) from error


def _done(study: StudyFolder, plan: Plan) -> Iterator[tuple[Row, list[SegmentFolder]]]:
    """The runs that are done, the seeds of the same window, variation and stage together.

    Yields:
        What their rows begin with (the varied fields, ``stage`` where there are two, the window and
        the number of ``seeds``), and the last segments of the runs, which know all epochs.
    """
    groups: dict[str, tuple[Row, list[SegmentFolder]]] = {}
    for run in plan.runs:
        for stage, name in plan.stages(run):
            segment, known = study.segment(name), settings(run, stage)
            if segment.is_done():
                groups.setdefault(repr(known), (known, []))[1].append(segment)
    for known, segments in groups.values():
        yield {**known, "seeds": len(segments)}, segments


def block(layer: str) -> str:
    """The part of a network that a layer belongs to, as figures show it.

    Example:
        >>> block("conv3.norm"), block("stage2.1.conv1"), block("trunk.stage3.0.conv1")
        ('conv3', 'stage2', 'trunk.stage3')
    """
    names = layer.split(".")
    return ".".join(names[: 2 if names[0] in _WRAPPERS else 1])


TABLES: dict[str, Callable[[StudyFolder, Plan], list[Row]]] = {
    "fisher": partial(_histories, cell=_of_network("fisher/trace"), has_spread=True, least=2),
    "layers": partial(_histories, cell=_of_layer),
    "information": partial(
        _histories, cell=_of_network(r"information/(both|view_\d+)"), has_spread=True
    ),
    "reconstruction": partial(_histories, cell=_of_network(r"reconstruction/\w+"), has_spread=True),
    "rsv": _distributions,
    "modes": partial(_histories, cell=_of_mode),
}
"""The tables beside the results and the curve: their names, and what makes their rows.

Their columns are said at the properties of :class:`~critical_periods.studies.LoadedStudy`.
"""
