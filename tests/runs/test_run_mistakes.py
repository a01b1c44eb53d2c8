"""Mistakes in the config of a run: one sentence each, before anything is written or trained."""

import os
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import yaml
from small_study import BASE, changed, write_run

from critical_periods.cli import main
from critical_periods.core.errors import UserError
from critical_periods.runs.lightning_cli import CLI

MISTAKES = yaml.safe_load(Path(__file__).with_name("mistakes.yaml").read_text())


@pytest.mark.parametrize("mistake", MISTAKES["config"])
def test_mistakes_in_configs(mistake):
    with pytest.raises(UserError) as caught:
        CLI(changed(BASE, mistake["set"]), run=False, logger=False)
    assert mistake["says"] in str(caught.value) and str(caught.value).endswith((".", "?", "!"))


@pytest.mark.parametrize("mistake", [*MISTAKES["config"][:5], *MISTAKES["dry_run"]])
def test_mistakes_on_the_command_line(mistake, capsys, monkeypatch):
    def train(*args: Any) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr("critical_periods.tasks.ClassificationTask.training_step", train)
    write_run(mistake["set"])
    assert mistake["says"] in refused(capsys)


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line about what is wrong with run.yaml; nothing has been written."""
    before = sorted(Path().rglob("*"))
    assert main(["fit", "--config", "run.yaml", *words]) == 2
    assert sorted(Path().rglob("*")) == before
    err = capsys.readouterr().err
    (line,) = [line for line in err.splitlines() if "error" in line]
    assert line.startswith("critical-periods: error: ") and "run.yaml" in line
    assert line.endswith((".", "?", "!")) and "Traceback" not in err
    return line


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "the file run.yaml does not exist."),
        ("a: [1\nb: 2", "run.yaml is not valid YAML: "),
        ("", "run.yaml holds no fields; it must be a YAML mapping."),
        ("# für mich", "the file run.yaml is not in UTF-8; save it so."),
    ],
)
def test_files_that_are_no_configs(text, sentence, capsys):
    if text is not None:
        Path("run.yaml").write_text(text, encoding="latin-1")
    assert sentence in refused(capsys)


def test_classes_of_a_file_that_a_config_names(capsys):
    """Short names are known that stand in neither the config nor the command line."""
    Path("network.yaml").write_text("{class_path: MLP, init_args: {wdth: 3}}")
    write_run({"model.init_args.network": None})
    line = refused(capsys, "--model.network=network.yaml")
    assert "unknown field 'wdth' of MLP at model.network; " in line


class Odd(torch.nn.Module):
    """Says what is wrong in two lines."""

    def __init__(self) -> None:
        super().__init__()
        raise ValueError("width must be even.\n  It is 3.")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--trainer.callbacks.onset=1"],
         "--trainer.callbacks.onset would be a field of the last callback, SourceVarianceMonitor, "
         "which has none of that name; change the config file, or name the callback before it: "
         "--trainer.callbacks+=CLASS."),
        (["--trainer.callbacks=[]", "--trainer.callbacks.onset=1"],
         "of the last callback, of which there is none; change the config file"),
        (["--trainer.callbacks.samples=x"], "trainer.callbacks.samples is 'x', but must be int."),
        ([f"--model.network={__name__}.Odd"], "width must be even. It is 3."),
    ],
)  # fmt: skip
def test_words_of_the_command_line(words, sentence, capsys):
    write_run()
    assert sentence in refused(capsys, *words)


def test_threads_hold_in_every_process(monkeypatch):
    """Lightning sets those of a distributed run by itself where the environment says nothing."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    CLI(BASE, run=False, logger=False)
    assert os.environ["OMP_NUM_THREADS"] == "1"


class Base(pl.LightningDataModule):
    def __init__(self, batch_size: int = 2) -> None:
        super().__init__()


class PassesOn(Base):
    def __init__(self, width: int = 3, **settings: Any) -> None:
        super().__init__(**settings)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("batch_size", "data.init_args.batch_size is null, but must be int."),
        ("batch_siz", "unknown field 'batch_siz' of PassesOn at data; did you mean 'batch_size'?"),
    ],
)
def test_settings_that_are_passed_on(setting, sentence):
    """A parameter that a class knows as ``**settings`` alone is a field like any other."""
    data = {"class_path": f"{__name__}.PassesOn", "init_args": {setting: None}}
    with pytest.raises(UserError) as caught:
        CLI(changed(BASE, {"data": data}), run=False, logger=False)
    assert str(caught.value) == sentence
