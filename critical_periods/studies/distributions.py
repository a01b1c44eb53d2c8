"""How the units of a study's networks are spread between the eyes."""

from __future__ import annotations

from typing import Any

import numpy as np

from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.histories import done_segments
from critical_periods.studies.results import short
from critical_periods.studies.tree import Plan

_ENDING = "/counts"


def rsv_distributions(study: StudyFolder, plan: Plan) -> list[dict[str, Any]]:
    """One row for each window, layer and bin of the histogram of RSV at the end of the run.

    Columns: ``variant`` and every varied field, ``onset``, ``removal``, ``epochs``, ``seeds``,
    ``layer`` (a layer's units, or its channels averaged over positions: ``<layer>/channels``),
    ``low`` and ``high``, the edges of the bin, and ``share`` of all units and fixed pairs of
    all seeds that are done.
    """
    rows = []
    for known, segments in done_segments(study, plan):
        # The last one's name says the epoch, in digits of which there are always as many.
        last = [sorted(segment.path.glob("rsv/epoch_*.npz"))[-1:] for segment in segments]
        measured = [dict(np.load(file)) for files in last for file in files]
        counts: dict[str, Any] = {}
        edges: dict[str, Any] = {}
        for arrays in measured:
            for key in arrays:
                if key.endswith(_ENDING):
                    layer = key.removesuffix(_ENDING)
                    counts[layer] = counts.get(layer, 0) + arrays[key]
                    edges[layer] = arrays[f"{layer}/edges"]
        for layer, of_layer in counts.items():
            shares = of_layer / max(of_layer.sum(), 1)
            for low, high, share in zip(edges[layer], edges[layer][1:], shares, strict=False):
                bin_ = {"low": short(float(low)), "high": short(float(high))}
                rows.append({**known, "layer": layer, **bin_, "share": short(float(share))})
    return rows
