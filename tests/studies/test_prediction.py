"""What foretells a loss: planted histories, the command, its mistakes, and a detector's regret."""

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from small_study import planned

from critical_periods.cli import main
from critical_periods.core.errors import UserError
from critical_periods.studies import read_table
from critical_periods.studies.detector import detected, detections
from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.plan import Plan
from critical_periods.studies.prediction import Point, foretold, judge, predictions
from critical_periods.studies.results import known
from critical_periods.studies.study_file import Ends
from critical_periods.studies.tables import write_table

BENCHMARKS = Path(__file__).parents[2] / "experiments" / "benchmarks"
PLAIN = {"trainer.callbacks": []}
STUDY = {"windows": {"removal": [1, 2, 3], "epochs_after": 1}, "seeds": list(range(6))}


def test_planted_measures_are_told_apart(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    script: Any = import_module("predictions")
    found = [script.said(number, seeds=16, noise=0.5) for number in range(12)]
    told = [one[0] == "predicts" and "predicts" not in one[1:] for one in found]
    assert sum(told) >= 11 and sum(one.count("does not") for one in found) > 12
    assert not any(one[0] == "does not" for one in found)
    committed = pd.read_csv(BENCHMARKS.parent / "results" / "predictions.csv")
    rows = committed[(committed["seeds"] >= 8) & (committed["noise"] == 0.5)]
    assert (committed["sets"] == 200).all() and (rows["right"] >= 0.95).all()
    assert (committed["given_right"] >= 0.95).all()
    sys.modules.pop("predictions")


def test_a_correlation_and_its_interval():
    draw = np.random.default_rng(1)
    losses, seeds = draw.standard_normal(24), [place // 3 for place in range(24)]
    values = losses + draw.standard_normal(24)
    found = judge(list(values), list(losses), seeds)
    assert found.rho == pytest.approx(spearmanr(values, losses).statistic)
    assert -1 <= found.low < found.rho < found.high <= 1
    # As of points that are independent, at least: with m of them, perfect but for the rank of two.
    perfect = judge([*range(8)], [*range(8)], [place // 2 for place in range(8)])
    z, half = np.arctanh(1 - 12 / (8 * 63)), 1.959964 * np.sqrt(1.06 / 5)
    assert perfect == pytest.approx((1, np.tanh(z - half), 1))
    assert judge([1, 2, 3], [1, 2, 3], [0, 1, 2])[1:] == (-1, 1)
    few = judge(list(values[:9]), list(losses[:9]), seeds[:9])
    assert few.high - few.low > found.high - found.low
    # The removal alone foretells, and a measure adds nothing among the runs of one removal.
    points = [
        Point({}, seed, removal, removal + 0.001 * seed, {"grows": {"at": removal - 0.01 * seed}})
        for seed in range(9)
        for removal in (1, 2, 3)
    ]
    (row,) = foretold(points)
    assert row["rho"] > 0.75 and row["is_chosen"] and row["verdict"] == "predicts"
    # Six ranks of each of three removals have the same correlation as all of them together.
    ranks = [*range(6)] * 3
    wanted = judge(ranks, [-one for one in ranks], [*range(3, 9)] * 3)
    found = [row[f"rho_within{end}"] for end in ("", "_low", "_high")]
    assert found == pytest.approx([*wanted], abs=1e-5) and wanted.high < 0
    assert row["verdict_within"] == "predicts"
    # The removal itself, which a measure may be as good as, is never chosen.
    for one in points:
        one.courses["removal"] = one.courses["grows"]
    chosen = {row["measure"]: row["is_chosen"] for row in foretold(points)}
    assert chosen == {"grows": True, "removal": False}


def test_what_grows_with_the_removal_alone_tells_nothing_within_one():
    draw, verdicts = np.random.default_rng(2), []
    for _ in range(12):
        points = []
        for seed in range(12):
            own, other = draw.standard_normal(2)
            for removal in range(1, 5):
                grows = removal + other + 0.5 * draw.standard_normal()
                points.append(Point({}, seed, removal, removal + own, {"grows": {"at": grows}}))
        (row,) = foretold(points)
        verdicts.append((row["verdict"], row["verdict_within"]))
    assert [one for one, _ in verdicts].count("predicts") >= 8
    assert [one for _, one in verdicts].count("predicts") <= 1


@pytest.fixture
def study(tmp_path: Path) -> tuple[StudyFolder, Plan, list[dict[str, Any]]]:
    """A study that was never trained, with histories and results of numbers of our own."""
    folder, plan = planned(tmp_path, STUDY, PLAIN)
    rows = []
    for run in plan.runs:
        segment, removal = folder.segment(run.segment), run.window.removal
        segment.path.mkdir(parents=True, exist_ok=True)
        # The measure rises until epoch 1, and falls then.
        write_table(
            segment.metrics,
            [
                {"epoch": e, "plasticity/x": 1 + run.seed - abs(e - 1), "val/accuracy": 0.5}
                for e in range(run.window.epochs)
            ],
        )
        loss = 0.1 * abs(removal - 2) + 0.01 * run.seed if removal else 0.0
        rows.append({"study": "small", **known(run), "final_accuracy": 0.9 - loss})
    return folder, plan, rows


def test_predictions_and_regret_of_a_study(study):
    folder, plan, rows = study
    table = {row["measure"]: row for row in predictions(folder, plan, rows)}
    assert set(table) >= {"plasticity/x", "removal"}
    assert "rho_within" not in table["removal"] and table["removal"]["verdict"]
    row = table["plasticity/x"]
    assert (row["seeds"], row["held_back_seeds"], row["points"]) == (2, 4, 12)
    assert [one["rho"] for one in predictions(folder, plan, rows, ["plasticity/x"])] == [row["rho"]]
    # It first falls in epoch 2, so the removal after that is 3, which costs 10 points more than 2.
    (found,) = detections(folder, plan, rows, Ends(measure="plasticity/x", rule="falls"))
    assert (found["detected_removal"], found["best_removal"], found["fixed_removal"]) == (3, 2, 2)
    assert found["regret"] == pytest.approx(0.1) and found["fixed_regret"] == 0
    (found,) = detections(folder, plan, rows, Ends(measure="plasticity/x", rule="rises"))
    assert found["detected_removal"] == 2 and found["regret"] == 0
    assert detected([(0, 2.0), (4, 2.0)], "falls") == float("inf")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"measures": ["fisher/trace"]}, "'fisher/trace' was not logged in the study while"),
        ({"seeds": 4}, "the study has 4 seeds with a run and its control that are done; a pred"),
        ({"seeds": 0}, "small has no run with a deficit that is done and has its control"),
        ({"ends": "fisher/trace"}, "ends.measure is 'fisher/trace', which was not logged in the"),
        ({"ends": "plasticity/x", "seeds": 3}, "the regret of a detector needs at least 5"),
    ],
)
def test_mistakes_get_a_sentence(study, change, sentence):
    folder, plan, rows = study
    rows = [row for row in rows if row["seed"] < change.get("seeds", 9)]
    with pytest.raises(UserError, match=sentence):
        if "ends" in change:
            detections(folder, plan, rows, Ends(measure=change["ends"], rule="falls"))
        else:
            predictions(folder, plan, rows, change.get("measures", ()))


def test_the_command(study, capsys, monkeypatch):
    folder, _, rows = study
    file = folder.path.with_name("small.yaml")
    command = ["study", "predict", str(file), "--output", str(folder.path)]
    monkeypatch.setattr("critical_periods.studies.loading.LoadedStudy.rows", lambda *_: rows)
    assert main([*command, "--set", "ends={measure: plasticity/x, rule: falls}"]) == 0
    said = capsys.readouterr().out
    assert "plasticity/x" in said and "Wrote predictions.csv and ends.csv" in said
    assert len(read_table(folder.path / "ends.csv")) == 1
    assert main([*command, "--measure", "nothing"]) == 2
    assert "'nothing' was not logged in the study while" in capsys.readouterr().err
    assert main([*command, "--set", "ends={measure: x, rule: jumps}"]) != 0
    assert "ends.rule is 'jumps'; it must be 'falls' or 'rises'" in capsys.readouterr().err
    # Of several onsets, or rungs, there is more than one loss for a removal.
    more = ["--set", "ends={measure: x, rule: falls}", "--set", "windows={onset: [0], epochs: 3}"]
    assert main([*command, *more]) != 0
    assert "ends compares runs that go on for as many epochs" in capsys.readouterr().err
    assert json.loads(folder.plan_file.read_text())["study"] == "small"
