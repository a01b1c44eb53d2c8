"""What a study takes beside its training."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import torch
from bench_rows import Row, seconds

from critical_periods.cli import main
from critical_periods.studies.folder import StudyFolder, checksum_file, finalize_checkpoint
from critical_periods.studies.plan import Plan, make_plan
from critical_periods.studies.resolve import resolve
from critical_periods.studies.segment import train_segment
from critical_periods.studies.study import read_study

STUDY = Path(__file__).parents[2] / "experiments/studies/quickstart.yaml"
# A training step and a batch of validation, so that all the rest is what is measured.
SHORT = ("trainer.limit_train_batches=1", "trainer.limit_val_batches=1", "trainer.callbacks=[]")


def planned(folder: Path, changes: Sequence[str]) -> tuple[StudyFolder, Plan]:
    """The quickstart with some changes, planned in a folder."""
    study, files = read_study(STUDY, changes), StudyFolder(folder)
    plan = make_plan(study, *resolve(study))
    files.write_plan(plan)
    return files, plan


def many(runs: int) -> list[str]:
    """What makes so many runs of the quickstart; each removal has a control of its length."""
    return [f"windows.removal={[*range(50)]}", f"seeds={[*range(runs // 99)]}"]


def segment_rows(rounds: int) -> Iterator[Row]:
    """Segments of one step, logged offline, in a process that has trained others before."""
    threads = torch.get_num_threads()
    with TemporaryDirectory() as folder, patch.dict(os.environ, WANDB_MODE="offline"):
        study, plan = planned(
            Path(folder), [*SHORT, f"windows.removal={[*range(rounds + 5)]}", "seeds=[0]"]
        )
        # The trunk, whose segments are of an epoch each.
        names = [name for name, one in plan.segments.items() if one.window == (0, one.stop)]
        taken = [seconds(lambda: train_segment(study, plan, name)) for name in names]  # noqa: B023
        import wandb

        wandb.teardown()
    torch.set_num_threads(threads)
    found = [one / 0.4 for one in taken[4:]]
    yield Row("A segment of one step: start, checkpoint, logging", "0.4 s", found, 1, False)


def finished(study: StudyFolder, plan: Plan) -> None:
    """Has a study look as if it were finished."""
    keys = "epoch,train/loss,val/loss,val/accuracy\n"
    first = study.path / "one.ckpt"
    (study.path / "part").write_bytes(bytes(1000))
    finalize_checkpoint(study.path / "part", first)
    for name, segment in plan.segments.items():
        one = study.segment(name)
        one.path.mkdir(parents=True)
        os.link(first, one.checkpoint)
        os.link(checksum_file(first), checksum_file(one.checkpoint))
        rows = [f"{epoch},0.5,0.5,0.{900 + segment.seed % 10}\n" for epoch in range(segment.stop)]
        one.metrics.write_text("".join([keys, *rows]))
        one.mark_done({})


def resuming_rows(rounds: int, runs: int) -> Iterator[Row]:
    """A finished study that is run again, beside what is imported for it."""
    with TemporaryDirectory() as folder, patch.dict(os.environ, WANDB_MODE="disabled"):
        study, plan = planned(Path(folder), [*SHORT, *many(runs)])
        finished(study, plan)
        words = [str(STUDY), "--output", folder]
        for change in (*SHORT, *many(runs)):
            words += ["--set", change]

        def resume() -> None:
            with redirect_stdout(Path(os.devnull).open("w")):
                main(["study", "run", *words])

        taken = [seconds(resume) for _ in range(rounds + 1)][1:]
        what = f"{len(plan.segments):,} finished segments"
        yield Row(f"`study run` of {what}", "10 s", [one / 10 for one in taken], 1, False)
        status = [in_process("study", "status", *words) / 1.5 for _ in range(rounds)]
        yield Row(f"`study status` of {what}", "1.5 s", status, 1, False)


def in_process(*words: str) -> float:
    """Processor seconds of a command in a process of its own."""
    before = os.times()
    arguments = [sys.executable, "-m", "critical_periods", *words]
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return (
        after.children_user + after.children_system - before.children_user - before.children_system
    )


def command_rows(rounds: int, runs: int) -> Iterator[Row]:
    """Seconds of commands, over what they may take."""
    plan, changes = ["study", "plan", str(STUDY)], many(runs)
    commands = {"help": ["--help"], "plan": plan}
    commands["many"] = [*plan, "--set", changes[0], "--set", changes[1]]
    taken = [{n: in_process(*words) for n, words in commands.items()} for _ in range(rounds)]
    what = f"`study plan` of {99 * (runs // 99):,} runs beyond the quickstart's"
    plans = [(one["many"] - one["plan"]) / 2 for one in taken]
    yield Row(what, "2 seconds", plans, 1, False)
    help_ = [one["help"] / 1.5 for one in taken]
    yield Row("`critical-periods --help`", "1.5 s", help_, 1, False)
