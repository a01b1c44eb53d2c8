"""Tables and figures of a study: everything that its finished runs give."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from critical_periods.plots.style import save
from critical_periods.studies.figures import figures
from critical_periods.studies.folder import StudyFolder, write_json
from critical_periods.studies.measurements import TABLES
from critical_periods.studies.plan import Plan
from critical_periods.studies.recovery import recovery
from critical_periods.studies.results import curve, marked, results
from critical_periods.studies.summary import update_summary
from critical_periods.studies.tables import as_table, write_table


def write_report(folder: StudyFolder, plan: Plan) -> list[str]:
    """Writes the tables, draws the figures that they give, as PNG and PDF, and logs the summary.

    ``results.csv`` (a row a run) and ``curve.csv`` always; ``recovery``, the rungs of a ladder and
    its verdicts; ``curve`` where accuracy, RSV or an error was measured; ``sensitivity`` where
    windows of a length vary in their onset; ``surface`` where two settings vary. Where they were
    measured, each a table and a figure: ``fisher``, ``layers``, ``information``,
    ``reconstruction`` and ``modes``, in several epochs, and ``rsv``, the histograms at the end.

    Returns:
        The names of the files; none before any run is done. They are in ``report.json``, too,
        beside what failed: ``segment``, ``reason``, the epoch in which it ``diverged``, or null,
        and the segments ``not_tried``, which go on from it.
    """
    runs = results(folder, plan)
    if not runs:
        return []
    tables = {"results": runs, "curve": curve(plan, runs)}
    tables |= {"recovery": rungs} if (rungs := recovery(plan, runs)) else {}
    tables |= {name: rows for name, make in TABLES.items() if (rows := make(folder, plan))}
    frames = {}
    for name, rows in tables.items():
        rows = marked(plan, rows)
        write_table(folder.path / f"{name}.csv", rows)
        frames[name] = as_table(rows)
        frames[name].attrs["window"] = plan.kind_of_window
    drawn = figures(frames, plan.study)
    for name, draw in drawn.items():
        save(draw(), folder.path / name)
    pictures = [f"{name}.png" for name in drawn]
    written = [*(f"{name}.csv" for name in tables), *pictures]
    _clear(folder.path, written, _failures(folder, plan))
    update_summary(folder, plan, is_final=True)
    return written


def _failures(folder: StudyFolder, plan: Plan) -> list[dict[str, Any]]:
    """The segments that failed, as ``report.json`` has them."""
    found = {name: folder.failure(plan, name) for name in plan.segments}
    found = {name: of for name, of in found.items() if not folder.segment(name).is_done()}
    return [
        {
            "segment": name,
            "reason": folder.segment(name).error.read_text(encoding="utf-8").strip(),
            "diverged": folder.segment(name).diverged_in(),
            "not_tried": [one for one, of in found.items() if of == name and one != name],
        }
        for name, failed in found.items()
        if failed == name
    ]


def _clear(path: Path, written: Sequence[str], failed: Sequence[Mapping[str, Any]]) -> None:
    """Takes away tables and figures that an earlier report wrote and this one has not."""
    record = path / "report.json"
    before = []
    # Without a record, or with a damaged one, nothing is known to be ours.
    with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
        before = json.loads(record.read_text())["written"]
    for file in (path / name for name in before if name not in written):
        for one in (file, file.with_suffix(".pdf")) if file.suffix == ".png" else (file,):
            one.unlink(missing_ok=True)
    write_json(record, {"written": written, "failed": failed})
