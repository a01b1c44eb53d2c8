"""Scars and lags that were planted: how often a verdict is right, and that it may be missing."""

import numpy as np
import pytest

from critical_periods.studies.healing import healing, sign_flip_p

RUNGS = [5, 10, 20, 40, 80]


def planted(scar: float, speed: float, seed: int, sd: float = 0.005, seeds: int = 8) -> np.ndarray:
    """Curves of a power law; half of the variance of their noise is a seed's own."""
    draw = np.random.default_rng(seed)
    law = scar + 0.25 * (np.array(RUNGS) / 5) ** -speed
    noise = draw.standard_normal((seeds, 5)) + draw.standard_normal((seeds, 1))
    return np.asarray(law + sd / np.sqrt(2) * noise)


def test_verdicts_on_planted_curves_are_right_or_not_given():
    speeds = (0.5, 1.0, 1.5)
    counts = {
        scar: [healing(RUNGS, planted(scar, speeds[n % 3], n), 0.005).verdict for n in range(30)]
        for scar in (0.0, 0.05)
    }
    lags, scars = counts[0.0], counts[0.05]
    assert lags.count("scar") <= 1 and scars.count("lag") == 0
    assert lags.count("lag") >= 3 and scars.count("scar") >= 20


@pytest.mark.parametrize("scar", [0.0, 0.02])
def test_curves_without_noise_give_back_their_law(scar):
    found = healing(RUNGS, planted(scar, 1.2, 0, sd=0), margin=0.005)
    assert (found.scar, found.size, found.speed) == pytest.approx((scar, 0.25, 1.2), abs=1e-4)
    assert found.verdict == ("scar" if scar else "lag")


def test_what_is_no_power_law_is_not_extrapolated():
    """An exponential on a floor bends as no power law does, whose scar would come out as none."""
    law = 0.02 + 0.3 * np.exp(-np.array(RUNGS) / 20)
    noise = 0.004 * np.random.default_rng(0).standard_normal((8, 5))
    found = healing(RUNGS, law + noise, margin=0.005)
    assert found.scar == 0 and found.fit_p < 0.05 and found.verdict == "undecided"
    # What was measured at the last rung may still tell a lag.
    gone = np.where(np.array(RUNGS) < 40, law, 0)
    assert healing(RUNGS, gone + noise / 4, margin=0.005).verdict == "lag"


def test_few_seeds_decide_nothing_that_they_do_not_hold():
    assert healing(RUNGS, planted(0.05, 1.5, 0, seeds=1), 0.005).verdict == "undecided"
    assert healing(RUNGS, planted(0.01, 1.0, 0, seeds=3), 0.005).verdict == "undecided"
    assert healing(RUNGS, planted(0.05, 1.5, 0)).verdict == ""
    # The order of the seeds is nothing.
    curves = planted(0.02, 1.0, 1)
    assert healing(RUNGS, curves, 0.005) == healing(RUNGS, curves[::-1], 0.005)


def test_sign_flips_against_a_loop():
    values = [0.3, -0.1, 0.25, 0.4, 0.05, -0.02]
    flips = [sum(v * (1 - 2 * (n >> k & 1)) for k, v in enumerate(values)) for n in range(64)]
    expected = sum(abs(one) >= abs(sum(values)) - 1e-12 for one in flips) / 64
    assert sign_flip_p(values) == expected
    assert sign_flip_p([0.1] * 20) < 1e-4 and sign_flip_p([0.1]) == 1.0
