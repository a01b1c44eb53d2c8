"""Adaptive studies, whose trainings are replaced by a formula: only their choices are ours."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_study import write_study

from critical_periods.cli import main, study_commands
from critical_periods.runs.config_files import read_yaml
from critical_periods.studies import load_study
from critical_periods.studies.adaptive import Rounds
from critical_periods.studies.adaptive_settings import AdaptiveSettings
from critical_periods.studies.boundary import _plane
from critical_periods.studies.folder import SegmentFolder, StudyFolder
from critical_periods.studies.lattice import design, places, space_of, unit, values, weights
from critical_periods.studies.launchers import local, slurm_queue
from critical_periods.studies.plan import Plan
from critical_periods.studies.rounds import read_record, write_record
from critical_periods.studies.schedule import Schedule, branches
from critical_periods.studies.space import Space, Trained
from critical_periods.studies.study import read_study
from critical_periods.studies.summary import _media
from critical_periods.studies.tables import write_table

FIELDS: dict[str, Any] = {
    "onset": [0, 12], "length": [2, 12], "epochs": 30, "threshold": 0.06, "budget": 22,
    "initial": 12, "batch": 5,
}  # fmt: skip
NO_MONITORS = {"trainer.callbacks": []}


def adaptive(folder: Path, **changes: Any) -> Path:
    windows = {"windows": {"adaptive": {**FIELDS, **changes}}, "seeds": [0, 1]}
    return write_study(folder, windows, NO_MONITORS)


def loss(onset: int, length: int, seed: int) -> float:
    """Harm falls with the onset and grows with the length; seeds differ by a little."""
    return 0.015 * length * np.exp(-onset / 8) + 0.001 * seed


def pretend(folder: StudyFolder, plan: Plan) -> list[str]:
    """Trains what is missing of a plan, by the formula."""
    trained = []
    for name, segment in plan.segments.items():
        one = folder.segment(name)
        if one.is_done():
            continue
        assert segment.parent is None or folder.segment(segment.parent).is_done()
        onset, removal = segment.window
        lost = loss(onset, removal - onset, segment.seed) if onset < removal else 0.0
        one.path.mkdir(parents=True, exist_ok=True)
        rows = [{"epoch": n, "val/accuracy": 0.9 - lost} for n in range(segment.stop)]
        write_table(one.metrics, rows)
        one.checkpoint.touch()
        one.mark_done({})
        trained.append(name)
    return trained


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The local launcher by :func:`pretend`; the epochs that each call has trained."""
    epochs: list[int] = []

    def launch(folder: StudyFolder, plan: Plan, request: Any) -> list[str]:
        found = [plan.segments[name] for name in pretend(folder, plan)]
        epochs.append(sum(one.stop - one.start for one in found))
        return []

    monkeypatch.setattr(local, "launch", launch)
    monkeypatch.setattr(StudyFolder, "discard_damaged", lambda *_: [])
    return epochs


def kept(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.*") if path.is_file()}


def test_a_study_chooses_its_runs_and_ends_with_the_same_bytes_however_often_it_was_killed(
    tmp_path: Path,
    pretended: list[int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    path, out = adaptive(tmp_path), tmp_path / "out"
    words = ["study", "run", str(path), "--output", str(out)]
    assert main([*words, "--set", "windows.adaptive.budget=17"]) == 0
    assert "After 17 runs" in (said := capsys.readouterr().out) and "budget is spent" in said
    # With a larger budget it goes on.
    assert main(words) == 0
    assert "22 runs a deficit impairs with probability" in capsys.readouterr().out
    study = load_study(out)
    table, (record, space) = study.adaptive, (read_record(study.folder), study.plan.adaptive)
    assert record is not None and space is not None
    assert list(table["round"]) == [0] * 12 + [1] * 5 + [2] * 5
    assert list(table["seed"]) == [0, 1] * 11 and list(table["run"]) == list(range(22))
    # What each round has trained is what its runs were priced at.
    assert list(table.groupby("round")["epochs"].sum()) == list(filter(None, pretended))
    truth = [loss(*run) for run in zip(table["onset"], table["length"], table["seed"], strict=True)]
    assert np.allclose(table["loss"], truth, atol=1e-6)
    assert list(table["impaired"]) == [int(one > 0.06) for one in truth]
    later = table[table["round"] > 0]
    z = (later["loss"] - later["predicted_loss"]) / later["predicted_sd"]
    assert np.allclose(later["z"], z, rtol=1e-4) and later["covered"].iloc[-1] > 0.7
    # The boundary, and the share of deficits beyond it.
    surface = study.boundary
    wanted = np.array([loss(*point, 0.5) for point in surface[["onset", "length"]].to_numpy()])
    assert ((surface["loss"] > 0.06) == (wanted > 0.06)).mean() > 0.96
    found = table.iloc[-1]
    assert found["probability_low"] <= found["probability"] <= found["probability_high"]
    assert found["probability"] == pytest.approx((wanted > 0.06).mean(), abs=0.03)
    assert (out / "boundary.png").exists() and not (out / "curve.png").exists()
    # Weights & Biases gets it at the end, and no curve meanwhile.
    for final, shown in ((study, {"boundary"}), (None, set())):
        assert _media(study.folder, study.plan, {"curve": study.curve}, final).keys() == shown
    before = kept(out)

    # Killed after the first round, in the second, and before a choice was written.
    windows = {space.window(run.point) for run in record.rounds[1].runs}
    for rounds, damaged in ((2, False), (1, True)):
        write_record(study.folder, record.key, record.rounds[:rounds])
        if damaged:
            (out / "adaptive.json").write_text("{")
        for one in study.plan.runs:
            if one.window in windows and not damaged:
                study.folder.segment(one.segment).discard()
        assert main(words) == 0
        assert kept(out) == before
    # The number of threads is no part of the bits, and is left as it was.
    threads, loaded = torch.get_num_threads(), load_study(out)
    read, history = [], SegmentFolder.history
    monkeypatch.setattr(SegmentFolder, "history", lambda one: read.append(one) or history(one))
    torch.set_num_threads(2)
    try:
        asked = torch.get_num_threads()
        again = loaded.boundary
        assert torch.get_num_threads() == asked
    finally:
        torch.set_num_threads(threads)
    assert again.equals(surface)
    # All tables take what was measured from the results, so that it is read once.
    assert loaded.adaptive.equals(table) and len(loaded.runs) == len(read) == len(study.plan.runs)
    # Of other settings it chooses anew.
    rounds = Rounds(read_study(path, ["windows.adaptive.threshold=0.1"]))
    assert len(rounds.plan(study.folder).runs) < len(study.plan.runs)
    # Where runs of the initial design have been damaged since, there are tables, but no boundary.
    study.folder.segment(study.plan.runs[0].segment).discard()
    damaged = load_study(out)
    assert len(damaged.adaptive) == 22 and damaged.boundary.empty


def test_waiting_goes_on_while_the_next_round_is_chosen(
    tmp_path: Path, pretended: list[int], monkeypatch: pytest.MonkeyPatch
):
    files = [str(adaptive(tmp_path)), "--output", str(tmp_path / "out")]
    chooses, looked = threading.Event(), threading.Event()
    finished: list[threading.Thread] = []

    def choose(rounds: Rounds, folder: StudyFolder) -> None:
        chooses.set()
        assert looked.wait(60)

    def follow(folder: StudyFolder, plan: Plan, goes_on: Callable[[], bool], _: float) -> None:
        while goes_on():
            looked.set()
            time.sleep(0.1)

    def finish(*_: Any) -> int:
        finished.append(threading.current_thread())
        return 0

    monkeypatch.setattr(Rounds, "advance", choose)
    monkeypatch.setattr(study_commands, "show_progress", follow)
    monkeypatch.setattr(study_commands, "finish", finish)
    run = threading.Thread(target=main, args=(["study", "run", *files],))
    run.start()
    assert chooses.wait(60) and main(["study", "wait", *files]) == 0
    looked.set()
    run.join()
    assert finished == [run, threading.current_thread()]


@pytest.mark.parametrize("name", ["boundary_paths", "boundary_digits"])
def test_up_to_three_axes_the_kernel_is_plain_and_beyond_cross_validation_decides(name: str):
    path = Path(__file__).parents[2] / "experiments" / "studies" / f"{name}.yaml"
    fields = read_yaml(path)["windows"]["adaptive"]

    def space(**changes: Any) -> Space:
        settings = AdaptiveSettings.model_validate(fields | changes)
        found = space_of(settings, defaultdict(bool), [0, 1, 2])
        assert found.is_of(settings, [0, 1, 2])
        return found

    # The committed tables were made with these.
    assert space() == space(kernel="plain")
    assert {space(kernel=one).kernel for one in ("deep", "either")} == {"deep", "either"}
    # An axis of one value is none that a fit takes.
    fields["onset"] = [0, 0]
    while (varied := len(space().varied)) < 6:
        assert space().kernel == ("plain" if varied < 4 else "either")
        fields[f"model.init_args.{varied}"] = [0, 1]


def test_a_folder_of_another_kernel_goes_on_by_that_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path, folder = adaptive(tmp_path), StudyFolder(tmp_path / "out")
    either = ["--set", "windows.adaptive.kernel=either"]
    words = [str(path), "--output", str(folder.path)]
    before = Rounds(read_study(path, either[1:])).plan(folder)
    folder.write_plan(before)
    for command in ("run", "plan", "advance"):
        assert main(["study", command, *words, "--set", "windows.adaptive.budget=30"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "planned with windows.adaptive.kernel=either, but the study file has none" in line
    assert folder.read_plan() == before
    # What only reads the folder is about what was planned there.
    for more in (["status", *words], ["plan", *words, *either]):
        assert main(["study", *more]) == 0 and not capsys.readouterr().err


def test_rounds_on_slurm_follow_one_another(
    tmp_path: Path,
    pretended: list[int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """Slurm is replaced by what it is told: which scripts are submitted, after which jobs."""
    path, out = adaptive(tmp_path, budget=17), tmp_path / "out"
    files = [str(path), "--output", str(out)]
    scripts: list[str] = []

    def call(program: str, *words: str) -> str:
        if program != "sbatch":
            return ""
        scripts.append(Path(words[-1]).name)
        return str(len(scripts))

    monkeypatch.setattr(slurm_queue, "_call", call)
    assert main(["study", "run", *files, "--launcher", "slurm"]) == 0
    for last in ("next.sh", "next.sh", "report.sh"):
        assert scripts[-1] == last and not {"next.sh", "report.sh"} & {*scripts[:-1]}
        if last == "next.sh":
            text = (out / "slurm" / last).read_text()
            assert "study advance" in text and "&&" in text and "study submit" in text
            folder = StudyFolder(out)
            # As long as a run is missing, it goes no further, but where it was requeued after it
            # had chosen, and before it had submitted.
            for count, code in (("0", 1), ("1", 0)):
                monkeypatch.setenv("SLURM_RESTART_COUNT", count)
                assert main(["study", "advance", *files]) == code
            failing = folder.segment([*folder.read_plan().segments][-1])
            failing.path.mkdir(parents=True, exist_ok=True)
            failing.error.write_text("No space.")
            assert main(["study", "advance", *files]) == 1
            assert "failed: No space." in capsys.readouterr().err
            failing.forget_failure()
            pretend(folder, folder.read_plan())
            scripts.clear()
            assert main(["study", "advance", *files]) == 0
            assert main(["study", "submit", *files]) == 0
    assert main(["study", "wait", *files]) == 0
    assert len(load_study(out).adaptive) == 17
    # It has ended, but not for a larger budget, nor for other settings.
    for change, last in (("budget=17", ""), ("budget=22", "next.sh"), ("threshold=0.1", "next.sh")):
        scripts.clear()
        again = [*files, "--set", f"windows.adaptive.{change}"]
        assert main(["study", "run", *again, "--launcher", "slurm"]) == 0
        assert scripts[-1:] == [last] * bool(last)
    # Of other settings there are no runs yet, and no boundary.
    study = load_study(out)
    assert study.adaptive.empty and study.boundary.empty


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"budget": 11}, "budget is 11, less than the 12 runs of windows.adaptive.initial"),
        ({"threshold": 1.0}, "windows.adaptive.threshold is 1.0; it must be less than 1."),
        ({"threshold": 0.0}, "windows.adaptive.threshold is 0.0; it must be greater than 0."),
        ({"initial": 9}, "windows.adaptive.initial is 9; it must be at least 10."),
        ({"lenght": [1, 2]}, "unknown field 'windows.adaptive.lenght'; did you mean 'length'?"),
        ({"onset": [9, 1]}, "windows.adaptive.onset is [9, 1]; give the lower end first."),
        ({"onset": [5]}, "onset is [5]; it must hold at least 2 values."),
        ({"deficit.init_args.p": ["a", 1]}, "init_args.p holds 'a'; it must be a number."),
        ({"onset": [0, 1, 2]}, "onset is [0, 1, 2]; it must hold at most 2 values."),
        ({"epochs": 20}, "reach to epoch 24, beyond the last, windows.adaptive.epochs=20."),
        ({"onset": [0, 0], "length": [2, 2]}, "no axis of windows.adaptive has two ends"),
        ({"onset": [0, 1], "length": [2, 5]}, "make 16 different runs; give a smaller budget"),
        ({"deficit.init_args.p": [0, 1]}, "unknown field 'p' of Blur"),
        ({"model.init_args.optimizer.class_path": [0, 1]}, "windows.adaptive.model.init_args.opt"),
        ({"deficit.init_args.factor": [1, 4]}, "factor=1.0 of Blur must be above 1."),
        ({"trainer.max_epochs": [8, 9]}, "trainer.max_epochs is no axis; set windows instead."),
        ({"trainer.devices": [1, 2]}, "trainer.devices is no axis, as it says where a run is"),
        ({"trainer.log_every_n_steps": [1, 9]}, "trainer.log_every_n_steps is no axis"),
        ({"data.init_args.num_workers": [0, 2]}, "data.init_args.num_workers is no axis"),
        ({"kernel": "deeep"}, "kernel is 'deeep'; it must be 'either', 'deep' or 'plain'."),
        ({"distribution": {"onset": {"normal": [3.0]}}}, "it must be [mean, sd]"),
        ({"distribution": {"onst": {"normal": [3.0, 1.0]}}}, "did you mean 'onset'?"),
        ({"distribution": {"onset": {"normal": [9e9, 1.0]}}}, "of which nothing lies on the axes"),
    ],
)
def test_what_cannot_be_adapted_is_one_sentence(
    tmp_path: Path, changes: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["study", "plan", str(adaptive(tmp_path, **changes))]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_threshold_of_a_curve_is_none_of_an_adaptive_study(tmp_path: Path, capsys: Any):
    words = ["study", "plan", str(adaptive(tmp_path)), "--set", "threshold=0.1"]
    assert main(words) == 2
    assert "set windows.adaptive.threshold alone" in capsys.readouterr().err


def test_without_gpytorch_the_way_out_is_said(tmp_path: Path, capsys: Any, monkeypatch: Any):
    monkeypatch.setattr("critical_periods.studies.adaptive.find_spec", lambda name: None)
    assert main(["study", "plan", str(adaptive(tmp_path))]) == 2
    assert "pip install 'critical-periods[adaptive]'" in capsys.readouterr().err


def test_axes_of_numbers_and_whole_numbers_share_what_they_can(tmp_path: Path):
    axes = {"deficit.init_args.factor": [2, 4], "model.init_args.network.init_args.width": [2, 4]}
    rounds = Rounds(read_study(adaptive(tmp_path, **axes)))
    factor, width = [*rounds.space.axes.values()][2:]
    assert width == [2, 3, 4] and factor[:2] == [2.0, 2.05] and len(factor) == 41
    plan = rounds.plan(None)
    controls = [run for run in plan.runs if run.window.removal == 0]
    # One for each width and seed, whatever the factor.
    wanted = {(run.variation[[*axes][1]], run.seed) for run in plan.runs}
    assert len({run.segment for run in controls}) == len(wanted)
    for segment in plan.segments.values():
        parent = plan.segments.get(segment.parent or "")
        assert segment.start == (parent.stop if parent else 0)


def test_prices_are_what_the_tree_trains():
    space = Space(
        {"onset": [*range(9)], "length": [*range(1, 9)]}, 20, 0.1, 99, 10, 5, "plain", {}, (0,)
    )
    rng, trained, before = np.random.default_rng(0), Trained(space), set()
    runs: list[Schedule] = [Schedule(0, 0, 20)]
    for _ in range(12):
        chosen = [(int(rng.integers(9)), int(rng.integers(1, 9))) for _ in range(5)]
        price = sum(trained.add(point, 0) for point in chosen)
        trained.end_round()
        runs += [space.window(point) for point in chosen]
        tree = {(one.past, one.stop): one.stop - one.start for one in branches(dict.fromkeys(runs))}
        assert price == sum(epochs for end, epochs in tree.items() if end not in before)
        before |= tree.keys()


def test_the_lattice_and_its_weights():
    axes = {"onset": values(0, 80, True), "length": [5], "x": values(0, 1, False)}
    space = Space(axes, 90, 0.1, 20, 12, 4, "plain", {"onset": {"normal": [20.0, 5.0]}}, (0, 1))
    of = places(space)
    wide = replace(space, axes={name: axes["x"] for name in "abcdefgh"})
    assert places(wide).shape == (20_000, 8)
    # Each another, also of a lattice that is little larger.
    just = places(replace(space, axes={name: axes["x"] for name in "abc"}))
    assert len(np.unique(just, axis=0)) == 20_000
    wide = replace(space, axes={f"{number}": axes["x"] for number in range(15)})
    # More points than have numbers of 64 bits.
    assert len(places(wide)) == 20_000 and places(wide).mean() == pytest.approx(20, abs=0.1)
    assert len(of) == 41 * 41 and unit(space, [space.point(of[-1])]).tolist() == [[1.0, 1.0]]
    found = weights(space, of)
    onset = np.array([space.point(place)[0] for place in of])
    mean = (found * onset).sum()
    assert found.sum() == pytest.approx(1) and mean == pytest.approx(20, abs=0.01)
    assert ((found * (onset - mean) ** 2).sum()) ** 0.5 == pytest.approx(5, abs=0.05)
    # A third axis of two values is drawn at each once.
    drawn = _plane(replace(space, axes={"onset": [0, 1], "length": [1, 2], "x": [1, 2]}))
    assert len(drawn) == len(np.unique(drawn, axis=0)) == 8
    # Each third of an axis has its share of the first runs.
    thirds = [point[0] // 27 for point in design(space)]
    assert len(thirds) == 12 and all(3 <= thirds.count(third) <= 5 for third in range(3))
