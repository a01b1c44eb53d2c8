"""Reading study files: what they mean, and the one sentence for everything that they may not be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_study import plan_of, write_study

from critical_periods.cli import main
from critical_periods.errors import UserError
from critical_periods.studies.study import Window, read_study

LR = "model.init_args.optimizer.init_args.lr"
ONSETS = {"onset": [0, 3], "length": 2, "epochs": 8}


def test_removals_and_their_controls(tmp_path):
    windows = {"windows": {"removal": [0, 2, 5], "epochs_after": 4}}
    study = read_study(write_study(tmp_path, windows))
    deficits = [Window(0, 0, 4), Window(0, 2, 6), Window(0, 5, 9)]
    assert study.windows == (*deficits, Window(0, 0, 6), Window(0, 0, 9))
    assert (study.name, study.seeds, study.variations) == ("small", (0,), ({},))


def test_onsets_and_their_control(tmp_path):
    study = read_study(write_study(tmp_path, {"windows": ONSETS}))
    assert study.windows == (Window(0, 2, 8), Window(3, 5, 8), Window(0, 0, 8))


def test_seeds_default_to_one_and_count_once(tmp_path):
    assert read_study(write_study(tmp_path, {"seeds": None})).seeds == (0,)
    assert read_study(write_study(tmp_path, {"seeds": [2, 1, 2]})).seeds == (2, 1)


def test_vary_tries_each_combination(tmp_path):
    vary = {"vary": {LR: [0.1, 0.2], "deficit.init_args.factor": [2, 4, 8]}}
    study = read_study(write_study(tmp_path, vary))
    assert len(study.variations) == 6
    seen = set()
    for variation in study.variations:
        config, deficit = study.configured(variation)
        lr = config["model"]["init_args"]["optimizer"]["init_args"]["lr"]
        assert variation == {LR: lr, "deficit.init_args.factor": deficit["init_args"]["factor"]}
        seen.add((lr, deficit["init_args"]["factor"]))
    assert seen == {(lr, factor) for lr in (0.1, 0.2) for factor in (2, 4, 8)}
    # A variation leaves the study as it was.
    assert study.deficit["init_args"]["factor"] == 4


def test_vary_whole_deficits_and_whole_parts(tmp_path):
    schedule = {"class_path": "StepLR", "init_args": {"step_size": 3}}
    flip = {"class_path": "VerticalFlip"}
    vary = {"vary": {"deficit": [flip], "model.init_args.lr_scheduler": [schedule, None]}}
    study = read_study(write_study(tmp_path, vary))
    configs = [study.configured(variation) for variation in study.variations]
    assert [deficit for _, deficit in configs] == [flip, flip]
    schedulers = [config["model"]["init_args"]["lr_scheduler"] for config, _ in configs]
    assert schedulers == [schedule, None]


def test_set_in_the_file_and_on_the_command_line(tmp_path):
    path = write_study(tmp_path, {"set": {LR: 0.3, "data.init_args.width": 6}})
    overrides = [f"{LR}=1e-3", "seeds=[4, 5]", "windows.removal=[1]", "trainer.precision=16-mixed"]
    study = read_study(path, overrides)
    config, _ = study.configured({})
    assert config["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 1e-3
    assert config["data"]["init_args"]["width"] == 6
    assert config["trainer"]["precision"] == "16-mixed"
    assert study.seeds == (4, 5)
    assert study.windows == (Window(0, 1, 3), Window(0, 0, 3))


def test_overrides_of_set_and_vary_keep_dotted_names(tmp_path):
    path = write_study(tmp_path, {"set": {"data.init_args.width": 6}})
    overrides = ["set.trainer.precision=64", f"vary.{LR}=[0.1, 0.2]", "deficit.init_args.factor=2"]
    study = read_study(path, overrides)
    config, deficit = study.configured(study.variations[1])
    assert study.variations == ({LR: 0.1}, {LR: 0.2})
    assert config["trainer"]["precision"] == 64
    assert config["trainer"]["accelerator"] == "cpu"
    assert config["data"]["init_args"]["width"] == 6
    assert config["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 0.2
    assert deficit["init_args"]["factor"] == 2


def test_fields_left_empty_can_be_set(tmp_path):
    path = write_study(tmp_path)
    (tmp_path / "base.yaml").write_text("trainer:\ndata: {class_path: X, init_args: }")
    config, _ = read_study(path, ["data.init_args.width=3"]).configured({})
    assert config["data"]["init_args"] == {"width": 3}
    assert config["trainer"] == {"callbacks": []}


@pytest.mark.parametrize(
    ("callbacks", "expected"),
    [
        ("Timer", [{"class_path": "Timer"}]),
        (["Timer"], [{"class_path": "Timer"}]),
        ({"class_path": "Timer"}, [{"class_path": "Timer"}]),
    ],
)
def test_callbacks_as_lightning_takes_them(tmp_path, callbacks, expected):
    study = read_study(write_study(tmp_path, base={"trainer.callbacks": callbacks}))
    assert study.configured({})[0]["trainer"]["callbacks"] == expected


BAD_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"windws": 1}, r"unknown field 'windws'; did you mean 'windows'\?"),
    ({"deficit": None}, r"the field 'deficit' is missing; a study needs it\."),
    ({"base": None}, r"the field 'base' is missing"),
    ({"windows": None}, r"the field 'windows' is missing"),
    ({"deficit": "Blur"}, r"deficit is 'Blur'; it must hold fields\."),
    ({"deficit": {"class": "Blur"}}, r"deficit\.class_path is missing"),
    ({"windows": [1]}, r"windows is \[1\]; it must hold fields\."),
    ({"windows": {"removal": [1]}}, r"windows has \['removal'\]; it needs either removal and"),
    ({"windows": {"removals": [1]}}, r"unknown field 'windows\.removals'; did you mean 'removal'"),
    ({"windows.onset": [1]}, r"it needs either removal and epochs_after, or onset, length and"),
    ({"windows.removal": 3}, r"windows\.removal is 3; it must be a list of whole numbers\."),
    ({"windows.removal": []}, r"windows\.removal is \[\]; it must be a list of whole numbers\."),
    ({"windows.removal": [1.5]}, r"windows\.removal holds 1\.5; it must be a whole number of at"),
    ({"windows.removal": [-1]}, r"windows\.removal holds -1; .* at least 0\."),
    ({"windows.removal": [True]}, r"windows\.removal holds True"),
    ({"windows.epochs_after": 0}, r"windows\.epochs_after holds 0; .* at least 1\."),
    ({"windows": ONSETS | {"length": 0}}, r"windows\.length holds 0; .* at least 1\."),
    ({"windows": ONSETS | {"epochs": 4}}, r"windows\.onset=3 and windows\.length=2 reaches beyond"),
    ({"seeds": 3}, r"seeds is 3; it must be a list of whole numbers\."),
    ({"seeds": ["a"]}, r"seeds holds 'a'; it must be a whole number"),
    ({"vary": {LR: 0.1}}, r"vary\.model\S+lr is 0\.1; it must be a list of values\."),
    ({"vary": {LR: []}}, r"vary\.model\S+lr is \[\]; it must be a list of values\."),
    ({"vary": {"seed_everything": [1]}}, r"vary\.seed_everything changes nothing .*; set seeds"),
    ({"vary": {"trainer.max_epochs": [1]}}, r"vary\.trainer\.max_epochs changes .*; set windows"),
    ({"set": 3}, r"set is 3; it must hold fields\."),
    ({"set": {"num_threads.x": 3}}, r"'num_threads\.x' cannot be set: num_threads holds no fields"),
    ({"base": "nosuch.yaml"}, r"the file \S*nosuch\.yaml does not exist\."),
]


@pytest.mark.parametrize(("changes", "sentence"), BAD_FIELDS, ids=lambda value: str(value)[:40])
def test_bad_fields(tmp_path, capsys, changes, sentence):
    path = write_study(tmp_path, changes)
    with pytest.raises(UserError, match=sentence) as caught:
        read_study(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert main(["study", "plan", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"critical-periods: error: {caught.value}\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("base: [1\n", r"small\.yaml is not valid YAML: .*line 2, column 1"),
        ("- 1\n", r"small\.yaml holds no fields; it must be a YAML mapping\."),
        ("", r"small\.yaml holds no fields"),
        ("a: \xff", r"small\.yaml cannot be read"),
    ],
)
def test_bad_files(tmp_path, text, sentence):
    path = tmp_path / "small.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=sentence):
        read_study(path)


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"^the file nosuch\.yaml does not exist\.$"):
        read_study(Path("nosuch.yaml"))


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("seeds", r"--set 'seeds' must have the form field=value\."),
        ("seeds=[1", r"--set 'seeds=\[1' is not valid YAML"),
        ("num_threads.x=1", r"'num_threads\.x' cannot be set: num_threads holds no fields\."),
        ("vary.a=1", r"vary\.a is 1; it must be a list of values\."),
    ],
)
def test_bad_overrides(tmp_path, override, sentence):
    with pytest.raises(UserError, match=sentence):
        read_study(write_study(tmp_path), [override])


BAD_RUNS: list[tuple[dict[str, Any], str]] = [
    ({"trainer.callbacks": [{"init_args": {}}]}, r"trainer\.callbacks holds .*needs a class_path"),
    ({"model.class_path": "ClassifyTask"}, r"unknown class 'ClassifyTask' at model; did you mean"),
    (
        {"model.init_args.network.init_args.wdth": 3},
        r"unknown field 'wdth' of SplitAllCNN at model",
    ),
    ({"trainer.max_epoch": 3}, r"unknown field 'trainer\.max_epoch'; did you mean 'max_epochs'"),
    ({"ckpt_path": "x.ckpt"}, r"unknown field 'ckpt_path'"),
    (
        {"model.init_args.network.depth": 1},
        r"unknown field 'depth' beside class_path at model\.net",
    ),
    ({"model.class_path": None}, r"model has no class_path, which names its class\."),
    ({"data.init_args.width": 17}, r"width=17 of the crops must lie between 1 and 16"),
    ({"data.init_args.width": "wide"}, r"data\.width is 'wide', but must be int\."),
    (
        {"model.init_args.num_classes": 5},
        r"num_classes=5 of ClassificationTask is less than the 10",
    ),
    ({LR: -1.0}, r"the optimiser or its schedule cannot be built: Invalid learning rate: -1\.0"),
    ({"num_threads": 0}, r"num_threads is 0, but must be at least 1\."),
    (
        {"trainer.callbacks.0.init_args.layers": ["trunk.cnv"]},
        r"layers of SourceVarianceMonitor names 'trunk\.cnv', which the network does not have; did",
    ),
    (
        {"data": {"class_path": "StereoCIFAR10DataModule", "init_args": {"root": "nosuch"}}},
        r"CIFAR-10 is not there under root='\S*nosuch'",
    ),
]


@pytest.mark.parametrize(("changes", "sentence"), BAD_RUNS, ids=lambda value: str(value)[:40])
def test_bad_base_runs_are_found_before_training(tmp_path, capsys, changes, sentence):
    path = write_study(tmp_path, base=changes)
    with pytest.raises(UserError, match=sentence):
        plan_of(path)
    output = tmp_path / "out"
    assert main(["study", "run", str(path), "--output", str(output)]) == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"critical-periods: error: {path} (base {tmp_path / 'base.yaml'}): ")
    assert err.count("\n") == 1
    assert out == "" and not output.exists()


@pytest.mark.parametrize(
    ("deficit", "sentence"),
    [
        ({"class_path": "Blurr"}, r"unknown class 'Blurr' at .*deficit; did you mean 'Blur'\?"),
        ({"class_path": "Blur", "init_args": {"views": [2]}}, r"names view 2, but the data has 2"),
        ({"class_path": "Blur", "init_args": {"factr": 2}}, r"unknown field 'factr' of Blur"),
        (
            {"class_path": "Blur", "init_args": {"factor": 0.5}},
            r"factor=0\.5 of Blur must be above",
        ),
    ],
)
def test_bad_deficits_are_found_before_training(tmp_path, deficit, sentence):
    with pytest.raises(UserError, match=sentence):
        plan_of(write_study(tmp_path, {"deficit": deficit}))


def test_every_variation_is_checked(tmp_path):
    path = write_study(tmp_path, {"vary": {"deficit.init_args.views": [[1], [3]]}})
    with pytest.raises(UserError, match="names view 3, but the data has 2 views"):
        plan_of(path)


def test_plan_prints_the_tree(tmp_path, capsys):
    path = write_study(tmp_path, {"seeds": [0, 1]})
    assert main(["study", "plan", str(path), "--set", "windows.removal=[0, 2, 3]"]) == 0
    lines = capsys.readouterr().out.splitlines()
    # Clean 0-2-4-5, deficit 0-2-3, and a branch of two epochs from 2 and from 3: 12 a seed.
    assert (
        lines[-1]
        == "small: 10 runs in 14 segments; trains 24 epochs, separate runs would train 40."
    )
    assert len(lines) == 15
    assert sum("seed 0" in line for line in lines) == sum("seed 1" in line for line in lines) == 2
    assert "epochs 2-3, deficit 0-3" in lines[5] and lines[5].startswith("  ")


def test_study_commands_that_do_not_exist(capsys):
    for words in (
        ["study"],
        ["study", "rn"],
        ["study", "run"],
        ["study", "run", "x.yaml", "--otput"],
    ):
        assert main(words) == 2
        err = capsys.readouterr().err
        assert err.startswith("critical-periods: error: critical-periods study")
        assert "--help" in err and err.count("\n") == 1
        # What the launcher starts is no one's business.
        assert "segment" not in err
