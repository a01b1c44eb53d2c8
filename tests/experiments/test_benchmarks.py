"""The benchmarks run, and their tables say what they should."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from statistics import mean, median

import pytest
from small_videos import film, write_video

BENCHMARKS = Path(__file__).parents[2] / "experiments" / "benchmarks"


def run(script: str, *arguments: str) -> str:
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def table(output: str, header: str) -> dict[str, list[float]]:
    """The rows of numbers under a header, by their names."""
    lines = output.splitlines()
    below = lines[next(i for i, line in enumerate(lines) if line.split()[:1] == [header]) + 1 :]
    rows = (line.split() for line in below if not line.startswith("bf16"))
    return {name: [float(number) for number in numbers] for name, *numbers in rows}


@pytest.mark.slow
def test_throughput_compares_two_pipelines() -> None:
    output = run("throughput.py", "--batches", "1", "--rounds", "2", "--width", "2")
    assert "noise in memory" in output
    assert "threads, torch" in output
    rows = table(output, "round")
    assert list(rows) == ["1", "2", "median"]
    for name in ("1", "2"):
        ours, conventional, ratio = rows[name]
        assert ratio == pytest.approx(ours / conventional, rel=0.02)
    ratios = [rows["1"][2], rows["2"][2]]
    assert rows["median"][2] == pytest.approx(median(ratios), abs=0.011)


@pytest.mark.slow
def test_precision_compares_bf16_with_float32() -> None:
    output = run("precision.py", "--seeds", "2", "--epochs", "1", "--width", "2")
    rows = table(output, "seed")
    assert list(rows) == ["0", "1", "mean", "SD"]
    for column in range(3):
        assert rows["mean"][column] == pytest.approx(
            mean([rows["0"][column], rows["1"][column]]), abs=0.011
        )
    for name in ("0", "1", "mean"):
        bf16, float32, difference = rows[name]
        assert difference == pytest.approx(bf16 - float32, abs=0.021)
        assert min(bf16, float32) >= 0 and max(bf16, float32) <= 100
    verdict = "is no more than" if rows["mean"][2] >= -1 else "IS MORE THAN"
    assert verdict in output.splitlines()[-1]


@pytest.mark.slow
def test_frame_pairs_compares_four_ways(tmp_path: Path) -> None:
    clips = [write_video(tmp_path / f"{name}.mp4", film(36), g=12) for name in ("one", "two")]
    output = run("frame_pairs.py", str(tmp_path), "--pairs", "2", "--rounds", "1")
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
