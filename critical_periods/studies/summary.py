"""The study as one run of Weights & Biases: its curve as a chart and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import wandb

from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.tree import Plan
from critical_periods.tracking import wandb_logger


def log_summary(folder: StudyFolder, plan: Plan, points: Sequence[Mapping[str, Any]]) -> None:
    """Logs every figure, ``curve_table`` and a chart of accuracy against removal.

    The run is named ``summary`` and stands in the group of the study's segments.

    Args:
        folder: of the study, with its figures.
        plan: of the study.
        points: the rows of ``curve.csv``.
    """
    logger = wandb_logger(folder.path, group=plan.study, name="summary", job_type="summary")
    if logger is None:
        return
    columns: list[str | int] = list(dict.fromkeys(column for point in points for column in point))
    rows = [[_value(point.get(str(column))) for column in columns] for point in points]
    table = wandb.Table(columns=columns, data=rows)
    against = "onset" if any(float(point["onset"]) > 0 for point in points) else "removal"
    figures = sorted(folder.path.glob("*.png"))
    shown: dict[str, Any] = {path.stem: wandb.Image(str(path)) for path in figures}
    shown["curve_table"] = table
    if "final_accuracy" in columns:
        shown["curve_chart"] = wandb.plot.scatter(
            table, against, "final_accuracy", title=plan.study
        )
    logger.experiment.log(shown)
    logger.experiment.finish()


def _value(text: Any) -> Any:
    try:
        return float(text)
    except (TypeError, ValueError):
        return text
