"""The summary of a study in Weights & Biases: one run, which grows whenever a run of it ends."""

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import Timeout
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image

from critical_periods.core.locks import locked
from critical_periods.core.trainer import attempt
from critical_periods.plots.rsv import plot_rsv_through_epochs
from critical_periods.plots.style import by_rung, by_window, lines, numbers
from critical_periods.plots.through_epochs import plot_fisher
from critical_periods.runs.tracking import is_disabled, wandb_logger
from critical_periods.studies.figures import ADAPTIVE, figures
from critical_periods.studies.folder import StudyFolder, write_json
from critical_periods.studies.loading import LoadedStudy
from critical_periods.studies.measurements import TABLES
from critical_periods.studies.plan import Plan
from critical_periods.studies.recovery import recovery
from critical_periods.studies.results import curve, ended, marked, results
from critical_periods.studies.seen import SEEN
from critical_periods.studies.tables import as_table

# At once, only so many latest states of the tables are sent, of no more rows in all than these.
_STATES, _ROWS = 100, 10_000
# Whoever starts trainings spends at most one part in so many of its time on the summary.
_SHARE = 10


class GrowingSummary:
    """Updates the summary of a study that trains on this machine, as its runs end."""

    def __init__(self, study: StudyFolder, plan: Plan) -> None:
        self.study, self.plan = study, plan
        self._known = len(list(ended(study, plan)))
        self._next = time.monotonic()

    def update(self) -> None:
        """Updates it if a run has ended since, and no more often than costs next to nothing."""
        began = time.monotonic()
        if is_disabled() or began < self._next:
            return
        known = len(list(ended(self.study, self.plan)))
        if known > self._known:
            self._known = known
            update_summary(self.study, self.plan)
        took = time.monotonic() - began
        self._next = began + max(2, (1 + _SHARE) * took)


def update_summary(study: StudyFolder, plan: Plan, final: LoadedStudy | None = None) -> None:
    """Logs the tables after each run that has ended, and the figures of all of them.

    It never raises, and leaves it to another process where that is at it. The final one is given
    the study as its report has loaded it, whose figures lie in its folder; it waits for the other,
    and sends the plan and the tables as artifacts where the study asks for it.

    Logged against ``runs``, how many have ended: ``curve_table``, ``results_table``,
    ``curve_chart`` and, of a ladder, ``recovery_table``; with the last of them the figures, such as
    ``curve`` and ``fisher``, ``rsv_through_epochs``, and ``seen``, samples with and without the
    deficit.
    """
    if is_disabled():
        return
    waiting = "Waiting for another process that updates the summary in Weights & Biases."
    try:
        with locked(study.path / "summary.lock", waiting if final else None):
            # Said again where its service was killed; one that was told all gives True.
            any(attempt(_update, study, plan, final) for _ in range(2))
    except (Timeout, OSError):
        pass  # Another process does it, or the folder is another user's.


def _update(study: StudyFolder, plan: Plan, final: LoadedStudy | None) -> bool:
    order = _order(study, plan)
    if not order:
        return True
    # One run for each folder, however often this is done.
    place = f"{plan.study} {study.path.resolve()}"
    id_ = hashlib.sha256(place.encode()).hexdigest()[:16]
    logger = wandb_logger(
        study.path, id_, "runs", group=plan.study, name="summary", job_type="summary",
    )  # fmt: skip
    if logger is None:
        return True
    run: Any = logger._experiment
    try:
        _log(run, study, plan, order, final)
        if final and plan.log_artifacts:
            _log_artifact(run, study.path, plan)
    finally:
        has_ended = logger.finish(0)
    return has_ended


def _log(
    run: Any, study: StudyFolder, plan: Plan, order: list[int], final: LoadedStudy | None
) -> None:
    """Sends a row for each run that has ended since the last one that was sent."""
    places = sorted(order)
    # Others may end meanwhile.
    if final is not None and len(final.rows("results")) == len(order):
        rows = final.rows("results")
    else:
        final = None
        rows = results(study, replace(plan, runs=[plan.runs[place] for place in places]))
    of_place = dict(zip(places, rows, strict=True))
    sent = int(dict(run.summary).get("runs", 0)) if run.resumed else 0
    states = min(_STATES, max(1, _ROWS // len(order)))
    for known in range(max(sent, len(order) - states) + 1, len(order) + 1):
        now = [of_place[place] for place in sorted(order[:known])]
        is_last = known == len(order)
        if final and is_last:
            names = filter(final.rows, ("curve", "results", "recovery"))
            tables = {name: final.table(name) for name in names}
        else:
            of = {"curve": curve(plan, now), "results": now, "recovery": recovery(plan, now)}
            tables = {name: as_table(marked(plan, rows)) for name, rows in of.items() if rows}
        shown = _tables(tables, plan.study)
        if is_last:
            shown |= attempt(_media, study, plan, tables, final) or {}
        run.log({**shown, "runs": known})


def _order(study: StudyFolder, plan: Plan) -> list[int]:
    """The places of the runs that have ended, in the order in which this was noticed.

    It is kept in a file: clocks of computers differ, and jump.
    """
    file, known = study.path / "summary.json", []
    # A damaged one is no order.
    with suppress(OSError, ValueError, TypeError):
        known = list(map(str, json.loads(file.read_text(encoding="utf-8"))))
    places: dict[str, list[int]] = {}
    for place, run, _ in ended(study, plan):
        places.setdefault(run.segment, []).append(place)
    segments = [one for one in dict.fromkeys([*known, *places]) if one in places]
    if segments != known:
        write_json(file, segments)
    return [place for segment in segments for place in places[segment]]


def _tables(tables: dict[str, pd.DataFrame], title: str) -> dict[str, Any]:
    import wandb

    curve = tables.get("curve", pd.DataFrame())
    shown: dict[str, Any] = {
        f"{name}_table": wandb.Table(columns=list(cells), data=cells.to_numpy().tolist())
        for name, table in tables.items()
        for cells in [table.apply(_column).astype(object).where(table.notna(), None)]
    }
    measure = next((one for one in ("final_accuracy", "error") if one in curve), None)
    if measure is None:
        return shown
    against = "onset" if (curve["onset"] > 0).any() else "removal"
    lines_ = []
    for label, rows in by_rung(lines(curve)).items():
        for column, what in ((measure, ""), (f"{measure}_control", "control")):
            points = pd.DataFrame({"x": rows[against], "y": numbers(rows, column)}).dropna()
            points = points.sort_values("x")
            name = ", ".join(filter(None, [label, what])) or measure
            lines_ += [(points["x"].tolist(), points["y"].tolist(), name)] if len(points) else []
    if lines_:
        xs, ys, keys = map(list, zip(*lines_, strict=True))
        title = f"{title}: {measure}"
        chart = wandb.plot.line_series(xs=xs, ys=ys, keys=keys, title=title, xname=against)
        shown["curve_chart"] = chart
    return shown


def _media(
    study: StudyFolder, plan: Plan, tables: dict[str, pd.DataFrame], final: LoadedStudy | None
) -> dict[str, Any]:
    """The study's figures as pictures, with what only the summary shows."""
    import wandb

    loaded = final or LoadedStudy(study, plan)
    tables = {name: tables[name] for name in ("curve", "recovery") if name in tables}
    for table in tables.values():
        table.attrs["window"] = plan.kind_of_window
    # The boundary of an adaptive study takes a fit, and its runs lie on no curve.
    grows = final is None and plan.adaptive is not None
    names = TABLES if grows else (*ADAPTIVE, *TABLES)
    tables |= {name: loaded.table(name) for name in names if loaded.rows(name)}
    drawn: dict[str, Callable[[], Figure | Path]] = {}
    if not grows:
        drawn |= figures(tables, plan.study)
    if final is not None:
        drawn = {name: partial(Path, study.path / f"{name}.png") for name in drawn}
    fisher = lines(tables["fisher"]) if "fisher" in tables else {}
    for name, rows in fisher.items():
        drawn[f"fisher_window {name}".strip()] = partial(_shaded, rows)
    if loaded.rows("rsv_through_epochs"):
        for name, rows in lines(loaded.table("rsv_through_epochs")).items():
            title = f"rsv_through_epochs {name}".strip()
            drawn[title] = partial(plot_rsv_through_epochs, rows)
    shown = {name: wandb.Image(_picture(figure())) for name, figure in drawn.items()}
    if (study.path / SEEN).exists():
        shown["seen"] = wandb.Image(_picture(study.path / SEEN))
    return shown


def _picture(figure: Figure | Path) -> Image.Image:
    """A figure, or the file that it was saved to."""
    if isinstance(figure, Path):
        with Image.open(figure) as picture:
            return picture.convert("RGB")
    with BytesIO() as file:
        figure.savefig(file, format="png", dpi=150)
        return Image.open(file).convert("RGB")


def _shaded(fisher: pd.DataFrame) -> Figure:
    """The traces, with each window shaded."""
    figure = plot_fisher(fisher)
    windows = [window for window in by_window(fisher) if window[0] < window[1]]
    for place, (onset, removal, _) in enumerate(windows):
        colour = colormaps["viridis"](0.9 * place / max(len(windows) - 1, 1))
        figure.axes[0].axvspan(onset, removal, color=colour, alpha=0.12, linewidth=0)
    return figure


def _log_artifact(run: Any, folder: Path, plan: Plan) -> None:
    import wandb

    artifact = wandb.Artifact(f"study-{run.id}", type="study", metadata={"study": plan.study})
    for name in ("plan.json", "results.csv", "curve.csv", "adaptive.csv"):
        if (folder / name).exists():
            artifact.add_file(str(folder / name))
    run.log_artifact(artifact)


def _column(cells: pd.Series) -> pd.Series:
    """A column as W&B wants it: of numbers or text alone."""
    found = pd.to_numeric(cells, errors="coerce")
    return found if found.notna().equals(cells.notna()) else cells.astype(str)
