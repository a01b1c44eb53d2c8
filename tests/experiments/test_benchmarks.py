"""The benchmarks run, and their tables say what they should."""

import sys
from collections.abc import Iterator
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from time import monotonic
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from small_videos import film, write_video

from critical_periods.metrics.functional import fisher_trace
from critical_periods.models import AllCNN
from critical_periods.studies.plan import Plan, Segment
from critical_periods.studies.results import results
from critical_periods.studies.study import read_study

BENCHMARKS = Path(__file__).parents[2] / "experiments" / "benchmarks"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """Runs a benchmark in this process, and gives what it prints."""
    threads = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def run(name: str, *arguments: str) -> str:
        monkeypatch.syspath_prepend(BENCHMARKS)
        script: Any = import_module(name)
        if name == "throughput":
            monkeypatch.setattr(script.product_ratio, "__defaults__", (64, 1))
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        script.main()
        return capsys.readouterr().out

    yield run
    torch.set_num_threads(threads)


def table(output: str, header: str) -> dict[str, list[float]]:
    """The rows of numbers under a header, by their names."""
    lines = output.splitlines()
    below = lines[next(i for i, line in enumerate(lines) if line.split()[:1] == [header]) + 1 :]
    rows = (line.split() for line in below if not line.startswith("bf16"))
    return {name: [float(number) for number in numbers] for name, *numbers in rows}


@pytest.mark.slow
def test_throughput_compares_two_pipelines(run):
    output = run("throughput", "--batches", "1", "--rounds", "2", "--width", "2")
    assert "noise in memory" in output and "threads, torch" in output
    rows = table(output, "round")
    assert list(rows) == ["1", "2", "median"]
    for name in ("1", "2"):
        ours, conventional, ratio = rows[name]
        assert ratio == pytest.approx(ours / conventional, rel=0.02)
    ratios = [rows["1"][2], rows["2"][2]]
    assert rows["median"][2] == pytest.approx(median(ratios), abs=0.011)


@pytest.mark.slow
def test_precision_compares_bf16_with_float32(run):
    output = run("precision", "--seeds", "2", "--epochs", "1", "--width", "2")
    rows = table(output, "seed")
    assert list(rows) == ["0", "1", "mean", "SD"]
    means = map(mean, zip(rows["0"], rows["1"], strict=True))
    assert rows["mean"] == pytest.approx(list(means), abs=0.011)
    for name in ("0", "1", "mean"):
        bf16, float32, difference = rows[name]
        assert difference == pytest.approx(bf16 - float32, abs=0.021)
        assert min(bf16, float32) >= 0 and max(bf16, float32) <= 100
    verdict = "is no more than" if rows["mean"][2] >= -1 else "IS MORE THAN"
    assert verdict in output.splitlines()[-1]


@pytest.mark.slow
def test_frame_pairs_compares_four_ways(run, tmp_path):
    clips = [write_video(tmp_path / f"{name}.mp4", film(36), g=12) for name in ("one", "two")]
    output = run("frame_pairs", str(tmp_path), "--pairs", "2", "--rounds", "1")
    *lines, seeking_verdict, shards_verdict = output.splitlines()
    rows = table("\n".join(lines), "clip")
    assert list(rows) == [*(clip.name for clip in clips), "median"]
    for clip in clips:
        seeking, shards, whole, only, *ratios = rows[clip.name]
        assert ratios == pytest.approx(
            [seeking / whole, shards / whole, seeking / only, shards / only], rel=0.02, abs=0.051
        )
    expected = [median(rows[clip.name][4 + column] for clip in clips) for column in range(4)]
    assert rows["median"] == pytest.approx(expected, abs=0.11)
    for verdict, found, needed in ((seeking_verdict, 0, 3), (shards_verdict, 1, 20)):
        is_met = rows["median"][found] >= needed
        assert ("at least" if is_met else "LESS THAN") in verdict


@pytest.mark.slow
def test_costs_are_those_of_the_committed_table(run):
    header, row = run("costs", "achille2019_layers").splitlines()
    committed = (BENCHMARKS.parent / "results" / "costs.csv").read_text().splitlines()
    assert committed[0] == header and row in committed


def test_verdicts_on_planted_curves_are_counted(run):
    """A set each here; in the committed table, 200: right by 95 %, few lags called scars."""
    header, *rows = run("verdicts", "--sets", "1").splitlines()
    committed = pd.read_csv(BENCHMARKS.parent / "results" / "verdicts.csv")
    assert header == ",".join(committed) and len(rows) == len(committed)
    assert (committed["sets"] == 200).all() and (committed["right"] >= 0.95).all()
    counts = committed[["scar", "lag", "undecided"]]
    assert (counts.sum(axis=1) == 200).all()
    lags = committed["planted"] == "lag"
    assert (counts[lags]["scar"] <= 10).all() and (counts[~lags]["lag"] <= 10).all()


def test_jobs_wait_for_each_other_and_for_a_gpu(monkeypatch):
    """A trunk of 2 epochs with branches of 2 and 3, and a run of 4 by itself, an hour an epoch."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    hours = import_module("queues").hours
    tree = [("trunk", None, 0, 2), ("short", "trunk", 2, 4), ("long", "trunk", 2, 5)]
    tree.append(("alone", None, 0, 4))
    segments = {
        name: Segment(name, parent, start, stop, (0, 0), seed=0, config=0)
        for name, parent, start, stop in tree
    }
    plan = Plan("tree", [], segments, [], 0.01)
    # One GPU trains 11 epochs; on two the trunk and `long` take 5, `alone` 4, `short` 2.
    assert [hours(plan, True, gpus, 3600, 0) for gpus in (1, 2, 3)] == [11, 7, 7]
    assert [hours(plan, False, gpus, 3600, 0) for gpus in (1, 2, 3)] == [11, 6, 5]
    # As a path, trunk and `long` wait once, and `short` twice; as segments, both twice.
    assert hours(plan, True, 3, 3600, 1) == 1 + 5 + 1 + 2
    assert hours(plan, False, 3, 3600, 1) == 1 + 2 + 1 + 3


def test_the_studies_of_full_width_end_in_time(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(BENCHMARKS)
    script: Any = import_module("full_width")
    called: list[tuple[float, str]] = []
    monkeypatch.setattr(sys, "argv", ["full_width", "data", "--output", str(tmp_path)])
    monkeypatch.setattr(script, "run_for", lambda left, *words: bool(called.append((left, *words))))
    script.main()
    assert [words[1] for words in called] == ["run", "plot"] * 2
    assert all(left <= 8 * 60 for left, *_ in called)
    for _, _, path, *rest in called[::2]:
        read_study(Path(path), [value for name, value in pairwise(rest) if name == "--set"])
    monkeypatch.undo()
    (tmp_path / "python").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    start = monotonic()
    assert script.run_for(0, "run") is False and monotonic() - start < 30


def test_traces_of_layers_have_their_standard_errors(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    logged = {"fisher/trace": 5.0, "fisher/trace/a.norm": 2.0, "fisher/trace/a.conv": 3.0}
    of_seeds = [
        {"onset": 0, "removal": 0, "epochs": 1, "seed": seed, "epoch": 0, "val/loss": 1.0}
        | {name: scale * value for name, value in logged.items()}
        for seed, scale in enumerate((1.0, 2.0, 3.0))
    ]
    rows = import_module("traces").traces(pd.DataFrame(of_seeds)).set_index("layer")
    assert list(rows["fisher_trace"]) == [10, 10] and list(rows["seeds"]) == [3, 3]
    assert rows["fisher_trace_se"]["a"] == pytest.approx(5 / 3**0.5)
    alone = pd.DataFrame([{**of_seeds[0], "fisher/trace_se": 0.5}])
    errors = import_module("traces").traces(alone).set_index("layer")["fisher_trace_se"]
    assert errors["network"] == 0.5 and np.isnan(errors["a"])


def test_the_table_compares_what_is_the_same(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    bench: Any = import_module("bench")
    torch.manual_seed(0)
    network, images = AllCNN(2).eval(), torch.randn(4, 3, 32, 32)
    ours = fisher_trace(network, [images])[0].float()
    for peer in (bench.by_func, bench.by_nngeometry):
        torch.testing.assert_close(peer(network, images).float(), ours, rtol=1e-4, atol=0)
    draws = [bench.by_nngeometry(network, images, 1) for _ in range(2)]
    assert draws[0] != draws[1]
    of_class, p = bench.class_norms(network, images), network(images).softmax(1).double()
    assert float((p * of_class).sum(1).mean()) == pytest.approx(float(ours), rel=1e-4)
    row = bench.Row("RSV", "forward passes", [1.0, 1.3, 1.2], 1.1, False)
    assert row.cells() == ["RSV", "forward passes", "1.2", "1", "1.3", 3, "at most 1.1", False]
    taken = bench.in_turns({"one": lambda: None, "two": lambda: None}, 3)
    assert {name: len(seconds) for name, seconds in taken.items()} == {"one": 3, "two": 3}


def test_ways_that_studies_go_without_train_the_same(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(BENCHMARKS)
    training: Any = import_module("bench_training")
    seeds = [training.examples(seed) for seed in range(2)]
    for name in seeds[0]:
        given = [of[name] for of in seeds]
        alone = [torch.nn.functional.cross_entropy(net(*views), y) for net, views, y in given]
        losses, parameters = training.stacked(given)
        torch.testing.assert_close(losses(), torch.stack(alone))
        losses().sum().backward()
        gradient = torch.autograd.grad(alone[1], [*given[1][0].parameters()])
        for one, of_all in zip(gradient, parameters.values(), strict=True):
            torch.testing.assert_close(of_all.grad[1], one, atol=1e-5, rtol=1e-4)

    studies: Any = import_module("bench_studies")
    study, plan = studies.planned(tmp_path, ["windows.removal=[0, 1]", "seeds=[0]"])
    studies.finished(study, plan)
    assert study.discard_damaged(plan) == [] and len(results(study, plan)) == len(plan.runs)
