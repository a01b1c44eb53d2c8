"""The curve of a study as Markdown, for a paper, an issue or a documentation page."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from critical_periods.core.errors import UserError
from critical_periods.plots.labels import label_of, settings_of
from critical_periods.plots.style import numbers


def markdown_table(curve: pd.DataFrame, measure: str = "final_accuracy") -> str:
    """A measure of each window beside its control, as a table in Markdown.

    A row holds what sets it apart (variant, varied fields, the epochs of the deficit, the epochs of
    the run, the number of seeds), the mean ± one standard deviation over seeds with the deficit and
    without it, and the mean of the paired differences with its 95 % interval. Beside the seeds
    stands how many others have diverged.

    Args:
        curve: the table of that name: of :func:`~critical_periods.studies.load_study`, or a
            ``curve.csv`` by :func:`~critical_periods.studies.read_table`.
        measure: which one; accuracies and shares are given in percent.

    Raises:
        UserError: the curve does not have the measure.

    Example:
        >>> curve = pd.DataFrame({
        ...     "onset": 0, "removal": [20], "epochs": [60], "seeds": [3],
        ...     "final_accuracy": [0.95], "final_accuracy_sd": [0.01],
        ...     "final_accuracy_control": [0.99], "final_accuracy_control_sd": [0.002],
        ...     "final_accuracy_difference": [-0.04], "final_accuracy_difference_low": [-0.05],
        ...     "final_accuracy_difference_high": [-0.03],
        ... })
        >>> print(markdown_table(curve))
        | Deficit | Epochs | Seeds | Final accuracy (%) | Control | Difference [95 % interval] |
        | --- | ---: | ---: | ---: | ---: | ---: |
        | epochs 0–19 | 60 | 3 | 95.00 ± 1.00 | 99.00 ± 0.20 | −4.00 [−5.00, −3.00] |
    """
    if measure not in measured(curve):
        raise UserError(f"{measure!r} is not in the curve; it has {', '.join(measured(curve))}.")
    scale, digits = (100, ".2f") if _is_share(measure) else (1, ".4g")
    window = str(curve.attrs.get("window", "deficit")).capitalize()
    settings = settings_of(curve.columns)
    header = [name.split(".")[-1].capitalize() for name in settings]
    header += [window, "Epochs", "Seeds", _title(measure), "Control", "Difference [95 % interval]"]
    lines = [header, ["---"] * (len(settings) + 1) + ["---:"] * 5]
    diverged = numbers(curve, "diverged_seeds") > 0
    for row in curve[curve[measure].notna() | diverged].to_dict("records"):

        def number(end: str, row: Mapping[str, Any] = row) -> str:
            value = row.get(measure + end)
            text = "" if value is None or pd.isna(value) else f"{scale * value:z{digits}}"
            return text.replace("-", "−", 1) if text.startswith("-") else text

        onset, removal, lost = row["onset"], row["removal"], row.get("diverged_seeds")
        low, high = number("_difference_low"), number("_difference_high")
        lines.append(
            [
                *(label_of({"variant": row[name]}) for name in settings),
                f"epochs {onset}–{removal - 1}" if onset < removal else "none",
                str(row["epochs"]),
                str(row["seeds"]) + (f" ({lost} diverged)" if lost else ""),
                *(
                    " ± ".join(filter(None, map(number, (of, f"{of}_sd"))))
                    for of in ("", "_control")
                ),
                number("_difference") + (f" [{low}, {high}]" if low else ""),
            ]
        )
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def recovery_table(recovery: pd.DataFrame) -> str:
    """The gaps of a ladder and its verdicts, as a table in Markdown.

    A row holds what sets a removal apart, the gap after each rung in points, what stays of it and
    the speed at which the rest heals, with their intervals, and the verdict.

    Example:
        >>> recovery = pd.DataFrame({
        ...     "onset": 0, "removal": 20, "epochs": [25, 40], "epochs_after": [5, 20], "seeds": 8,
        ...     "gap": [0.2, 0.05], "scar": 0.001, "scar_low": 0.0, "scar_high": 0.004,
        ...     "speed": 1.0, "speed_low": 0.8, "speed_high": 1.3, "verdict": "lag",
        ... })
        >>> print(recovery_table(recovery))
        | Deficit | Seeds | 5 epochs after | 20 epochs after | Scar (points) | Speed | Verdict |
        | --- | ---: | ---: | ---: | ---: | ---: | ---: |
        | epochs 0–19 | 8 | 20.0 | 5.0 | 0.1 [0.0, 0.4] | 1.0 [0.8, 1.3] | lag |
    """
    names = settings_of(recovery.columns)
    rungs = list(recovery["epochs_after"].unique())
    header = [name.split(".")[-1].capitalize() for name in names]
    header += [str(recovery.attrs.get("window", "deficit")).capitalize(), "Seeds"]
    header += [*(f"{rung} epochs after" for rung in rungs), "Scar (points)", "Speed", "Verdict"]
    lines = [header, ["---"] * (len(names) + 1) + ["---:"] * (len(rungs) + 4)]
    for _, rows in recovery.groupby([*names, "removal"], sort=False, dropna=False):
        row = rows.iloc[0]
        gaps = dict(zip(rows["epochs_after"], rows["gap"], strict=True))
        cells = [label_of({"variant": row[name]}) for name in names]
        cells += [f"epochs 0–{row['removal'] - 1}", str(row["seeds"])]
        cells += [_tenths(100 * gaps[rung]) if rung in gaps else "" for rung in rungs]
        for name, scale in (("scar", 100), ("speed", 1)):
            ends = [scale * row.get(f"{name}{end}", math.nan) for end in ("", "_low", "_high")]
            middle, low, high = map(_tenths, ends)
            cells.append(f"{middle} [{low}, {high}]" if low and high else middle)
        verdict = row.get("verdict")
        lines.append([*cells, "" if verdict is None or pd.isna(verdict) else str(verdict)])
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)


def _tenths(number: float) -> str:
    return "" if pd.isna(number) else f"{number:z.1f}".replace("-", "−")


def markdown_tables(curve: pd.DataFrame, title: str, recovery: pd.DataFrame | None = None) -> str:
    """All measures of a curve, a heading and a :func:`markdown_table` each, under a title.

    Those of a ladder begin with its :func:`recovery_table`.
    """
    parts = [f"## {title}"]
    if "design_changed" in curve:
        changes = curve["design_changed"].iloc[0]
        parts.append(f"The design was changed after training had begun: {changes}.")
    if recovery is not None and len(recovery):
        parts += ["### Recovery", recovery_table(recovery)]
    for measure in measured(curve):
        parts += [f"### {_title(measure)}", markdown_table(curve, measure)]
    return "\n\n".join(parts) + "\n"


def measured(curve: pd.DataFrame) -> list[str]:
    """The measures that a curve has."""
    names = [str(name).removesuffix("_sd") for name in curve if str(name).endswith("_sd")]
    return [name for name in names if not name.endswith(("_control", "_difference"))]


def _is_share(measure: str) -> bool:
    return measure.endswith(("accuracy", "polarization", "dead", "share"))


def _title(measure: str) -> str:
    text = measure.replace("_", " ").capitalize().replace("Rsv", "RSV").replace(" rsv", " RSV")
    return f"{text} (%)" if _is_share(measure) else text
