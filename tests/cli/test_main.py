"""The commands: what they run, and one sentence for each mistake of their user."""

import csv
import errno
import os
import runpy
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
import yaml
from small_study import planned, write_run, write_study

from critical_periods.cli import main
from critical_periods.studies import worker

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def rows(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def test_fit_validate_test_predict():
    blur = {"class_path": "Blur", "init_args": {"views": [1]}}
    layers: dict[str, Any] = {"layers": ["trunk.conv"], "pairs": 1}
    callbacks = [
        {"class_path": "DeficitWindow", "init_args": {"deficit": blur, "removal": 1}},
        {"class_path": "SourceVarianceMonitor", "init_args": layers},
        {"class_path": "FisherMonitor", "init_args": {"samples": 4}},
        {"class_path": "UsableInformationMonitor"},
        {"class_path": "LearningRateMonitor"},
    ]
    file = write_run({"trainer.callbacks": callbacks})
    assert main(["fit", "--config", file]) == 0
    logged = rows("runs/version_0/metrics.csv")
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
    traces = {key: v for key, v in epochs[1].items() if key.startswith("fisher/trace/")}
    assert sum(traces.values()) == pytest.approx(epochs[1]["fisher/trace"], rel=1e-5)
    assert "fisher/trace/trunk.head" in traces
    assert any(key.startswith("lr-") for key in logged[0])

    (checkpoint,) = Path("runs/version_0/checkpoints").glob("*.ckpt")
    assert Path("runs/version_0/config.yaml").exists()
    assert Path("runs/version_0/rsv/epoch_0001.npz").exists()
    loading = ["--config", file, "--ckpt_path", str(checkpoint)]
    assert main(["validate", *loading]) == 0
    (validated,) = rows("runs/version_1/metrics.csv")
    assert float(validated["val/accuracy"]) == pytest.approx(epochs[1]["val/accuracy"])
    assert main(["test", *loading]) == 0
    (tested,) = rows("runs/version_2/metrics.csv")
    assert 0 <= float(tested["test/accuracy"]) <= 1 and "test/loss" in tested
    assert main(["predict", *loading]) == 0


def test_what_the_command_line_says_goes_before_the_file():
    words = ["fit", f"--config={write_run()}", "--trainer.max_epochs", "1", "--data.batch_size=20"]
    words += ["--data.width", "6", "--trainer.default_root_dir", "elsewhere"]
    assert main(words) == 0
    used = yaml.safe_load(Path("elsewhere/version_0/config.yaml").read_text())
    assert used["trainer"]["max_epochs"] == 1
    settings = used["data"]["init_args"]
    assert (settings["batch_size"], settings["width"], settings["limit_train"]) == (20, 6, 100)
    assert not Path("runs").exists()


def test_experiments_can_be_built():
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
    commands = ("fit", "validate", "test", "predict", "study", "kinetics")
    assert all(f"\n  {command} " in overview for command in commands)
    study = said("study", "--help")
    assert study.startswith("usage: critical-periods study ")
    assert all(command in study for command in ("plan", "run", "status", "plot"))
    assert "work" not in study.replace("worker", "") and "segment " not in study
    for command in ("plan", "run", "status", "plot"):
        assert "--output DIR" in said("study", command, "--help")
    fit = said("fit", "--help")
    assert fit.startswith("usage: critical-periods ") and "--num_threads" in fit
    # All classes are known, although none is named.
    assert "critical_periods.data.KineticsDataModule" in "".join(fit.split())


def test_help_needs_no_lightning():
    loaded = "import sys; from critical_periods.cli.main import main; main(['--help'])"
    code = f"try:\n  {loaded}\nexcept SystemExit:\n  assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "no command; choose one of fit, validate, test, predict, study, kinetics, or see"),
        (["fitt"], "unknown command 'fitt'; choose one of fit, validate"),
        (["fit"], "the field 'data' is missing."),
        (["fit", "--trainer.max_epoch=3"],
         "unrecognized arguments: --trainer.max_epoch=3; did you mean 'max_epochs'"),
        (["fit", "--data", "Nope"], "unknown class 'Nope' at data; choose one of"),
        (["fit", "--config"], "argument -c/--config: expected one argument."),
        (["fit", "--config", "run.yaml", "--ckpt_path", "no.ckpt"],
         "run.yaml: ckpt_path: the file no.ckpt does not exist."),
        (["test", "--config", "run.yaml", "--ckpt_path", "junk.ckpt"],
         "run.yaml: ckpt_path: junk.ckpt is damaged, or holds more than tensors"),
        (["fit", "--config", "run.yaml", "--trainer.max_epochs=-3"],
         "run.yaml: `max_epochs` must be a non-negative integer or -1"),
    ],
)  # fmt: skip
def test_command_lines_with_mistakes(words, sentence, capsys):
    write_run()
    Path("junk.ckpt").write_bytes(b"junk")
    assert main(words) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert sentence in line and line.startswith("critical-periods: error: ")


@pytest.mark.parametrize(
    ("closing", "code", "says"),
    [
        ("<&-", 0, "2 missing."),
        (">&-", 0, None),
        (">&- 2>&-", 0, None),
        ("| true", 141, None),
        (
            "> /dev/full",
            2,
            "on the disk; free some, and run the same again.",
        ),
    ],
)
def test_standard_streams_that_are_closed_or_full(closing, code, says):
    folder, _ = planned(Path(), {"windows": {"removal": [0], "epochs_after": 1}, "seeds": [0, 1]})
    words = f"{sys.executable} -m critical_periods study status small.yaml --output {folder.path}"
    shell = f"{words} {closing}; exit ${{PIPESTATUS[0]}}"
    # Whoever reads is gone before the first word is said.
    found = subprocess.run(["bash", "-c", shell], capture_output=True, text=True)
    assert found.returncode == code and "Traceback" not in found.stderr
    assert says is None or (found.stdout + found.stderr).endswith(f"{says}\n")


def test_a_full_disk_leaves_no_half_of_a_checkpoint_of_lightning(capsys, monkeypatch):
    whole = Path.write_bytes

    def fill(self: Path, data: Any) -> None:
        whole(self, bytes(data[: len(data) // 2]))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", fill)
    assert main(["fit", "--config", write_run(), "--trainer.limit_train_batches", "1"]) == 2
    sentence = "there is no space left to write * epoch=0-step=1.ckpt; free some, and run the same"
    said = capsys.readouterr().err.rpartition("\n")[0].rpartition("\n")[2]
    assert all(part in said for part in sentence.split(" * "))
    assert not [*Path("runs").rglob("*.ckpt*")]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_folder_that_has_become_read_only_is_a_sentence(number, capsys, monkeypatch):
    def refuse(*args: Any) -> None:
        raise OSError(number, os.strerror(number), "out/results.csv.1.part")

    planned(Path())
    monkeypatch.setattr("critical_periods.studies.report.write_report", refuse)
    assert main(["study", "plot", "small.yaml", "--output", "out"]) == 2
    sentence = f"error: --output out cannot be written: {os.strerror(number)}.\n"
    assert capsys.readouterr().err.endswith(sentence)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_a_sentence(number, capsys, monkeypatch):
    """In a training, in a study's segment, which takes its half-written checkpoint away, ...."""

    def fill(self: Any, path: Any, *args: Any, **settings: Any) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("half")
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("pytorch_lightning.Trainer.save_checkpoint", fill)
    assert main(["fit", "--config", write_run()]) == 2
    sentence = "there is no space left on the disk; free some, and run the same again."
    assert capsys.readouterr().err.endswith(f"error: run.yaml: {sentence}\n")
    folder, plan = planned(Path(), {"windows": {"removal": [0], "epochs_after": 1}})
    worker.work(folder)
    (files,) = map(folder.segment, plan.segments)
    assert files.error.read_text() == f"{sentence}\n"
    assert not list(files.path.glob("checkpoint*")) and not files.is_done()
    # Where not even that can be written, the worker ends, rather than to try for ever.
    files.forget_failure()
    write = worker.write_text

    def refuse(path: Path, text: str) -> None:
        if path == files.error:
            raise OSError(number, os.strerror(number), str(path))
        write(path, text)

    monkeypatch.setattr(worker, "write_text", refuse)
    assert main(["study", "work", str(folder.path)]) == 2
    assert capsys.readouterr().err.endswith(f"error: {sentence}\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_study_that_is_stopped_says_what_is_kept(number, capsys, monkeypatch):
    study = write_study(Path(), {"windows": {"removal": [0], "epochs_after": 1}})
    stop = lambda *args: signal.raise_signal(number)  # noqa: E731
    monkeypatch.setattr("critical_periods.studies.launchers.local.launch", stop)
    assert main(["study", "run", str(study), "--output", "out"]) == 128 + number
    said = capsys.readouterr().err
    name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    kept = "0 of 1 segments are done and kept in out; the same command goes on from there."
    assert said.endswith(f"critical-periods: stopped by {name}; {kept}\n")


def test_a_second_ctrl_c_adds_nothing():
    """Not even where it comes while Python ends."""
    program = """
import atexit, signal, sys
from importlib import import_module
cli = import_module("critical_periods.cli.main")
cli._run = lambda argv: signal.raise_signal(signal.SIGINT)
atexit.register(signal.raise_signal, signal.SIGINT)
sys.exit(cli.main())
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    said = "critical-periods: stopped by Ctrl-C; what was saved and logged until then is kept.\n"
    assert (ended.returncode, ended.stderr) == (130, said)


def test_as_a_module(monkeypatch, capfd):
    """``python -m critical_periods`` is the command ``critical-periods``."""
    file = write_run({"data.init_args.width": 17})
    monkeypatch.delitem(sys.modules, "critical_periods.__main__", raising=False)
    monkeypatch.setattr(sys, "argv", ["critical-periods", "fit", "--config", file])
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    for run in (
        lambda: runpy.run_module("critical_periods", run_name="__main__"),
        lambda: sys.exit(resolve_name(scripts["critical-periods"])()),
    ):
        with pytest.raises(SystemExit) as ended:
            run()
        assert ended.value.code == 2
        out, err = capfd.readouterr()
        assert err.splitlines()[-1].startswith(f"critical-periods: error: {file}: width=17 of")
        assert "Traceback" not in err and "Tip:" not in err + out
