"""Tables and figures of a study: everything that its finished runs give."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from critical_periods.plots.style import save
from critical_periods.studies.figures import ADAPTIVE, figures
from critical_periods.studies.folder import StudyFolder, write_json
from critical_periods.studies.loading import LoadedStudy
from critical_periods.studies.measurements import TABLES
from critical_periods.studies.plan import Plan
from critical_periods.studies.summary import update_summary
from critical_periods.studies.tables import write_table


def write_report(folder: StudyFolder, plan: Plan, study: LoadedStudy | None = None) -> list[str]:
    """Writes the tables, draws the figures that they give, as PNG and PDF, and logs the summary.

    ``results.csv`` (a row a run) always, and ``curve.csv`` unless controls of later rungs alone are
    done; ``recovery``, the rungs of a ladder and its verdicts; ``remedies``, what each regains;
    ``adaptive`` and ``boundary``, of an adaptive study, whose only figure that is; ``curve`` where
    accuracy, RSV or an error was measured; ``sensitivity`` where windows of a length vary in their
    onset; ``surface`` where two settings vary. Where they were measured, each a table and a figure:
    ``fisher``, ``layers``, ``information``, ``reconstruction``, ``modes`` and ``agent``, in several
    epochs, ``cross``, and ``rsv``, the histograms at the end; ``regions`` is a table alone.

    Args:
        folder: of the study.
        plan: what was run in it.
        study: both, where they are loaded; it keeps the tables for whatever else they are for.

    Returns:
        The names of the files; none before any run is done. They are in ``report.json``, too,
        beside what failed: ``segment``, ``reason``, the epoch in which it ``diverged``, or null,
        and the segments ``not_tried``, which go on from it.
    """
    study = study or LoadedStudy(folder, plan)
    if not study.rows("results"):
        return []
    optional = ("curve", "recovery", "remedies", *ADAPTIVE, *TABLES)
    tables = ["results", *filter(study.rows, optional)]
    for name in tables:
        write_table(folder.path / f"{name}.csv", study.rows(name))
    drawn = figures({name: study.table(name) for name in tables}, plan.study)
    for name, draw in drawn.items():
        save(draw(), folder.path / name)
    pictures = [f"{name}.png" for name in drawn]
    written = [*(f"{name}.csv" for name in tables), *pictures]
    _clear(folder.path, written, _failures(folder, plan))
    update_summary(folder, plan, study)
    return written


def _failures(folder: StudyFolder, plan: Plan) -> list[dict[str, Any]]:
    """The segments that failed, as ``report.json`` has them."""
    failures = folder.failures(plan).items()
    found = {name: of for name, of in failures if not folder.segment(name).is_done()}
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
