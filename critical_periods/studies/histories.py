"""What was measured through the epochs of a study's runs: whole, by layer, by what eyes tell."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from statistics import mean, stdev
from typing import Any

from critical_periods.studies.folder import SegmentFolder, StudyFolder, read_table
from critical_periods.studies.plan import Plan
from critical_periods.studies.results import cells, short

_MEASURES = {"fisher_trace": "fisher/trace/", "information": "information/weights/"}
_FISHER = re.compile(r"fisher/trace")
_INFORMATION = re.compile(r"information/(both|view_\d+)")
_RECONSTRUCTION = re.compile(r"reconstruction/\w+")
# Names under which networks keep all their layers, which say little by themselves.
_WRAPPERS = ("pathways", "trunk", "model")


def layer_histories(study: StudyFolder, plan: Plan) -> list[dict[str, Any]]:
    """One row for each window, epoch and layer: means over the seeds that are done.

    Columns: ``variant`` and every varied field, ``stage`` (where runs end with fine-tuning:
    ``pretraining`` or ``finetuning``), ``onset``, ``removal``, ``epochs``, ``seeds``,
    ``epoch``, ``layer``; ``fisher_trace``, in nats² per squared unit of weight, and
    ``information``, in nats, where they were measured. A layer is the part of the network that
    :func:`block` names; its parts' traces and nats add up.
    """
    rows = []
    for known, segments in done_segments(study, plan):
        found: dict[tuple[int, str], dict[str, list[float]]] = {}
        for segment in segments:
            for place, measure, value in _measured(segment):
                found.setdefault(place, {}).setdefault(measure, []).append(value)
        for (epoch, layer), values in found.items():
            means = {name: short(mean(of)) for name, of in values.items()}
            rows.append({**known, "epoch": epoch, "layer": layer, **means})
    return rows


def fisher_histories(study: StudyFolder, plan: Plan) -> list[dict[str, Any]]:
    """One row for each window and epoch: Fisher traces of the whole network over the seeds done.

    Of the runs in which it was measured in more than one epoch; the last one's alone is in
    ``results.csv``. Columns: ``variant`` and every varied field, ``onset``, ``removal``,
    ``epochs``, ``seeds``, ``epoch``; ``fisher_trace``, in nats² per squared unit of weight, with
    its sample standard deviation ``fisher_trace_sd`` where there are several seeds.
    """
    return _histories(study, plan, _FISHER, least=2)


def information_histories(study: StudyFolder, plan: Plan) -> list[dict[str, Any]]:
    """One row for each window and epoch: usable information over the seeds that are done.

    Columns: ``variant`` and every varied field, ``onset``, ``removal``, ``epochs``, ``seeds``,
    ``epoch``; ``information_both``, ``information_view_0``, …, in bits, each with its sample
    standard deviation ``_sd`` where there are several seeds.
    """
    return _histories(study, plan, _INFORMATION)


def reconstruction_histories(study: StudyFolder, plan: Plan) -> list[dict[str, Any]]:
    """One row for each window and epoch: errors of reconstruction over the seeds that are done.

    Columns: ``variant`` and every varied field, ``onset``, ``removal``, ``epochs``, ``seeds``,
    ``epoch``; ``reconstruction_own_view``, ``reconstruction_other_view`` and
    ``reconstruction_both_views``, as shares of the pixels' variance, each with its sample standard
    deviation ``_sd`` where there are several seeds.
    """
    return _histories(study, plan, _RECONSTRUCTION)


def _histories(
    study: StudyFolder, plan: Plan, keys: re.Pattern[str], least: int = 1
) -> list[dict[str, Any]]:
    """Means over seeds of what has these keys, where it was measured in so many epochs."""
    rows = []
    for known, segments in done_segments(study, plan):
        found: dict[int, dict[str, list[float]]] = {}
        for segment in segments:
            for row in read_table(segment.metrics):
                for key, value in row.items():
                    if value and keys.fullmatch(key):
                        of_epoch = found.setdefault(int(row["epoch"]), {})
                        of_epoch.setdefault(key.replace("/", "_"), []).append(float(value))
        for epoch, values in found.items() if len(found) >= least else ():
            line: dict[str, Any] = {**known, "epoch": epoch}
            for name, of in values.items():
                line[name] = short(mean(of))
                if len(of) > 1:
                    line[f"{name}_sd"] = short(stdev(of))
            rows.append(line)
    return rows


def done_segments(
    study: StudyFolder, plan: Plan
) -> list[tuple[dict[str, Any], list[SegmentFolder]]]:
    """The runs that are done, the seeds of the same window, variation and stage together.

    Returns:
        What their rows begin with (the varied fields, ``stage`` where there are two, the window and
        the number of ``seeds``), and the last segments of the runs, which know all epochs.
    """
    groups: dict[str, list[SegmentFolder]] = {}
    starts: dict[str, dict[str, Any]] = {}
    for run in plan.runs:
        for stage, name in plan.stages(run):
            if study.segment(name).is_done():
                start = {**cells(run.variation), **({"stage": stage} if stage else {})}
                key = json.dumps([start, run.window])
                starts[key] = {**start, **run.window._asdict()}
                groups.setdefault(key, []).append(study.segment(name))
    return [({**starts[key], "seeds": len(of)}, of) for key, of in groups.items()]


def _measured(segment: SegmentFolder) -> Iterator[tuple[tuple[int, str], str, float]]:
    """What one run measured: ((epoch, layer), measure, sum over the layer's parts)."""
    for row in read_table(segment.metrics):
        epoch = int(row["epoch"])
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
