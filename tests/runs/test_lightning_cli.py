"""What the command line adds to LightningCLI: threads, batches, and safe checkpoints."""

import csv
import errno
import functools
import os
import pickle
from pathlib import Path
from typing import Any

import fsspec
import pytest
import pytorch_lightning as pl
import torch
from small_study import write_run

from critical_periods.cli import main
from critical_periods.runs.lightning_cli import CLI


def test_fit_goes_on_from_a_checkpoint():
    """Through the command line too, the same bits as without stopping."""

    def weights(run: str) -> dict[str, torch.Tensor]:
        (path,) = Path(run).glob("checkpoints/*.ckpt")
        state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
        return state

    words = ["fit", "--config", write_run({"trainer.callbacks": None})]
    assert main([*words, "--trainer.max_epochs=4"]) == 0
    assert main([*words, "--trainer.max_epochs=2"]) == 0
    (checkpoint,) = Path("runs/version_1/checkpoints").glob("*.ckpt")
    assert main([*words, "--trainer.max_epochs=4", "--ckpt_path", str(checkpoint)]) == 0
    whole, resumed = weights("runs/version_0"), weights("runs/version_2")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert any(
        not torch.equal(whole[name], value) for name, value in weights("runs/version_1").items()
    )


def test_a_mean_of_an_epoch_is_of_all_of_it():
    """Also where a run went on within it, from a stop or from a checkpoint on the way."""
    saver = {"every_n_train_steps": 1, "save_top_k": -1, "filename": "{step}", "dirpath": "passed"}
    # Five batches an epoch.
    file = write_run({
        "trainer.callbacks": [{"class_path": "ModelCheckpoint", "init_args": saver}],
        "data.init_args.limit_train": 100, "data.init_args.batch_size": 20, "trainer.logger": {
            "class_path": "CSVLogger", "init_args": {"save_dir": ".", "name": "logs"},
        },
    })  # fmt: skip

    def losses(version: str, *words: str) -> dict[str, str]:
        words = (*words, f"--trainer.logger.version={version}")
        assert main(["fit", "--config", file, *words]) == 0
        with open(f"logs/{version}/metrics.csv") as rows:
            return {row["epoch"]: row["train/loss"] for row in csv.DictReader(rows)
                    if row["train/loss"]}  # fmt: skip

    whole = losses("whole")
    for step in (1, 4, 5, 6):
        to_stop = (f"--trainer.max_steps={step}", f"--trainer.callbacks.dirpath=stopped_{step}")
        losses(f"to_{step}", *to_stop)
        for folder in (f"stopped_{step}", "passed"):
            go_on = ("--ckpt_path", f"{folder}/step={step}.ckpt", "--trainer.callbacks=[]")
            resumed = losses(f"{folder}_from_{step}", *go_on)
            # The last batch's checkpoint is followed by none that the mean could be logged with.
            logged = {"0", "1"} if step < 5 else {"1"}
            assert resumed == {epoch: whole[epoch] for epoch in logged}, (folder, step)


def test_checkpoints_are_never_half_written(monkeypatch, capsys):
    """Where the disk is full, what was there stays; plugins of the user's write as they do."""
    words = ["fit", "--config", write_run({"trainer.callbacks": None})]
    checkpoint = {"filename": "c", "enable_version_counter": False, "dirpath": "x"}
    more = [f"--trainer.callbacks.{name}={value}" for name, value in checkpoint.items()]
    words += ["--trainer.callbacks=ModelCheckpoint", *more]
    assert main([*words, "--trainer.max_epochs=1"]) == 0
    old, write = Path("x/c.ckpt").read_bytes(), Path.write_bytes

    def fill(self: Path, data: Any) -> int:
        write(self, data[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", fill)
    capsys.readouterr()
    assert main(words) == 2
    full = f"there is no space left to write {Path('x/c.ckpt').absolute()}; free some, and"
    assert full in capsys.readouterr().err
    assert Path("x/c.ckpt").read_bytes() == old and [*Path("x").iterdir()] == [Path("x/c.ckpt")]
    plugin = "lightning_fabric.plugins.TorchCheckpointIO"
    assert main([*words, f"--trainer.plugins+={plugin}"]) == 2


def test_checkpoints_execute_nothing(here, capsys):
    class Attack:
        def __reduce__(self) -> Any:
            return (Path.touch, (here / "executed",))

    torch.save({"state_dict": {}, "attack": Attack()}, "attack.ckpt")
    Path("plain.ckpt").write_bytes(pickle.dumps(Attack(), protocol=2))
    commands = [(command, "attack.ckpt") for command in ("fit", "validate", "test", "predict")]
    for command, checkpoint in (*commands, ("fit", "plain.ckpt")):
        assert main([command, "--config", write_run(), "--ckpt_path", checkpoint]) == 2
        assert "so it was not loaded." in capsys.readouterr().err
    assert not (here / "executed").exists()


def test_unsafe_loading_is_never_the_default(monkeypatch):
    """Whatever Lightning would do where nothing is said, as for a checkpoint of another machine."""
    seen = {}

    @functools.wraps(pl.Trainer.fit)  # for its arguments
    def fit(self: pl.Trainer, *args: Any, **settings: Any) -> None:
        seen.update(settings)

    monkeypatch.setattr(pl.Trainer, "fit", fit)
    fsspec.filesystem("memory").touch("x.ckpt")
    assert main(["fit", "--config", write_run(), "--ckpt_path", "memory://x.ckpt"]) == 0
    assert seen["weights_only"] is True


def test_checkpoints_of_other_runs(here, capsys):
    words = ["--config", write_run({"trainer.callbacks": None}), "--trainer.max_epochs=1"]
    assert main(["fit", *words]) == 0
    (checkpoint,) = Path("runs").rglob("*.ckpt")
    assert main(["fit", *words, "--model.optimizer=Adam"]) == 0
    (adam,) = set(Path("runs").rglob("*.ckpt")) - {checkpoint}
    torch.save({"a": 1}, "other.ckpt")
    whole = torch.load(checkpoint, weights_only=True)
    weights = {name: whole[name] for name in ("state_dict", "pytorch-lightning_version")}
    torch.save(weights, "weights.ckpt")
    torch.save({"state_dict": weights["state_dict"]}, "plain.ckpt")
    written = set(Path().rglob("*"))
    another = "is of another run than this config describes "
    narrow = "--model.network.init_args.width=2"
    for command, path, more, sentence in (
        ("fit", "other.ckpt", [], f"other.ckpt {another}(it has no 'state_dict')"),
        ("fit", "weights.ckpt", [], f"weights.ckpt {another}(it has no 'optimizer_states')"),
        ("test", "plain.ckpt", [], f"{another}(it has no 'pytorch-lightning_version')"),
        ("fit", here, [], "is a folder, not a checkpoint."),
        ("fit", checkpoint, [narrow], "size mismatch for network.pathways.0.stem.conv.weight"),
        ("test", checkpoint, [narrow], "size mismatch for network.pathways.0.stem.conv.weight"),
        ("fit", checkpoint, ["--model.optimizer=Adam"], f"{another}(it has no 'step')"),
        ("fit", adam, [], "the state of the optimizer is not that of SGD, as it has no 'momentum'"),
        ("fit", "best", [], "there is no checkpoint for 'best' ("),
        ("fit", "hpc", [], "there is no checkpoint for 'hpc' ("),
        ("fit", "", [], "is empty; name a file"),
        ("fit", "registry", [], "the file registry does not exist."),
        ("fit", "memory://no.ckpt", [], "memory://no.ckpt cannot be read: there is no such file."),
        ("fit", "nowhere://x.ckpt", [], "nowhere://x.ckpt cannot be read: Protocol not known"),
    ):
        capsys.readouterr()
        assert main([command, *words, f"--ckpt_path={path}", *more]) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
        assert line.startswith("critical-periods: error: run.yaml: ckpt_path")
        assert sentence in line
    # All of it is found before a logger has made anything.
    assert set(Path().rglob("*")) == written
    assert main(["test", *words, "--ckpt_path=weights.ckpt"]) == 0


def test_a_checkpoint_of_another_run_of_a_third_party(capsys, monkeypatch):
    words = ["test", "--config", write_run({"trainer.callbacks": None})]
    monkeypatch.setattr("critical_periods.runs.lightning_cli.is_ours", lambda part: False)
    whole = {"state_dict": {}, "pytorch-lightning_version": pl.__version__}
    torch.save(whole, "empty.ckpt")
    assert main([*words, "--ckpt_path=empty.ckpt"]) == 2
    sentence = "run.yaml: ckpt_path: empty.ckpt is of another run than this config describes (Error"
    assert sentence in capsys.readouterr().err


def test_threads_are_set(monkeypatch):
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    file = write_run({"num_threads": 3})
    assert main(["fit", "--config", file, "--trainer.fast_dev_run=true"]) == 0
    assert asked == [3]


@pytest.mark.parametrize("batches", ["1", "1.0", "2", "0.5", "null"])
def test_one_batch_is_not_all_of_them(capsys, batches):
    words = ["fit", "--config", write_run(), f"--trainer.limit_train_batches={batches}"]
    with pytest.raises(SystemExit):
        main([*words, "--print_config"])
    assert f"  limit_train_batches: {batches}\n" in capsys.readouterr().out


def test_one_command_needs_no_parser_of_the_others(monkeypatch):
    made, prepare = [], CLI._prepare_subcommand_parser

    def count(self: CLI, kind: type, name: str, **settings: Any) -> Any:
        made.append(name)
        return prepare(self, kind, name, **settings)

    monkeypatch.setattr(CLI, "_prepare_subcommand_parser", count)
    for words, commands in (
        (["test"], ["test"]), (["--print_config"], ["fit", "validate", "test", "predict"]),
    ):  # fmt: skip
        with pytest.raises(SystemExit):
            CLI([*words, "--help"])
        assert made == commands
        made.clear()


def test_no_epoch_at_all():
    file = write_run({"trainer.callbacks": None})
    assert main(["fit", "--config", file, "--trainer.max_epochs=0"]) == 0
