"""Weights & Biases: what a run and a study log, and that neither waits for an account."""

import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import wandb
from PIL import Image
from small_study import planned, write_run, write_study
from wandb.sdk.mailbox import MailboxClosedError
from wandb_files import read_records, rows_of

from critical_periods.cli import main
from critical_periods.core.errors import UserError
from critical_periods.core.processes import STOPPED, exit_code
from critical_periods.plots import curve as curves
from critical_periods.runs import tracking
from critical_periods.runs.config_files import read_yaml
from critical_periods.studies import loading, report, segment, worker
from critical_periods.studies import tracking as tracking_of_paths
from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.plan import Plan, Segment
from critical_periods.studies.summary import _tables

SWEEPS = Path(__file__).parents[2] / "experiments" / "sweeps"


def records(folder: Path, id_: str = "*") -> list[Any]:
    """All that a run wrote offline; its service goes on writing for a moment after it has ended."""
    deadline = time.monotonic() + 60
    while True:
        files = [*folder.glob(f"wandb/offline-run-*/run-{id_}.wandb")]
        assert len(files) <= 1
        found = read_records(files[0]) if files else []
        if any(record.HasField("exit") for record in found) or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def history(folder: Path, id_: str = "*") -> list[dict[str, Any]]:
    """The steps that a run logged."""
    return rows_of(records(folder, id_))


@pytest.fixture
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    # It reads the environment once in a process, and leaves where its service is there: to be
    # ended before monkeypatch keeps what it removes, and put back no address of one that is over.
    wandb.teardown()
    for name in [name for name in os.environ if name.startswith("WANDB_") or name == "NETRC"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    # What the code sets for the process goes when the test does.
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setattr("sys.stdin", None)
    yield
    wandb.teardown()


def run_of(folder: Path, id_: str = "*") -> Any:
    (run,) = [record.run for record in records(folder, id_) if record.HasField("run")]
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


def summary_of(folder: Path, plan: Plan) -> str:
    """The id of the one run of a study that is none of its paths."""
    ids = {path.name.rpartition("-")[2] for path in folder.glob("wandb/offline-run-*")}
    (id_,) = ids - set(plan.segments)
    return id_


def test_packages_are_listed_once_for_all_runs_of_a_process(no_account, monkeypatch):
    looked: list[int] = []
    monkeypatch.setattr(wandb.util, "working_set", lambda: looked.append(1) or [])
    for id_ in "ab":
        logger = tracking.wandb_logger(Path("out"), id_)
        assert logger is not None and logger.finish(0)
    assert len(looked) == 1


def test_a_study_is_one_group_with_a_summary(no_account, monkeypatch):
    """A run a path, whole from epoch 0; the summary has the tables after each run that ended."""
    from critical_periods.studies.launchers import local

    monkeypatch.setattr(local, "launch", lambda folder, *_: worker.work(folder) or [])
    fields = {
        "windows": {"removal": [0, 1], "epochs_after": 1}, "seeds": [3],
        "vary": {"model.init_args.optimizer.init_args.lr": [0.05, 0.1]}, "log_artifacts": True,
    }  # fmt: skip
    base = {"trainer.callbacks.0.init_args.every_n_epochs": 1}
    base |= {"data.init_args.limit_train": 50}
    study = write_study(Path("."), fields, base)
    assert main(["study", "run", str(study), "--output", "out"]) == 0
    plan = StudyFolder(Path("out")).read_plan()
    leaves = set(plan.segments) - {one.parent for one in plan.segments.values()}
    summary_id = summary_of(Path("out"), plan)
    assert len([*Path("out/wandb").glob("offline-run-*")]) == len(leaves) + 1 == 5
    names, fields_of = [], []
    for leaf in leaves:
        run = run_of(Path("out"), leaf)
        settings = settings_of(run)
        assert (run.run_group, run.job_type) == ("small", "run")
        assert settings["data"]["class_path"] == "StereoDigitsDataModule"
        names.append(run.display_name)
        flat = ("deficit", "onset", "removal", "length", "seed", "lr")
        fields_of.append(tuple(settings[name] for name in flat))
        assert exit_code_of(Path("out"), leaf) == 0
        # Every epoch once, as the tables have it, with the histogram of the trunk's epochs too.
        rows, table = history(Path("out"), leaf), StudyFolder(Path("out")).segment(leaf).history()
        assert [row["epoch"] for row in rows] == list(range(plan.segments[leaf].stop))
        for row, cells in zip(rows, table, strict=True):
            assert {"rsv/trunk.conv", "rsv/trunk.conv/channels"} <= row.keys()
            for key, cell in cells.items():
                assert row[key] == float(cell)
    expected = [
        f"lr = {lr}, {what}, seed 3"
        for lr in (0.05, 0.1)
        for what in ("Blur 0-1", "no deficit, 2 epochs")
    ]
    assert sorted(names) == sorted(expected)
    assert sorted(fields_of) == sorted(
        (kind, 0, end, end, 3, lr) for lr in (0.05, 0.1) for kind, end in (("Blur", 1), ("none", 0))
    )

    summary = run_of(Path("out"), summary_id)
    assert (summary.display_name, summary.job_type) == ("summary", "summary")
    rows = history(Path("out"), summary_id)
    assert [row["runs"] for row in rows] == list(range(1, len(plan.runs) + 1))
    assert [row["results_table"]["nrows"] for row in rows] == [row["runs"] for row in rows]
    shown = rows[-1]
    pictures = {"curve", "rsv_lr_0_05", "rsv_through_epochs lr = 0.05", "seen"}
    assert all(shown[name]["_type"] == "image-file" for name in pictures & shown.keys())
    assert pictures <= shown.keys(), shown.keys()
    assert shown["curve_table"]["_type"] == "table-file" and shown["curve_table"]["nrows"] == 4
    assert all(any(key.startswith("curve_chart") for key in row) for row in rows)
    artifacts = [one.artifact for one in records(Path("out"), summary_id)]
    (study_files,) = [one for one in artifacts if one.type == "study"]
    assert [one.path for one in study_files.manifest.contents] == [
        "curve.csv", "plan.json", "results.csv",
    ]  # fmt: skip


class Ends(pl.Callback):
    """Ends a run in its first epoch."""

    def __init__(self, how: str) -> None:
        self.how = how

    def on_train_epoch_end(self, *args: Any) -> None:
        if self.how == "crash":
            raise RuntimeError("a crash")
        signal.raise_signal(signal.SIGINT if self.how == "Ctrl-C" else signal.SIGTERM)


@pytest.fixture
def signals() -> Iterator[None]:
    """Lightning leaves Ctrl-C ignored behind."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def exit_code_of(folder: Path, id_: str = "*") -> int:
    (code,) = [one.exit.exit_code for one in records(folder, id_) if one.HasField("exit")]
    return int(code)


@pytest.mark.parametrize(("how", "code"), [("crash", 1), ("Ctrl-C", 130), ("SIGTERM", 143)])
def test_how_a_run_ended_is_in_its_exit_code(no_account, signals, capsys, how, code):
    """Of ``fit``, whose process has it too, and of a segment."""
    ends = {"class_path": f"{__name__}.Ends", "init_args": {"how": how}}
    words = ["fit", "--config", write_run({"trainer.callbacks": [ends]})]
    interrupt = signal.getsignal(signal.SIGINT)
    if code == 1:
        with pytest.raises(RuntimeError, match="a crash"):
            main(words)
    else:
        assert main(words) == code
        said = f"critical-periods: stopped by {how}; what was saved and logged until then is kept."
        assert capsys.readouterr().err.endswith(said + "\n")
    assert exit_code_of(Path("runs")) == code

    signal.signal(signal.SIGINT, interrupt)
    windows = {"removal": [0], "epochs_after": 2}
    folder, plan = planned(Path(), {"windows": windows}, {"trainer.callbacks": [ends]})
    (name,) = plan.segments
    with pytest.raises(BaseException) as ended:
        segment.train_segment(folder, plan, name)
    assert exit_code(ended.value) == exit_code_of(folder.path) == code


def test_the_environment_is_heeded_and_a_sweep_names_one_run_alone(no_account, monkeypatch):
    said = {"PROJECT": "mine", "ENTITY": "lab", "DIR": "there", "RUN_GROUP": "ours", "TAGS": "x,y"}
    for name, value in {**said, "RUN_ID": "of-a-sweep"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    file = write_run({"trainer.callbacks": [], "trainer.max_epochs": 1})
    assert main(["fit", "--config", file]) == 0
    run = run_of(Path("there"))
    assert (run.project, run.entity, run.run_group) == ("mine", "lab", "ours")
    assert run.run_id == "of-a-sweep" and list(run.tags) == ["x", "y"]
    assert not Path("runs/wandb").exists()

    monkeypatch.setenv("WANDB_DIR", "study")
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    wandb.teardown()
    fields = {"windows": {"removal": [0], "epochs_after": 1}, "seeds": [0, 1]}
    folder, plan = planned(Path(), fields, {"trainer.callbacks": []})
    worker.work(folder)
    runs = [run_of(Path("study"), name) for name in plan.segments]
    assert [run.run_id for run in runs] == list(plan.segments)
    known = {(run.project, run.run_group, *sorted(run.tags)[-2:]) for run in runs}
    assert known == {("mine", "ours", "x", "y")}

    # The summary is one run, whose last words are kept.
    for _ in range(2):
        report.write_report(folder, plan)
    ids = [path.name.rpartition("-")[2] for path in Path("study/wandb").glob("offline-run-*")]
    (summary,) = set(ids) - set(plan.segments)
    assert len(ids) == 3 and run_of(Path("study"), summary).display_name == "summary"


def test_the_chart_calls_lines_what_the_figures_call_them():
    window = {"onset": 0, "removal": [0, 2], "epochs": [2, 4]}
    curve = pd.DataFrame({"x.depth": 8, "x.lr": 0.1, **window, "final_accuracy": 0.5})
    chart = _tables({"curve": curve}, "small")["curve_chart"]
    assert {row[1] for row in chart.table.data} == {"depth = 8, lr = 0.1"}


def test_a_report_makes_tables_and_figures_once(no_account, monkeypatch):
    """For its files, for the page and for the summary."""
    folder, plan = planned(Path(), {"windows": {"removal": [0, 1], "epochs_after": 1}})
    worker.work(folder)
    made: Counter[str] = Counter()

    def counting(name: str, make: Any) -> Any:
        return lambda *of, **settings: made.update([name]) or make(*of, **settings)

    for name, make in loading._ROWS.items():
        monkeypatch.setitem(loading._ROWS, name, counting(name, make))
    for module, name in ((curves, "plot_curve"), (loading, "curve")):
        monkeypatch.setattr(module, name, counting(name, getattr(module, name)))
    assert main(["study", "report", "small.yaml", "--output", "out"]) == 0
    assert made == Counter([*loading._ROWS, "plot_curve", "curve"])
    summary = summary_of(Path("out"), plan)
    assert {"curve", "rsv"} <= history(Path("out"), summary)[-1].keys()
    (media,) = Path("out/wandb").glob(f"offline-run-*-{summary}/files/media/images/curve_*.png")
    with Image.open(media) as sent, Image.open("out/curve.png") as saved:
        assert np.array_equal(sent, saved.convert("RGB"))


def test_a_run_for_trial_is_not_logged(no_account):
    file = write_run({"trainer.callbacks": [{"class_path": "LearningRateMonitor"}]})
    assert main(["fit", "--config", file, "--trainer.fast_dev_run=true"]) == 0
    assert not list(Path().rglob("*.wandb")) and not list(Path().rglob("metrics.csv"))


@pytest.mark.parametrize("what", ["service", "finish"])
def test_no_failure_of_its_own_ends_a_training(no_account, monkeypatch, what):
    """Its service is killed as on a cluster, or it raises at the end; the next run has all."""
    fields = {"windows": {"removal": [0], "epochs_after": 2}, "seeds": [0, 1]}
    folder, plan = planned(Path(), fields)
    first, second = plan.segments
    killed: list[int] = []

    def kill(self: Any, trainer: Any, *args: Any) -> None:
        if not killed:
            process = wandb.setup().ensure_service()._proc._process  # type: ignore[union-attr]
            killed.append(process.pid)
            process.kill()
            process.wait()

    def fail(*args: Any, **settings: Any) -> None:
        raise ConnectionResetError("Connection lost")

    with monkeypatch.context() as patch:
        if what == "service":
            patch.setattr(segment.SegmentRecord, "on_train_epoch_start", kill)
        else:
            patch.setattr(wandb.Run, "finish", fail)
        with pytest.warns(UserWarning, match=r"has failed \(.*\); the run goes on without it"):
            segment.train_segment(folder, plan, first)
    assert folder.segment(first).is_done() and bool(killed) == (what == "service")
    if killed:
        # All is said again to a service of its own.
        assert [row["epoch"] for row in history(folder.path, first)] == [0, 1]
        assert exit_code_of(folder.path, first) == 0
    segment.train_segment(folder, plan, second)
    assert exit_code_of(folder.path, second) == 0


def test_a_service_that_is_lost_between_runs_takes_none_with_it(no_account, monkeypatch):
    """wandb has noticed that it is gone, so that the next run meets a closed mailbox."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    process = wandb.setup().ensure_service()._proc._process  # type: ignore[union-attr]
    process.kill()
    process.wait()
    with pytest.raises((ConnectionError, MailboxClosedError)):
        wandb.init(dir="probe")
    tracking.wandb_logger(Path(), "ab").finish(0)
    assert exit_code_of(Path(), "ab") == 0


@pytest.mark.parametrize("ending", ["queue", "sent", "killed"])
def test_a_run_that_goes_on_has_every_epoch_once(no_account, monkeypatch, ending):
    """After Slurm has ended its task, after its files were sent, and after its process was killed.

    Its second stage is a part of it, whose epochs are counted on.
    """
    monkeypatch.setattr(segment, "_SECONDS_BETWEEN_CHECKPOINTS", -1)
    monkeypatch.setattr(segment, "with_weights", lambda config, path: config)
    folder, plan = planned(Path(), {"windows": {"removal": [2], "epochs_after": 2}})
    run = next(run for run in plan.runs if run.window.onset < run.window.removal)
    plan.configs.append((plan.configs[0][0], {}))
    plan.add(Segment("tuned", run.segment, 0, 2, (0, 2), 0, config=1, finetunes=True))
    plan.runs[plan.runs.index(run)] = run = dataclasses.replace(run, segment="tuned")
    trunk, after, tuned = [one.name for one in reversed([*plan.lineage(run.segment)])]
    segment.train_segment(folder, plan, trunk)
    calls: list[int] = []

    def is_told() -> bool:
        calls.append(1)
        return len(calls) > 1  # at the end of an epoch of two steps

    if ending == "queue":
        with pytest.raises(segment.StoppedError):
            segment.train_segment(folder, plan, after, is_told)
        assert exit_code_of(folder.path, tuned) == STOPPED
        assert any(one.HasField("preempting") for one in records(folder.path, tuned))
    else:
        with monkeypatch.context() as patch:
            patch.setattr(segment.SegmentRecord, "_ends", lambda *_: is_told())
            patch.setattr(tracking_of_paths.PathTracking, "finish", lambda *_: None)
            with pytest.raises(segment.StoppedError):
                segment.train_segment(folder, plan, after)
            wandb.teardown(1)
        if ending == "sent":
            (file,) = folder.path.glob(f"wandb/*-{tuned}/run-{tuned}.wandb")
            file.with_suffix(".wandb.synced").touch()
            time.sleep(1)
    for name in (after, tuned):
        segment.train_segment(folder, plan, name)
    left = sorted(folder.path.glob(f"wandb/offline-run-*-{tuned}"))
    assert len(left) == 1 + (ending == "sent")
    if ending == "sent":
        shutil.rmtree(left[0])
    rows = history(folder.path, tuned)
    assert [row["epoch"] for row in rows] == list(range(6))
    cells = folder.segment(after).history() + folder.segment(tuned).history()
    assert [row["val/loss"] for row in rows] == [float(one["val/loss"]) for one in cells]
    assert ["rsv/trunk.conv" in row for row in rows] == [False, True] * 3
    assert exit_code_of(folder.path, tuned) == 0


def test_what_was_not_sent_of_a_run_is_forgotten(no_account, monkeypatch):
    """Also of the second folder of a second, and of a start whose service was killed."""
    init = wandb.init

    def killed(**settings: Any) -> None:
        monkeypatch.setattr(wandb, "init", init)
        Path(f"{second}-ab-3").mkdir()
        raise ConnectionResetError("Connection lost")

    second = "wandb/offline-run-20260101_000000"
    for name in ("ab", "ab-1", "ab-12", "ab-2", "abc", "c-ab", "ab-c"):
        Path(f"{second}-{name}").mkdir(parents=True)
    Path(f"{second}-ab-2", "run-ab.wandb.synced").touch()
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(wandb, "init", killed)
    tracking.wandb_logger(Path(), "ab").finish(0)
    left = {str(path) for path in Path("wandb").glob("offline-run-20260101*")}
    assert left == {f"{second}-{name}" for name in ("ab-2", "abc", "c-ab", "ab-c")}


def test_a_server_that_never_answers_costs_seconds(no_account, monkeypatch):
    """It takes connections and says nothing; the training goes on offline."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setattr(tracking, "_SECONDS_TO_ANSWER", 0.5)
        folder, plan = planned(Path(), {"windows": {"removal": [0], "epochs_after": 1}})
        began = time.monotonic()
        with pytest.warns(UserWarning, match=r"cannot be reached \(.*timed out.*\); logging off"):
            worker.work(folder)
        assert time.monotonic() - began < 30
    (leaf,) = plan.segments
    assert folder.segment(leaf).is_done() and len(history(folder.path, leaf)) == 1


@pytest.mark.parametrize("kind", ["fit", "study"])
def test_the_sweep_files_drive_our_commands(no_account, monkeypatch, capsys, kind):
    """The command is expanded as the agent of Weights & Biases does it."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    file = read_yaml(SWEEPS / f"{kind}.yaml")
    chosen = {name: {"value": of["values"][0]} for name, of in file["parameters"].items()}
    found = create_sweep_command_args({"args": chosen})
    found |= {"env": ["/usr/bin/env"], "interpreter": ["python"]}
    command = create_sweep_command(file["command"])
    words = [one for c in command for one in (found[c[2:-1]] if c.startswith("${") else [c])]
    # What a shell hands to Python is run in this one.
    python = Path("python")
    python.write_text("#!/bin/bash\nprintf '%s\\n' \"$@\"\n")
    python.chmod(0o755)
    variables = {"PATH": f"{Path().absolute()}:{os.environ['PATH']}", "WANDB_RUN_ID": "one"}
    said = subprocess.run(words, env=os.environ | variables, capture_output=True, text=True).stdout
    module, name, *words = said.splitlines()
    assert (module, name) == ("-m", "critical_periods")
    Path("experiments").symlink_to(SWEEPS.parent)
    # The words are those of the file, but for how long this takes.
    small = {"fit": ["--trainer.fast_dev_run=true"], "study": []}[kind]
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    assert main([word if word != "run" else "plan" for word in [*words, *small]]) == 0
    assert kind == "fit" or "epochs" in capsys.readouterr().out


def test_a_folder_that_cannot_be_made(no_account, monkeypatch):
    Path("file").touch()
    monkeypatch.setenv("WANDB_DIR", "file/there")
    with pytest.raises(UserError, match="file/there of Weights & Biases cannot be made: Not a "):
        tracking.wandb_logger(Path("runs"))


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
