"""Frame pairs a second from real clips: by seeking, from shards, and by decoding whole clips.

A pair is two frames 1.33 s apart (where a clip is too short for that, as many thirds of a second as
fit), the first at random, as RGB. Five ways take turns, one thread each:

- seeking: ``read_frames``, from the key frame before each frame;
- shards: JPEGs of short side 256 that ``critical-periods kinetics extract`` wrote;
- whole clip: every frame decoded and converted to RGB, two of them kept (as ``torchvision.io``'s
  and other readers of videos do);
- decoding only: every frame decoded, the two kept ones converted;
- torchcodec, where it and its FFmpeg are at hand: ``seek_mode="approximate"``, which trusts a
  clip's header for the place of its frames.

Rates are pairs a second of processor time, so that what else the machine does counts little. The
first look at every file is not timed.

    python experiments/benchmarks/frame_pairs.py CLIPS

CLIPS is a folder of video files; by default the one that $CRITICAL_PERIODS_VIDEOS names.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

# Before anything counts its threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import av
import torch

from critical_periods.data.video.extraction import extract
from critical_periods.data.video.frame_pairs import GRID_RATE, draw_pairs, grid_length
from critical_periods.data.video.frames import probe, read_frames
from critical_periods.data.video.video_lists import SUFFIXES, VideoList

DELAY = 4  # steps of a third of a second
WAYS = ("seeking", "shards", "whole", "only")
NEEDED = {"seeking": 3, "shards": 20}  # times the rate of whole clips, in the median


def whole_clip(path: Path, pair: list[int], convert_all: bool) -> list[Any]:
    """Two frames of a clip by decoding all of it."""
    times = [place / GRID_RATE + 1e-6 for place in pair]
    kept: list[Any] = [None, None]
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for count, frame in enumerate(container.decode(stream)):
            shown = count / float(stream.average_rate or 1) if path.suffix == ".avi" else frame.time
            image = frame.to_ndarray(format="rgb24") if convert_all else frame
            for place, at in enumerate(times):
                if shown is not None and shown <= at:
                    kept[place] = image
    return kept if convert_all else [frame.to_ndarray(format="rgb24") for frame in kept]


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def torchcodec_pair(path: Path, times: list[float]) -> Any:
    """Two frames by torchcodec."""
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(path, num_ffmpeg_threads=1, seek_mode="approximate")
    last = (decoder.metadata.end_stream_seconds or 0) - 1e-3
    return decoder.get_frames_played_at([min(time, last) for time in times])


def _times(pair: list[int]) -> list[float]:
    return [place / GRID_RATE for place in pair]


def frame_seconds(clips: Path, pairs: int, rounds: int) -> list[dict[tuple[str, str], float]]:
    """Processor time of each clip and way, round by round, after one that warms up.

    torchcodec is left out where it cannot be loaded, or cannot read every clip.
    """
    names = sorted(path.name for path in clips.iterdir() if path.suffix.lower() in SUFFIXES)
    lengths = [grid_length(probe(clips / name)) for name in names]
    ways: dict[str, Callable[[int, list[int]], object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        videos = VideoList(clips, names, ["clip"] * len(names))
        shards = extract(videos, Path(folder))
        ways["seeking"] = lambda n, pair: read_frames(clips / names[n], _times(pair))
        ways["shards"] = shards.read
        ways["whole"] = lambda n, pair: whole_clip(clips / names[n], pair, True)
        ways["only"] = lambda n, pair: whole_clip(clips / names[n], pair, False)
        try:
            for name in names:
                torchcodec_pair(clips / name, [0.0, 0.1])
            ways["torchcodec"] = lambda n, pair: torchcodec_pair(clips / names[n], _times(pair))
        except Exception as error:  # its own libraries, or FFmpeg's, are missing
            print(f"without torchcodec: {str(error).splitlines()[0]}", file=sys.stderr)
        found = []
        for turn in range(-1, rounds):
            draws, spent = torch.Generator().manual_seed(turn + 1), dict[tuple[str, str], float]()
            for number, (name, length) in enumerate(zip(names, lengths, strict=True)):
                uniform = torch.rand(pairs if turn >= 0 else 1, 2, generator=draws)
                grid = torch.full((len(uniform),), length)
                drawn = draw_pairs(grid, min(DELAY, length - 1), uniform, centred=False).tolist()
                for way, read in ways.items():
                    took = sum(seconds(partial(read, number, pair)) for pair in drawn)
                    spent[name, way] = took
            found.append(spent)
    return found[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    clips = os.environ.get("CRITICAL_PERIODS_VIDEOS")
    parser.add_argument("clips", type=Path, nargs="?" if clips else None, default=clips)
    parser.add_argument("--pairs", type=int, default=10, help="of each clip in a round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rounds_of = frame_seconds(options.clips, options.pairs, options.rounds)
    names = list(dict.fromkeys(name for one in rounds_of for name, _ in one))
    spent = {key: sum(one[key] for one in rounds_of) for key in rounds_of[0]}

    pairs = options.rounds * options.pairs
    print(f"{pairs} pairs a clip in {options.rounds} rounds, PyAV {av.__version__}, one thread")
    print(f"{'':20}{'pairs a second':^40}{'times whole':^20}{'times only':^20}")
    columns = ("seeking", "shards", "whole", "only", "seeking", "shards", "seeking", "shards")
    print(f"{'clip':20}" + "".join(f"{column:>10}" for column in columns))
    ratios: list[list[float]] = []
    for name in names:
        rates = {way: pairs / spent[name, way] for way in WAYS}
        ratios.append(
            [
                rates[way] / rates[base]
                for base in ("whole", "only")
                for way in ("seeking", "shards")
            ]
        )
        cells = [*rates.values(), *ratios[-1]]
        print(f"{name:20}" + "".join(f"{cell:10.1f}" for cell in cells))
    medians = [median(column) for column in zip(*ratios, strict=True)]
    print(f"{'median':20}" + " " * 40 + "".join(f"{cell:10.1f}" for cell in medians))
    for found, (way, needed) in zip(medians, NEEDED.items(), strict=False):
        verdict = "at least" if found >= needed else "LESS THAN"
        print(f"{way}: {found:.1f} times whole clips in the median, {verdict} {needed}")


if __name__ == "__main__":
    main()
