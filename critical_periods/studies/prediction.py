"""Whether what was measured up to a removal says how much will be lost at the end."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata, t

from critical_periods.core.errors import UserError, near
from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.plan import Plan
from critical_periods.studies.results import Row, differences, settings
from critical_periods.studies.statistics import LEVEL
from critical_periods.studies.study_file import NO_REMEDY
from critical_periods.studies.tables import short

LEAST_SEEDS = 5
"""Two to choose by, and three that are held back."""
WORTH = 0.5
"""A rank correlation that is smaller says nothing of use: less than a quarter of the variance."""
_MEASURE = "final_accuracy"
_FORMS = ("at", "mean", "slope")
_RESAMPLES = 1000
Numbers = NDArray[np.float64]


class Point(NamedTuple):
    """A run with a deficit: its variation, what it has lost, what was measured until then."""

    settings: Row
    seed: int
    removal: int
    loss: float
    courses: dict[str, dict[str, float]]
    segment: str = ""

    def of(self, name: str) -> dict[str, float]:
        """The forms of a measure."""
        return self.courses.get(name, {})


class Judged(NamedTuple):
    """A rank correlation with its interval over seeds."""

    rho: float
    low: float
    high: float


def predictions(
    folder: StudyFolder, plan: Plan, rows: Sequence[Row], measures: Sequence[str] = ()
) -> list[Row]:
    """One row for each variation and measure that was logged while the deficit was there.

    Points are the runs with a deficit (without a remedy): the measure, and the loss at the end,
    which is the final accuracy of the clean run of the same length and seed minus this run's. A
    third of the seeds (:func:`divided`) choose by the size of Spearman's rank correlation what of a
    measure is taken: the value ``at`` the removal (the last before it), its ``mean`` until then, or
    its ``slope`` against epochs. The other seeds, which are held back, judge that.

    Columns: ``variant`` and every varied field, ``measure``, ``form``, ``chosen_rho`` (of the seeds
    that chose), ``rho``, ``rho_low``, ``rho_high`` (of those held back, with :func:`judge`'s
    interval), ``predicts`` (whether the interval leaves 0 out on the side of ``chosen_rho``),
    ``is_chosen`` (whether no other measure, the removal aside, has a larger ``chosen_rho``; never
    of that itself), ``seeds``, ``held_back_seeds``, ``points`` (held back), and ``verdict``:
    ``predicts``; ``does not``, where the interval ends below :data:`WORTH` on the side of
    ``chosen_rho``; ``undecided`` otherwise. The measure called ``removal`` is the epoch of the
    removal itself: where a deficit costs more the longer it lasts, whatever grows with epochs
    predicts as well. What a measure adds say ``rho_within``, of ranks among the held-back runs of
    one removal alone, with ``rho_within_low``, ``rho_within_high`` and ``verdict_within``, which
    takes the side of ``rho_within`` itself.

    Args:
        folder: of the study.
        plan: what was run in it.
        rows: its results.
        measures: these alone; by default all in its history.

    Raises:
        UserError: there are too few seeds, or a measure was not logged.
    """
    return [row for points in variations(folder, plan, rows) for row in foretold(points, measures)]


def foretold(points: Sequence[Point], measures: Sequence[str] = ()) -> list[Row]:
    """The rows of :func:`predictions` of one variation, by its points."""
    first = points[0]
    seeds = sorted({one.seed for one in points})
    if len(seeds) < LEAST_SEEDS:
        raise UserError(
            f"{named(first)} has {len(seeds)} seeds with a run and its control that are done; "
            f"a prediction needs at least {LEAST_SEEDS}: two to choose by, three held back."
        )
    known = {key for one in points for key in one.courses}
    for name in measures:
        if name not in known:
            raise UserError(
                f"{name!r} was not logged in {named(first)} while the deficit was there; "
                f"{near(name, known)}"
            )
    choosing, others = divided(seeds)
    chosen = [one for one in points if one.seed in choosing]
    held = [one for one in points if one.seed in others]
    sizes = {"seeds": len(choosing), "held_back_seeds": len(others)}
    found: list[Row] = []
    for name in measures or sorted(known):
        rhos = {form: _rho(chosen, name, form) for form in _FORMS}
        rhos = {form: rho for form, rho in rhos.items() if math.isfinite(rho)}
        _, form = max(((abs(rho), form) for form, rho in rhos.items()), default=(0, ""))
        if form and all(form in one.of(name) for one in held):
            row = _judged(held, name, rhos[form], form) | {**sizes, "points": len(held)}
            found.append({**first.settings, **row})
    # The removal is what the measures are compared with, and none of them.
    sizes_of = {n: abs(row["chosen_rho"]) for row in found if (n := row["measure"]) != "removal"}
    most = max(sizes_of.values(), default=0.0)
    return [{**row, "is_chosen": sizes_of.get(row["measure"]) == most} for row in found]


def divided(seeds: Sequence[int]) -> tuple[list[int], list[int]]:
    """The seeds that choose, which are the first third but at least two, and those held back.

    A choice between three forms needs few; what judges it, and its interval, all that there are.

    Example:
        >>> divided(range(5)), divided(range(9))
        (([0, 1], [2, 3, 4]), ([0, 1, 2], [3, 4, 5, 6, 7, 8]))
    """
    first = max(2, len(seeds) // 3)
    return [*seeds[:first]], [*seeds[first:]]


def _verdict(found: Judged, side: float) -> str:
    """What an interval says of a correlation that was expected on the side of a number."""
    near_end, far = (found.low, found.high) if side > 0 else (-found.high, -found.low)
    if near_end > 0 and side:
        return "predicts"
    return "does not" if far < WORTH else "undecided"


def variations(folder: StudyFolder, plan: Plan, rows: Sequence[Row]) -> Iterator[list[Point]]:
    """The points of each variation that has any: runs with a deficit and without a remedy."""
    found: dict[str, list[Point]] = {}
    for run in plan.runs:
        onset, removal, _ = run.window
        if onset == removal or run.variation.get("remedy", NO_REMEDY) != NO_REMEDY:
            continue
        start = settings(run)
        losses = differences(_MEASURE, rows, start)
        if run.seed in losses and math.isfinite(losses[run.seed]):
            known = {n: one for n, one in start.items() if n not in run.window._asdict()}
            # The deficit is in the first stage.
            (_, name), *_ = plan.stages(run)
            courses = _courses(folder.segment(name).history()[onset:removal])
            courses |= {"removal": {"at": float(removal)}}
            point = Point(known, run.seed, removal, -losses[run.seed], courses, name)
            found.setdefault(repr(known), []).append(point)
    if not found:
        raise UserError(
            f"{plan.study} has no run with a deficit that is done and has its control, so there is "
            "no loss to predict."
        )
    yield from found.values()


def course(measured: Sequence[tuple[int, float]]) -> dict[str, float]:
    """The forms of what was measured, by epochs: the last value, the mean, the slope.

    Example:
        >>> course([(0, 1.0), (5, 2.0), (10, 3.0)])
        {'at': 3.0, 'mean': 2.0, 'slope': 0.2}
    """
    epochs, values = np.array(measured, dtype=float).reshape(-1, 2).T
    if not len(values) or not np.isfinite(values).all():
        return {}
    found = {"at": float(values[-1]), "mean": float(values.mean())}
    if len(values) > 1:
        off = epochs - epochs.mean()
        found["slope"] = float(off @ values / (off @ off))
    return found


def _courses(history: Sequence[dict[str, str]]) -> dict[str, dict[str, float]]:
    """Of each measure that was logged in some epochs, the course."""
    keys = history[0].keys() - {"epoch"} if history else set[str]()
    found = {
        key: course([(int(one["epoch"]), float(one[key])) for one in history if one.get(key)])
        for key in keys
    }
    return {key: of for key, of in found.items() if of}


def _rho(points: Sequence[Point], name: str, form: str) -> float:
    """Of a form of a measure; nan where values are all alike, or some do not have it."""
    if not all(form in one.of(name) for one in points):
        return math.nan
    values = np.array([one.of(name)[form] for one in points])
    losses = np.array([one.loss for one in points])
    return float(_spearman(values[None], losses[None])[0])


def _judged(points: Sequence[Point], name: str, chosen_rho: float, form: str) -> Row:
    values = [one.of(name)[form] for one in points]
    losses = [one.loss for one in points]
    seeds, removals = ([getattr(one, of) for one in points] for of in ("seed", "removal"))
    row: Row = {"measure": name, "form": form, "chosen_rho": short(chosen_rho)}
    within = (_ranks_within(of, removals) for of in (values, losses))
    for of, (x, y) in (("", (values, losses)), ("_within", within)):
        if of and not (any(x) and any(y)):
            continue
        found = judge(x, y, seeds)
        row |= {
            f"rho{of}": short(found.rho),
            f"rho{of}_low": short(found.low),
            f"rho{of}_high": short(found.high),
            f"verdict{of}": _verdict(found, found.rho if of else chosen_rho),
        }
    return {**row, "predicts": row["verdict"] == "predicts"}


def _ranks_within(values: Sequence[float], removals: Sequence[int]) -> list[float]:
    """Ranks among the values of one removal, which is left to tell nothing: their mean is 0."""
    given, of = np.array(values), np.array(removals)
    for removal in set(removals):
        ranks = rankdata(given[of == removal])
        given[of == removal] = ranks - ranks.mean()
    return list(given)


def judge(
    values: Sequence[float], losses: Sequence[float], seeds: Sequence[int], level: float = LEVEL
) -> Judged:
    """Spearman's rank correlation of points, and its interval over the seeds that they are of.

    Of three intervals the ends that are further out are taken: the percentiles of 1,000 resamples
    of the seeds, widened for few of them to Φ(±t √(n / (n - 1))) (Hesterberg 2015, section 5.3);
    Student's of the jackknife's pseudo-values n ρ - (n - 1) ρ₋ᵢ, as three seeds have but ten
    different resamples; and, as seeds may agree by chance, that of m points which were independent,
    tanh(artanh ρ ± z √(1.06 / (m - 3))) (Fieller, Hartley & Pearson 1957), in which a perfect ρ
    counts as the next one below it. A correlation that does not exist, of values that are all
    alike, is 0.

    Args:
        values: of a measure.
        losses: of as many runs.
        seeds: whose runs these are.
        level: of the interval.

    Example:
        >>> found = judge([1, 2, 3, 4, 5, 6], [2, 3, 5, 7, 9, 11], [0, 0, 1, 1, 2, 2])
        >>> [round(one, 3) for one in found]
        [1.0, 0.536, 1.0]
    """
    x, y = np.asarray(values, dtype=float), np.asarray(losses, dtype=float)
    names = sorted(set(seeds))
    n = len(names)
    rho = float(_spearman(x[None], y[None])[0])
    places = [np.flatnonzero(np.asarray(seeds) == name) for name in names]
    if n < 2:
        return Judged(rho, -1.0, 1.0)
    quantile = float(t.ppf((1 + level) / 2, n - 1))
    tail = float(norm.cdf(-quantile * math.sqrt(n / (n - 1))))
    draws = np.random.default_rng(0).integers(n, size=(_RESAMPLES, n))
    if len({len(of) for of in places}) == 1:
        picked = np.array(places)[draws].reshape(_RESAMPLES, -1)
        resampled = _spearman(x[picked], y[picked])
    else:
        some = [np.concatenate([places[one] for one in draw]) for draw in draws]
        resampled = np.array([_spearman(x[one][None], y[one][None])[0] for one in some])
    low, high = np.quantile(np.nan_to_num(resampled), [tail, 1 - tail])
    left_out = [np.setdiff1d(np.arange(len(x)), of) for of in places]
    others = np.array([np.nan_to_num(_spearman(x[one][None], y[one][None])[0]) for one in left_out])
    pseudo = n * np.nan_to_num(rho) - (n - 1) * others
    half = quantile * pseudo.std(ddof=1) / math.sqrt(n)
    middle = float(np.nan_to_num(rho))
    least, most = _of_points(middle, len(x), level)
    return Judged(
        middle,
        float(max(-1.0, min(low, middle - half, least))),
        float(min(1.0, max(high, middle + half, most))),
    )


def _of_points(rho: float, m: int, level: float) -> tuple[float, float]:
    if m <= 3:
        return -1.0, 1.0
    largest = 1 - 12 / (m * (m**2 - 1))
    z, half = math.atanh(max(-largest, min(rho, largest))), math.sqrt(1.06 / (m - 3))
    half *= float(norm.ppf((1 + level) / 2))
    return math.tanh(z - half), math.tanh(z + half)


def _spearman(x: Numbers, y: Numbers) -> Numbers:
    """Of each row, [sets, points]; nan where values are all alike."""
    x, y = (rankdata(one, axis=1) for one in (x, y))
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    scale = np.sqrt((x**2).sum(1) * (y**2).sum(1))
    return np.divide((x * y).sum(1), scale, out=np.full(len(x), math.nan), where=scale > 0)


def named(point: Point) -> str:
    """The variation of a point in a sentence."""
    values = ", ".join(f"{name} {value!r}" for name, value in point.settings.items())
    return values or "the study"
