"""A study as one page of HTML, which opens without a network."""

import json
from base64 import b64encode
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from critical_periods.core.files import write_text
from critical_periods.plots.style import lines, window_name
from critical_periods.plots.through_epochs import plot_measure
from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.loading import LoadedStudy
from critical_periods.studies.outline import outline
from critical_periods.studies.plan import Plan
from critical_periods.studies.report import write_report


def write_page(folder: StudyFolder, plan: Plan, path: Path) -> None:
    """Writes the report of a study, and all of it into one page.

    The page holds the figures, what was logged through training as means over seeds, histograms of
    RSV with a slider over their epochs, the tree with the state of each segment, what failed and
    why, and the tables as files to download. It needs no network, and no script but for the slider.

    Args:
        folder: of the study.
        plan: what was run in it.
        path: the page.
    """
    study = LoadedStudy(folder, plan)
    written = write_report(folder, plan, study)
    done = sum(folder.segment(name).is_done() for name in plan.segments)
    failed = json.loads((folder.path / "report.json").read_text())["failed"] if written else []
    environment = Environment(
        loader=PackageLoader(__package__, ""), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template("page.html").render(
        title=plan.study,
        state=f"{len(study.runs)} of {len(plan.runs)} runs and {done} of {len(plan.segments)} "
        "segments are done."
        + f" The design was changed after training had begun: {plan.design_changes}."
        * bool(plan.design_changes),
        figures=[(n, _file(folder.path / n, "image/png")) for n in written if n.endswith(".png")],
        curve=_table(study.curve) + _table(study.recovery) + _table(study.remedies)
        if written
        else "",
        measures=_measures(study),
        histograms=_histograms(study),
        tree=outline(plan, folder),
        failed=failed,
        files=[(n, _file(folder.path / n, "text/csv")) for n in written if n.endswith(".csv")],
    )
    write_text(path, page)


def _file(path: Path, kind: str) -> str:
    return _data(path.read_bytes(), kind)


def _data(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{b64encode(content).decode()}"


def _drawn(figure: Figure) -> str:
    buffer = BytesIO()
    # A date inside would make the same page another file each time.
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _data(buffer.getvalue(), "image/svg+xml")


def _table(table: pd.DataFrame) -> Markup:
    """The columns of a table that say which row it is, and its means, as they are on a page."""
    if table.empty:
        return Markup("")
    ends = ("_sd", "_low", "_high")
    shown = table[[name for name in table if not name.endswith(ends)]]
    html = shown.to_html(index=False, border=0, na_rep="", float_format="{:.4g}".format)
    return Markup(
        '<details><summary>As a table</summary><div class="wide">{}</div></details>'
    ).format(
        Markup(html)  # pandas has escaped its cells
    )


def _measures(study: LoadedStudy) -> list[tuple[str, list[tuple[str, str]]]]:
    """Every key that was logged, with a figure for each variation in which it was."""
    history = study.history
    if history.empty:
        return []
    known = [*history.columns[: history.columns.get_loc("seed")], "epoch"]
    keys = [
        name
        for name in history.columns.drop([*known, "seed"])
        if pd.api.types.is_numeric_dtype(history[name]) and history[name].notna().any()
    ]
    groups = history.groupby(known, dropna=False, sort=False)[keys]
    together = groups.mean().join(groups.std().add_suffix("_sd")).reset_index()
    found = []
    for key in keys:
        rows = together[together[key].notna()].assign(**{f"{key}_sd": together[f"{key}_sd"]})
        rows.attrs = history.attrs
        drawn = [(name, of) for name, of in lines(rows).items() if of["epoch"].nunique() > 1]
        figures = [(name, _drawn(plot_measure(of, key, key))) for name, of in drawn]
        if figures:
            found.append((key, figures))
    return found


def _histograms(study: LoadedStudy) -> dict[str, dict[str, Any]]:
    """For each run and layer the edges of the bins, the epochs, and for each the shares."""
    table = study.table("rsv_through_epochs")
    found: dict[str, dict[str, Any]] = {}
    if table.empty:
        return found
    for line, rows in lines(table).items():
        for window, of_window in rows.groupby(["onset", "removal", "epochs"], sort=False):
            text = f"{window_name(window, study.plan.kind_of_window)}, of {window[2]}"
            layers = found.setdefault(", ".join(filter(None, [line, text])), {})
            for layer, bins in of_window.groupby("layer", sort=False):
                shares = bins.pivot(index="epoch", columns="low", values="share")
                edges = [*shares.columns, bins["high"].max()]
                layers[layer] = {
                    "edges": edges,
                    "epochs": shares.index.tolist(),
                    "shares": shares.to_numpy().tolist(),
                }
    return found
