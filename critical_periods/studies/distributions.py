"""How the units of a study's networks are spread between the eyes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from critical_periods.core.errors import UserError
from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.histories import done_segments
from critical_periods.studies.plan import Plan
from critical_periods.studies.results import short

_ENDING = "/counts"


def rsv_distributions(study: StudyFolder, plan: Plan) -> list[dict[str, Any]]:
    """One row for each window, layer and bin of the histogram of RSV at the end of the run.

    Columns: ``variant`` and every varied field, ``onset``, ``removal``, ``epochs``, ``seeds``,
    ``layer`` (a layer's units, or its channels averaged over positions: ``<layer>/channels``),
    ``low`` and ``high``, the edges of the bin, and ``share`` of all units and fixed pairs of
    all seeds that are done.

    Raises:
        UserError: a file of measured histograms is damaged.
    """
    rows = []
    for known, segments in done_segments(study, plan):
        # The last one's name says the epoch, in digits of which there are always as many.
        last = [sorted(segment.path.glob("rsv/epoch_*.npz"))[-1:] for segment in segments]
        counts: dict[str, Any] = {}
        edges: dict[str, Any] = {}
        for file in (file for files in last for file in files):
            for layer, (of_layer, its_edges) in _histograms(file).items():
                counts[layer] = counts.get(layer, 0) + of_layer
                edges[layer] = its_edges
        for layer, of_layer in counts.items():
            shares = of_layer / max(of_layer.sum(), 1)
            for low, high, share in zip(edges[layer], edges[layer][1:], shares, strict=False):
                bin_ = {"low": short(float(low)), "high": short(float(high))}
                rows.append({**known, "layer": layer, **bin_, "share": short(float(share))})
    return rows


def _histograms(file: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Counts and edges of each layer's histogram, as a ``SourceVarianceMonitor`` kept them."""
    try:
        with np.load(file) as arrays:
            layers = [key.removesuffix(_ENDING) for key in arrays if key.endswith(_ENDING)]
            return {one: (arrays[one + _ENDING], arrays[f"{one}/edges"]) for one in layers}
    # What NumPy, zipfile and zlib say of a file that was cut or altered has no common name.
    except Exception as error:
        raise UserError(
            f"{file} is damaged; delete the segment's folder {file.parents[1]} and run the study "
            "again."
        ) from error
