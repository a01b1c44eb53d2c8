"""The numbers of the documentation, read from the committed tables and study files.

Every function returns text as it stands in a sentence. Pages call them by the role ``n`` and the
directive ``numbers`` of :mod:`numbers_extension`; ``tests/docs`` checks the README with them.
A table is named by its folder in ``experiments/results``; a row of it by values of its columns,
where ``depth=3`` means the column ``model.init_args.network.init_args.depth``.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pandas as pd
import yaml
from scipy.stats import t

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "results"
STUDIES = ROOT / "experiments" / "studies"

# Numbers as text


def number(value: float, digits: int = 1) -> str:
    """A number with thousands separated and a true minus sign.

    Example:
        >>> number(-1234.56), number(0.03, 2), number(-0.01, 1)
        ('−1,234.6', '0.03', '0.0')
    """
    text = f"{value:,.{digits}f}"
    if not text.strip("-0.,"):
        text = text.removeprefix("-")
    return text.replace("-", "−")


def percent(value: float, digits: int = 1) -> str:
    """A share as a percentage.

    Example:
        >>> percent(0.98765)
        '98.8 %'
    """
    return f"{number(100 * value, digits)} %"


def interval(values: Sequence[float], digits: int = 1, form: str = "{} ({} to {})") -> str:
    """The mean over seeds and Student's 95 % interval: mean ± t(0.975; n − 1) · sd / √n.

    Example:
        >>> interval([1.0, 2.0, 3.0])
        '2.0 (−0.5 to 4.5)'
    """
    middle = mean(values)
    half = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return form.format(*(number(one, digits) for one in (middle, middle - half, middle + half)))


def between(row: pd.Series, name: str, digits: int = 1, scale: float = 1) -> str:
    """A number of a row with the ends of its interval, as :func:`interval` writes them.

    Example:
        >>> between(pd.Series({"gap": 0.02, "gap_low": -0.005, "gap_high": 0.045}), "gap", 1, 100)
        '2.0 (−0.5 to 4.5)'
    """
    ends = (number(scale * row[f"{name}{end}"], digits) for end in ("", "_low", "_high"))
    return "{} ({} to {})".format(*ends)


def span(values: Iterable[float], digits: int = 1, scale: float = 1) -> str:
    """The least and the greatest, as ``a to b``; one number where they look alike."""
    found = [scale * value for value in values]
    low, high = number(min(found), digits), number(max(found), digits)
    return low if low == high else f"{low} to {high}"


# Tables


@cache
def table(folder: str, name: str = "curve") -> pd.DataFrame:
    """A committed table, such as ``curve``, ``results``, ``fisher`` or ``layers`` of a study."""
    return pd.read_csv(RESULTS / folder / f"{name}.csv")


def rows(folder: str, name: str = "curve", **where: Any) -> pd.DataFrame:
    """The rows with these values; a column may be named by the last part of its name."""
    found = table(folder, name)
    for key, value in where.items():
        columns = [column for column in found if column == key or column.endswith(f".{key}")]
        if len(columns) != 1:
            raise KeyError(f"{folder}/{name}.csv has no column {key!r}")
        found = found[found[columns[0]] == value]
    if found.empty:
        raise KeyError(f"{folder}/{name}.csv has no row {where}")
    return found


def at(folder: str, column: str, name: str = "curve", **where: Any) -> float:
    """The one number in a column of the rows with these values.

    Raises:
        KeyError: there is no such row or column, or rows of different values.
    """
    found = rows(folder, name, **where)[column].unique()
    if len(found) != 1:
        raise KeyError(f"{folder}/{name}.csv: {column} of {where} is not one number: {found}")
    return float(found[0])


def value(folder: str, column: str, digits: int = 2, **where: Any) -> str:
    """A cell of a curve, as a number."""
    return number(at(folder, column, **where), digits)


def share(folder: str, column: str, digits: int = 1, **where: Any) -> str:
    """A cell of a curve, as a percentage."""
    return percent(at(folder, column, **where), digits)


def change(
    folder: str, column: str, digits: int = 2, scale: float = 1, form: str = "{} ({} to {})",
    **where: Any,
) -> str:  # fmt: skip
    """How runs differ from their controls, paired by seed, with the 95 % interval."""
    found = [at(folder, f"{column}_difference{end}", **where) for end in ("", "_low", "_high")]
    low, high = sorted(scale * one for one in found[1:])
    return form.format(*(number(one, digits) for one in (scale * found[0], low, high)))


def points(
    folder: str, column: str = "rsv_polarization", form: str = "{} ({} to {})", **where: Any
) -> str:
    """The difference of a share from that of the controls, in points, with the 95 % interval."""
    return change(folder, column, 1, 100, form, **where)


def loss(folder: str, form: str = "{} ({} to {})", **where: Any) -> str:
    """The loss of final accuracy against the controls in points, with the 95 % interval."""
    return change(folder, "final_accuracy", 1, -100, form, **where)


def loss_sd(folder: str, **where: Any) -> str:
    """The loss of final accuracy against the controls in points, ± its standard deviation."""
    found = -100 * at(folder, "final_accuracy_difference", **where)
    sd = 100 * at(folder, "final_accuracy_difference_sd", **where)
    return f"{number(found)} ± {number(sd)}"


def by_seed(folder: str, column: str, **where: Any) -> pd.Series:
    """A column of ``results.csv`` by seed, the mean where a seed has several of these rows."""
    return rows(folder, "results", **where).groupby("seed")[column].mean()


def losses(folder: str, column: str = "final_accuracy", **where: Any) -> pd.Series:
    """Control minus run, by seed, from ``results.csv``; the mean over several rows of a seed."""
    found = rows(folder, "results", **where).query("onset < removal")
    settings = [name for name in found if name == "variant" or "." in name]
    both = table(folder, "results")
    clean = both[both["onset"] == both["removal"]]
    paired = found.merge(clean, on=[*settings, "epochs", "seed"], suffixes=("", "_clean"))
    paired["loss"] = paired[f"{column}_clean"] - paired[column]
    return paired.groupby("seed")["loss"].mean()


def mean_loss(folder: str, removals: Sequence[int], variant: str) -> pd.Series:
    """The mean loss of final accuracy over several removals, by seed, in points."""
    found = [losses(folder, variant=variant, removal=one) for one in removals]
    return 100 * sum(found) / len(found)


def more(
    folder: str, one: dict[str, Any], other: dict[str, Any], form: str = "{} ({} to {})",
    column: str = "final_accuracy",
) -> str:  # fmt: skip
    """How many points more one deficit costs than another, paired by seed."""
    found = losses(folder, column, **one) - losses(folder, column, **other)
    return interval(list(100 * found), form=form)


def seeds_needed(folder: str, one: dict[str, Any], other: dict[str, Any] | None = None) -> str:
    """With how many seeds the interval of a loss, or of :func:`more`, would leave out zero.

    If mean and standard deviation stayed as they are: the least n with t(0.975; n - 1) sd / √n
    below the mean.
    """
    found = losses(folder, **one) - (losses(folder, **other) if other else 0)
    return _seeds_for(abs(mean(found)) / stdev(found))


def seeds_within(folder: str, points: float, **where: Any) -> str:
    """With how many seeds the interval of a loss would be ± so many points, at its spread."""
    return _seeds_for(points / stdev(100 * losses(folder, **where)))


def _seeds_for(ratio: float) -> str:
    """The least n whose interval is less than so many standard deviations wide, either side."""
    return number(next(n for n in range(2, 10**6) if t.ppf(0.975, n - 1) < ratio * n**0.5), 0)


def epochs_a_seed(folder: str) -> str:
    """How many epochs a study trains for each seed."""
    return number(int(commands()[folder]["epochs"]) / int(rows(folder)["seeds"].max()), 0)


def seeds(folder: str) -> str:
    """How many seeds a study was run with."""
    return number(rows(folder)["seeds"].max(), 0)


def markdown(header: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def clean(folder: str, column: str = "final_accuracy") -> pd.Series:
    """A column of all runs without a deficit, each once."""
    found = table(folder, "results")
    return found[found["onset"] == found["removal"]][column].drop_duplicates()


def chance(folder: str, classes: int) -> str:
    """Least and greatest accuracy of the runs with a deficit, beside chance and its error."""
    found = table(folder, "results")
    low_and_high = span(found[found["onset"] != found["removal"]]["final_accuracy"], 1, 100)
    error = standard_error(folder, 1 / classes)
    level = percent(1 / classes)
    return f"{low_and_high} %, where chance is {level} with a standard error of {error}"


TESTS = {"deficits_mini": 797, "moving_digits_one_frame": 3188, "stereograms_one_eye": 4000}
"""How many test samples a network's accuracy is measured on."""


def standard_error(folder: str, share: float) -> str:
    """The standard error of one network's accuracy, √(p (1 − p) / n), in points."""
    return number(100 * math.sqrt(share * (1 - share) / TESTS[folder]))


def dead(folders: Sequence[str]) -> str:
    """Least and greatest share of dead units of the runs of several studies."""
    found = [table(folder, "results")["rsv_dead"] for folder in folders]
    return span(pd.concat(found), 0, 100) + " %"


def after_and_clean(folders: Sequence[str], column: str) -> str:
    """A share after the deficits of several studies, and in clean runs of the same length."""
    found = pd.concat([rows(folder).query("onset < removal") for folder in folders])
    after, clean_runs = (span(found[f"{column}{end}"], 0, 100) for end in ("", "_control"))
    return f"{after} %, in clean runs of the same length {clean_runs} %"


# Tables of the pages on results, as Markdown


def window_name(row: pd.Series) -> str:
    """The epochs of a window in words."""
    end = ", to the end" if row["removal"] == row["epochs"] else ""
    return f"{row['onset']:.0f} to {row['removal'] - 1:.0f}{end}"


def accuracy_and_loss(
    folder: str, removals: Sequence[int], variants: Sequence[str], accuracy: bool = True
) -> str:
    """Final accuracy and loss of each deficit, by the epoch of its removal."""
    controls = [
        share(folder, "final_accuracy_control", variant=variants[0], removal=removal)
        for removal in removals
    ]
    header = [f"removed at epoch {removal}" for removal in removals]
    body = [["none", *controls]]
    for variant in variants:
        cells = []
        for removal in removals:
            where: dict[str, Any] = {"variant": variant, "removal": removal}
            found = share(folder, "final_accuracy", **where)
            cells.append(
                loss(folder, f"{found} ({{}}: {{}} to {{}})", **where)
                if accuracy
                else loss(folder, **where)
            )
        body.append([variant, *cells])
    return markdown(["deficit", *header], body)


def pretraining(folder: str) -> str:
    """Accuracy after each pre-training, and what it gains over either control, in points."""
    body = []
    for _, row in rows(folder).query("onset < removal").iterrows():
        where = {name: row[name] for name in ("variant", "removal")}
        gains = [
            change(folder, column, 1, 100, **where)
            for column in ("final_accuracy", "final_accuracy_target")
        ]
        body.append([row["variant"], str(row["removal"]), share(folder, "final_accuracy", **where)])
        body[-1] += gains
    header = ["source", "removed at epoch", "final accuracy", "over as many epochs"]
    return markdown([*header, "over as many target epochs"], body)


def last_removal(folder: str, variant: str) -> str:
    """What pre-training that is removed last has more than what is removed first, by seed."""
    found = rows(folder, variant=variant).query("onset < removal")["removal"]
    last, first = (
        by_seed(folder, "final_accuracy", variant=variant, removal=one)
        for one in (found.max(), found.min())
    )
    return interval(list(100 * (last - first)))


def matrix(folder: str) -> str:
    """Trained on each, tested on each: accuracies, and the differences, paired by seed."""
    found = table(folder, "cross")
    tested = list(dict.fromkeys(found["tested"]))
    body = []
    for trained_on, of in found.groupby("variant", sort=False):
        cells = [trained_on]
        for name in tested:
            row = of.set_index("tested").loc[name]
            cell = between(row, "accuracy", scale=100)
            if pd.notna(row["difference"]):
                cell += f"; against the diagonal {between(row, 'difference', scale=100)}"
            cells.append(cell)
        body.append(cells)
    return markdown(["trained on", *(f"tested on {name}" for name in tested)], body)


def losses_by_window(folder: str) -> str:
    """The loss of every window of a study."""
    found = rows(folder).query("onset < removal")
    body = [
        [window_name(row), loss(folder, onset=row["onset"], removal=row["removal"])]
        for _, row in found.iterrows()
    ]
    return markdown(["epochs of the window", "loss (points)"], body)


_SETTINGS = {
    "schedules_mini": "variant", "depth_mini": "depth", "width_mini": "width",
    "architectures_mini": "variant", "mnist_mini": "",
}  # fmt: skip


def losses_by_setting(removal: int) -> str:
    """The loss in the studies that vary how and what is trained."""
    body = []
    for folder, key in _SETTINGS.items():
        column = next((name for name in table(folder) if name.split(".")[-1] == key), None)
        for found in table(folder)[column].unique() if column else [""]:
            where: dict[str, Any] = {key: found} if column else {}
            control = share(folder, "final_accuracy_control", removal=removal, **where)
            name = f"{key} {found}" if key in ("depth", "width") else found
            cells = [name or "fully connected", control, seeds(folder)]
            body.append([f"`{folder}`", *cells, loss_sd(folder, removal=removal, **where)])
    return markdown(["study", "", "without a deficit", "seeds", "loss (points)"], body)


def ladder(folder: str) -> str:
    """The gap at each rung of a ladder, in points, with its 95 % interval."""
    found = table(folder, "recovery")
    variants = found["variant"].unique()
    body = []
    for rung in sorted(found["epochs_after"].unique()):
        cells = []
        for variant in variants:
            where: dict[str, Any] = {"variant": variant, "epochs_after": rung}
            ((_, row),) = rows(folder, "recovery", **where).iterrows()
            cells.append(between(row, "gap", scale=100))
        body.append([number(rung, 0), *cells])
    return markdown(["clean epochs", *variants], body)


def laws(folder: str) -> str:
    """What a ladder says of each deficit: scar, speed and fit of the law, and the verdict."""
    body = []
    for variant in table(folder, "recovery")["variant"].unique():
        found = rows(folder, "recovery", variant=variant).iloc[-1]
        scar, speed = between(found, "scar", scale=100), between(found, "speed", 2)
        fit = number(found["fit_p"], 3) if found["fit_p"] == found["fit_p"] else ""
        body.append([variant, scar, speed, fit, found["verdict"]])
    header = ["deficit", "scar (points)", "speed", "p of the fit", "verdict"]
    return markdown(header, body)


def verdict(folder: str, variant: str) -> str:
    """What the damage of a deficit is called."""
    return str(rows(folder, "recovery", variant=variant)["verdict"].iloc[-1])


def flips(folder: str, variant: str) -> str:
    """The exact p values, rung by rung, of a gap that differs from the second control's."""
    found = rows(folder, "recovery", variant=variant)
    values = zip(found["more_than_control_p"], found["epochs_after"], strict=True)
    return ", ".join(f"{number(p, 3)} after {rung} epochs" for p, rung in values)


def gap(folder: str, variant: str, rung: int) -> str:
    """The gap that a deficit leaves after so many clean epochs, in points, with its interval."""
    removal = setting(folder, "windows.removal")[0]
    return loss(folder, variant=variant, removal=removal, epochs=removal + rung)


def gains_of_windows(folders: Sequence[str]) -> str:
    """How far runs are ahead of those without a window."""
    body = []
    for folder in folders:
        for _, row in rows(folder).query("onset < removal").iterrows():
            gain, sd = (100 * row[f"final_accuracy_difference{end}"] for end in ("", "_sd"))
            text = f"{number(gain)} ± {number(sd)}"
            body.append([row["variant"], window_name(row), text])
    return markdown(["regulariser", "epochs in which it acts", "gain (points)"], body)


def guided(folder: str) -> str:
    """Success of agents by the window of a guidance, and what it gains on none, in points."""
    body = []
    for _, row in rows(folder).query("onset < removal").iterrows():
        where = {"onset": row["onset"], "removal": row["removal"], "epochs": row["epochs"]}
        success = share(folder, "success", **where)
        gains = [change(folder, name, 1, 100, **where) for name in ("success", "success_area")]
        body.append([window_name(row), success, *gains])
    header = ["epochs of guidance", "success", "gain at the end", "gain of the mean over epochs"]
    return markdown(header, body)


def ppo() -> str:
    """The mean return of our PPO and of stable-baselines3's, by steps taken."""
    found = benchmark("ppo")
    body = []
    for steps, of_steps in found.groupby("steps"):
        means = [number(of_steps[name].mean(), 0) for name in ("ours", "theirs")]
        difference = interval(list(of_steps["ours"] - of_steps["theirs"]), 0)
        body.append([number(int(str(steps)), 0), *means, difference])
    return markdown(["steps", "ours", "stable-baselines3", "difference"], body)


def weak_eye(folder: str) -> str:
    """Accuracy and RSV by removal, with those of the matched controls."""
    body = []
    for removal in rows(folder)["removal"]:
        where: dict[str, Any] = {"removal": removal}
        cells = [str(removal), f"{at(folder, 'epochs', **where):.0f}"]
        for column, text in (
            ("final_accuracy", share), ("rsv_mean", value), ("rsv_channels_mean", value),
            ("rsv_polarization", share),
        ):  # fmt: skip
            one, control = text(folder, column, **where), text(folder, f"{column}_control", **where)
            cells.append(f"{one} ({control})" if removal else one)
        body.append(cells)
    header = ["accuracy", "mean RSV", "RSV of channels", "polarised"]
    return markdown(["removed at epoch", "epochs", *(f"{name} (control)" for name in header)], body)


def depths(folder: str, removal: int) -> str:
    """RSV and accuracy against clean runs, by depth."""
    body = []
    for depth in (1, 2, 3):
        where: dict[str, Any] = {"depth": depth, "removal": removal}
        body.append([
            str(depth), change(folder, "rsv_mean", **where),
            change(folder, "rsv_channels_mean", **where), loss(folder, **where),
        ])  # fmt: skip
    return markdown(["depth", "mean RSV", "RSV of channels", "loss (points)"], body)


def polarised(folders: Sequence[str]) -> str:
    """The share of polarised units by the length of a dissociation."""
    body = []
    for folder in folders:
        for removal in rows(folder)["removal"]:
            found = share(folder, "rsv_polarization", removal=removal)
            form = f"{found} ({{}}: {{}} to {{}})"
            text = points(folder, form=form, removal=removal) if removal else found
            body.append([f"`{folder}`", str(removal), text])
    return markdown(["study", "epochs of dissociation", "polarised"], body)


def information(folder: str, removal: int) -> str:
    """Usable information of both views and of each."""
    names = {"both": "both eyes", "view_0": "left eye alone", "view_1": "right eye alone"}
    body = []
    for key, name in names.items():
        column = f"information_{key}"
        cells = [value(folder, f"{column}{end}", removal=removal) for end in ("", "_control")]
        body.append([name, *cells, change(folder, column, removal=removal)])
    return markdown(["", "after the blur", "clean runs", "difference"], body)


def two_losses(folders: Sequence[str], names: Sequence[str]) -> str:
    """Accuracy and loss of two studies, by removal."""
    body = []
    for removal in rows(folders[0])["removal"]:
        cells = []
        for folder in folders:
            found = share(folder, "final_accuracy", removal=removal)
            form = f"{found} ({{}}: {{}} to {{}})"
            cells.append(loss(folder, form, removal=removal) if removal else found)
        body.append([str(removal), *cells])
    return markdown(["removed at epoch", *names], body)


_SUPERVISED = "kinetics_supervised_mini"


def supervised() -> str:
    """What a window costs in supervised training on two frames, by its onset."""
    body = []
    for _, row in rows(_SUPERVISED, variant="dissociation").query("onset < removal").iterrows():
        where: dict[str, Any] = {"onset": row["onset"], "removal": row["removal"]}
        cells = [loss(_SUPERVISED, variant=v, **where) for v in ("dissociation", "label noise")]
        body.append([window_name(row), *cells])
    header = ["epochs of the window", "dissociated frames", "labels as noisy, frames together"]
    return markdown(header, body)


def supervised_more() -> str:
    """How many points more a dissociation costs than label noise, over windows with an after."""
    removals = (10, 20, 30, 40, 50)
    dissociation, noise = (
        mean_loss(_SUPERVISED, removals, variant) for variant in ("dissociation", "label noise")
    )
    return interval(list(dissociation - noise))


def early_minus_late() -> str:
    """How many points more the windows from 0 and 10 cost than those from 30 and 40, ± SD."""
    early, late = (
        mean_loss(_SUPERVISED, removals, "dissociation") for removals in ((10, 20), (40, 50))
    )
    found = list(early - late)
    return f"{number(mean(found))} ± {number(stdev(found))}"


def masked() -> str:
    """Fine-tuned accuracy and the error of the other frame, by the window in pre-training."""
    folder = "kinetics_masked_mini"
    body = []
    for _, row in rows(folder).iterrows():
        where: dict[str, Any] = {"onset": row["onset"], "removal": row["removal"]}
        column = "reconstruction_other_view"
        error = at(folder, column, "reconstruction", epoch=79, **where)
        is_clean = row["onset"] == row["removal"]
        cost = "" if is_clean else loss_sd(folder, **where)
        body.append(["none" if is_clean else window_name(row), cost, number(error, 2)])
    return markdown(["epochs of the window", "loss (points)", "error from the other frame"], body)


def path_shares() -> str:
    """What the path that trained on holds, by depth and by when the other one was frozen."""
    folder = "kleinman2024_multi_path"
    found = rows(folder)
    windows = found.query("onset < removal")[["onset", "removal"]].drop_duplicates()
    where = windows.to_dict("records")
    body = [
        [str(depth), *(share(folder, "path_share", 0, depth=depth, **one) for one in where)]
        for depth in sorted(found["model.init_args.network.init_args.depth"].unique())
    ]
    header = [f"frozen from step {onset}" for onset in windows["onset"]]
    return markdown(["depth", *header], body)


def _error(error: float) -> str:
    return number(error, 2) if error >= 0.01 else f"{error:.1g}"


def completion(folder: str, key: str, removals: Sequence[int], control: bool = False) -> str:
    """The error of a completed matrix, by a setting and the iterations on another matrix."""
    column = next(name for name in table(folder) if name.split(".")[-1] == key)
    body = []
    for found in sorted(table(folder)[column].unique()):
        cells = []
        for removal in removals:
            where: dict[str, Any] = {key: found, "removal": removal}
            text = _error(at(folder, "error", **where))
            other = _error(at(folder, "error_control", **where))
            cells.append(f"{text} ({other})" if control else text)
        body.append([number(found, 0), *cells])
    return markdown([key, *(f"after {number(1000 * one, 0)}" for one in removals)], body)


def balanced_gap() -> str:
    """The largest gap of closed form, ODE and simulation from balanced starts."""
    found = rows("theory", "gaps", start="balanced")["gap"].max()
    return f"{found:.1e}".replace("e-0", "e-").replace("-", "−")


def random_gaps() -> str:
    """The median gap from random starts by the number of hidden units."""
    found = rows("theory", "gaps", start="random")
    names = [case.removesuffix(" hidden units") for case in found["case"]]
    return markdown(["hidden units", *names], [["gap", *(number(g, 2) for g in found["gap"])]])


# Histories


def layer_share(folder: str, layers: Sequence[str], removal: int, epochs: int, epoch: int) -> str:
    """The share of the Fisher trace that some layers hold after an epoch."""
    where: dict[str, Any] = {"onset": 0, "removal": removal, "epochs": epochs, "epoch": epoch}
    traces = rows(folder, "layers", **where).set_index("layer")["fisher_trace"]
    return percent(traces[list(layers)].sum() / at(folder, "fisher_trace", "fisher", **where), 0)


def trace(folder: str, epoch: int, epochs: int) -> str:
    """The Fisher trace of the clean runs of so many epochs after an epoch."""
    where = {"onset": 0, "removal": 0, "epochs": epochs, "epoch": epoch}
    return number(at(folder, "fisher_trace", "fisher", **where), 0)


def trace_se(folder: str, epoch: float, **where: Any) -> str:
    """The network's Fisher trace after an epoch ± its standard error, without a deficit or with."""
    where = {"onset": 0, "removal": 0, "layer": "network", "epoch": epoch, **where}
    ends = [at(folder, name, "traces", **where) for name in ("fisher_trace", "fisher_trace_se")]
    digits = 0 if ends[0] > 10 else 2
    return f"{number(ends[0], digits)} ± {number(ends[1], digits)}"


def share_se(folder: str, layer: str, epoch: float, **where: Any) -> str:
    """A layer's share of the network's Fisher trace after an epoch ± its standard error."""
    where = {"onset": 0, "removal": 0, "layer": layer, "epoch": epoch, **where}
    ends = [at(folder, name, "traces", **where) for name in ("share", "share_se")]
    return f"{number(100 * ends[0], 0)} ± {number(100 * ends[1], 0)} %"


def every(folder: str, name: str) -> str:
    """A cadence of the first callback of a study's runs."""
    return number(setting(folder, "trainer.callbacks")[0]["init_args"][name], 0)


def falls(folder: str, epochs: int) -> str:
    """How often, and by how much at most, the clean run's trace falls from an epoch to the next."""
    found = rows(folder, "fisher", onset=0, removal=0, epochs=epochs)["fisher_trace"]
    steps = found.pct_change().dropna()
    return f"{(steps < 0).sum()} times of {len(steps)}, by at most {percent(-steps.min(), 0)}"


def nats(folder: str, epoch: int) -> str:
    """The information in the weights of the clean runs after an epoch, in nats."""
    found = rows(folder, "layers", onset=0, removal=0, epoch=epoch)
    longest = found[found["epochs"] == found["epochs"].max()]
    return number(longest["information"].sum(), 0)


# Study files


def annealed(folder: str) -> str:
    """A rate that falls by a factor each epoch, as a formula."""
    task = setting(folder, "model.init_args")
    rate_0, factor = task["optimizer"]["init_args"]["lr"], task["lr_scheduler"]["init_args"]
    return f"{rate_0} · {factor['gamma']}^epoch"


def rate(folder: str, epoch: int) -> float:
    """The annealed learning rate in an epoch."""
    task = setting(folder, "model.init_args")
    gamma = task["lr_scheduler"]["init_args"]["gamma"]
    return float(task["optimizer"]["init_args"]["lr"] * gamma**epoch)


def _yaml(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def study_file(folder: str) -> Path:
    """The study file that wrote a folder of results."""
    return STUDIES / f"{commands()[folder]['study']}.yaml"


@cache
def config(folder: str) -> dict[str, Any]:
    """The base run of a study, with what the study sets, and the study's own fields."""
    path = study_file(folder)
    study = _yaml(path)
    base = _yaml(path.parent / study["base"])
    for name, found in (study.get("set") or {}).items():
        *parents, last = name.split(".")
        inner = base
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = found
    return {**base, **study}


def setting(folder: str, name: str) -> Any:
    """A field of a study's base run or of the study itself, by its name with dots."""
    found: Any = config(folder)
    for part in name.split("."):
        found = found[part]
    return found


def _called(tree: dict[str, Any]) -> str:
    arguments = tree.get("init_args") or {}
    text = ", ".join(f"{key}={one}" for key, one in arguments.items() if key != "root")
    return f"`{tree['class_path']}({text})`" if text else f"`{tree['class_path']}`"


def scale(folder: str) -> str:
    """The network, the data and the size of a study, from its file and its tables."""
    tree = config(folder)
    network = tree["model"]["init_args"].get("network")
    parts = [_called(network)] if network else []
    parts.append(_called(tree["data"]))
    precision = tree["trainer"].get("precision")
    parts += [precision] if precision else []
    return "; ".join([*parts, f"{trained(folder)} epochs trained", f"seeds: {seeds(folder)}"])


# Commands and times


@cache
def commands() -> dict[str, dict[str, str]]:
    """What made each folder of results: study, command, epochs, machine and time."""
    with (RESULTS / "commands.csv").open(encoding="utf-8", newline="") as file:
        return {row["folder"]: row for row in csv.DictReader(file)}


def trained(folder: str) -> str:
    """How many epochs a study trained, trunks once."""
    return number(int(commands()[folder]["epochs"]), 0)


def separate(folder: str) -> str:
    """How many epochs its runs would have trained one by one."""
    return number(int(commands()[folder]["separate_epochs"]), 0)


def time(folder: str) -> str:
    """The wall time that a study took on the machine of its tables."""
    return commands()[folder]["time"]


def command(folder: str) -> str:
    """The command that wrote a folder of results."""
    return f"`{commands()[folder]['command']}`"


def commands_table() -> str:
    """What made each folder, with its size and time."""
    body = []
    for folder, row in commands().items():
        epochs = trained(folder) if row["epochs"] else ""
        size = seeds(folder) if row["epochs"] else ""
        cells = [f"`{row['command']}`", epochs, size, row["time"], row["machine"]]
        body.append([f"`{folder}`", *cells])
    return markdown(["folder", "command", "epochs trained", "seeds", "time", "machine"], body)


# Benchmarks


@cache
def benchmark(name: str) -> pd.DataFrame:
    """A committed table of a benchmark."""
    return pd.read_csv(RESULTS / f"{name}.csv")


def throughput() -> str:
    """Training steps beside those of a conventional pipeline."""
    body = []
    for _, row in benchmark("throughput").iterrows():
        speeds = ("images_per_second", "conventional_images_per_second")
        known = [number(row[name], 0) if row[name] > 0 else "" for name in speeds]
        ratios = [number(row[name], 2) for name in ("median", "least", "greatest")]
        body.append([row["machine"], str(row["day"]), str(row["rounds"]), *ratios, *known])
    header = ["machine", "day", "rounds", "median", "least", "greatest", "images a second"]
    return markdown([*header, "conventional"], body)


def bench() -> str:
    """What ours and its peers take, and the limits, and on which machine."""
    if not (RESULTS / "bench.csv").exists():
        return "No figures are committed yet."
    body = []
    for _, row in benchmark("bench").iterrows():
        ratios = [f"{row[name]:g}" for name in ("median", "least", "greatest")]
        limit = row["limit"] if row["met"] else f"{row['limit']}, **missed**"
        body.append([row["what"], row["peer"], *ratios, str(row["rounds"]), limit])
    header = ["what", "beside", "median", "least", "greatest", "rounds", "limit"]
    return f"{markdown(header, body)}\n\nMeasured on {row['machine']}, {row['day']}."


def precision() -> str:
    """Accuracy in bf16 and in float32."""
    body = []
    for _, row in benchmark("precision").iterrows():
        is_half = row["difference"] == row["difference"]
        difference = f"{number(row['difference'], 2)} ± {number(row['difference_sd'], 2)}"
        cells = [str(row["seeds"]), f"{number(row['accuracy'], 2)} %"]
        body.append([row["precision"], *cells, difference if is_half else ""])
    return markdown(["precision", "seeds", "accuracy", "difference (points, ± SD)"], body)


def frame_pairs() -> str:
    """Pairs of frames a second beside readers of whole clips."""
    body = []
    for _, row in benchmark("frame_pairs").iterrows():
        ends = [f"{row[name]:g}" if row[name] > 0 else "" for name in ("least", "greatest")]
        body.append([row["way"], row["against"], f"{row['median']:g}", *ends])
    return markdown(["our pairs", "against", "median", "least", "greatest"], body)


def costs() -> str:
    """What studies of full scale take."""
    body = []
    for _, row in benchmark("costs").iterrows():
        whole = ("runs", "segments", "epochs", "separate_epochs")
        cells = [number(row[name], 0) for name in whole]
        body.append([f"`{row['study']}`", *cells, row["gflop_per_sample"], f"{row['exaflop']:g}"])
    header = [
        "study",
        "runs",
        "segments",
        "epochs",
        "in separate runs",
        "GFLOP a sample",
        "exaFLOP",
    ]
    return markdown(header, body)


def cost(study: str, column: str) -> float:
    """A number of the table of costs."""
    found = benchmark("costs").set_index("study").at[study, column]
    return float(found)


def gpu_hours(study: str, teraflops: float) -> str:
    """Hours of a GPU that sustains so many TFLOP/s in training."""
    return number(cost(study, "exaflop") * 1e6 / teraflops / 3600, 1)


def cpu_days(study: str, machine: str) -> str:
    """Days of training at the rate that a machine had in the benchmark of training steps."""
    rates = benchmark("throughput").set_index("machine").loc[[machine], "images_per_second"]
    samples = cost(study, "epochs") * cost(study, "samples_per_epoch")
    return number(samples / rates.max() / 86400, 0)


def verdicts() -> str:
    """What planted lags and scars were called."""
    body = []
    for _, row in benchmark("verdicts").iterrows():
        noise = f"{number(100 * row['sd'])} points (`{row['noise_of']}`)"
        shared = "half shared" if row["shared"] else "of each rung"
        sets = f"{row['sets']} {'fresh' if row['draw'] else 'old'}"
        counts = [str(row[name]) for name in ("scar", "lag", "undecided")]
        body.append([noise, shared, row["planted"], sets, *counts])
    header = ["noise", "in a seed", "planted", "sets", "called scar", "called lag", "undecided"]
    return markdown(header, body)


def _planted(draw: int, name: str = "verdicts", noise_of: str = "") -> pd.DataFrame:
    found = benchmark(name).query(f"draw == {draw}")
    return found[found["noise_of"] == noise_of] if noise_of else found


def verdicts_right(draw: int, name: str = "verdicts", noise_of: str = "") -> str:
    """The share of the verdicts given on a draw of planted curves that are right."""
    found = _planted(draw, name, noise_of)
    right = sum(found[found["planted"] == one][one].sum() for one in ("lag", "scar"))
    return percent(right / found[["lag", "scar"]].to_numpy().sum())


def verdicts_given(draw: int, name: str = "verdicts", noise_of: str = "") -> str:
    """How many verdicts other than undecided were given on planted curves, of how many."""
    found = _planted(draw, name, noise_of)
    given = found[["lag", "scar"]].to_numpy().sum()
    return f"{number(given, 0)} of {number(found['sets'].sum(), 0)}"


def lags_called_scars(draw: int) -> str:
    """The share of the planted lags that are called scars."""
    lags = _planted(draw).query("planted == 'lag'")
    return percent(lags["scar"].sum() / lags["sets"].sum())


def planted_predictions() -> str:
    """In how many sets of planted histories each measure was said to predict, and the verdicts."""
    names = ("predicts", "does_not", "predicts_where_chosen")
    body = [
        [f"{row['seeds']:.0f}", f"{row['noise']:.1f}", f"{row['sets']:.0f}"]
        + [f"{row[name]:.0f}" for name in names]
        + [percent(row["right"]), percent(row["undecided"] / (3 * row["sets"]), 0)]
        + [percent(row["given_right"])]
        for _, row in benchmark("predictions").iterrows()
    ]
    header = ["seeds", "noise", "sets", "predicts", "does not", "where chosen alone", "right"]
    header += ["undecided", "verdicts that are right"]
    return markdown(header, body)


def remedies(folder: str) -> str:
    """What remedies regain after a deficit, and cost without one, in points."""
    body = []
    for _, row in table(folder, "remedies").iterrows():
        cells = [
            "" if math.isnan(row[name]) else between(row, name, scale=100)
            for name in ("lost", "regained", "clean_cost")
        ]
        epochs = "" if math.isnan(row["epochs_to_match"]) else number(row["epochs_to_match"])
        matched = f"{epochs} ({row['matched_seeds']:.0f} of {row['seeds']:.0f} seeds)"
        body.append([row["remedy"], *cells, matched])
    header = ["remedy", "lost", "regained", "cost without a deficit", "epochs to match no remedy"]
    return markdown(header, body)


def remedies_that_regain(*folders: str) -> str:
    """Which remedies have an interval of what they regain that lies above zero, or how many not."""
    found = pd.concat([table(folder, "remedies") for folder in folders])
    found = found[found["regained"].notna()]
    names = found.loc[found["regained_low"] > 0, "remedy"]
    return ", ".join(names) or f"none of {len(found)}"


def foretold(folder: str, most: int = 8) -> str:
    """The measures with the largest correlations by the seeds that chose, judged by the others.

    Over all removals, and by the runs of one removal alone; the removal itself, which has none of
    that, stands last.
    """
    found = table(folder, "predictions")
    removal = found[found["measure"] == "removal"]
    found = found.drop(removal.index)
    order = found["chosen_rho"].abs().sort_values(ascending=False, kind="stable").index
    body = []
    for _, row in pd.concat([found.loc[order[:most]], removal]).iterrows():
        cells = [f"`{row['measure']}`", row["form"], number(row["chosen_rho"], 2)]
        cells += [between(row, "rho", 2), row["verdict"]]
        is_there = not math.isnan(row["rho_within"])
        cells += [between(row, "rho_within", 2), row["verdict_within"]] if is_there else ["", ""]
        body.append(cells)
    header = ["measure", "taken", "on the seeds that chose", "on those held back", "verdict"]
    return markdown([*header, "within one removal", "verdict within"], body)


def verdicts_of_measures(folder: str, column: str = "verdict") -> str:
    """How many measures, the removal aside, are said to predict, or not to, or undecided."""
    found = table(folder, "predictions")
    found = found[found["measure"] != "removal"]
    counts = found[column].value_counts()
    predict, does_not, open_ = (counts.get(one, 0) for one in ("predicts", "does not", "undecided"))
    return f"of {len(found)} measures {predict} predict, {does_not} do not, {open_} are undecided"


def held_back(folder: str) -> str:
    """How many seeds judge what a measure foretells."""
    return number(at(folder, "held_back_seeds", "predictions"), 0)


def correlation(folder: str, measure: str) -> str:
    """The rank correlation of a measure with the loss on the seeds held back."""
    return between(rows(folder, "predictions", measure=measure).iloc[0], "rho", 2)


def detector(folder: str) -> str:
    """What a detector of the end of the critical period costs on the seeds held back, in points."""
    body = [
        [f"`{row['measure']}` {row['rule']}", number(row["detected_removal"], 1),
         f"{row['best_removal']:.0f}", between(row, "regret", scale=100),
         f"{row['fixed_removal']:.0f}", number(100 * row["fixed_regret"])]
        for _, row in table(folder, "ends").iterrows()
    ]  # fmt: skip
    header = ["detector", "removal it asks for", "best removal", "regret"]
    header += ["removal for all", "regret of that"]
    return markdown(header, body)


def graded(folder: str) -> str:
    """Harm and help of deficits: differences of accuracies from clean runs, in points."""
    names = ("final_accuracy", "robustness_mean", "robustness_noise", "robustness_blur",
             "robustness_contrast", "robustness_pixelation")  # fmt: skip
    shown = rows(folder)
    shown = shown[shown["onset"] < shown["removal"]]
    body = [
        [row["variant"], *(points(folder, name, variant=row["variant"], removal=row["removal"])
                           for name in names)]
        for _, row in shown.iterrows()
    ]  # fmt: skip
    header = [
        "deficit",
        "clean images",
        "all corruptions",
        "noise",
        "blur",
        "contrast",
        "pixelation",
    ]
    return markdown(header, body)


def queue_hours(job: str, wait: int) -> str:
    """Simulated hours of a study as a job a path or a segment, each of which waits."""
    found = benchmark("queues").set_index(["job", "wait"]).at[(job, wait), "hours"]
    return number(float(found), 1)


def subset_repeats() -> str:
    """Mean and scatter of subset simulation on problems of known probability."""
    body = []
    for _, row in benchmark("reliability_subset").iterrows():
        cells = [f"{row[name]:.3e}" for name in ("reference", "independent", "mean")]
        cells += [percent(row[name]) for name in ("error", "scatter", "theory")]
        body.append([row["problem"], str(row["dimension"]), *cells, number(row["ratio"], 2)])
    header = ["problem", "dimension", "reference", "computed anew", "mean", "error", "scatter"]
    return markdown([*header, "estimated scatter", "ratio"], body)


def active_runs() -> str:
    """Evaluations and error of each method, over seeds."""
    found = benchmark("reliability_active")
    body = []
    for (problem, method), group in found.groupby(["problem", "method"], sort=False):
        relative = group["probability"] / group["truth"]
        scatter = percent(relative.std(ddof=1)) if len(group) > 1 else ""
        cells = [str(len(group)), number(group["evaluations"].mean(), 0)]
        body.append([problem, method, *cells, percent(relative.mean() - 1), scatter])
    body.sort(key=lambda row: row[0])
    header = ["problem", "method", "seeds", "evaluations", "error of the mean", "scatter"]
    return markdown(header, body)


def held_out() -> str:
    """Log likelihood and squared error of held-out points, by how the GP was fitted."""
    found = benchmark("reliability_fits")
    keys = ["problem", "dimension", "points", "method"]
    body = []
    for key, group in found.groupby(keys, sort=False):
        problem, *sizes, method = key
        cells = [number(group["log_likelihood"].mean(), 2), f"{group['squared_error'].mean():.2g}"]
        body.append([problem, *map(str, sizes), str(len(group)), method, *cells])
    header = ["problem", "dimension", "points", "seeds", "fit", "log likelihood", "squared error"]
    return markdown(header, body)


def round_cost() -> str:
    """Time and memory of a round."""
    columns = ["problem", "dimension", "evaluations", "seconds", "cpu_seconds", "peak_memory_mb"]
    found = benchmark("reliability_cost")[columns]
    body = [[str(cell) for cell in row] for row in found.itertuples(index=False)]
    header = ["problem", "dimension", "evaluations", "seconds", "CPU seconds", "peak memory (MB)"]
    return markdown(header, body)


def boundary_lines(name: str) -> str:
    """Where the loss passes the threshold on each line of a grid, by grid and adaptive studies."""
    body = []
    found = benchmark(name)
    axes = list(found.columns[: list(found.columns).index("grid")])
    kernels = [kernel for kernel in ("either", "deep", "plain") if kernel in found]
    for _, row in found.iterrows():
        interval = f"{_length(row['grid_low'])} to {_length(row['grid_high'])}"
        cells = [
            _length(row[kernel]) + " (outside)" * (not row[f"{kernel} within"])
            for kernel in kernels
        ]
        body.append([*(f"{row[axis]:g}" for axis in axes), _length(row["grid"]), interval, *cells])
    header = [*(axis.split(".")[-1] for axis in axes), "grid", "interval of the grid"]
    return markdown([*header, *map(_kernel, kernels)], body)


def boundary_costs() -> str:
    """What adaptive studies and the full grids beside them have trained, and what they found."""
    body = []
    for name in ("boundary_paths", "boundary_digits"):
        for _, row in benchmark(f"{name}_costs").iterrows():
            cells = [str(row["runs"]), str(row["epochs"])]
            if row["share"] == row["share"]:
                interval = (
                    f"{number(row['probability_low'], 2)} to {number(row['probability_high'], 2)}"
                )
                cells += [
                    percent(row["share"]), f"{row['within']:.0f} of {row['lines']:.0f}",
                    percent(row["covered"]), f"{number(row['probability'], 2)} ({interval})",
                    row["architecture"],
                ]  # fmt: skip
            body.append([name, _kernel(row["study"]), *cells, *[""] * (5 - len(cells) + 2)])
    header = [
        "study",
        "kernel",
        "runs",
        "epochs",
        "share of the grid's",
        "lines within its interval",
    ]
    return markdown([*header, "predictions covered", "impaired", "last kernel"], body)


def _kernel(name: str) -> str:
    return f"{name}, the default" if name == "plain" else name


def _length(value: float) -> str:
    """A length, or that there is none."""
    return "never" if value == float("inf") else f"{value:.3g}"
