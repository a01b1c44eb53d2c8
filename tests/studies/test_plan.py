"""The tree of segments against its definition: what runs share is trained once."""

import hashlib
import json
import random
from itertools import product
from typing import Any

import pytest
import torch
from small_study import changed, plan_of, write_study

import critical_periods
from critical_periods.core.errors import UserError
from critical_periods.runs import precision
from critical_periods.studies.names import Resolved, SegmentNames
from critical_periods.studies.plan import Plan, make_plan
from critical_periods.studies.schedule import Schedule
from critical_periods.studies.study import Study, Variation

CONFIG: dict[str, Any] = {
    "seed_everything": 0,
    "num_threads": 1,
    "trainer": {"precision": "32", "devices": 1, "max_epochs": 9, "logger": None, "callbacks": []},
    "model": {"class_path": "Task", "init_args": {"lr": 0.1}},
    "data": {"class_path": "Data", "init_args": {"root": "a", "download": False, "width": 8}},
}
BLUR = {"class_path": "Blur", "init_args": {"factor": 4}}
ONSETS = {"onset": [2], "length": 2, "epochs": 6}


def windows_to(*removals: int, after: int = 5) -> tuple[Schedule, ...]:
    """As a study file's ``removal`` gives them, controls and all."""
    deficits = [Schedule(0, removal, removal + after) for removal in removals]
    return tuple(dict.fromkeys([*deficits, *(Schedule(0, 0, w.epochs) for w in deficits)]))


def plan_with(
    windows: tuple[Schedule, ...],
    changes: dict[str, Any] | None = None,
    seeds: tuple[int, ...] = (0,),
    variations: tuple[dict[str, Any], ...] = ({},),
    data: str = "fingerprint",
    window: dict[str, Any] | None = None,
) -> Plan:
    """The plan of a study of a deficit, or of a window."""
    scheduled = {"deficit": BLUR} if window is None else {"window": window}
    varied = tuple(Variation(fields, fields) for fields in variations)
    study = Study("s", changed(CONFIG, changes or {}), scheduled, windows, seeds, varied)
    resolved = [Resolved(*study.configured(variation), data) for variation in varied]
    return make_plan(study, resolved)


def distinct_epochs(windows: tuple[Schedule, ...], seeds: int, rates: int, factors: int) -> int:
    """How many different epochs there are to train.

    An epoch is what it is by its number, seed and settings, by when the deficit was there up to and
    including it, and, if ever, by which deficit.
    """
    epochs = set()
    for window in windows:
        for epoch in range(window.epochs):
            past = tuple(window.onset <= e < window.removal for e in range(epoch + 1))
            for seed, rate, factor in product(range(seeds), range(rates), range(factors)):
                epochs.add((seed, rate, factor if any(past) else None, past))
    return len(epochs)


def random_windows(draw: random.Random) -> tuple[Schedule, ...]:
    windows = []
    for _ in range(draw.randint(1, 7)):
        epochs = draw.randint(1, 12)
        onset = draw.randint(0, epochs - 1)
        removal = draw.randint(onset, epochs)
        windows.append(Schedule(onset, removal, epochs) if onset < removal else (0, 0, epochs))
    return tuple(Schedule(*window) for window in dict.fromkeys(windows))


@pytest.mark.parametrize("number", range(20))
def test_trains_each_distinct_epoch_once_in_chains_of_segments(number):
    draw = random.Random(number)
    windows, seeds = random_windows(draw), draw.randint(1, 2)
    rates, factors = draw.randint(1, 2), draw.randint(1, 2)
    variations = tuple(
        {"model.init_args.lr": rate, "deficit.init_args.factor": 2 + factor}
        for rate in range(rates)
        for factor in range(factors)
    )
    plan = plan_with(windows, seeds=tuple(range(seeds)), variations=variations)

    assert plan.epochs == distinct_epochs(windows, seeds, rates, factors)
    runs = seeds * len(variations)
    assert len(plan.runs) == runs * len(windows)
    assert plan.separate_epochs == runs * sum(window.epochs for window in windows)

    places = {name: place for place, name in enumerate(plan.segments)}
    for name, segment in plan.segments.items():
        assert name == segment.name
        # No segment trains under a window that reaches beyond its own last epoch.
        assert segment.start < segment.stop >= segment.window[1]
        assert segment.parent is None or places[segment.parent] < places[name]
    used = set()
    for run in plan.runs:
        chain = list(plan.lineage(run.segment))[::-1]
        used |= {segment.name for segment in chain}
        assert {segment.seed for segment in chain} == {run.seed}
        trained = [
            (epoch, segment.window[0] <= epoch < segment.window[1])
            for segment in chain
            for epoch in range(segment.start, segment.stop)
        ]
        onset, removal, epochs = run.window
        assert trained == [(epoch, onset <= epoch < removal) for epoch in range(epochs)]
    assert used == set(plan.segments)


def test_a_trunk_with_three_branches():
    plan = plan_with(windows_to(20, 40, 60, after=40))
    trunk = [s for s in plan.segments.values() if s.window[0] < s.window[1] == s.stop]
    assert [(s.start, s.stop) for s in trunk] == [(0, 20), (20, 40), (40, 60)]
    branches = [s for s in plan.segments.values() if 0 < s.window[1] < s.stop]
    ends = {(s.window[1], s.start, s.stop) for s in branches}
    assert ends == {(20, 20, 60), (40, 40, 80), (60, 60, 100)}
    clean = [s for s in plan.segments.values() if s.window == (0, 0)]
    assert [(s.start, s.stop) for s in clean] == [(0, 60), (60, 80), (80, 100)]
    assert plan.epochs == 60 + 3 * 40 + 100
    assert plan.separate_epochs == 2 * (60 + 80 + 100)


def test_a_grown_study_keeps_the_names_of_what_it_shares():
    small = plan_with(windows_to(2, 6), seeds=(0,))
    grown = plan_with(windows_to(0, 2, 4, 6, 9), seeds=(0, 1))
    ends = {name: (s.window, s.stop) for name, s in small.segments.items()}
    assert set(small.segments) < set(grown.segments)
    assert ends == {n: (grown.segments[n].window, grown.segments[n].stop) for n in ends}
    # Cut at 4 too, the trunk's part to 6 starts later; its end, and so its name, is the same.
    (name,) = [n for n, s in small.segments.items() if s.window == (0, 6) and s.stop == 6]
    assert (small.segments[name].start, grown.segments[name].start) == (2, 4)


def test_plan_survives_being_written():
    plan = plan_with(windows_to(0, 3), variations=({"model.init_args.lr": 0.1}, {"num_threads": 2}))
    text = plan.to_json()
    assert Plan.from_json(text) == plan
    assert Plan.from_json(text).to_json() == text


def names(plan: Plan) -> tuple[list[str], list[str]]:
    """Names of the segments that never had a deficit, and of those that had."""
    had = [name for name, s in plan.segments.items() if s.window[0] < s.window[1]]
    return [name for name in plan.segments if name not in had], had


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model.init_args.lr", 0.2),
        ("trainer.precision", "bf16-mixed"),
        ("trainer.devices", 2),
        ("num_threads", 2),
        ("data.init_args.width", 9),
        ("trainer.callbacks", [{"class_path": "FisherMonitor"}]),
        ("trainer.gradient_clip_val", 1.0),
    ],
)
def test_names_depend_on_what_determines_bits(field, value):
    before, after = plan_with(windows_to(2)), plan_with(windows_to(2), {field: value})
    assert not set(before.segments) & set(after.segments)


@pytest.mark.parametrize("fastest", ["bf16-mixed", "32-true"])
def test_automatic_precision_is_the_one_that_is_faster_here(fastest, monkeypatch):
    """In the plan, so in what its segments train, and in their names; and of a run alone."""
    asked: list[str] = []
    monkeypatch.setenv("CRITICAL_PERIODS_PRECISION", "")
    monkeypatch.setattr(precision, "fastest_precision", lambda of: asked.append(of) or fastest)
    by_itself, by_name = (
        plan_with(windows_to(2), {"trainer.precision": one}) for one in ("auto", fastest)
    )
    assert by_itself == by_name and set(asked) == {"auto"}
    assert by_itself.configs[0][0]["trainer"]["precision"] == fastest
    assert precision.resolved_precision({"precision": "auto", "accelerator": "cpu"}) == fastest
    assert asked[-1] == "cpu" and precision.resolved_precision({"precision": 32}) is None
    # Of processes that Lightning starts beside it, none measures for itself, nor may others.
    monkeypatch.setattr(precision, "fastest_precision", lambda of: "another")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert precision.resolved_precision({"precision": "auto"}) == fastest
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    with pytest.raises(UserError, match="processes that srun has started would measure"):
        precision.resolved_precision({"precision": "auto"})


def test_a_mac_trains_in_float32(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    measure = precision.fastest_precision.__wrapped__
    # Half as many bytes take half as long.
    monkeypatch.setattr(precision, "_seconds", lambda matrix: float(matrix.element_size()))
    assert (measure("auto"), measure("cpu")) == ("32-true", "bf16-mixed")


def test_names_depend_on_seed_data_and_version(monkeypatch):
    plans = [plan_with(windows_to(2)), plan_with(windows_to(2), seeds=(1,))]
    plans.append(plan_with(windows_to(2), data="other"))
    monkeypatch.setattr(critical_periods, "__version__", "0.0.0.test")
    plans.append(plan_with(windows_to(2)))
    together = [name for plan in plans for name in plan.segments]
    assert len(set(together)) == len(together)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("data.init_args.root", "elsewhere"),
        ("data.init_args.download", True),
        ("data.init_args.device_resident", False),
        ("data.init_args.index_dir", "elsewhere"),
        ("trainer.logger", True),
        ("trainer.max_epochs", 100),
        ("trainer.enable_progress_bar", False),
        ("trainer.default_root_dir", "elsewhere"),
        ("trainer.log_every_n_steps", 1),
        ("trainer.num_sanity_val_steps", 2),
        ("trainer.callbacks", [{"class_path": "pytorch_lightning.callbacks.LearningRateMonitor"}]),
        ("trainer.callbacks", [{"class_path": "DeficitWindow", "init_args": {"onset": 7}}]),
        ("seed_everything", 5),
    ],
)
def test_names_depend_on_nothing_else(field, value):
    before, after = plan_with(windows_to(2)), plan_with(windows_to(2), {field: value})
    assert list(before.segments) == list(after.segments)


@pytest.mark.parametrize("scheduler", ["ExponentialLR", "pytorch_lightning.cli.ReduceLROnPlateau"])
def test_only_runs_that_follow_a_measure_have_names_of_a_later_version(scheduler):
    model = {"init_args": {"lr_scheduler": {"class_path": scheduler}}}
    config = {"model": model, "data": {}, "trainer": {"callbacks": []}}
    fields = {"config": config, "seed": 0, "schedule": None, "stop": 1, "data": "digits"}
    text = json.dumps(fields | {"version": critical_periods.__version__}, sort_keys=True)
    before = hashlib.sha256(text.encode()).hexdigest()[:16]
    after = SegmentNames(Resolved(config, {}, "digits")).name(0, (0, 0), 1)
    assert (before == after) == (scheduler == "ExponentialLR")


RESTART = {"class_path": "LearningRateRestart"}


@pytest.mark.parametrize(
    ("restart", "shared"),
    [
        # At the removal; the deficit's own last epoch is any run's.
        (RESTART, lambda segment: segment.stop <= segment.window[1] or segment.window == (0, 0)),
        ({**RESTART, "init_args": {"epoch": 4}}, lambda segment: segment.stop <= 4),
    ],
)
def test_a_restart_names_only_segments_that_had_it(restart, shared):
    windows = windows_to(0, 2, 3)
    plain = plan_with(windows)
    restarted = plan_with(windows, {"trainer.callbacks": [restart]})
    both = set(plain.segments) & set(restarted.segments)
    assert both == {name for name, segment in plain.segments.items() if shared(segment)}
    assert both and both != set(plain.segments)
    # Where another window may be what the restart waits for, nothing is taken for the same.
    freeze = {"class_path": "FreezeWindow", "init_args": {"removal": 1}}
    lists = ([freeze], [freeze, RESTART])
    one, other = (plan_with(windows, {"trainer.callbacks": callbacks}) for callbacks in lists)
    assert not set(one.segments) & set(other.segments)


SUBSET = {"class_path": "SubsetWindow", "init_args": {"share": 0.5}}
DECAY = {"class_path": "RegularizationWindow", "init_args": {"regularizer": "weight_decay"}}
CROPS = {"class_path": "RegularizationWindow", "init_args": {"regularizer": "augmentation"}}
LATE = (Schedule(2, 4, 8), Schedule(3, 8, 8), Schedule(0, 0, 8))


@pytest.mark.parametrize("windows", [windows_to(0, 2, 3), LATE])
@pytest.mark.parametrize(
    ("one", "other", "is_shared"),
    [
        (SUBSET, changed(SUBSET, {"init_args.share": 0.1}), True),
        (SUBSET, {"class_path": "DeficitWindow", "init_args": {"deficit": BLUR}}, True),
        # Closed, a regulariser's window keeps the regulariser from acting: not nothing.
        (DECAY, CROPS, False),
        (DECAY, SUBSET, False),
    ],
)
def test_what_comes_before_a_window_is_shared_if_it_does_nothing_there(
    windows, one, other, is_shared
):
    clean, had = names(plan_with(windows, window=one))
    other_clean, other_had = names(plan_with(windows, window=other))
    assert clean and had and not set(had) & set(other_had)
    assert set(clean) & set(other_clean) == (set(clean) if is_shared else set())
    assert len(clean) == len(other_clean) and len(had) == len(other_had)


def test_variants_share_their_clean_trunk(tmp_path):
    """Through files and defaults: each variant with one clean run a seed, or one for all."""
    variants = {
        "blur": {"deficit": {"class_path": "Blur"}},
        "flip": {"deficit": {"class_path": "VerticalFlip"}},
        "few": {"window": SUBSET},
        "crops": {"window": CROPS},
    }
    changes = {"deficit": None, "variants": variants, "windows": ONSETS, "seeds": [0, 1]}
    plan = plan_of(write_study(tmp_path, changes))
    ends = {
        (run.variation["variant"], run.seed): run.segment
        for run in plan.runs
        if run.window.onset == run.window.removal
    }
    for seed in (0, 1):
        shared = {ends[variant, seed] for variant in ("blur", "flip", "few")}
        assert len(shared) == 1 and ends["crops", seed] not in shared
    # Clean 0-2 and 2-6, and for each variant 2-4 with the deficit and 4-6 after it.
    one, separate = 2 * (6 + 3 * 4), 2 * (6 + 4)
    assert plan.epochs == one + separate
    assert plan.separate_epochs == 2 * 4 * 2 * 6
    assert [list(run.variation) for run in plan.runs] == [["variant"]] * len(plan.runs)


def test_names_see_through_how_a_config_is_written(tmp_path):
    """Short names and long ones, defaults left out or written down: one and the same run."""
    short = plan_of(write_study(tmp_path))
    written = {
        "model.class_path": "critical_periods.tasks.ClassificationTask",
        "model.init_args.optimizer.class_path": "torch.optim.SGD",
        "model.init_args.optimizer.init_args.nesterov": False,
        "data.init_args.augment": "shared",
        "trainer.precision": None,
    }
    long = plan_of(write_study(tmp_path, base=written))
    factor = {"deficit.init_args": {"views": [1]}}  # 4 is the default
    assert list(short.segments) == list(long.segments)
    assert list(short.segments) == list(plan_of(write_study(tmp_path, factor)).segments)
    for change in (
        "model.init_args.optimizer.init_args.lr=0.01",
        "model.init_args.lr_scheduler.init_args.gamma=0.8",
        "trainer.precision=bf16-mixed",
        "data.init_args.limit_train=90",
        "data.init_args.clutter=true",
    ):
        assert not set(short.segments) & set(plan_of(write_study(tmp_path), [change]).segments)
