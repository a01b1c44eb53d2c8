"""Figures: what is drawn is what the tables say, and the files are whole and always the same."""

import math
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.text import Text

from critical_periods.core.errors import UserError
from critical_periods.plots import (
    plot_curve,
    plot_fisher,
    plot_information,
    plot_layers,
    plot_modes,
    plot_reconstruction,
    plot_rsv,
    plot_sensitivity,
    plot_surface,
    save,
)
from critical_periods.plots.curve import surface_axes
from critical_periods.plots.labels import label_of
from critical_periods.plots.style import COLOURS, lines, look_of, numbers, varied
from critical_periods.studies.report import figures
from critical_periods.studies.tables import as_table

Rows = list[dict[str, Any]]
WIDTH = "model.init_args.network.init_args.width"


def point(onset: int, removal: int, epochs: int, *losses: float, **before: Any) -> dict[str, Any]:
    """A row of curve.csv of runs that lose so many points of 90 %."""
    loss = np.array(losses) / 100
    return {
        **before, "onset": onset, "removal": removal, "epochs": epochs, "seeds": len(losses),
        "final_accuracy": 0.9 - loss.mean(), "final_accuracy_sd": loss.std(),
        "final_accuracy_control": 0.9, "final_accuracy_control_sd": 0.005,
        "final_accuracy_difference": -loss.mean(), "final_accuracy_difference_sd": loss.std(),
    }  # fmt: skip


def data(container: ErrorbarContainer) -> np.ndarray:
    """x, y and half the bar of each point."""
    line, _, (bars,) = container
    assert line is not None
    x, y = (np.array(values, dtype=float) for values in line.get_data())
    ends = np.array([segment[:, 1] for segment in bars.get_segments()])
    return np.stack([x, y, (ends[:, 1] - ends[:, 0]) / 2], axis=1)


def said(texts: Iterable[Text]) -> list[str]:
    return [text.get_text() for text in texts]


def legend(of: Axes | Figure) -> list[str]:
    return said((of.get_legend() if isinstance(of, Axes) else of.legends[0]).get_texts())


def is_inside(figure: Figure, part: Artist) -> bool:
    """Whether a legend or a title is no wider than its figure."""
    figure.draw_without_rendering()
    box = part.get_window_extent()
    return bool(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1)


def of_window(onset: int, removal: int, epochs: int, **more: Any) -> dict[str, Any]:
    """What rows of measurements begin with, and the rest of one."""
    return {"onset": onset, "removal": removal, "epochs": epochs, "seeds": 2, **more}


def two_variants(measure: str = "") -> Rows:
    rows = []
    for name, cost in (("blur", 0.2), ("flip", 0.05)):
        for removal in (20, 0, 10):
            one = point(0, removal, removal + 5, cost * removal, cost * removal + 1, variant=name)
            if measure and name == "blur":
                one |= {measure: removal / 100, f"{measure}_sd": 0.1, f"{measure}_control": 0}
            rows.append(one)
    return rows


def test_the_curve_is_what_the_table_says():
    figure = plot_curve(as_table(two_variants()))
    axis, losses = figure.axes
    assert axis.get_xlabel() == losses.get_xlabel() == "Deficit removed at epoch"
    assert losses.get_ylabel() == "Loss of final accuracy (points)"
    assert axis.get_ylabel() == "Final accuracy (%)"
    # Beside the panels, so that it lies on no data.
    assert axis.get_legend() is None
    matched, shortest = "no deficit, as many epochs", "no deficit, fewest epochs"
    assert legend(figure) == ["blur", "flip", matched, shortest]
    assert len(axis.containers) == 4
    for place, (name, cost) in enumerate((("blur", 0.2), ("flip", 0.05))):
        deficit, control = axis.containers[2 * place : 2 * place + 2]
        x = np.array([0.0, 10, 20])
        expected = np.stack([x, 90 - cost * x - 0.5, np.full(3, 0.5)], axis=1)
        np.testing.assert_allclose(data(deficit), expected, atol=1e-9)
        np.testing.assert_allclose(data(control), [(e, 90, 0.5) for e in x], atol=1e-9)
        expected[:, 1] = cost * x + 0.5
        np.testing.assert_allclose(data(losses.containers[2 * place]), expected, atol=1e-9)
        assert deficit.get_label() == name
        assert to_hex(deficit[0].get_color()).upper() == COLOURS[place]
        assert control[0].get_markerfacecolor() == "white"


def test_the_curve_of_one_deficit_names_its_controls():
    rows = [point(0, removal, removal + 5, removal) for removal in (0, 10)]
    rows[1]["final_accuracy_control"] = 0.95
    figure = plot_curve(as_table(rows))
    matched, shortest = "no deficit, as many epochs", "no deficit, fewest epochs"
    assert legend(figure) == ["deficit", matched, shortest]
    # The dashed line is the level of 5 epochs, which the run of 15 is not to be compared with.
    (level,) = [line for line in figure.axes[0].lines if line.get_linestyle() == "--"]
    assert list(level.get_ydata()) == [90, 90]
    # Runs that all are as long have one level, and so one name for it.
    rows = [point(onset, onset + 2, 9, 9 - onset) for onset in (0, 3)]
    assert legend(plot_curve(as_table(rows))) == ["2 epochs", matched]
    for row in rows:
        del row["final_accuracy_control"]
    assert legend(plot_curve(as_table(rows))) == ["2 epochs"]


@pytest.mark.parametrize(("largest", "scale"), [(0.5, "log"), (2e-4, "linear")])
def test_errors_that_span_decades_are_told_apart(largest, scale):
    errors = {0: 1e-6, 10: 1e-4, 20: largest}
    control = 1e-5 if scale == "linear" else 1e-6
    rows = [
        of_window(0, end, end + 5, error=error, error_sd=2 * error, error_control=control)
        for end, error in errors.items()
        if scale == "log" or end
    ]
    (axis,) = plot_curve(as_table(rows)).axes
    assert axis.get_yscale() == scale
    if scale == "log":
        # Bars that reach to zero and below do not stretch it.
        assert axis.get_ylim()[0] == pytest.approx(5e-7)


def test_a_legend_of_many_lines_is_no_wider_than_its_figure():
    rows = [
        {"variant": f"a variant of a long name, number {n}"} | of_window(0, end, 9, rsv_mean=0.1)
        for n in range(5)
        for end in (0, 4)
    ]
    figure = plot_curve(as_table(rows))
    assert is_inside(figure, figure.legends[0])
    (axis,), box = figure.axes, figure.legends[0].get_window_extent()
    assert figure.bbox.y0 <= box.y0 and box.y1 <= axis.get_tightbbox().y0


def test_the_curve_has_a_panel_for_each_measure():
    accuracy, _, rsv = plot_curve(as_table(two_variants("rsv_mean"))).axes
    assert rsv.get_ylabel() == "Mean RSV" and len(accuracy.containers) == 4
    # Of the variant that was not measured, nothing is drawn.
    np.testing.assert_allclose(data(rsv.containers[0]), [(x, x / 100, 0.1) for x in (0, 10, 20)])
    for container in rsv.containers[2:]:
        assert len(container[0].get_xdata()) == 0


def test_the_curve_of_onsets_leaves_the_control_out():
    rows = [point(onset, onset + 2, 9, 9 - onset) for onset in (6, 0, 3)] + [point(0, 0, 9, 0)]
    axis, _ = plot_curve(as_table(rows)).axes
    assert axis.get_xlabel() == "Onset of the deficit (epoch)"
    np.testing.assert_allclose(data(axis.containers[0])[:, :2], [(0, 81), (3, 84), (6, 87)])


def of_layers(traces: dict[str, list[float]], window: tuple[int, int, int], **before: Any) -> Rows:
    return [
        before | of_window(*window, epoch=epoch, layer=layer, fisher_trace=value)
        for layer, values in traces.items()
        for epoch, value in enumerate(values)
    ]


def test_the_sensitivity_is_the_loss_before_the_fisher_trace():
    rows = [point(onset, onset + 2, 8, 6.0 - onset, 7.0 - onset) for onset in (4, 0, 2)]
    rows += [point(onset, onset + 3, 8, 8.0 - onset) for onset in (0, 2)]
    clean, other = {"all": [1.5, 3.25, 2.125]}, {"all": [9.0, 9.0, 9.0]}
    traces = of_layers(other, (0, 2, 8)) + of_layers(other, (0, 0, 6))
    traces += of_layers(clean, (0, 0, 8))
    points = as_table([*rows, point(0, 0, 8, 0.0)])
    axis, behind = plot_sensitivity(points, as_table(traces)).axes
    assert legend(axis) == ["2 epochs", "3 epochs"]
    two, three = axis.containers
    np.testing.assert_allclose(data(two), [(0, 6.5, 0.5), (2, 4.5, 0.5), (4, 2.5, 0.5)])
    np.testing.assert_allclose(data(three), [(0, 8, 0), (2, 6, 0)], atol=1e-9)
    # Of variants, and without a trace.
    rows = [point(o, o + 2, 8, 3, variant=v) for v in ("blur", "flip") for o in (0, 2)]
    assert legend(*plot_sensitivity(as_table(rows)).axes) == ["blur, 2 epochs", "flip, 2 epochs"]
    # Of the longest run without a deficit.
    assert behind.get_ylabel() == "Fisher trace without a deficit"
    (area,) = behind.collections
    assert isinstance(area, PolyCollection)
    corners = {tuple(corner) for corner in area.get_paths()[0].vertices}
    assert {(0, 1.5), (1, 3.25), (2, 2.125)} <= corners
    assert {y for _, y in corners} == {0, 1.5, 3.25, 2.125}
    assert axis.get_zorder() > behind.get_zorder() and behind.get_ylim()[0] == 0


def grid(**before: Any) -> Rows:
    cells = {(0, 2): 5.0, (4, 2): 1.0, (0, 4): 9.0, (4, 4): -0.5}
    return [point(o, o + length, 9, loss, **before) for (o, length), loss in cells.items()]


@pytest.mark.parametrize(
    ("rows", "axes"),
    [
        (grid(), ("onset", "length")),
        ([*grid(variant="a"), point(0, 0, 9, 0, variant="a")], ("onset", "length")),
        # One length, or each onset to the end, span a line.
        ([point(o, o + 2, 9, 1) for o in (0, 3)], None),
        ([point(o, 9, 9, 1) for o in (0, 3)], None),
        ([point(0, r, r + 5, 1) for r in (2, 4)], None),
        ([point(0, 0, 5, 0)], None),
        ([point(0, r, 9, 1, **{WIDTH: w}) for r in (2, 4) for w in (8, 16)], ("removal", WIDTH)),
        ([point(o, o + 2, 9, 1, depth=d) for o in (0, 3) for d in (1, 2)], ("onset", "depth")),
        # Settings without an order, and more than two, span none.
        ([point(0, r, 9, 1, variant=v) for r in (2, 4) for v in "ab"], None),
        ([point(0, 2, 9, 1, a=a, b=b) for a in (1, 2) for b in (1, 2)], None),
        ([*grid(depth=1), *grid(depth=2)], None),
        # One that does not vary is no axis.
        ([point(0, 2, 9, 1, a=a, b=b) for a in (1, 2) for b in (1,)], ("removal", "a")),
        ([point(0, 2, 9, 1, a=a) for a in ("", 2)], None),
    ],
)
def test_what_spans_a_surface(rows, axes):
    assert surface_axes(as_table(rows)) == axes


def test_the_surface_is_what_the_table_says():
    rows = [*grid(), point(0, 0, 9, 0)]
    del rows[1]["final_accuracy_difference"]  # no control (yet)
    axis, bar = plot_surface(as_table(rows)).axes
    table = np.ma.filled(axis.images[0].get_array(), np.nan)
    np.testing.assert_allclose(table, [[5, np.nan], [9, -0.5]])
    assert said(axis.get_xticklabels()) == ["0", "4"]
    assert said(axis.get_yticklabels()) == ["2", "4"]
    texts = {text.get_position(): text.get_text() for text in axis.texts}
    assert texts == {(0, 0): "5.0", (0, 1): "9.0", (1, 1): "-0.5"}
    assert axis.get_xlabel() == "Onset of the deficit (epoch)"
    assert axis.get_ylabel() == "Length of the deficit (epochs)"
    assert bar.get_ylabel() == "Loss of final accuracy (points)"


def test_the_surface_of_a_varied_field():
    rows = [
        point(0, removal, removal + 5, removal / width, **{WIDTH: width})
        for width in (16, 8) for removal in (0, 4, 12)
    ]  # fmt: skip
    axis = plot_surface(as_table(rows)).axes[0]
    table = np.ma.filled(axis.images[0].get_array(), np.nan)
    np.testing.assert_allclose(table, [[0.5, 1.5], [0.25, 0.75]])
    assert said(axis.get_yticklabels()) == ["8", "16"]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("Deficit removed at epoch", "width")


def test_a_surface_of_few_and_small_losses():
    """Room for the title, no powers of ten beside the scale, and no loss of minus nothing."""
    rows = [point(0, 20, 30, loss, depth=d) for d, loss in ((1, 0.0), (2, -0.04), (3, 1e-6))]
    figure = plot_surface(as_table(rows))
    # The longest name of a study.
    assert is_inside(figure, figure.suptitle("kleinman2023_kinetics_reconstruction"))
    axis, bar = figure.axes
    assert said(axis.texts) == ["0.0"] * 3
    assert bar.yaxis.get_offset_text().get_text() == ""


def test_the_fisher_trace_with_and_without_a_deficit():
    def of(window: tuple[int, int, int], *traces: float) -> Rows:
        return [row | {"fisher_trace_sd": 0.5} for row in of_layers({"": list(traces)}, window)]

    rows = of((0, 2, 4), 3, 5, 6, 7) + of((0, 0, 2), 1, 2) + of((0, 0, 4), 1, 4, 2, 1)
    rows += of((0, 1, 3), 3, 4, 3)
    figure = plot_fisher(as_table(rows))
    (axis,) = figure.axes
    clean, _, early, early_open, late, late_open = axis.lines
    # The longest clean run stands for all.
    np.testing.assert_allclose(clean.get_ydata(), [1, 4, 2, 1])
    np.testing.assert_allclose(early.get_ydata(), [3, 4, 3])
    np.testing.assert_allclose(late.get_xydata(), [(0, 3), (1, 5), (2, 6), (3, 7)])
    # Broad where the deficit was there.
    np.testing.assert_allclose(early_open.get_xdata(), [0])
    np.testing.assert_allclose(late_open.get_xydata(), [(0, 3), (1, 5)])
    assert late_open.get_linewidth() > late.get_linewidth() and clean.get_linestyle() == "--"
    titles = ["No deficit", "Deficit in epochs 0 to 0", "Deficit in epochs 0 to 1"]
    assert legend(figure) == [*titles, "while the deficit lasts"]
    band = axis.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == 0.5 and band.max() == 4.5
    assert axis.get_ylim()[0] == 0 and axis.get_xlabel() == "Epoch"


def test_the_legend_of_modes_says_what_colours_are():
    rows = [
        of_window(0, 2, 4, epoch=epoch, path=path, mode=mode)
        | dict.fromkeys(("strength", "ode"), epoch / (1 + mode))
        for path in (0, 1)
        for mode in (0, 1, 2)
        for epoch in range(4)
    ]
    figure = plot_modes(as_table(rows))
    names = ["path 0, simulated", "path 1, simulated", "ODE", "strongest mode", "weakest mode"]
    assert legend(figure) == names
    handles = dict(zip(names, figure.legends[0].legend_handles, strict=True))
    (axis,) = figure.axes
    for name, mode in (("strongest mode", 0), ("weakest mode", 2)):
        colours = {to_hex(line.get_color()) for line in axis.lines if line.get_ydata()[-1] ==
                   pytest.approx(3 / (1 + mode))}  # fmt: skip
        assert colours == {to_hex(handles[name].get_facecolor())}
    # A single mode has a single colour.
    alone = [row for row in rows if row["mode"] == 0]
    assert legend(plot_modes(as_table(alone))) == names[:3]


# Layers.

TRACES = {"conv1": [1.0, 2.0, 1.0], "stage2": [1.0, 1.0, 3.0], "head": [2.0, 1.0, 0.0]}
SHARES = np.array([[25, 50, 25], [25, 25, 75], [50, 25, 0]])


def heights(axis: Axes) -> np.ndarray:
    """The height of each layer's area at each epoch, from what is drawn."""
    assert [area.get_label() for area in axis.collections] == list(TRACES)
    corners = [pd.DataFrame(area.get_paths()[0].vertices) for area in axis.collections]
    return np.stack([one.groupby(0)[1].agg(np.ptp) for one in corners])


def test_layers_are_stacked_shares():
    even = {layer: [1.0, 1.0, 1.0] for layer in TRACES}
    rows = of_layers(even, (0, 0, 2)) + of_layers(TRACES, (0, 0, 3))
    rows += of_layers(even, (0, 2, 3)) + of_layers(even, (0, 1, 3)) + of_layers(TRACES, (1, 2, 3))
    figure = plot_layers(as_table(rows))
    # The longest clean run, and what comes first and last.
    titles = ["No deficit", "Deficit in epochs 0 to 0", "Deficit in epochs 1 to 1"]
    assert [axis.get_title() for axis in figure.axes] == titles
    for axis, expected in zip(figure.axes, (SHARES, np.full((3, 3), 100 / 3), SHARES), strict=True):
        np.testing.assert_allclose(heights(axis), expected, atol=1e-9)
        np.testing.assert_allclose(heights(axis).sum(0), 100)
        assert axis.get_ylim() == (0, 100)
    clean, _, last = figure.axes
    assert not clean.lines and [line.get_xdata()[0] for line in last.lines] == [1]
    assert legend(figure) == ["head", "stage2", "conv1"]
    assert clean.get_ylabel() == "Share of the Fisher trace (%)"


def test_layers_of_two_measures_at_their_own_epochs():
    rows = of_layers(TRACES, (0, 0, 3))
    for row in rows:
        row["information"] = {0: 1.0, 2: 3.0}.get(row["epoch"], "")
    upper, lower = plot_layers(as_table(rows)).axes
    np.testing.assert_allclose(heights(upper), SHARES, atol=1e-9)
    np.testing.assert_allclose(heights(lower), np.full((3, 2), 100 / 3))
    assert "learned noise" in lower.get_ylabel() and lower.get_xlabel() == "Epoch"


def histogram(window: tuple[int, int, int], *shares: float, layer: str = "conv") -> Rows:
    """Rows of rsv.csv: as many bins as shares between -1 and 1."""
    edges = np.linspace(-1, 1, len(shares) + 1)
    return [
        of_window(*window, layer=layer, low=low, high=high, share=share)
        for low, high, share in zip(edges, edges[1:], shares, strict=False)
    ]


def test_distributions_stand_in_a_row_from_no_deficit_to_the_last_removal():
    rows = histogram((0, 4, 9), 0.1, 0.2, 0.3, 0.4) + histogram((0, 0, 5), 0, 0.5, 0.5, 0)
    rows += histogram((0, 2, 7), 0.4, 0.3, 0.2, 0.1) + histogram((0, 0, 9), 0.2, 0.3, 0.3, 0.2)
    rows += [row | {"layer": "conv/channels"} for row in rows]
    figure = plot_rsv(as_table(rows))
    titles = ["No deficit", "Deficit in epochs 0 to 1", "Deficit in epochs 0 to 3"]
    assert [axis.get_title() for axis in figure.axes] == [*titles, "", "", ""]
    clean, early, late = figure.axes[:3]
    for axis, expected in ((clean, [0, 50, 50, 0]), (early, [40, 30, 20, 10]),
                           (late, [10, 20, 30, 40])):  # fmt: skip
        filled = axis.patches[0].get_data()
        np.testing.assert_allclose(filled.values, expected)
        np.testing.assert_allclose(filled.edges, [-1, -0.5, 0, 0.5, 1])
    # Against clean runs of the same length alone, where there are any.
    assert len(clean.patches) == len(early.patches) == 1 and len(late.patches) == 2
    np.testing.assert_allclose(late.patches[1].get_data().values, [20, 30, 30, 20])
    assert clean.get_ylabel().startswith("conv\n")
    assert figure.axes[3].get_ylabel().startswith("conv/channels\n")
    assert legend(figure) == ["after the deficit", "no deficit, as many epochs"]


def told(window: tuple[int, int, int], **values: list[float]) -> Rows:
    """Rows of information.csv."""
    return [
        of_window(*window, epoch=epoch, information_both_sd=0.25)
        | {f"information_{name}": of[epoch] for name, of in values.items()}
        for epoch in range(window[2])
    ]


def test_information_of_both_eyes_and_of_each():
    rows = told((0, 0, 2), both=[1, 2], view_0=[0.5, 1], view_1=[0.25, -0.5])
    rows += told((0, 1, 3), both=[1, 2, 3], view_0=[1, 1, 1], view_1=[0, 0, 0.5])
    rows += told((0, 0, 3), both=[1, 2, 2.5], view_0=[0.5, 1, 1], view_1=[0.25, 0.5, 1])
    clean, deficit = plot_information(as_table(rows)).axes
    # The longest clean run stands for all.
    assert (clean.get_title(), deficit.get_title()) == ("No deficit", "Deficit in epochs 0 to 0")
    lines_of = {line.get_label(): line for line in deficit.lines[:3]}
    assert list(lines_of) == ["both views", "view 0 (left) alone", "view 1 (right) alone"]
    np.testing.assert_allclose(lines_of["both views"].get_xydata(), [[0, 1], [1, 2], [2, 3]])
    np.testing.assert_allclose(lines_of["view 1 (right) alone"].get_ydata(), [0, 0, 0.5])
    np.testing.assert_allclose(clean.lines[0].get_ydata(), [1, 2, 2.5])
    band = next(one for one in clean.collections if isinstance(one, PolyCollection))
    heights_ = band.get_paths()[0].vertices[:, 1]
    assert heights_.min() == 0.75 and heights_.max() == 2.75
    assert len(deficit.patches) == 1 and not clean.patches
    span = deficit.patches[0].get_window_extent().transformed(deficit.transData.inverted())
    assert (span.x0, span.x1) == pytest.approx((0, 1))
    assert clean.get_ylabel() == "Usable information (bits)"


def test_reconstruction_from_its_own_view_and_from_another():
    names = ("own_view", "other_view", "both_views")
    rows = [
        of_window(0, 1, 2, epoch=epoch)
        | {f"reconstruction_{name}": place + epoch for place, name in enumerate(names)}
        for epoch in range(2)
    ]
    figure = plot_reconstruction(as_table(rows))
    # The legend of a single panel is wider than the panel, but not than the figure.
    assert is_inside(figure, figure.legends[0])
    (axis,) = figure.axes
    sources = ["from their own view", "from another view", "from both, half of each"]
    assert [line.get_label() for line in axis.lines[:3]] == sources
    for place, line in enumerate(axis.lines[:3]):
        np.testing.assert_allclose(line.get_xydata(), [[0, place], [1, place + 1]])
    assert (np.asarray(axis.lines[3].get_ydata()) == 1).all()
    assert axis.get_title() == "Deficit in epochs 0 to 0"


# What all share.


def test_labels_and_lines():
    assert len({look_of(place) for place in range(49)}) == 49
    rows = [{"variant": v, "a.depth": d, "onset": 0} for v in ("x", "y") for d in (1, 0.5, None)]
    names = ["x, depth = 1", "x, depth = 0.5", "x, depth = none"]
    names += [name.replace("x", "y") for name in names]
    assert list(lines(as_table(rows))) == names
    assert [label_of({name: row[name] for name in list(row)[:2]}) for row in rows] == names
    assert list(lines(as_table([{"onset": 0}]))) == [""]
    table = as_table(rows)
    assert varied(table) == ["variant", "a.depth"] and varied(table[:3]) == ["a.depth"]


def test_numbers_of_cells():
    table = as_table([{"a": 1.5, "b": None, "c": math.nan, "e": math.inf}])
    found = {name: numbers(table, name).item() for name in (*table, "nosuch")}
    assert found["a"] == 1.5
    # What a diverged run has cannot be drawn.
    assert all(math.isnan(found[name]) for name in ("b", "c", "e", "nosuch"))


REMOVALS = [point(0, removal, removal + 5, 1) for removal in (0, 2, 4)]
ONSETS = [point(onset, onset + 2, 9, 9 - onset) for onset in (0, 3)] + [point(0, 0, 9, 0)]
TRACE = of_layers(TRACES, (0, 0, 9)) + of_layers(TRACES, (0, 2, 9))
WHOLE = [row for row in TRACE if row["layer"] == "head"]
BINS = histogram((0, 0, 9), 0.5, 0.5) + histogram((0, 2, 9), 0.5, 0.5)
BITS = told((0, 0, 3), both=[1, 2, 3]) + told((0, 2, 3), both=[1, 2, 3])
DRAWN: list[tuple[Any, ...]] = [
    (plot_curve, REMOVALS), (plot_curve, ONSETS), (plot_surface, grid()),
    (plot_sensitivity, ONSETS, WHOLE), (plot_layers, TRACE), (plot_fisher, WHOLE),
    (plot_rsv, BINS), (plot_information, BITS),
]  # fmt: skip


def test_what_is_no_deficit_is_called_a_window():
    """Every word of every figure, where a window closes and where it opens."""
    for function, *rows in DRAWN:
        tables = [as_table(one) for one in rows]
        for table in tables:
            table.attrs["window"] = "window"
        words = said(function(*tables).findobj(Text))
        assert not [word for word in words if "deficit" in word.lower()]
        assert any("window" in word.lower() for word in words)


@pytest.mark.parametrize("function", [plot_fisher, plot_sensitivity, plot_surface])
def test_a_figure_of_ones_own_is_drawn_into(function):
    (_, rows, *_), *_ = [one for one in DRAWN if one[0] is function]
    _, (left, right) = pyplot.subplots(1, 2)
    assert function(as_table(rows), ax=right) is right.figure
    assert right.has_data() and not left.has_data() and not right.figure.legends
    pyplot.close(right.figure)


@pytest.mark.parametrize("function", dict.fromkeys(one[0] for one in DRAWN))
def test_nothing_to_draw_is_said(function):
    with pytest.raises(UserError, match="no rows"):
        function(as_table([]))


def test_a_curve_without_measures_and_without_a_surface():
    bare = [{"onset": 0, "removal": 2, "epochs": 4, "seeds": 1}]
    with pytest.raises(UserError, match="no accuracy, RSV or error"):
        plot_curve(as_table(bare))
    with pytest.raises(UserError, match="no two settings"):
        plot_surface(as_table(REMOVALS))


@pytest.mark.parametrize("place", [0, 2, 3, 4, 5, 6, 7])
def test_files_are_whole_and_the_same_each_time(tmp_path, monkeypatch, place):
    function, *rows = DRAWN[place]
    save(function(*map(as_table, rows)), tmp_path / "of.x")
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert files.keys() == {"of.x.png", "of.x.pdf"}
    assert files["of.x.png"].startswith(b"\x89PNG\r\n")
    assert files["of.x.png"].endswith(b"IEND\xaeB`\x82")
    assert files["of.x.pdf"].startswith(b"%PDF") and files["of.x.pdf"].endswith(b"%%EOF\n")
    for name in files:
        (tmp_path / name).write_bytes(b"half")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")  # where a date would be taken from
    save(function(*map(as_table, rows)), tmp_path / "of.x")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files


NOTEBOOK = """
import importlib, pathlib, pkgutil, sys
import matplotlib
matplotlib.use("svg")
import pandas
from critical_periods import plots
for module in pkgutil.iter_modules(plots.__path__, "critical_periods.plots."):
    importlib.import_module(module.name)
row = {"onset": 0, "removal": 1, "epochs": 2, "reconstruction_own_view": 1}
table = pandas.DataFrame([row | {"epoch": epoch} for epoch in (0, 1)])
figure = plots.plot_reconstruction(table)
plots.save(figure, pathlib.Path(sys.argv[1]))
assert figure._repr_png_().startswith(b"\\x89PNG")
assert matplotlib.get_backend().lower() == "svg", matplotlib.get_backend()
from matplotlib import pyplot
assert not pyplot.get_fignums()
assert not [name for name in sys.modules if name.startswith("critical_periods.linear")]
"""


def test_a_notebook_keeps_its_own_way_to_show_figures(tmp_path):
    """No module of ours, and no figure, changes matplotlib's backend or opens a figure there."""
    subprocess.run([sys.executable, "-c", NOTEBOOK, str(tmp_path / "x")], check=True)
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_which_figures_a_study_gets():
    def names(rows: Rows, **tables: Rows) -> list[str]:
        frames = {name: as_table(table) for name, table in tables.items()}
        return list(figures({"curve": as_table(rows), **frames}, "study"))

    assert names(REMOVALS) == ["curve"]
    assert names(REMOVALS, layers=TRACE) == ["curve", "layers"]
    assert names(REMOVALS, layers=[one for one in TRACE if one["epoch"] == 2]) == ["curve"]
    assert names(ONSETS) == ["curve", "sensitivity"]
    bins = [{"variant": variant} | one for variant in "xy" for one in BINS]
    assert names(REMOVALS, rsv=bins) == ["curve", "rsv_x", "rsv_y"]
    bins = [{"x": x} | one for x in (1, -1) for one in BINS]
    assert names(REMOVALS, rsv=bins) == ["curve", "rsv_x_1", "rsv_x_1_2"]
    assert names(grid()) == ["curve", "sensitivity", "surface"]
    # From each onset to the end: no windows of one length.
    assert names([point(o, 9, 9, 1) for o in (0, 3)]) == ["curve"]
    late = [point(o, 9, 9, 1, variant=v) for v in ("decay", "crops") for o in (0, 3)]
    assert names(late) == ["curve"]
    apart = of_layers(TRACES, (0, 0, 9), variant="blur, rate restarted")
    assert names(REMOVALS, layers=apart)[1:] == ["layers_blur_rate_restarted"]


def test_titles_say_the_study_and_the_variation():
    bins = [{"variant": "blur"} | one for one in BINS]
    found = figures({"curve": as_table(REMOVALS), "rsv": as_table(bins)}, "study")
    titles = {name: draw().get_suptitle() for name, draw in found.items()}
    assert titles == {"curve": "study", "rsv_blur": "study: blur"}
