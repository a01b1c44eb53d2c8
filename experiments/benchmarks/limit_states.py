"""Limit states whose failure probability is known, in standard normal space, with references.

Each reference is computed by a way of its own: a closed form, a one-dimensional integral, or the
distribution of a sum by a fast Fourier transform; that of the oscillator by a Monte Carlo
simulation (``python experiments/benchmarks/reliability.py references``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from critical_periods.reliability import Exponential, Independent, LogNormal, Normal

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """A limit state g: [n, d] to [n], and the probability that g <= 0."""

    name: str
    dimension: int
    limit_state: Callable[[Array], Array]
    reference: float  # as published, or as the issue that asked for it says
    check: Callable[[], float]  # the same by an independent way


def linear(dimension: int, beta: float = 3.5) -> Problem:
    """g = β - Σ u_i / √n, P = Φ(-β)."""
    return Problem(
        "linear", dimension, lambda u: beta - u.sum(axis=1) / np.sqrt(dimension),
        2.3263e-4, lambda: float(stats.norm.sf(beta)),
    )  # fmt: skip


def exponentials(dimension: int = 20, threshold: float = 8.951) -> Problem:
    """g = Σ x_i - c, x_i exponential of mean 1 (Engelund & Rackwitz 1993): the sum is Gamma."""
    space = Independent([Exponential(1.0)] * dimension)
    return Problem(
        "exponentials", dimension, lambda u: space.from_normal(u).sum(axis=1) - threshold,
        9.906e-4, lambda: float(stats.gamma.cdf(threshold, dimension)),
    )  # fmt: skip


def quadratic(dimension: int = 100, offset: float = 4.5, curvature: float = 0.1) -> Problem:
    """g = κ Σ_{i>1} u_i² - u_1 - c: E over a χ² of n - 1 degrees of freedom of Φ(c - κ χ²)."""

    def check() -> float:
        low, high = stats.chi2.ppf([1e-14, 1 - 1e-14], dimension - 1)
        x = np.linspace(low, high, 200_001)
        density = stats.chi2.pdf(x, dimension - 1) * stats.norm.sf(curvature * x - offset)
        return float(np.trapezoid(density, x))

    def limit_state(u: Array) -> Array:
        return curvature * (u[:, 1:] ** 2).sum(axis=1) - u[:, 0] - offset

    return Problem("quadratic", dimension, limit_state, 3.769e-4, check)


def lognormals(dimension: int) -> Problem:
    """g = n + 3 · 0.2 · √n - Σ x_i, x_i lognormal of mean 1 and standard deviation 0.2."""
    space = Independent([LogNormal(1.0, 0.2)] * dimension)
    threshold = dimension + 3 * 0.2 * np.sqrt(dimension)

    def check() -> float:
        """The density of the sum: the n-th power of the Fourier transform of one density."""
        zeta = np.sqrt(np.log(1.04))
        one = stats.lognorm(zeta, scale=np.exp(-(zeta**2) / 2))
        points, step = 2**20, 2 * (dimension + 20) / 2**20
        edges = (np.arange(points + 1) - 0.5) * step  # cells, each around its own point
        cells = np.diff(one.cdf(edges))
        whole = np.fft.irfft(np.fft.rfft(cells) ** dimension, points)
        above = np.arange(points) * step
        # The point nearest the threshold counts by the part of its cell that lies above it.
        share = np.clip((above + step / 2 - threshold) / step, 0, 1)
        return float((whole * share).sum())

    reference = {40: 1.981e-3, 100: 1.735e-3, 250: 1.588e-3}.get(dimension, float("nan"))
    return Problem(
        "lognormals", dimension, lambda u: threshold - space.from_normal(u).sum(axis=1),
        reference, check,
    )  # fmt: skip


def four_branches(k: float = 7.0) -> Problem:
    """The series system of four branches in two variables (Echard, Gayton & Lemaire 2011)."""

    def limit_state(u: Array) -> Array:
        difference, total = u[:, 0] - u[:, 1], (u[:, 0] + u[:, 1]) / np.sqrt(2)
        bend = 3 + 0.1 * difference**2
        branches = [bend - total, bend + total, difference + k / 2**0.5, k / 2**0.5 - difference]
        return np.minimum.reduce(branches)

    def check() -> float:
        """Turned by 45°, v = (u_1 - u_2) / √2: E[2 Φ(-3 - 0.2 v²)], and 1 beyond |v| = k / 2."""
        v = np.linspace(0, k / 2, 200_001)
        inner = np.trapezoid(stats.norm.pdf(v) * 2 * stats.norm.sf(3 + 0.2 * v**2), v)
        return float(2 * (inner + stats.norm.sf(k / 2)))

    return Problem("four branches", 2, limit_state, 2.215e-3, check)


def oscillator() -> Problem:
    """A nonlinear oscillator under a rectangular pulse, six normal variables (Echard et al. 2013).

    g = 3 r - |2 F / (m ω²) sin(ω t / 2)|, ω² = (c_1 + c_2) / m.
    """
    space = Independent(
        [
            Normal(1, 0.05), Normal(1, 0.1), Normal(0.1, 0.01),  # m, c_1, c_2
            Normal(0.5, 0.05), Normal(1, 0.2), Normal(1, 0.2),  # r, t, F
        ]
    )  # fmt: skip

    def limit_state(u: Array) -> Array:
        mass, first, second, strength, time, force = space.from_normal(u).T
        omega = np.sqrt((first + second) / mass)
        return 3 * strength - abs(2 * force / (mass * omega**2) * np.sin(omega * time / 2))

    def check() -> float:
        """Monte Carlo with r integrated out: E[Φ((|...| / 3 - μ_r) / σ_r)]."""
        rng, total, rounds = np.random.default_rng(1), 0.0, 40
        for _ in range(rounds):
            u = rng.standard_normal((250_000, 6))
            u[:, 3] = 0.0
            strength = 0.5 - limit_state(u) / 3
            total += stats.norm.cdf((strength - 0.5) / 0.05).mean()
        return float(total / rounds)

    return Problem("oscillator", 6, limit_state, 2.866e-2, check)


PROBLEMS = (
    linear(2), linear(20), linear(100), exponentials(), quadratic(),
    lognormals(40), lognormals(100), lognormals(250), four_branches(), oscillator(),
)  # fmt: skip
