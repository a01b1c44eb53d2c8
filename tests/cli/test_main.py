"""The commands: what they run, and one sentence for each mistake of their user."""

import csv
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
import yaml
from small_study import write_run

from critical_periods.cli import main

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
