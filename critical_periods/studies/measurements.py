"""What was measured through the epochs of a study's runs, and how RSV is spread at their ends."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from critical_periods.core.errors import UserError
from critical_periods.studies.cross import cross
from critical_periods.studies.divergence import diverged_in, logged
from critical_periods.studies.folder import SegmentFolder, StudyFolder
from critical_periods.studies.plan import Plan
from critical_periods.studies.results import Row, settings
from critical_periods.studies.statistics import average, spread
from critical_periods.studies.tables import short

# Names under which networks keep all their layers, which say little by themselves.
_WRAPPERS = ("pathways", "trunk", "model")

_Place = tuple[tuple[str, Any], ...]


def block(layer: str) -> str:
    """The part of a network that a layer belongs to, as figures show it.

    Example:
        >>> block("conv3.norm"), block("stage2.1.conv1"), block("trunk.stage3.0.conv1")
        ('conv3', 'stage2', 'trunk.stage3')
    """
    names = layer.split(".")
    return ".".join(names[: 2 if names[0] in _WRAPPERS else 1])


# What a row has beside the epoch, and what makes it of a part of a logged key.
_PLACES: dict[str, Callable[[str], Any]] = {"layer": block, "path": int, "mode": int, "region": str}


def _histories(
    columns: Mapping[str, str], study: StudyFolder, plan: Plan, least: int = 1
) -> list[Row]:
    """One row for each window, epoch and place: means over the seeds that are done.

    Columns are given for patterns of logged keys, whose named groups say the place; those without a
    place have standard deviations, too. In one run, what falls in one cell adds up. In ``least``
    epochs something must have been logged.
    """
    rows = []
    for known, segments in _done(study, plan):
        found: dict[_Place, dict[str, list[float]]] = {}
        for segment in segments:
            cells = _cells(logged(segment), columns)
            for epoch in segment.history() if cells else ():
                sums: dict[tuple[str, _Place], float] = {}
                for key, (column, parts) in cells.items():
                    if epoch[key]:
                        cell = column, (("epoch", int(epoch["epoch"])), *parts)
                        sums[cell] = sums.get(cell, 0.0) + float(epoch[key])
                for (column, place), total in sums.items():
                    found.setdefault(place, {}).setdefault(column, []).append(total)
        for place, measured in found.items() if len(found) >= least else ():
            line = {**known, **dict(place)}
            for column, values in measured.items():
                line[column] = short(average(values))
                if len(place) == 1 and len(values) > 1:
                    line[f"{column}_sd"] = short(spread(values))
            rows.append(line)
    return rows


def _cells(keys: Iterable[str], columns: Mapping[str, str]) -> dict[str, tuple[str, _Place]]:
    """For each key of a pattern its column and place."""
    cells = {}
    for key, (pattern, column) in product(keys, columns.items()):
        if found := re.fullmatch(pattern, key):
            parts = found.groupdict().items()
            cells[key] = found.expand(column), tuple((n, _PLACES[n](text)) for n, text in parts)
    return cells


def _distributions(study: StudyFolder, plan: Plan) -> list[Row]:
    """One row for each window, layer and bin of the histogram of RSV at the end of the run."""
    rows = []
    for known, segments in _done(study, plan):
        counts: dict[str, Any] = {}
        edges: dict[str, Any] = {}
        for segment in segments:
            # The last one's name says the epoch, in digits of which there are always as many.
            for file in sorted(segment.path.glob("rsv/epoch_*.npz"))[-1:]:
                for layer, (of_layer, its_edges) in histograms(file).items():
                    counts[layer] = counts.get(layer, 0) + of_layer
                    edges[layer] = its_edges
        for layer, of_layer in counts.items():
            shares = of_layer / max(of_layer.sum(), 1)
            for low, high, share in zip(edges[layer], edges[layer][1:], shares, strict=False):
                bin_ = {"low": short(low), "high": short(high), "share": short(share)}
                rows.append({**known, "layer": layer, **bin_})
    return rows


def rsv_through_epochs(study: StudyFolder, plan: Plan) -> list[Row]:
    """One row for each window, layer, epoch in which it was measured and bin of the histogram.

    The counts of the seeds are added up, and a run's epochs are those of its ancestors, too.
    """
    rows: list[Row] = []
    # Many runs have the same ancestors.
    files_of = cache(lambda name: list(study.segment(name).path.glob("rsv/epoch_*.npz")))
    for known, segments in _done(study, plan):
        found: dict[tuple[str, int], tuple[Any, Any]] = {}
        for segment in segments:
            last = plan.segments[segment.path.name]
            for one in plan.lineage(last.name):
                for file in files_of(one.name) if one.finetunes == last.finetunes else ():
                    for layer, (counts, edges) in histograms(file).items():
                        place = layer, int(file.stem.rpartition("_")[2])
                        found[place] = counts + found.get(place, (0, edges))[0], edges
        for (layer, epoch), (counts, edges) in sorted(found.items(), key=lambda one: one[0]):
            for low, high, count in zip(edges, edges[1:], counts, strict=False):
                share = short(count / max(counts.sum(), 1))
                bin_ = {"low": short(low), "high": short(high), "share": share}
                rows.append({**known, "layer": layer, "epoch": epoch, **bin_})
    return rows


def histograms(file: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Counts and edges of each layer's histogram, as a ``SourceVarianceMonitor`` kept them."""
    try:
        with np.load(file) as arrays:
            layers = [key.removesuffix("/counts") for key in arrays if key.endswith("/counts")]
            return {one: (arrays[f"{one}/counts"], arrays[f"{one}/edges"]) for one in layers}
    # What NumPy, zipfile and zlib say of a file that was cut or altered has no common name.
    except Exception as error:
        raise UserError(
            f"{file} is damaged; delete the segment's folder {file.parents[1]} and run the study "
            "again."
        ) from error


def _done(study: StudyFolder, plan: Plan) -> Iterator[tuple[Row, list[SegmentFolder]]]:
    """What rows of runs that are done begin with, and the seeds' last segments, which know all."""
    groups: dict[str, tuple[Row, list[SegmentFolder]]] = {}
    for run in plan.runs:
        for stage, name in plan.stages(run):
            segment, known = study.segment(name), settings(run, stage)
            if segment.is_done() and diverged_in(study, plan, name) is None:
                groups.setdefault(repr(known), (known, []))[1].append(segment)
    for known, segments in groups.values():
        yield {**known, "seeds": len(segments)}, segments


TABLES: dict[str, Callable[[StudyFolder, Plan], list[Row]]] = {
    "fisher": partial(_histories, {"fisher/trace": "fisher_trace"}, least=2),
    "layers": partial(
        _histories,
        {
            "fisher/trace/(?P<layer>.+)": "fisher_trace",
            "information/weights/(?P<layer>.+)": "information",
        },
    ),
    "information": partial(_histories, {r"information/(both|view_\d+)": r"information_\1"}),
    "reconstruction": partial(_histories, {r"reconstruction/(\w+)": r"reconstruction_\1"}),
    "agent": partial(_histories, {"(?:val/(?=success)|agent/)(.+)": r"\1"}, least=2),
    "regions": partial(_histories, {r"region/(?P<region>\w+)/(\w+)": r"\2"}),
    "cross": cross,
    "rsv": _distributions,
    "modes": partial(
        _histories,
        {
            r"modes/path_(?P<path>\d+)/(?P<mode>\d+)": "strength",
            r"modes/ode/path_(?P<path>\d+)/(?P<mode>\d+)": "ode",
        },
    ),
}
"""The tables beside the results and the curve: their names, and what makes their rows.

Their columns are said at the properties of :class:`~critical_periods.studies.LoadedStudy`.
"""
