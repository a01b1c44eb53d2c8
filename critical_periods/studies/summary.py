"""The study as one run of Weights & Biases: its curve as a chart and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import wandb

from critical_periods.runs.tracking import wandb_logger
from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.plan import Plan


def log_summary(
    folder: StudyFolder, plan: Plan, points: Sequence[Mapping[str, Any]], figures: Sequence[str]
) -> None:
    """Logs its figures, ``curve_table`` and a chart of accuracy against removal.

    The run is named ``summary`` and stands in the group of the study's segments.

    Args:
        folder: of the study, with its figures.
        plan: of the study.
        points: the rows of ``curve.csv``.
        figures: names of the pictures.
    """
    logger = wandb_logger(folder.path, group=plan.study, name="summary", job_type="summary")
    if logger is None:
        return
    columns: list[str | int] = list(dict.fromkeys(column for point in points for column in point))
    cells = [_values([point.get(str(column)) for point in points]) for column in columns]
    table = wandb.Table(columns=columns, data=[list(row) for row in zip(*cells, strict=True)])
    against = "onset" if any(float(point["onset"]) > 0 for point in points) else "removal"
    paths = [folder.path / name for name in figures]
    shown: dict[str, Any] = {path.stem: wandb.Image(str(path)) for path in paths}
    shown["curve_table"] = table
    if "final_accuracy" in columns:
        shown["curve_chart"] = wandb.plot.scatter(
            table, against, "final_accuracy", title=plan.study
        )
    logger.experiment.log(shown)
    logger.experiment.finish()


def _values(cells: Sequence[Any]) -> list[Any]:
    """A column, as a table wants it: numbers or text alone, and None where there is nothing.

    Example:
        >>> _values(["4", "", "1e-3"]), _values(["4", "none"]), _values([None, ""])
        ([4.0, None, 0.001], ['4', 'none'], [None, None])
    """
    filled = [None if cell in (None, "") else cell for cell in cells]
    try:
        return [None if cell is None else float(cell) for cell in filled]
    except (TypeError, ValueError):
        return [None if cell is None else str(cell) for cell in filled]
