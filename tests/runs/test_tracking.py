"""Weights & Biases: what a run and a study log, and that neither waits for an account."""

import json
import os
import struct
import time
from pathlib import Path
from typing import Any

import pytest
import wandb
from small_study import write_run, write_study

from critical_periods.cli import main
from critical_periods.core.errors import UserError
from critical_periods.runs import tracking


def records(folder: Path) -> list[Any]:
    """All that a run wrote offline; its service goes on writing for a moment after it has ended."""
    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    deadline = time.monotonic() + 60
    while True:
        found = read_records(file)
        if any(record.HasField("exit") for record in found) or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


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
    assert main(["fit", "--config", write_run()]) == 0
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
    from critical_periods.studies import worker
    from critical_periods.studies.launchers import local

    monkeypatch.setattr(local, "launch", lambda folder, plan, jobs=None: worker.work(folder))
    windows = {"removal": [1], "epochs_after": 1}
    study = write_study(Path("."), {"windows": windows})
    assert main(["study", "run", str(study), "--output", "out"]) == 0
    runs = [run_of(path) for path in Path("out/segments").iterdir()]
    assert len(runs) == 3
    assert {run.run_group for run in runs} == {"small"} == {run_of(Path("out")).run_group}
    assert {run.job_type for run in runs} == {"segment"}
    assert all(settings_of(run)["data"]["class_path"] == "StereoDigitsDataModule" for run in runs)
    names = {f"seed 0, deficit {one}" for one in ("0-1, epochs 1-2", "none, epochs 0-2")}
    assert names <= {run.display_name for run in runs}

    summary = run_of(Path("out"))
    assert (summary.display_name, summary.job_type) == ("summary", "summary")
    (shown,) = [row for row in history(Path("out")) if "curve" in row]
    assert shown["curve"]["_type"] == "image-file"
    table = shown["curve_table"]
    assert table["_type"] == "table-file" and table["nrows"] == 2
    assert any(key.startswith("curve_chart") for key in shown)


def test_disabled(no_account, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert tracking.wandb_logger(Path("runs")) is None
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"WANDB_MODE": "online"}, r"WANDB_MODE=online, but there is no account \(see `wand.*\)"),
        ({"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"},
         r"Weights & Biases cannot be reached \(.*\)"),
    ],
)  # fmt: skip
def test_online_goes_offline(no_account, monkeypatch, environment, sentence):
    """Without an account, or without a network."""
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(tracking, "_SECONDS_TO_CONNECT", 2)
    sentence += "; logging offline, to be sent later with `wandb sync`."
    with pytest.warns(UserWarning, match=f"^{sentence}$"):
        logger = tracking.wandb_logger(Path("runs"))
    assert logger is not None
    logger.log_metrics({"loss": 1.0})
    logger.experiment.finish()
    assert history(Path("runs"))
    # The next segment of a study does not wait again.
    assert os.environ["WANDB_MODE"] == "offline"


@pytest.mark.parametrize(
    ("place", "by_name"), [("home/.netrc", False), ("home/_netrc", False), ("keys", True)]
)
def test_an_account_of_netrc_is_found(no_account, tmp_path, monkeypatch, place, by_name):
    netrc = tmp_path / place
    netrc.parent.mkdir(exist_ok=True)
    assert not tracking._has_account()
    netrc.write_text("machine api.wandb.ai\n  login user\n  password " + "0" * 40 + "\n")
    if by_name:
        assert not tracking._has_account()
        monkeypatch.setenv("NETRC", str(netrc))
    assert tracking._has_account()
    netrc.write_text("machine")
    assert not tracking._has_account()


def test_modes_that_do_not_exist(no_account, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "ofline")
    sentence = "WANDB_MODE='ofline' in the environment is unknown; did you mean 'offline'"
    with pytest.raises(UserError, match=sentence):
        tracking.wandb_logger(Path("runs"))
