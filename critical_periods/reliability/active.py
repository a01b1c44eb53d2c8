"""A failure probability from few evaluations: a GP and subset simulation, round by round."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri
from scipy.stats import qmc

from critical_periods.core.errors import UserError, near
from critical_periods.core.randomness import Stream, fold
from critical_periods.reliability.architecture import Architecture, Choice
from critical_periods.reliability.deep_kernel import DeepKernelGP
from critical_periods.reliability.learning import choose, expected_feasibility, misclassification
from critical_periods.reliability.subset import LimitState, SubsetSimulation, check_chains, simulate

Array = NDArray[np.float64]

LEARNING = {"u": misclassification, "expected_feasibility": expected_feasibility}
# Points of each level whose standard deviation is computed, and how many of all are compared.
_OF_A_LEVEL, _COMPARED = 1000, 1000
# Of a GP that never fails: probabilities below 10^-12 are taken for 0.
_MOST_LEVELS = 12
_TWO_SIDED = (1.96, -1.96)


@dataclass(frozen=True)
class Round:
    """What the evaluations up to now say.

    Args:
        evaluations: how many there are.
        probability: that the GP's mean is at most 0.
        cov: coefficient of variation of that, by the subset simulation alone.
        low: probability that mean + 1.96 sd is at most 0, sd being that of the GP.
        high: probability that mean - 1.96 sd is at most 0.
        architecture: of the network.
    """

    evaluations: int
    probability: float
    cov: float
    low: float
    high: float
    architecture: str


class ActiveReliability:
    """Estimates P(g(u) <= 0), u standard normal, from evaluations that it asks for itself.

    The first points are a scrambled Latin hypercube. Each round then fits a GP to all evaluations,
    runs a subset simulation on its mean, and asks for those points of the simulation's own
    populations at which g is least certain: one after the other by the learning function, with the
    GP's covariance as it will be once the points before are known. It ends when the probability
    has been stable, or the budget is spent.

    Whoever evaluates g asks for points and tells values, in rounds that may lie days apart:
    :meth:`state` is all that has to be kept, and an object that is made with the same arguments and
    given that state goes on as if it had never stopped, with the same bits. For a limit state that
    is a function, :meth:`run` does it all.

    Source: Zhou & Peng (2023); Echard, Gayton & Lemaire, *AK-MCS* (2011) and Bichon et al. (2008),
    for the learning functions.

    Args:
        dimension: d, of u.
        budget: most evaluations.
        initial: evaluations of the first design.
        batch: evaluations of each round.
        model: a :class:`DeepKernelGP`, by default one of its default grid; its architecture is
            chosen anew whenever the points have doubled.
        learning: ``"u"`` (misclassification) or ``"expected_feasibility"``.
        samples: of each level of subset simulation, on the GP.
        tolerance: largest relative change of the probability that counts as stable.
        patience: how many such changes in a row end it.
        seed: of design and subset simulation; the same one in each round, so that probabilities
            differ by what was learned.

    Raises:
        UserError: an argument is out of range, or gpytorch is not installed.

    Example:
        >>> active = ActiveReliability(
        ...     2, budget=40, initial=20, batch=10, model=DeepKernelGP([Architecture(1)])
        ... )
        >>> last = active.run(lambda u: 2 - u.sum(axis=1) / 2**0.5)  # P = Φ(-2) = 0.0228
        >>> print(f"{last.probability:.3f} from {last.evaluations}")
        0.023 from 40
    """

    def __init__(
        self,
        dimension: int,
        budget: int,
        initial: int,
        batch: int,
        model: DeepKernelGP | None = None,
        learning: str = "u",
        samples: int = 20_000,
        tolerance: float = 0.1,
        patience: int = 2,
        seed: int = 0,
    ) -> None:
        self.model = DeepKernelGP(seed=seed) if model is None else model
        check_chains(dimension, samples)
        if initial < 2 * self.model.folds:
            raise UserError(
                f"initial is {initial}; {self.model.folds} folds need at least "
                f"{2 * self.model.folds} points."
            )
        if budget < initial:
            raise UserError(
                f"budget is {budget}, less than the {initial} points of the initial design; "
                "give a larger budget or a smaller design."
            )
        if batch < 1 or patience < 1:
            raise UserError(f"batch is {batch}, patience {patience}; give at least 1 each.")
        if not 0 < tolerance < 1:
            raise UserError(f"tolerance is {tolerance}; give one between 0 and 1, such as 0.1.")
        if learning not in LEARNING:
            raise UserError(f"learning is {learning!r}; {near(learning, LEARNING)}")
        self.dimension, self.budget, self.initial, self.batch = dimension, budget, initial, batch
        self.learning, self.samples, self.seed = learning, samples, seed
        self.tolerance, self.patience = tolerance, patience
        self.points: Array = np.empty((0, dimension))
        """All points that were evaluated, [n, d]."""
        self.values: Array = np.empty(0)
        """g at each of them, [n]."""
        self.rounds: list[Round] = []
        """What each round found, the first after the initial design."""
        self._choice: tuple[int, Choice] | None = None  # and at how many points it was made

    def ask(self) -> Array | None:
        """The points to evaluate next, [k, d], or ``None`` when it has ended.

        Asking again before values were told gives the same points.
        """
        told = len(self.points)
        if not told:
            return self._design()
        simulation = None
        if not self.rounds or self.rounds[-1].evaluations < told:
            simulation = self._round()
        if told >= self.budget or self._is_stable():
            return None
        if simulation is None:  # asked again, or given a state
            self._fit()
            simulation = self._simulate()
        return self._next(simulation, min(self.batch, self.budget - told))

    def tell(self, points: ArrayLike, values: ArrayLike) -> None:
        """Adds evaluations, of the points asked for or of others near them.

        Args:
            points: u, [k, d].
            values: g at them, [k], with noise or without; failure is g <= 0.

        Raises:
            UserError: the shapes do not fit, or a number is not finite.
        """
        u, g = (np.asarray(one, dtype=np.float64) for one in (points, values))
        if u.ndim != 2 or u.shape[1] != self.dimension or g.shape != u.shape[:1] or not len(u):
            raise UserError(
                f"points have shape {list(u.shape)}, values {list(g.shape)}; give "
                f"[k, {self.dimension}] and [k]."
            )
        if not (np.isfinite(u).all() and np.isfinite(g).all()):
            raise UserError("a point or a value is nan or inf; tell those that are finite alone.")
        self.points, self.values = np.vstack([self.points, u]), np.append(self.values, g)

    def run(self, limit_state: LimitState) -> Round:
        """Asks and tells until it ends; the last round."""
        while (points := self.ask()) is not None:
            self.tell(points, limit_state(points))
        return self.rounds[-1]

    def state(self) -> dict[str, Any]:
        """All that has been told and found, as lists and numbers that JSON keeps exactly."""
        return {
            "points": self.points.tolist(),
            "values": self.values.tolist(),
            "rounds": [asdict(one) for one in self.rounds],
            "choice": self._choice and [self._choice[0], asdict(self._choice[1])],
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Goes on from a :meth:`state`, of an object of the same arguments."""
        self.points = np.array(state["points"], dtype=np.float64).reshape(-1, self.dimension)
        self.values = np.array(state["values"], dtype=np.float64)
        self.rounds = [Round(**one) for one in state["rounds"]]
        if state["choice"] is not None:
            made_at, fields = state["choice"]
            shape = fields["architecture"]
            architecture = Architecture(**{**shape, "hidden": tuple(shape["hidden"])})
            self._choice = made_at, Choice(**{**fields, "architecture": architecture})

    def _design(self) -> Array:
        rng = np.random.default_rng(fold(Stream.INITIAL_DESIGN, self.seed))
        return ndtri(qmc.LatinHypercube(self.dimension, rng=rng).random(self.initial))

    def _fit(self) -> None:
        if self._choice is None or len(self.points) >= 2 * self._choice[0]:
            self.model.fit(self.points, self.values)
            self._choice = len(self.points), self.model.choices[0]
        else:
            self.model.fit(self.points, self.values, self._choice[1])

    def _simulate(self) -> SubsetSimulation:
        mean = self.model.mean
        levels = _MOST_LEVELS
        return simulate(mean, self.dimension, self.samples, seed=self.seed, most_levels=levels)

    def _round(self) -> SubsetSimulation:
        """Fits and simulates, and notes what that says."""
        self._fit()
        found = self._simulate()
        points, weights = _thinned(found)
        mean, sd = self.model.predict(points)
        low, high = (float(weights[mean + sign * sd <= 0].sum()) for sign in _TWO_SIDED)
        assert self._choice is not None
        architecture = str(self._choice[1].architecture)
        told = len(self.points)
        self.rounds.append(Round(told, found.probability, found.cov, low, high, architecture))
        return found

    def _is_stable(self) -> bool:
        latest = [one.probability for one in self.rounds[-self.patience - 1 :]]
        if len(latest) <= self.patience or not all(latest):
            return False
        changes = [abs(new / old - 1) for old, new in pairwise(latest)]
        return max(changes) <= self.tolerance

    def _next(self, found: SubsetSimulation, count: int) -> Array:
        points, _ = _thinned(found)
        # A chain stays where a step was refused; no point is worth asking for twice.
        _, first = np.unique(points, axis=0, return_index=True)
        points = points[np.sort(first)]
        learning = LEARNING[self.learning]
        score = learning(*self.model.predict(points))
        points = points[np.argsort(-score, kind="stable")[:_COMPARED]]
        chosen = choose(
            learning,
            self.model.mean(points),
            self.model.covariance(points),
            self.model.noise**2,
            count,
            np.ones(len(points)),
        )
        return points[chosen]


def _thinned(found: SubsetSimulation) -> tuple[Array, Array]:
    """Points of each level, and weights with which they stand for the normal space.

    A level's points above its threshold stand for the shell between it and the level before, those
    of the last level below it for failure. The weights of failure sum to the probability.
    """
    points, weights, left = [], [], 1.0
    last = len(found.populations) - 1
    for number, share in enumerate(found.level_probabilities):
        every = max(1, len(found.populations[number]) // _OF_A_LEVEL)
        level, values = found.populations[number][::every], found.values[number][::every]
        fails = values <= (found.thresholds[number] if number < last else 0.0)
        inside = share / max(1, fails.sum()) if number == last else 0.0
        weights.append(left * np.where(fails, inside, (1 - share) / max(1, (~fails).sum())))
        points.append(level)
        left *= share
    return np.concatenate(points), np.concatenate(weights)
