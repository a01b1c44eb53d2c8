"""The command line: what it trains and logs, and one sentence for each of its user's mistakes."""

from __future__ import annotations

import csv
import functools
import json
import os
import pickle
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
import yaml
from small_study import BASE, changed, write_study

from critical_periods.cli import main

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def config(changes: dict[str, Any] | None = None) -> str:
    """Writes run.yaml, a run of two epochs, with some fields changed."""
    Path("run.yaml").write_text(yaml.safe_dump(changed(BASE, changes or {})))
    return "run.yaml"


def window(deficit: dict[str, Any], **init_args: Any) -> list[dict[str, Any]]:
    return [{"class_path": "DeficitWindow", "init_args": {"deficit": deficit, **init_args}}]


BLUR = {"class_path": "Blur", "init_args": {"views": [1]}}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# What it does.


def test_fit_validate_test_predict(tmp_path, capsys):
    callbacks = [
        *window(BLUR, removal=1),
        {
            "class_path": "SourceVarianceMonitor",
            "init_args": {"layers": ["trunk.conv"], "pairs": 1},
        },
        {"class_path": "FisherMonitor", "init_args": {"samples": 4}},
        {"class_path": "UsableInformationMonitor"},
        {"class_path": "LearningRateMonitor"},
    ]
    file = config({"trainer.callbacks": callbacks})
    assert main(["fit", "--config", file]) == 0
    logged = rows(Path("runs/version_0/metrics.csv"))
    epochs: dict[int, dict[str, float]] = {}
    for row in logged:
        if row["epoch"]:
            found = {key: float(value) for key, value in row.items() if value}
            epochs.setdefault(int(row["epoch"]), {}).update(found)
    every_epoch = ["train/loss", "val/loss", "val/accuracy", "deficit/active", "fisher/trace"]
    every_epoch += ["information/both", "information/view_0", "information/view_1"]
    last = ["rsv/trunk.conv/mean", "rsv/trunk.conv/polarization", "rsv/trunk.conv/dead"]
    last += ["rsv/trunk.conv/channels/mean", "rsv/trunk.conv/channels/polarization"]
    assert set(epochs) == {0, 1}
    assert all(set(every_epoch) <= set(found) for found in epochs.values())
    assert set(last) <= set(epochs[1]) and not set(last) & set(epochs[0])
    assert [epochs[epoch]["deficit/active"] for epoch in (0, 1)] == [1, 0]
    layers = {key: v for key, v in epochs[1].items() if key.startswith("fisher/trace/")}
    assert sum(layers.values()) == pytest.approx(epochs[1]["fisher/trace"], rel=1e-5)
    assert "fisher/trace/trunk.head" in layers
    assert any(key.startswith("lr-") for key in logged[0])

    (checkpoint,) = Path("runs/version_0/checkpoints").glob("*.ckpt")
    assert Path("runs/version_0/config.yaml").exists()
    assert Path("runs/version_0/rsv/epoch_0001.npz").exists()
    loading = ["--config", file, "--ckpt_path", str(checkpoint)]
    capsys.readouterr()
    assert main(["validate", *loading]) == 0
    validated = rows(Path("runs/version_1/metrics.csv"))[0]
    assert float(validated["val/accuracy"]) == pytest.approx(epochs[1]["val/accuracy"])
    assert main(["test", *loading]) == 0
    tested = rows(Path("runs/version_2/metrics.csv"))[0]
    assert 0 <= float(tested["test/accuracy"]) <= 1 and "test/loss" in tested
    assert main(["predict", *loading]) == 0


def test_what_the_command_line_says_goes_before_the_file(tmp_path):
    words = ["fit", f"--config={config()}", "--trainer.max_epochs", "1", "--data.batch_size=20"]
    words += ["--data.width", "6", "--trainer.default_root_dir", "elsewhere"]
    assert main(words) == 0
    used = yaml.safe_load(Path("elsewhere/version_0/config.yaml").read_text())
    assert used["trainer"]["max_epochs"] == 1
    settings = used["data"]["init_args"]
    assert (settings["batch_size"], settings["width"], settings["limit_train"]) == (20, 6, 100)
    assert not Path("runs").exists()


def test_fit_goes_on_from_a_checkpoint(tmp_path):
    """Through the command line too, the same bits as without stopping."""

    def weights(run: str) -> dict[str, torch.Tensor]:
        (path,) = Path(run).glob("checkpoints/*.ckpt")
        state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
        return state

    file = config()
    assert main(["fit", "--config", file, "--trainer.max_epochs=4"]) == 0
    assert main(["fit", "--config", file, "--trainer.max_epochs=2"]) == 0
    (checkpoint,) = Path("runs/version_1/checkpoints").glob("*.ckpt")
    words = ["fit", "--config", file, "--trainer.max_epochs=4", "--ckpt_path", str(checkpoint)]
    assert main(words) == 0
    whole, resumed = weights("runs/version_0"), weights("runs/version_2")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert any(
        not torch.equal(whole[name], value) for name, value in weights("runs/version_1").items()
    )


def test_threads_are_set(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    assert main(["fit", "--config", config({"num_threads": 3}), "--trainer.fast_dev_run=true"]) == 0
    assert asked == [3]


def test_experiments_can_be_built(tmp_path):
    """Every run that ships, up to one batch."""
    for path in sorted((ROOT / "experiments").glob("digits*.yaml")):
        assert main(["fit", "--config", str(path), "--trainer.fast_dev_run=true"]) == 0


def test_every_study_that_ships_can_be_planned(capsys):
    for path in sorted((ROOT / "experiments" / "studies").glob("quickstart*.yaml")):
        assert main(["study", "plan", str(path)]) == 0
        assert "separate runs would train" in capsys.readouterr().out


def test_help_reads_well(capsys):
    def said(*words: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 0
        return capsys.readouterr().out

    overview = said("--help")
    assert overview.startswith("usage: critical-periods ")
    assert "critical-periods study --help" in " ".join(overview.split()).replace("- ", "-")
    study = said("study", "--help")
    assert study.startswith("usage: critical-periods study ")
    assert all(command in study for command in ("plan", "run", "status", "plot"))
    assert "work" not in study.replace("worker", "") and "segment " not in study
    for command in ("plan", "run", "status", "plot"):
        assert "--output DIR" in said("study", command, "--help")
    fit = said("fit", "--help")
    assert fit.startswith("usage: critical-periods ") and "--num_threads" in fit


# Mistakes.


def set_field(name: str, value: Any) -> Callable[[], str]:
    return lambda: config({name: value})


def text(content: str) -> Callable[[], str]:
    def write() -> str:
        Path("run.yaml").write_text(content)
        return "run.yaml"

    return write


def picture_folder(*, break_it: Callable[[Path], object]) -> Callable[[], str]:
    """A folder of pictures of two classes that has one thing wrong with it."""

    def write() -> str:
        from PIL import Image

        for split in ("train", "test"):
            for name in ("cat", "dog"):
                folder = Path("pictures") / split / name
                folder.mkdir(parents=True)
                for number in range(3):
                    Image.new("RGB", (32, 32), (number, 9, 9)).save(folder / f"{number}.png")
        break_it(Path("pictures"))
        data = {"class_path": "StereoCIFAR10DataModule", "init_args": {"root": "pictures"}}
        return config({"data": data, "model.init_args.network.init_args.in_channels": 3})

    return write


def half_unpacked(root: Path) -> None:
    batches = root / "cifar-10-batches-py"
    batches.mkdir()
    for split in ("train", "test"):
        for path in sorted((root / split).rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        (root / split).rmdir()
    (batches / "data_batch_1").write_bytes(b"half")


def extra_class(root: Path) -> None:
    (root / "test" / "emu").mkdir()
    (root / "test" / "cat" / "0.png").rename(root / "test" / "emu" / "0.png")


def unreadable(root: Path) -> None:
    (root / "train" / "dog" / "1.png").write_bytes(b"not a picture")


NETWORK = "model.init_args.network"
MISTAKES: dict[str, tuple[Callable[[], str], str]] = {
    "unknown class": (
        set_field(f"{NETWORK}.class_path", "SplitAllCN"),
        "unknown class 'SplitAllCN' at model.network; did you mean 'SplitAllCNN'",
    ),
    "unknown class nothing like it": (
        set_field("data.class_path", "X"),
        "unknown class 'X' at data; choose one of 'CIFAR10DataModule', 'DigitsDataModule'",
    ),
    "class of another kind": (
        set_field("model.class_path", "Blur"),
        "unknown class 'Blur' at model; choose one of 'ClassificationTask'",
    ),
    "unknown field": (
        set_field(f"{NETWORK}.init_args.wdth", 3),
        "unknown field 'wdth' of SplitAllCNN at model.network; did you mean 'width'",
    ),
    "unknown field of an optimiser": (
        set_field("model.init_args.optimizer.init_args.lrr", 3),
        "unknown field 'lrr' of SGD at model.optimizer; did you mean 'lr'?",
    ),
    "unknown field of the trainer": (
        set_field("trainer.max_epoch", 3),
        "unknown field 'trainer.max_epoch'; did you mean 'max_epochs'",
    ),
    "unknown field of the run": (
        set_field("modl", {"a": 1}),
        "unknown field 'modl.a'; did you mean 'model'?",
    ),
    "settings beside their class": (
        set_field(f"{NETWORK}.width", 3),
        "unknown field 'width' beside class_path at model.network; the settings of a class stand",
    ),
    "missing part": (set_field("data", None), "the field 'data' is missing."),
    "missing class": (
        lambda: config({"data.class_path": None}),
        "data has no class_path, which names its class.",
    ),
    "wrong type": (
        set_field("data.init_args.width", "wide"),
        "data.width is 'wide', but must be int.",
    ),
    "wrong choice": (
        set_field("data.init_args.augment", "shard"),
        "data.augment is 'shard', but must be 'shared', 'per_view', 'none'.",
    ),
    "a text for a number": (
        set_field("model.init_args.optimizer", {"class_path": "SGD", "init_args": {"lr": "fast"}}),
        "model.optimizer.lr is 'fast', but must be float.",
    ),
    "a text for a number of a schedule": (
        set_field(
            "model.init_args.lr_scheduler",
            {"class_path": "ExponentialLR", "init_args": {"gamma": "fast"}},
        ),
        "model.lr_scheduler.gamma is 'fast', but must be float.",
    ),
    "a text for a list": (
        set_field(f"{NETWORK}.init_args.heads", "both"),
        "heads is 'both', but must be a list.",
    ),
    "a network for other images": (
        set_field(f"{NETWORK}.init_args.in_channels", 3),
        "SplitAllCNN cannot take what StereoDigitsDataModule gives, 2 views of 1x16x16: ",
    ),
    "a network for other classes": (
        set_field(f"{NETWORK}.init_args.num_classes", 5),
        "num_classes=10 of ClassificationTask, but SplitAllCNN puts out 5 logits; set num_classes",
    ),
    "a layer that is not called": (
        set_field("trainer.callbacks.0.init_args.layers", ["pathways"]),
        "layers of SourceVarianceMonitor names 'pathways', which the network has but does not call",
    ),
    "a schedule that the epochs cannot hold": (
        set_field(
            "model.init_args.lr_scheduler",
            {"class_path": "OneCycleLR", "init_args": {"max_lr": 0.1, "total_steps": 1}},
        ),
        "lr_scheduler (OneCycleLR) cannot go through 2 epochs: Tried to step 2 times",
    ),
    "a seed that is none": (
        set_field("seed_everything", -5),
        "seed_everything is -5, but must lie in 0 to 4294967295.",
    ),
    "two windows alike": (
        lambda: config({"trainer.callbacks": [*window(BLUR, removal=1), *window(BLUR, removal=2)]}),
        "Found more than one stateful callback of type `DeficitWindow`",
    ),
    "callbacks that are lists": (
        lambda: config({"trainer.callbacks": [window(BLUR, removal=1)]}),
        "trainer.callbacks is [[{'class_path': 'DeficitWindow'",
    ),
    "a number for a class": (
        lambda: config({"model": 3}),
        "model is 3, but must be a class_path with its init_args.",
    ),
    "no threads": (set_field("num_threads", 0), "num_threads is 0, but must be at least 1."),
    "no window at all": (
        lambda: config({"trainer.callbacks": window(BLUR, onset=5, removal=3)}),
        "removal=3 of DeficitWindow lies before its onset=5",
    ),
    "window beyond the last epoch": (
        lambda: config({"trainer.callbacks": window(BLUR, removal=30)}),
        "the window of DeficitWindow (onset=0, removal=30) reaches beyond the last epoch of "
        "training: trainer.max_epochs=2.",
    ),
    "a view that is not there": (
        lambda: config(
            {"trainer.callbacks": window({"class_path": "Blur", "init_args": {"views": [2]}})}
        ),
        "views=[2] of Blur names view 2, but the data has 2 views",
    ),
    "a crop too wide": (
        set_field("data.init_args.width", 17),
        "width=17 of the crops must lie between 1 and 16",
    ),
    "a layer that is not there": (
        set_field("trainer.callbacks.0.init_args.layers", ["trunk.cnv"]),
        "layers of SourceVarianceMonitor names 'trunk.cnv', which the network does not have; did "
        "you mean 'trunk.conv",
    ),
    "too few classes": (
        set_field("model.init_args.num_classes", 5),
        "num_classes=5 of ClassificationTask is less than the 10 classes of the data",
    ),
    "no data": (
        lambda: config({"data": {"class_path": "CIFAR10DataModule", "init_args": {"root": "no"}}}),
        "CIFAR-10 is not there under root=",
    ),
    "half-unpacked data": (picture_folder(break_it=half_unpacked), "pictures"),
    "a class that training lacks": (picture_folder(break_it=extra_class), "emu"),
    "an unreadable image": (picture_folder(break_it=unreadable), "1.png"),
    "a folder that cannot be made": (
        lambda: Path("file").touch() or config({"trainer.default_root_dir": "file/runs"}),  # type: ignore[func-returns-value]
        "trainer.default_root_dir: the folder file/runs cannot be made: Not a directory.",
    ),
    "no file": (lambda: "nosuch.yaml", "the file nosuch.yaml does not exist."),
    "no YAML": (text("a: [1\nb: 2"), "run.yaml is not valid YAML: "),
    "an empty file": (text(""), "run.yaml holds no fields; it must be a YAML mapping."),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_end_in_one_sentence(name, capsys, monkeypatch):
    """Exit code 2, before any training, naming the file and the field, without a traceback."""
    write, sentence = MISTAKES[name]

    def train(*args: Any) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr("critical_periods.tasks.ClassificationTask.training_step", train)
    file = write()
    before = sorted(Path().rglob("*"))
    assert main(["fit", "--config", file]) == 2
    assert sorted(Path().rglob("*")) == before
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert line.startswith("critical-periods: error: ")
    assert file in line and sentence in line
    assert line.endswith((".", "?", "!")) and "Traceback" not in line


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "no command; choose one of fit, validate, test, predict, study, kinetics, or see"),
        (["fitt"], "unknown command 'fitt'; choose one of fit, validate"),
        (["fit"], "the field 'data' is missing."),
        (
            ["fit", "--trainer.max_epoch=3"],
            "unrecognized arguments: --trainer.max_epoch=3; did you mean 'max_epochs'",
        ),
        (["fit", "--data", "Nope"], "unknown class 'Nope' at data; choose one of"),
        (["fit", "--config"], "argument -c/--config: expected one argument."),
        (["fit", "--config", "run.yaml", "--ckpt_path", "no.ckpt"],
         "run.yaml: ckpt_path: the file no.ckpt does not exist."),
        (["test", "--config", "run.yaml", "--ckpt_path", "junk.ckpt"],
         "run.yaml: ckpt_path: junk.ckpt is damaged, or holds more than tensors"),
    ],
)  # fmt: skip
def test_command_lines_with_mistakes(words, sentence, capsys):
    config()
    Path("junk.ckpt").write_bytes(b"junk")
    assert main(words) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert sentence in line and line.startswith("critical-periods: error: ")


def test_checkpoints_execute_nothing(tmp_path, capsys):
    class Attack:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"state_dict": {}, "attack": Attack()}, "attack.ckpt")
    Path("plain.ckpt").write_bytes(pickle.dumps(Attack()))
    for checkpoint in ("attack.ckpt", "plain.ckpt"):
        for command in ("fit", "validate", "test", "predict"):
            assert main([command, "--config", config(), "--ckpt_path", checkpoint]) == 2
            assert "so it was not loaded." in capsys.readouterr().err
    assert not (tmp_path / "executed").exists()


def test_unsafe_loading_is_never_the_default(tmp_path, monkeypatch):
    """Whatever Lightning would do where nothing is said, as for a checkpoint of another machine."""
    import pytorch_lightning as pl

    seen = {}

    @functools.wraps(pl.Trainer.fit)  # for its arguments
    def fit(self: pl.Trainer, *args: Any, **settings: Any) -> None:
        seen.update(settings)

    monkeypatch.setattr(pl.Trainer, "fit", fit)
    assert main(["fit", "--config", config(), "--ckpt_path", "http://localhost/x.ckpt"]) == 0
    assert seen["weights_only"] is True


@pytest.mark.parametrize("batches", ["1", "1.0", "2", "0.5", "null"])
def test_one_batch_is_not_all_of_them(capsys, batches):
    words = ["fit", "--config", config(), f"--trainer.limit_train_batches={batches}"]
    with pytest.raises(SystemExit):
        main([*words, "--print_config"])
    assert f"  limit_train_batches: {batches}\n" in capsys.readouterr().out


def test_no_epoch_at_all():
    assert main(["fit", "--config", config({"trainer.callbacks": None}),
                 "--trainer.max_epochs=0"]) == 0  # fmt: skip


def test_checkpoints_of_other_runs(tmp_path, capsys):
    words = ["fit", "--config", config({"trainer.callbacks": None}), "--trainer.max_epochs=1"]
    assert main(words) == 0
    (checkpoint,) = Path("runs").rglob("*.ckpt")
    assert main([*words, "--model.optimizer=Adam"]) == 0
    (adam,) = set(Path("runs").rglob("*.ckpt")) - {checkpoint}
    torch.save({"a": 1}, "other.ckpt")
    cases = [
        (["--ckpt_path=other.ckpt"], "other.ckpt is of another run than this config describes"),
        ([f"--ckpt_path={tmp_path}"], "is a folder, not a checkpoint."),
        (
            [f"--ckpt_path={checkpoint}", "--model.network.init_args.width=2"],
            "size mismatch for network.pathways.0.stem.conv.weight",
        ),
        (
            [f"--ckpt_path={checkpoint}", "--model.optimizer=Adam"],
            "is of another run than this config describes (it has no 'step')",
        ),
        (
            [f"--ckpt_path={adam}"],
            "the state of the optimizer is not that of SGD, as it has no 'momentum'",
        ),
        (["--ckpt_path=best"], "there is no checkpoint for 'best' ("),
    ]
    # What is wrong with the weights is found before a logger has made anything.
    for more, _ in cases[:3]:
        assert main([*words, *more]) == 2
    assert {path.name for path in Path("runs").iterdir()} <= {"version_0", "version_1", "wandb"}
    for more, sentence in cases:
        capsys.readouterr()
        assert main([*words, *more]) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
        assert line.startswith("critical-periods: error: run.yaml: ckpt_path: ")
        assert sentence in line


@pytest.mark.slow
def test_as_a_module(tmp_path):
    file = config({"data.init_args.width": 17})
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "critical_periods", "fit", "--config", file]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith(
        f"critical-periods: error: {file}: width=17 of"
    )
    assert "Traceback" not in result.stderr and "Tip:" not in result.stderr + result.stdout


# Weights & Biases.


def records(folder: Path) -> list[Any]:
    """All that a run wrote offline; its service goes on writing for a moment after it has ended."""
    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    deadline = time.monotonic() + 60
    found = read_records(file)
    while not any(record.HasField("exit") for record in found) and time.monotonic() < deadline:
        time.sleep(0.2)
        found = read_records(file)
    return found


def read_records(file: Path) -> list[Any]:
    """Protocol buffers in LevelDB's log format, in blocks of 32 KiB."""
    from wandb.proto import wandb_internal_pb2

    content, place = file.read_bytes(), 7
    found, parts = [], b""
    while place < len(content):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # the whole of a record, or its last part
            record = wandb_internal_pb2.Record()  # type: ignore[attr-defined]
            record.ParseFromString(parts)
            found.append(record)
            parts = b""
    return found


def history(folder: Path) -> list[dict[str, Any]]:
    """The steps that a run logged."""
    steps = []
    for record in records(folder):
        step: dict[str, Any] = {}
        for item in record.history.item:
            *parents, last = item.nested_key or [item.key]
            inner = step
            for parent in parents:
                inner = inner.setdefault(parent, {})
            inner[last] = json.loads(item.value_json)
        steps += [step] if step else []
    return steps


@pytest.fixture
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_") or name == "NETRC"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    # What the code sets for the process goes when the test does.
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setattr("sys.stdin", None)
    # It reads the environment once in a process.
    wandb.teardown()


def run_of(folder: Path) -> Any:
    (run,) = [record.run for record in records(folder) if record.HasField("run")]
    return run


def settings_of(run: Any) -> dict[str, Any]:
    """The config of a run, by which one filters in Weights & Biases."""
    return {item.key: json.loads(item.value_json) for item in run.config.update}


def test_logs_offline_without_an_account(no_account, capfd):
    assert main(["fit", "--config", config()]) == 0
    settings = settings_of(run_of(Path("runs")))
    network = settings["model"]["init_args"]["network"]
    assert network["class_path"] == "critical_periods.models.SplitAllCNN"
    assert network["init_args"]["width"] == 4
    logged = history(Path("runs"))
    keys = set().union(*logged)
    assert {"epoch", "train/loss", "val/accuracy", "rsv/trunk.conv/mean"} <= keys
    (shown,) = [row for row in logged if "rsv/trunk.conv" in row]
    histogram = shown["rsv/trunk.conv"]
    assert histogram["_type"] == "histogram"
    assert len(histogram["values"]) == 40 and len(histogram["bins"]) == 41
    assert (histogram["bins"][0], histogram["bins"][-1]) == (-1, 1)
    assert sum(histogram["values"]) > 0
    assert shown["epoch"] == 1
    # Every curve is drawn against the epoch.
    metrics = [record.metric for record in records(Path("runs")) if record.HasField("metric")]
    assert ("*", "epoch") in {(metric.glob_name, metric.step_metric) for metric in metrics}
    said = "".join(capfd.readouterr())
    assert "anonymous" not in said and "wandb: (1)" not in said
    assert Path("runs/version_0/metrics.csv").exists()


def test_a_study_is_one_group_with_a_summary(no_account, monkeypatch):
    from critical_periods.studies import launch, worker

    monkeypatch.setattr(launch, "launch", lambda folder, plan, jobs=None: worker.work(folder))
    windows = {"removal": [1], "epochs_after": 1}
    study = write_study(Path("."), {"windows": windows})
    assert main(["study", "run", str(study), "--output", "out"]) == 0
    runs = [run_of(path) for path in Path("out/segments").iterdir()]
    assert len(runs) == 3
    assert {run.run_group for run in runs} == {"small"} == {run_of(Path("out")).run_group}
    assert {run.job_type for run in runs} == {"segment"}
    assert all(settings_of(run)["data"]["class_path"] == "StereoDigitsDataModule" for run in runs)
    names = {run.display_name for run in runs}
    assert (
        "seed 0, deficit 0-1, epochs 1-2" in names and "seed 0, deficit none, epochs 0-2" in names
    )

    summary = run_of(Path("out"))
    assert (summary.display_name, summary.job_type) == ("summary", "summary")
    (shown,) = [row for row in history(Path("out")) if "curve" in row]
    assert shown["curve"]["_type"] == "image-file"
    table = shown["curve_table"]
    assert table["_type"] == "table-file" and table["nrows"] == 2
    assert any(key.startswith("curve_chart") for key in shown)


def test_disabled(no_account, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert main(["fit", "--config", config(), "--trainer.max_epochs=1"]) == 0
    assert Path("runs/version_0/metrics.csv").exists()
    assert not Path("runs/wandb").exists()


def test_online_without_an_account_goes_offline(no_account, monkeypatch, recwarn):
    monkeypatch.setenv("WANDB_MODE", "online")
    assert main(["fit", "--config", config(), "--trainer.max_epochs=1"]) == 0
    assert history(Path("runs"))
    (warning,) = [str(w.message) for w in recwarn if "WANDB" in str(w.message)]
    assert warning == (
        "WANDB_MODE=online, but there is no account (see `wandb login`); logging offline, to be "
        "sent later with `wandb sync`."
    )


def test_online_without_a_network_goes_offline(no_account, monkeypatch, recwarn):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("critical_periods.runs.tracking._SECONDS_TO_CONNECT", 2)
    assert main(["fit", "--config", config(), "--trainer.max_epochs=1"]) == 0
    assert history(Path("runs"))
    (warning,) = [str(w.message) for w in recwarn if "Biases" in str(w.message)]
    assert warning.startswith("Weights & Biases cannot be reached (")
    # The next segment of a study does not wait again.
    assert os.environ["WANDB_MODE"] == "offline"


def test_an_account_of_netrc_is_found(no_account, tmp_path, monkeypatch):
    from critical_periods.runs import tracking

    assert not tracking._has_account()
    netrc = tmp_path / "netrc"
    netrc.write_text("machine api.wandb.ai\n  login user\n  password " + "0" * 40 + "\n")
    monkeypatch.setenv("NETRC", str(netrc))
    assert tracking._has_account()


def test_modes_that_do_not_exist(no_account, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "ofline")
    assert main(["fit", "--config", config()]) == 2
    assert "WANDB_MODE='ofline' in the environment is unknown; did you mean 'offline'" in (
        capsys.readouterr().err
    )
