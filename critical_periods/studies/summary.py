"""The study as one run of Weights & Biases: its curve as a chart and as a table."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import wandb

from critical_periods.runs.tracking import wandb_logger
from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.plan import Plan


def log_summary(
    folder: StudyFolder, plan: Plan, curve: pd.DataFrame, figures: Sequence[str]
) -> None:
    """Logs its figures, ``curve_table`` and a chart of accuracy against removal.

    The run is named ``summary`` and stands in the group of the study's segments. ``figures`` are
    the names of the pictures in the study's folder.
    """
    logger = wandb_logger(folder.path, group=plan.study, name="summary", job_type="summary")
    if logger is None:
        return
    cells = curve.apply(_column).astype(object).where(curve.notna(), None)
    table = wandb.Table(columns=list(cells), data=cells.to_numpy().tolist())
    against = "onset" if (curve["onset"] > 0).any() else "removal"
    paths = [folder.path / name for name in figures]
    shown: dict[str, Any] = {path.stem: wandb.Image(str(path)) for path in paths}
    shown["curve_table"] = table
    if "final_accuracy" in curve:
        chart = wandb.plot.scatter(table, against, "final_accuracy", title=plan.study)
        shown["curve_chart"] = chart
    logger.experiment.log(shown)
    logger.experiment.finish()


def _column(cells: pd.Series) -> pd.Series:
    """A column as W&B wants it: of numbers or text alone."""
    numbers = pd.to_numeric(cells, errors="coerce")
    return numbers if numbers.notna().equals(cells.notna()) else cells.astype(str)
