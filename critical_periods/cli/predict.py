"""``study predict``: what of a study's history says how much a deficit will have cost."""

import pandas as pd

from critical_periods.studies.detector import detections
from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.loading import LoadedStudy
from critical_periods.studies.plan import Plan
from critical_periods.studies.prediction import predictions
from critical_periods.studies.study_file import Ends
from critical_periods.studies.tables import as_table, write_table


def predict(folder: StudyFolder, plan: Plan, measures: list[str], ends: Ends | None) -> None:
    """Writes ``predictions.csv``, and ``ends.csv`` where a detector is given, and prints them."""
    rows = LoadedStudy(folder, plan).rows("results")
    tables = {"predictions": predictions(folder, plan, rows, measures)}
    if ends is not None:
        tables["ends"] = detections(folder, plan, rows, ends)
    for name, found in tables.items():
        write_table(folder.path / f"{name}.csv", found)
        table = as_table(found)
        if name == "predictions" and "chosen_rho" in table:
            order = table["chosen_rho"].abs().sort_values(ascending=False, kind="stable").index
            table = table.loc[order]
        with pd.option_context("display.width", None, "display.max_columns", None):
            print(table.to_string(index=False, float_format="{:.3g}".format))
    print(f"Wrote {' and '.join(f'{name}.csv' for name in tables)} to {folder.path}.")
