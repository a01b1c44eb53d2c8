"""From finished runs to the probability of impairment, and to the runs that tell most about it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr

from critical_periods.core.errors import UserError
from critical_periods.reliability.architecture import GRID, PLAIN
from critical_periods.reliability.deep_kernel import DeepKernelGP
from critical_periods.reliability.learning import choose, expected_feasibility
from critical_periods.studies import lattice
from critical_periods.studies.adaptive_settings import LEAST_INITIAL
from critical_periods.studies.results import Row
from critical_periods.studies.rounds import Chosen, Fit, Round
from critical_periods.studies.schedule import Schedule
from critical_periods.studies.space import Space, Trained
from critical_periods.studies.tables import short

Array = NDArray[np.float64]

# The measures that may be lost, the first that a study has, and the sign of a loss; of the share of
# a path, which of the paths is hurt says the sign.
_MEASURES = {"final_accuracy": -1, "success": -1, "error": 1, "path_share": 0}
_KERNELS = {"either": (*GRID, PLAIN), "deep": GRID, "plain": (PLAIN,)}
TWO_SIDED = 1.96
# The boundary stands where the probability has moved by at most so much in the last two rounds, and
# its interval is at most so wide.
_MOVES, _WIDTH, _PATIENCE = 0.01, 0.05, 2
# Points of which one is chosen: their covariances are known.
_COMPARED = 1000


def losses(space: Space, rows: Sequence[Row], runs: Sequence[Chosen]) -> list[float | None]:
    """What each run lost beside its control, as many as have ended; ``None`` of a divergence.

    ``rows`` are those of :func:`~critical_periods.studies.results.results`.
    """
    names = [*[*space.axes][2:], *Schedule._fields, "seed"]
    found = {tuple(row[name] for name in names): row for row in rows}
    measure = next((one for one in _MEASURES if any(one in row for row in found.values())), None)
    if measure is None and any("diverged_epoch" not in row for row in found.values()):
        raise UserError(
            f"the runs have measured none of {', '.join(_MEASURES)}, so that there is no loss to "
            "compare with windows.adaptive.threshold."
        )
    lost = []
    for run in runs:
        windows = space.window(run.point), Schedule(0, 0, space.epochs)
        pair = [found.get((*run.point[2:], *window, run.seed)) for window in windows]
        both = [row for row in pair if row is not None]
        if len(both) < 2:
            break
        lost.append(_lost(both, measure or ""))
    return lost


def _lost(pair: Sequence[Row], measure: str) -> float | None:
    if any("diverged_epoch" in row for row in pair):
        return None
    with_deficit, control = (float(row[measure]) for row in pair)
    difference = with_deficit - control
    return short(_MEASURES[measure] * difference if _MEASURES[measure] else abs(difference))


class Posterior(NamedTuple):
    """What a fit says at the points of the lattice.

    Attributes:
        model: the Gaussian process.
        places: of the points on the axes, [n, d].
        mean: of the loss, [n].
        sd: of that, without the noise of seeds, [n].
        fit: what it comes to.
    """

    model: DeepKernelGP
    places: lattice.Places
    mean: Array
    sd: Array
    fit: Fit


def posterior(
    space: Space,
    runs: Sequence[Chosen],
    lost: Sequence[float | None],
    before: Fit | None,
    places: lattice.Places | None = None,
) -> Posterior:
    """Fits the runs; architecture and early stopping are chosen anew whenever they have doubled.

    The bits do not depend on the number of threads, as one is used. ``places`` are those of the
    lattice by default; what the fit comes to is about those that are given.

    Raises:
        UserError: too few runs have not diverged, or all have lost the same.
    """
    pairs = [(run.point, loss) for run, loss in zip(runs, lost, strict=True) if loss is not None]
    points, values = [point for point, _ in pairs], [loss for _, loss in pairs]
    if len(pairs) < LEAST_INITIAL:
        raise UserError(
            f"{len(runs) - len(pairs)} of {len(runs)} runs have diverged; a fit needs "
            f"{LEAST_INITIAL}."
        )
    if len(set(values)) == 1:
        raise UserError(
            f"each of the {len(values)} runs has lost {values[0] + 0:g}, so that there is no "
            "boundary to find; widen the axes of windows.adaptive."
        )
    kept = before if before is not None and len(pairs) < 2 * before.chosen_at else None
    places = lattice.places(space) if places is None else places
    with _one_thread():
        model = DeepKernelGP(_KERNELS[space.kernel])
        model.fit(lattice.unit(space, points), values, kept.choice if kept else None)
        mean, sd = model.predict(lattice.unit(space, [space.point(place) for place in places]))
    weights = lattice.weights(space, places)
    impair, low, high = (
        short(float(weights[mean + z * sd > space.threshold].sum()))
        for z in (0, -TWO_SIDED, TWO_SIDED)
    )
    choice, made_at = (kept.choice, kept.chosen_at) if kept else (model.choices[0], len(pairs))
    fit = Fit(len(pairs), impair, low, high, choice, made_at)
    return Posterior(model, places, mean, sd, fit)


def stands(fits: Sequence[Fit]) -> bool:
    """Whether the boundary is known by now: it moves no more, and its band is narrow.

    Example:
        >>> from critical_periods.reliability import PLAIN, Choice
        >>> choice = Choice(PLAIN, 0, 40, 0.01)
        >>> fits = [Fit(12 + n, 0.30, 0.28, 0.32, choice, 12) for n in range(3)]
        >>> stands(fits), stands(fits[:2])
        (True, False)
    """
    latest = fits[-_PATIENCE - 1 :]
    moves = [abs(after.impaired - before.impaired) for before, after in pairwise(latest)]
    is_narrow = latest[-1].high - latest[-1].low <= _WIDTH
    return len(latest) > _PATIENCE and max(moves) <= _MOVES and is_narrow


def next_runs(found: Posterior, space: Space, rounds: Sequence[Round], count: int) -> Round:
    """The runs by which impairment is least certain, for the epochs that they train anew.

    One after the other, that of the largest expected feasibility (how near the loss is expected to
    be to the threshold) an epoch, with the covariance as it will be once those before are known.
    A run that shares its trunk, or part of its deficit, with others trains fewer epochs. Seeds take
    turns.
    """
    number = sum(len(one.runs) for one in rounds)
    points = [space.point(place) for place in found.places]

    def cost(chosen: Sequence[int]) -> Array:
        """What each point trains once the chosen ones are; infinite where that is nothing."""
        trained = _trained(space, rounds)
        for ahead, at in enumerate(chosen):
            trained.add(points[at], space.seed(number + ahead))
        seed = space.seed(number + len(chosen))
        epochs = np.array([trained.price(point, seed) for point in points], dtype=float)
        return np.where(epochs > 0, epochs, np.inf)

    score = expected_feasibility(found.mean - space.threshold, found.sd) / cost([])
    best = np.argsort(-score, kind="stable")[:_COMPARED]
    points = [points[place] for place in best]
    mean, sd, noise = found.mean[best], found.sd[best], found.model.noise
    with _one_thread():
        covariance = found.model.covariance(lattice.unit(space, points))
    above = mean - space.threshold
    chosen = choose(expected_feasibility, above, covariance, noise**2, count, cost)
    trained, runs = _trained(space, rounds), []
    for ahead, at in enumerate(chosen):
        seed = space.seed(number + ahead)
        epochs, spread = trained.add(points[at], seed), float(np.hypot(sd[at], noise))
        runs.append(Chosen(points[at], seed, epochs, short(float(mean[at])), short(spread)))
    # Where all are trained, there is none to choose.
    return Round(tuple(run for run in runs if run.epochs), found.fit)


def _trained(space: Space, rounds: Sequence[Round]) -> Trained:
    trained = Trained(space)
    for one in rounds:
        for run in one.runs:
            trained.add(run.point, run.seed)
        trained.end_round()
    return trained


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums in one order, whatever the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def impaired(mean: Array, sd: Array, threshold: float) -> Array:
    """The probability that a loss lies above the threshold, [n].

    Example:
        >>> impaired(np.array([0.02, 0.03]), np.array([0.01, 0.01]), 0.02).round(2)
        array([0.5 , 0.84])
    """
    return ndtr((mean - threshold) / np.maximum(sd, np.finfo(float).tiny))
