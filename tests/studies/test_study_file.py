"""Reading study files: what they mean, and the one sentence for everything that they may not be."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_study import plan_of, write_study

from critical_periods.cli import main
from critical_periods.core.errors import UserError
from critical_periods.studies.plan import Plan
from critical_periods.studies.study import Study, Variation, read_study

LR = "model.init_args.optimizer.init_args.lr"
ONSETS = {"onset": [0, 3], "length": 2, "epochs": 8}
NOTHING = Variation({}, {})


def deficit_of(study: Study, variation: Variation) -> dict[str, Any]:
    _, window = study.configured(variation)
    assert set(window) == {"class_path", "init_args"} and set(window["init_args"]) == {"deficit"}
    assert window["class_path"] == "DeficitWindow"
    deficit: dict[str, Any] = window["init_args"]["deficit"]
    return deficit


def test_defaults_seeds_and_threshold(tmp_path):
    study = read_study(write_study(tmp_path, {"seeds": None}))
    assert (study.name, study.seeds, study.threshold) == ("small", (0,), 0.01)
    assert study.variations == (NOTHING,) and study.finetuning is None
    # Each seed counts once.
    path = write_study(tmp_path, {"seeds": [2, 1, 2], "threshold": 0.05})
    study = read_study(path)
    assert study.seeds == (2, 1) and study.threshold == 0.05 == plan_of(path).threshold
    assert read_study(path, ["threshold=0.2"]).threshold == 0.2


@pytest.mark.parametrize(
    ("windows", "schedules"),
    [
        ({"removal": [0, 2, 5], "epochs_after": 4}, [(0, 0, 4), (0, 2, 6), (0, 5, 9)]),
        ({"removal": [2, 2], "epochs_after": 4}, [(0, 2, 6)]),
        (ONSETS, [(0, 2, 8), (3, 5, 8)]),
        ({"onset": [0, 3], "epochs": 8}, [(0, 8, 8), (3, 8, 8)]),
        (ONSETS | {"length": None}, [(0, 8, 8), (3, 8, 8)]),
        (ONSETS | {"length": [2, 5, 2]}, [(0, 2, 8), (3, 5, 8), (0, 5, 8), (3, 8, 8)]),
    ],
)
def test_windows_and_their_controls(tmp_path, windows, schedules):
    study = read_study(write_study(tmp_path, {"windows": windows}))
    controls = [(0, 0, epochs) for _, _, epochs in schedules]
    assert study.windows == tuple(dict.fromkeys([*schedules, *controls]))


def test_variants_change_fields_together(tmp_path):
    variants = {"slow": {LR: 0.01, "num_threads": 2}, "plain": {}, 3: {LR: 0.3}}
    study = read_study(write_study(tmp_path, {"variants": variants}))
    assert [one.columns["variant"] for one in study.variations] == ["slow", "plain", "3"]
    configs = [study.configured(variation)[0] for variation in study.variations]
    rates = [config["model"]["init_args"]["optimizer"]["init_args"]["lr"] for config in configs]
    assert rates == [0.01, 0.05, 0.3]
    assert [config["num_threads"] for config in configs] == [2, 1, 1]


def test_variants_and_varied_fields_in_all_combinations(tmp_path):
    vary = {LR: [0.1, 0.2], "data.init_args.width": [4, 6]}
    variants = {"a": {"num_threads": 2, LR: 0.7}, "b": {}}
    study = read_study(write_study(tmp_path, {"variants": variants, "vary": vary}))
    expected = [
        (variant, lr, width) for variant in ("a", "b") for lr in (0.1, 0.2) for width in (4, 6)
    ]
    assert [tuple(one.columns.values()) for one in study.variations] == expected
    assert list(study.variations[0].columns) == ["variant", LR, "data.init_args.width"]
    # What is varied goes before what the variant says.
    assert study.variations[0].fields == {"num_threads": 2, LR: 0.1, "data.init_args.width": 4}


def test_variants_with_a_deficit_or_a_window_of_their_own(tmp_path):
    flip = {"class_path": "VerticalFlip"}
    subset = {"class_path": "SubsetWindow", "init_args": {"share": 0.5}}
    noise = {"deficit.class_path": "GaussianNoise", "deficit.init_args": {"views": [0]}}
    variants = {"flip": {"deficit": flip}, "few": {"window": subset}, "noise": noise}
    study = read_study(write_study(tmp_path, {"deficit": None, "variants": variants}))
    assert study.scheduled == {}
    flipped, few, noisy = study.variations
    assert deficit_of(study, flipped) == flip
    assert study.configured(few)[1] == subset
    assert deficit_of(study, noisy) == {"class_path": "GaussianNoise", "init_args": {"views": [0]}}
    # Fields of the study's own deficit can be changed as well.
    changes = {"variants": {"mild": {"deficit.init_args.factor": 2}}}
    study = read_study(write_study(tmp_path, changes))
    blur = {"class_path": "Blur", "init_args": {"factor": 2, "views": [1]}}
    assert deficit_of(study, study.variations[0]) == blur


def test_a_window_is_a_callback(tmp_path):
    window = {"class_path": "RegularizationWindow", "init_args": {"regularizer": "augmentation"}}
    path = write_study(tmp_path, {"deficit": None, "window": window, "seeds": [0, 1]})
    study = read_study(path, ["window.init_args.regularizer=weight_decay"])
    config, callback = study.configured(NOTHING)
    settings = {"regularizer": "weight_decay"}
    assert callback == {"class_path": "RegularizationWindow", "init_args": settings}
    assert "window" not in config and len(config["trainer"]["callbacks"]) == 1
    # A window may have no settings at all.
    bare = read_study(write_study(tmp_path, {"deficit": None, "window": {"class_path": "X"}}))
    assert bare.configured(NOTHING)[1] == {"class_path": "X", "init_args": {}}


def test_variants_on_the_command_line(tmp_path):
    path = write_study(tmp_path, {"variants": {"a": {}, "b": {LR: 0.2}}})
    more = read_study(path, [f"variants.c={{{LR}: 0.3}}"])
    assert [one.columns["variant"] for one in more.variations] == ["a", "b", "c"]
    assert more.variations[2].fields == {LR: 0.3}
    fewer = read_study(path, [f"variants={{only: {{{LR}: 0.3}}}}"])
    assert fewer.variations == (Variation({"variant": "only"}, {LR: 0.3}),)


def test_varied_fields_of_the_run_and_of_the_deficit(tmp_path):
    vary = {"vary": {LR: [0.1, 0.2], "deficit.init_args.factor": [2, 8]}}
    study = read_study(write_study(tmp_path, vary))
    found = []
    for variation in study.variations:
        config, _ = study.configured(variation)
        lr = config["model"]["init_args"]["optimizer"]["init_args"]["lr"]
        found.append((lr, deficit_of(study, variation)["init_args"]["factor"]))
        assert variation.columns == variation.fields
        assert tuple(variation.fields.values()) == found[-1]
    assert found == [(0.1, 2), (0.1, 8), (0.2, 2), (0.2, 8)]
    # A variation leaves the study as it was.
    assert study.scheduled["deficit"]["init_args"]["factor"] == 4
    # Values that are there twice count once.
    study = read_study(write_study(tmp_path, {"vary": {LR: [0.05, 0.1, 5e-2]}}))
    assert [variation.columns for variation in study.variations] == [{LR: 0.05}, {LR: 0.1}]


def test_vary_whole_deficits_and_whole_parts(tmp_path):
    schedule = {"class_path": "StepLR", "init_args": {"step_size": 3}}
    flip = {"class_path": "VerticalFlip"}
    vary = {"vary": {"deficit": [flip], "model.init_args.lr_scheduler": [schedule, None]}}
    study = read_study(write_study(tmp_path, vary))
    configs = [study.configured(variation) for variation in study.variations]
    assert [deficit_of(study, variation) for variation in study.variations] == [flip, flip]
    schedulers = [config["model"]["init_args"]["lr_scheduler"] for config, _ in configs]
    assert schedulers == [schedule, None]


def test_set_in_the_file_and_on_the_command_line(tmp_path):
    path = write_study(tmp_path, {"set": {LR: 0.3, "data.init_args.width": 6}})
    overrides = [f"{LR}=1e-3", "seeds=[4, 5]", "windows.removal=[1]", "trainer.precision=16-mixed"]
    study = read_study(path, overrides)
    config, _ = study.configured(NOTHING)
    assert config["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 1e-3
    assert config["data"]["init_args"]["width"] == 6
    assert config["trainer"]["precision"] == "16-mixed"
    assert study.seeds == (4, 5)
    assert study.windows == ((0, 1, 3), (0, 0, 3))


def test_overrides_of_set_and_vary_keep_dotted_names(tmp_path):
    path = write_study(tmp_path, {"set": {"data.init_args.width": 6}})
    overrides = ["set.trainer.precision=64", f"vary.{LR}=[0.1, 0.2]", "deficit.init_args.factor=2"]
    study = read_study(path, overrides)
    config, _ = study.configured(study.variations[1])
    assert [variation.fields for variation in study.variations] == [{LR: 0.1}, {LR: 0.2}]
    assert config["trainer"]["precision"] == 64
    assert config["trainer"]["accelerator"] == "cpu"
    assert config["data"]["init_args"]["width"] == 6
    assert config["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 0.2
    assert deficit_of(study, study.variations[1])["init_args"]["factor"] == 2


def test_overrides_of_axes_keep_dotted_names(tmp_path):
    adaptive = {"onset": [0, 4], "length": [1, 4], "epochs": 9, "threshold": 0.1, "budget": 12}
    path = write_study(tmp_path, {"windows": {"adaptive": adaptive | {"initial": 10, "batch": 2}}})
    of = "windows.adaptive"
    overrides = [f"{of}.{LR}=[0.1, 0.2]", f"{of}.budget=20"]
    overrides += [f"{of}.distribution.{LR}={{normal: [0.15, 0.1]}}"]
    found = read_study(path, overrides).adaptive
    assert found.axes == {"onset": [0, 4], "length": [1, 4], LR: [0.1, 0.2]}
    assert found.budget == 20 and found.distribution == {LR: {"normal": [0.15, 0.1]}}


def test_fields_left_empty_can_be_set(tmp_path):
    path = write_study(tmp_path)
    (tmp_path / "base.yaml").write_text("trainer:\ndata: {class_path: X, init_args: }")
    config, _ = read_study(path, ["data.init_args.width=3"]).configured(NOTHING)
    assert config["data"]["init_args"] == {"width": 3}
    assert config["trainer"] == {"callbacks": []}


@pytest.mark.parametrize("callbacks", ["Timer", ["Timer"], {"class_path": "Timer"}])
def test_callbacks_as_lightning_takes_them(tmp_path, callbacks):
    study = read_study(write_study(tmp_path, base={"trainer.callbacks": callbacks}))
    found = study.configured(NOTHING)[0]["trainer"]["callbacks"]
    assert found == [{"class_path": "Timer"}]


MISTAKES = yaml.safe_load(Path(__file__).with_name("mistakes.yaml").read_text())


@pytest.mark.parametrize("mistake", MISTAKES["fields"], ids=lambda mistake: str(mistake["set"]))
def test_bad_fields(tmp_path, mistake):
    path = write_study(tmp_path, mistake["set"])
    with pytest.raises(UserError, match=rf"^{path}: .*{mistake['says']}"):
        read_study(path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("base: [1\n", r"small\.yaml is not valid YAML: .*line 2, column 1"),
        ("- 1\n", r"small\.yaml holds no fields; it must be a YAML mapping\."),
        ("", r"small\.yaml holds no fields"),
        ("a: \xff", r"small\.yaml is not in UTF-8; save it so"),
        ("1: 2", r"small\.yaml: a study has a field named 1, which is no text"),
        ("a: 1\nset: {}\na: 2", r"not valid YAML: the field 'a' is .* twice .*line 3"),
        ("base: null\nwindows: {}", r"base is None; it must name a config file"),
    ],
)
def test_bad_files(tmp_path, capsys, text, sentence):
    path = tmp_path / "small.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=sentence) as caught:
        read_study(path)
    assert main(["study", "plan", str(path)]) == 2
    assert capsys.readouterr() == ("", f"critical-periods: error: {caught.value}\n")


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=rf"{tmp_path} is a folder; name a YAML file in it\."):
        read_study(tmp_path)
    with pytest.raises(UserError, match=r"^the file nosuch\.yaml does not exist\.$"):
        read_study(Path("nosuch.yaml"))


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("seeds", r"--set 'seeds' must have the form field=value\."),
        ("seeds=[1", r"--set 'seeds=\[1' is not valid YAML"),
        ("num_threads.x=1", r"'num_threads\.x' cannot be set: num_threads holds no fields\."),
        ("seed_everything=3", r"setting seed_everything changes nothing .*; set seeds instead\."),
        ("trainer.max_epochs=3", r"setting trainer\.max_epochs .*; set windows instead\."),
        ("vary.a=1", r"vary\.a is 1; it must be a list\."),
        ("windows.removal=[-1]", r"windows\.removal holds -1; it must be at least 0\."),
    ],
)
def test_bad_overrides(tmp_path, override, sentence):
    with pytest.raises(UserError, match=sentence):
        read_study(write_study(tmp_path), [override])


def test_nulls_where_there_must_be_something(tmp_path, capsys):
    """And where there need be nothing."""
    command = ["study", "plan", str(write_study(tmp_path)), "--set"]
    for change, sentence in (
        ("data.init_args.width=null", "data.init_args.width is null, but must be int."),
        ("deficit.init_args.factor=null", "deficit.init_args.factor is null, but must be float."),
        ("model.init_args=null", "model.init_args is null, but must hold"),
    ):
        assert main([*command, change]) == 2
        assert sentence in capsys.readouterr().err
    assert main([*command, "model.init_args.lr_scheduler=null"]) == 0


ACROSS_SEGMENTS: list[tuple[str, dict[str, Any], str]] = [
    ("StochasticWeightAveraging", {"swa_lrs": 0.01}, "averages over the last epochs of each seg"),
    ("BatchSizeFinder", {}, r"chooses a batch size in each segment anew; set .*batch_size\."),
    ("LearningRateFinder", {}, r"chooses a learning rate .*; set .*optimizer\.init_args\.lr\."),
    ("ModelPruning", {"pruning_fn": "l1_unstructured"}, "keeps no masks in checkpoints, so"),
    ("BackboneFinetuning", {}, r"gives the optimizer other groups .*; use FreezeWindow\."),
    ("EarlyStopping", {"monitor": "val/loss"}, r"may end a run before .*; leave it out\."),
    ("Timer", {"duration": "00:01:00:00"}, r"may end a run before its last epoch"),
    ("SpikeDetection", {}, r"may end a run before its last epoch"),
]
LIMIT = "data.init_args.limit_train"
EVERY, INTERVAL = "trainer.check_val_every_n_epoch", "trainer.val_check_interval"
CADENCES: list[tuple[dict[str, Any], str]] = [
    ({EVERY: 2}, r"_epoch=2 does not validate at the end of the runs of 5 epochs; choose one"),
    ({EVERY: 3}, r"_epoch=3 does not validate at the end of the runs of 2, 5 epochs; "),
    ({INTERVAL: 0.7}, r"interval=0\.7 does not validate at the end of epochs of 3 batches; cho"),
    ({INTERVAL: 2}, r"interval=2 does not validate at the end of epochs of 3 batches"),
    ({INTERVAL: 2, EVERY: None}, r"interval=2 does not validate at the end of epochs of 3 batc"),
    ({INTERVAL: "00:00:10:00"}, r"a time as trainer\.val_check_interval does not validate at the"),
]


@pytest.mark.parametrize(("name", "settings", "sentence"), ACROSS_SEGMENTS)
def test_callbacks_whose_schedule_spans_a_run_are_refused(
    tmp_path, capsys, name, settings, sentence
):
    callback = {"class_path": name, "init_args": settings}
    path = write_study(tmp_path, base={"trainer.callbacks": [callback]})
    assert main(["study", "plan", str(path)]) == 2
    assert re.search(rf"\): {name} of trainer\.callbacks {sentence}", capsys.readouterr().err)


@pytest.mark.parametrize(("cadence", "sentence"), CADENCES)
def test_validation_has_to_fall_on_the_last_batch_of_every_run(tmp_path, capsys, cadence, sentence):
    # Runs of 2 or 5 epochs of 3 batches.
    path = write_study(tmp_path, {"windows.removal": [0, 3], "set": {LIMIT: 150} | cadence})
    assert main(["study", "plan", str(path)]) == 2
    assert re.search(sentence, capsys.readouterr().err)


@pytest.mark.parametrize("mistake", MISTAKES["runs"], ids=lambda mistake: mistake["says"])
def test_bad_runs_are_found_before_training(tmp_path, capsys, mistake):
    path, output = write_study(tmp_path, mistake.get("set"), mistake.get("base")), tmp_path / "out"
    assert main(["study", "run", str(path), "--output", str(output)]) == 2
    out, err = capsys.readouterr()
    assert re.search(mistake["says"], err)
    assert err.startswith(f"critical-periods: error: {path} (base {tmp_path / 'base.yaml'}): ")
    assert err.count("\n") == 1
    assert out == "" and not output.exists()


@pytest.mark.parametrize(
    "cadence",
    [{INTERVAL: 3}, {INTERVAL: 0.4}, {INTERVAL: 5, EVERY: None}, {INTERVAL: 2, EVERY: None,
      "trainer.limit_train_batches": 2}, {EVERY: 2, "trainer.limit_val_batches": 0}],
)  # fmt: skip
def test_cadences_that_end_with_every_run(tmp_path, cadence):
    """With 3 batches an epoch; segments may end where runs do not."""
    windows = {"removal": [2], "epochs_after": 3}
    plan_of(write_study(tmp_path, {"windows": windows, "set": {LIMIT: 150} | cadence}))


def test_plan_prints_the_tree(tmp_path, capsys):
    path = write_study(tmp_path, {"seeds": [0, 1]})
    assert main(["study", "plan", str(path), "--set", "windows.removal=[0, 2, 3]"]) == 0
    lines = capsys.readouterr().out.splitlines()
    # Clean 0-2-4-5, deficit 0-2-3, and a branch of two epochs from 2 and from 3: 12 a seed.
    assert lines[-1].startswith("small: 10 runs in 14 segments; trains 24 epochs, separate ")
    assert lines[-1].endswith(" runs would train 40.")
    assert len(lines) == 15
    assert sum("seed 0" in line for line in lines) == sum("seed 1" in line for line in lines) == 2
    assert "epochs 2-3, deficit 0-3" in lines[5] and lines[5].startswith("  ")


def test_plan_says_what_sets_segments_apart(tmp_path, capsys):
    path = write_study(tmp_path, {"vary": {"deficit.init_args.factor": [2, 4]}})
    assert main(["study", "plan", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("deficit 0-2, factor = 2" in line for line in lines) == 2
    assert sum("deficit 0-2, factor = 4" in line for line in lines) == 2
    assert not any("no deficit, factor" in line for line in lines)


def test_plan_calls_a_window_what_it_is(tmp_path, capsys):
    """While it is open, weight decay acts: no deficit at all."""
    window = {"class_path": "RegularizationWindow", "init_args": {"regularizer": "weight_decay"}}
    decays = {"model.init_args.optimizer.init_args.weight_decay": 0.001}
    path = write_study(tmp_path, {"deficit": None, "window": window}, decays)
    assert main(["study", "plan", str(path)]) == 0
    said = capsys.readouterr().out
    assert "epochs 0-2, window 0-2, seed 0" in said and "no window" in said
    assert "deficit" not in said


def test_study_commands_that_do_not_exist(capsys):
    for words in ("study", "study rn", "study run", "study run x.yaml --otput"):
        assert main(words.split()) == 2
        err = capsys.readouterr().err
        assert err.startswith("critical-periods: error: critical-periods study")
        assert "--help" in err and err.count("\n") == 1
        # What the launcher starts is no one's business.
        assert "segment" not in err


def test_a_unit_is_no_part_of_what_names_a_segment(tmp_path):
    def plan(**unit: str) -> Plan:
        init_args = {"regularizer": "augmentation", "removal": 1} | unit
        callback = {"class_path": "RegularizationWindow", "init_args": init_args}
        study = {"deficit": None, "window": {"class_path": "DeficitWindow", "init_args": unit}}
        study["window"]["init_args"] = {"deficit": {"class_path": "Blur"}} | unit
        return plan_of(write_study(tmp_path, study, {"trainer.callbacks": [callback]}))

    left_out, given = plan(), plan(unit="epoch")
    assert left_out.segments.keys() == given.segments.keys()
    assert "unit" not in json.dumps(left_out.configs)


def test_planning_says_what_segments_go_without(tmp_path, capsys):
    callbacks = ["ModelCheckpoint", "LearningRateMonitor", "EMAWeightAveraging"]
    logger = {"class_path": "CSVLogger", "init_args": {"save_dir": "x"}}
    path = write_study(tmp_path, base={"trainer.callbacks": callbacks, "trainer.logger": logger})
    assert main(["study", "plan", str(path)]) == 0
    said = "without ModelCheckpoint, LearningRateMonitor, trainer.logger; a study saves"
    assert said in capsys.readouterr().err
    assert main(["study", "plan", str(write_study(tmp_path))]) == 0
    assert not capsys.readouterr().err
