"""The plan of a study as its commands make, keep, read and finish it."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from errno import EACCES, EPERM, EROFS
from importlib import import_module
from itertools import product
from typing import TYPE_CHECKING

from critical_periods.core.errors import UserError, reason
from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.launchers.batch_script import NEXT
from critical_periods.studies.outline import outline
from critical_periods.studies.plan import Plan, make_plan
from critical_periods.studies.rounds import has_ended, stage
from critical_periods.studies.study import Study, read_study

if TYPE_CHECKING:
    from critical_periods.studies.adaptive import Rounds


def new_plan(
    options: argparse.Namespace, folder: StudyFolder | None
) -> tuple[Plan, "Rounds | None"]:
    """The plan of a study file, and of an adaptive study what chooses its next runs."""
    from critical_periods.studies.adaptive import Rounds
    from critical_periods.studies.resolve import resolve
    from critical_periods.studies.roles import left_out

    read = read_study(options.study, options.set)
    try:
        rounds = None if read.adaptive is None else Rounds(read)
        plan = rounds.plan(folder) if rounds else make_plan(read, *resolve(read))
    except UserError as error:
        raise UserError(f"{options.study} (base {read.base_file}): {error}") from error
    names = dict.fromkeys(
        name for config, _ in plan.configs for name in left_out(config["trainer"])
    )
    if names:
        print(
            f"Segments go without {', '.join(names)}; a study saves, logs and shows its progress "
            "by itself.",
            file=sys.stderr,
        )
    return plan, rounds


def prepared_plan(options: argparse.Namespace, folder: StudyFolder) -> tuple[Plan, "Rounds | None"]:
    """The plan of a study, in its folder; what is damaged or has failed there is trained again.

    And, of an adaptive study, what chooses its next runs.
    """
    plan, rounds = new_plan(options, folder)
    before = None
    with suppress(UserError, OSError):  # There is none, or a damaged one, which is written anew.
        before = folder.read_plan()
    if before is not None:
        _check_owner(folder, before, plan.study)
    if rounds is not None:
        rounds.take_up(folder, before)
    plan = folder.settled(plan)
    folder.write_plan(plan)
    print(outline(plan))
    say_design(plan)
    for name in folder.discard_damaged(plan):
        print(f"Segment {name} is damaged; it is trained again.")
    for name in plan.segments:
        folder.segment(name).forget_failure()
    return plan, rounds


def kept_plan(options: argparse.Namespace) -> tuple[StudyFolder, Plan]:
    """The folder and the plan that was last run in it; a message where the file has others."""
    folder = StudyFolder(options.output)
    read, plan = read_study(options.study, options.set), folder.read_plan()
    _check_owner(folder, plan, read.name)
    runs = product(read.variations, read.windows, read.seeds)
    wanted = {repr((variation.columns, window, seed)) for variation, window, seed in runs}
    if read.adaptive is not None and plan.adaptive is not None:
        has_others = not plan.adaptive.is_of(read.adaptive, read.seeds)
    else:
        has_others = wanted != {repr((run.variation, run.window, run.seed)) for run in plan.runs}
    if has_others:
        print(
            f"{options.study} has other runs than were last run in {folder.path}, which this is "
            "about; see `critical-periods study plan`.",
            file=sys.stderr,
        )
    elif changes := _changes_in_file(read, plan):
        print(
            f"{options.study} has another design than was last run in {folder.path}, whose rule "
            f"holds here ({changes}).",
            file=sys.stderr,
        )
    return folder, plan


def _changes_in_file(read: Study, plan: Plan) -> str:
    """What is another in the design of a study file than in a plan, in words."""
    if read.design is None or plan.design is None:
        return ""
    return plan.design.changes(replace(read.design, trained=plan.design.trained))


def say_design(plan: Plan) -> None:
    """Says where the design of a verdict was changed after training had begun."""
    if plan.design_changes:
        print(f"The design was changed after training had begun: {plan.design_changes}.")


def _check_owner(folder: StudyFolder, plan: Plan, name: str) -> None:
    if plan.study != name:
        raise UserError(
            f"{folder.path} holds the study {plan.study!r}, not {name!r}; choose another --output."
        )


def cannot_plan() -> str:
    """Why nothing can be planned, trained or drawn here, where not all packages are installed."""
    try:
        import_module("critical_periods.studies.resolve")
    except (ImportError, OSError) as error:
        return f"{sys.executable} cannot import what training needs: {reason(error)}"
    return ""


def finish(folder: StudyFolder, plan: Plan, why: Sequence[str] = ()) -> int:
    """Writes what is known and says what is not, and why workers have ended before."""
    if cannot := cannot_plan():
        print(f"No tables are written, as {cannot}; the last job has written them.")
        written: list[str] = []
    else:
        written = _write_report(folder, plan)
    if written:
        names = " and ".join(", ".join(written).rsplit(", ", 1))
        print(f"Wrote {names} to {folder.path}.")
    failed = [name for name in plan.segments if folder.segment(name).error.exists()]
    for name in failed:
        sentence = folder.segment(name).error.read_text(encoding="utf-8").strip()
        print(f"Segment {name} failed: {sentence}", file=sys.stderr)
    undone = [name for name in plan.segments if not folder.segment(name).is_done()]
    failures = folder.failures(plan)
    for name in failed:
        untried = [one for one in undone if one != name and failures.get(one) == name]
        if untried:
            print(f"Not tried, as it goes on from {name}: {', '.join(untried)}.", file=sys.stderr)
    if undone:
        reasons = f" ({'; '.join(dict.fromkeys(why))})" if why else ""
        logs = "slurm/*.log" if (folder.path / "slurm").is_dir() else "worker_*.log"
        print(
            f"{len(undone)} of {len(plan.segments)} segments are not done{reasons}; see the {logs} "
            f"in {folder.path}, and run the study again to train what is missing.",
            file=sys.stderr,
        )
    to_come = not undone and plan.adaptive is not None and not has_ended(folder)
    if to_come:
        log = folder.path / "slurm" / f"{NEXT}.log"
        see = f"; see {log}" if log.exists() else ""
        print(f"{stage(folder)} Run the study again, which does so{see}.", file=sys.stderr)
    return 1 if undone or to_come else 0


def _write_report(folder: StudyFolder, plan: Plan) -> list[str]:
    from critical_periods.studies.report import write_report

    try:
        return write_report(folder, plan)
    except OSError as error:
        if error.errno not in (EACCES, EPERM, EROFS):
            raise
        raise UserError(f"--output {folder.path} cannot be written: {error.strerror}.") from error
