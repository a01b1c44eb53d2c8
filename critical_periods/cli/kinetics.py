"""``critical-periods kinetics extract``."""

import argparse
import os
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from critical_periods.cli.parser import Parser
from critical_periods.core.errors import UserError
from critical_periods.data.video.extraction import extract
from critical_periods.data.video.labels import number_labels
from critical_periods.data.video.video_index import HEADER, write_report
from critical_periods.data.video.video_lists import (
    COLUMNS,
    are_folders,
    check_files,
    find_videos,
    tell_shared,
)

# Share of a list's videos that may be missing, as KineticsDataModule's max_bad_share.
_MOST_MISSING = 0.05


def kinetics(argv: Sequence[str]) -> int:
    """Runs a ``kinetics`` command, given what follows ``kinetics``, and gives its exit code.

    Raises:
        UserError: a setting has no meaning, or there are no videos.
    """
    parser = Parser(prog="critical-periods kinetics", description="Videos made ready to train on.")
    commands = parser.add_subparsers(required=True, metavar="extract")
    text = "Write 3 frames a second of all videos to shards of JPEGs, which train faster."
    command = commands.add_parser("extract", help=text, description=text)
    add = command.add_argument
    add("input", type=_path, help="holds train/<class>/* and val/<class>/* (or validation/)")
    add("--output", type=_path, required=True, metavar="DIR", help="of the shards")
    add("--train-csv", type=_path, help="a list of path,label in place of train/")
    add("--val-csv", type=_path, help="a list of path,label in place of val/")
    for column in COLUMNS:
        text = f"column of the {column}s in the header of the lists (default: {column})"
        add(f"--{column}-column", default=column, metavar="NAME", help=text)
    text = "larger frames are scaled down to this shorter side (default: 256)"
    add("--short-side", type=int, default=256, metavar="PIXELS", help=text)
    jobs = os.cpu_count() or 1
    add("--jobs", type=int, default=jobs, help="processes at once (default: one a core)")
    return _extract(parser.parse_args(argv))


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("is empty, as of a shell's variable that is not set")
    return Path(text)


def _extract(options: argparse.Namespace) -> int:
    for name, value in (("--jobs", options.jobs), ("--short-side", options.short_side)):
        if value < 1:
            raise UserError(f"{name} {value} must be at least 1.")
    if not options.input.is_dir():
        raise UserError(f"input {str(options.input)!r} is no folder; name that of the videos.")
    # Both are looked for before hours go into the first.
    columns = options.path_column, options.label_column
    found = {}
    for split, file in (("train", options.train_csv), ("val", options.val_csv)):
        settings = "input", f"--{split}-csv"
        found[split] = find_videos(options.input, split, file, columns, settings)
        if file is not None:
            check_files(found[split], file, _MOST_MISSING)
        elif options.output.resolve().is_relative_to((folder := found[split].folder).resolve()):
            raise UserError(
                f"--output {options.output} lies in {folder}, where it would be taken for a class; "
                "choose another."
            )
    folders = all(are_folders(each.paths, each.labels) for each in found.values())
    number_labels(found["train"].labels, found["val"].labels, folders)
    tell_shared(found["train"], found["val"])
    report = options.output / "bad_videos.csv"
    if report.exists() and not report.read_bytes().startswith(",".join(HEADER).encode()):
        raise UserError(f"{report} is there already and is no report; choose another --output.")
    rows: list[tuple[str, str, str]] = []
    frames = videos = 0
    for split, listed in found.items():
        file = options.train_csv if split == "train" else options.val_csv
        folder = options.output / split
        try:
            clips = extract(listed, folder, options.short_side, options.jobs, source=file)
        except OSError as error:
            raise UserError(f"--output {options.output} cannot be written to: {error}.") from error
        except BrokenProcessPool as error:
            raise UserError(
                f"one of the {options.jobs} processes was killed, maybe for want of memory; run "
                "the same again, which goes on where it stopped, with fewer --jobs."
            ) from error
        for path, reason, length in zip(clips.paths, clips.reasons, clips.lengths, strict=True):
            if not length:
                rows.append((split, os.fsdecode(path), os.fsdecode(reason)))
        if not clips.lengths.any():
            write_report(report, rows)
            raise UserError(
                f"none of the {len(clips.lengths)} videos of {split!r} can be decoded; see "
                f"{report}."
            )
        frames += int(clips.lengths.sum())
        videos += len(clips.lengths)
    write_report(report, rows)
    print(
        f"{options.output} holds {frames} frames of {videos - len(rows)} videos; "
        f"{len(rows)} that could not be decoded are in {report}."
    )
    return 0
