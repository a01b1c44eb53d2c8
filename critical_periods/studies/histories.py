"""What was measured through the epochs of a study's runs, layer by layer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from statistics import mean
from typing import Any

from critical_periods.studies.folder import StudyFolder, read_table
from critical_periods.studies.results import cells, short
from critical_periods.studies.tree import Plan, Run

_MEASURES = {"fisher_trace": "fisher/trace/", "information": "information/weights/"}
# Names under which networks keep all their layers, which say little by themselves.
_WRAPPERS = ("pathways", "trunk", "model")


def layer_histories(study: StudyFolder, plan: Plan) -> list[dict[str, Any]]:
    """One row for each window, epoch and layer: means over the seeds that are done.

    Columns: ``variant`` and every varied field, ``onset``, ``removal``, ``epochs``, ``seeds``,
    ``epoch``, ``layer``; ``fisher_trace``, in nats² per squared unit of weight, and
    ``information``, in nats, where they were measured. A layer is the part of the network that
    :func:`block` names; its parts' traces and nats add up.
    """
    groups: dict[str, list[Run]] = {}
    for run in plan.runs:
        if study.segment(run.segment).is_done():
            groups.setdefault(json.dumps([run.variation, run.window]), []).append(run)
    rows = []
    for runs in groups.values():
        found: dict[tuple[int, str], dict[str, list[float]]] = {}
        for run in runs:
            for place, measure, value in _measured(study, run):
                found.setdefault(place, {}).setdefault(measure, []).append(value)
        window = runs[0].window._asdict()
        for (epoch, layer), values in found.items():
            rows.append(
                {**cells(runs[0].variation), **window, "seeds": len(runs), "epoch": epoch,
                 "layer": layer, **{name: short(mean(of)) for name, of in values.items()}}
            )  # fmt: skip
    return rows


def _measured(study: StudyFolder, run: Run) -> Iterator[tuple[tuple[int, str], str, float]]:
    """What one run measured: ((epoch, layer), measure, sum over the layer's parts)."""
    for row in read_table(study.segment(run.segment).metrics):
        epoch = int(row["epoch"])
        if epoch >= run.window.epochs:
            continue
        for measure, prefix in _MEASURES.items():
            sums: dict[str, float] = {}
            for key, value in row.items():
                if key.startswith(prefix) and value:
                    layer = block(key.removeprefix(prefix))
                    sums[layer] = sums.get(layer, 0.0) + float(value)
            for layer, total in sums.items():
                yield (epoch, layer), measure, total


def block(layer: str) -> str:
    """The part of a network that a layer belongs to, as figures show it.

    Example:
        >>> block("conv3.norm"), block("stage2.1.conv1"), block("trunk.stage3.0.conv1")
        ('conv3', 'stage2', 'trunk.stage3')
    """
    names = layer.split(".")
    return ".".join(names[: 2 if names[0] in _WRAPPERS else 1])
