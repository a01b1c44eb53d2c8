"""Figures of the theory: they draw the numbers they were given, and their script writes them."""

import sys
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.patches import StepPatch

from critical_periods.linear import (
    BetaWeights,
    Dropped,
    compare,
    five_tasks,
    rsv_cdf,
    views_covariance,
)
from critical_periods.plots import plot_linear_dynamics, plot_synthetic_rsv

SCRIPT = Path(__file__).parents[2] / "experiments" / "kleinman2023_theory.py"


def test_linear_dynamics_draws_each_course_and_each_gap():
    times = np.linspace(0, 4, 41)
    pairs = {
        name: tuple(compare(five_tasks(), depth, 0.01, times, dropped, 0.01) for depth in (1, 2))
        for name, dropped in {"all": (), "back at t = 2": (Dropped(2, removal=2.0),)}.items()
    }
    gaps = {4: [0.1, 0.5, 0.6], 16: [0.1, 0.2, 0.3]}
    figure = plot_linear_dynamics(pairs, ("random", pairs["all"][1]), gaps)
    axes = figure.axes
    titles = [f"{network}: {name}" for name in pairs for network in ("Shallow", "Deep")]
    assert [axis.get_title() for axis in axes[:5]] == [*titles, "Deep: random"]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[:5] == [f"sensor {one}" for one in (1, 3, 4, 5, 8)]

    for axis, case in zip(axes, [case for pair in pairs.values() for case in pair], strict=False):
        sensors = axis.lines[1:16]
        for place, sensor in enumerate((0, 2, 3, 4, 7)):
            closed, flow, simulation = sensors[3 * place : 3 * place + 3]
            np.testing.assert_array_equal(closed.get_ydata(), case.closed[:, 4, sensor])
            np.testing.assert_array_equal(flow.get_ydata(), case.flow[:, 4, sensor])
            np.testing.assert_array_equal(simulation.get_ydata(), case.simulation[::2, 4, sensor])
            np.testing.assert_array_equal(simulation.get_xdata(), times[::2])
    assert [len(axis.lines) for axis in axes[:4]] == [16, 16, 17, 17]
    assert axes[3].lines[-1].get_xdata() == [2.0, 2.0]
    median = next(line for line in axes[5].lines if line.get_label() == "median")
    np.testing.assert_array_equal(median.get_xydata(), [[4, 0.5], [16, 0.2]])


def test_synthetic_rsv_draws_counts_and_expected_shares():
    alike = views_covariance(1.0, [1.0, 1.0])
    rsv = torch.tensor([-1.0, -0.96, 0.01, 0.99, float("nan")])
    measured = []
    for shape in (1, 20):
        cdf = partial(rsv_cdf, distribution=BetaWeights(shape, shape), covariance=alike)
        measured.append((f"α = β = {shape}", rsv, cdf))
    for axis in plot_synthetic_rsv(measured).axes:
        measured, closed = (
            patch.get_data() for patch in axis.patches if isinstance(patch, StepPatch)
        )
        np.testing.assert_array_equal(measured.values[[0, 20, 39]], [50, 25, 25])
        assert measured.values.sum() == closed.values.sum() == pytest.approx(100)
        assert len(closed.values) == 40
        assert "75 % polarised" in axis.get_title()
    assert closed.values[19] > 5 > closed.values[0]


def test_the_script_writes_both_figures_as_png_and_pdf(tmp_path, monkeypatch, capsys):
    spec = spec_from_file_location("theory_script", SCRIPT)
    script = module_from_spec(spec)
    spec.loader.exec_module(script)
    # The script has no option for its sizes, for the figure has none; here they are cut down.
    small = {"UNITS": 200, "DRAWS": 50, "WIDTHS": (4, 8), "TIMES": np.linspace(0, 0.4, 5)}
    small["CASES"] = {"all": (), "back": (Dropped(2, removal=0.2),)}
    for name, value in small.items():
        monkeypatch.setattr(script, name, value)
    output = tmp_path / "made" / "here"
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--output", str(output)])
    script.main()
    starts = {path.name: path.read_bytes()[:4] for path in output.iterdir()}
    assert starts == {
        "fig2.png": b"\x89PNG", "fig3.png": b"\x89PNG", "fig2.pdf": b"%PDF", "fig3.pdf": b"%PDF",
        "gaps.csv": b"star",
    }  # fmt: skip
    assert "8 hidden units, random weights: median gap" in capsys.readouterr().out
