"""``critical-periods kinetics extract``: frames of all videos, once, whatever comes between."""

import csv
import errno
import io
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_videos import film, write_palette_video, write_video

from critical_periods.cli.main import main
from critical_periods.core.errors import UserError
from critical_periods.core.locks import locked
from critical_periods.data.video import extraction as module
from critical_periods.data.video.extraction import extract
from critical_periods.data.video.shards import open_shards
from critical_periods.data.video.video_file import VideoAccessError, VideoError
from critical_periods.data.video.video_index import read_index
from critical_periods.data.video.video_lists import VideoList, find_videos

ROOT = Path(__file__).parents[3]


def smooth(frames: int, seed: int) -> list[np.ndarray]:
    """Pictures that a JPEG keeps: few pixels made large."""
    draws = np.random.default_rng(seed)
    corners = draws.integers(0, 256, (3, 4, 3), dtype=np.uint8)
    image = Image.fromarray(corners).resize((64, 48), Image.Resampling.BICUBIC)
    return [np.roll(np.array(image), n, axis=0) for n in range(frames)]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten videos of two classes in the layout of Kinetics, two of them broken."""
    root = tmp_path_factory.mktemp("videos")
    for number in range(8):
        split = "train" if number < 5 else "val"
        path = root / split / f"class {number % 2}" / f"{number}.mp4"
        write_video(path, smooth(12 + 5 * number, number), crf=8)
    (root / "train" / "class 0" / "empty.mp4").touch()
    (root / "val" / "class 1" / "text.mp4").write_text("no video")
    return root


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.glob("shard_*")}


def strings(array: np.ndarray) -> list[str]:
    return [*map(os.fsdecode, array)]


def test_shards_hold_what_the_videos_do(videos: Path, tmp_path: Path):
    for split in ("train", "val"):
        listed = find_videos(videos, split)
        clips = read_index(listed, tmp_path / f"{split}.npz")
        found = extract(listed, tmp_path / split, videos_per_shard=2)
        assert strings(found.paths) == strings(clips.paths) == listed.paths
        assert strings(found.labels) == listed.labels
        assert found.lengths.tolist() == clips.lengths.tolist()
        assert list(found.reasons) == list(clips.reasons)
        for number in found.lengths.nonzero()[0]:
            places = list(range(found.lengths[number]))[::-1]
            ours, theirs = (
                [np.array(image).astype(int) for image in each.read(number, places)]
                for each in (found, clips)
            )
            for place, image in enumerate(ours):
                # A little is lost in a JPEG, but far less than lies between any two frames.
                errors = [np.abs(image - other).mean() for other in theirs]
                own = errors.pop(place)
                assert own < 5 and own < min(errors) / 2
        again = open_shards(tmp_path / split)
        assert again is not None and again.read(0, [1]) == found.read(0, [1])


def test_frames_are_scaled_down_and_never_up(videos: Path, tmp_path: Path):
    listed = find_videos(videos, "val")
    small = extract(listed, tmp_path / "small", short_side=24)
    large = extract(listed, tmp_path / "large", short_side=500)
    assert small.read(0, [0])[0].size == (32, 24) and large.read(0, [0])[0].size == (64, 48)


def test_the_command_from_one_end_to_the_other(videos: Path, tmp_path: Path, capsys):
    out = tmp_path / "shards"
    words = ["kinetics", "extract", str(videos), "--output", str(out), "--short-side", "40"]
    assert main([*words, "--jobs", "2"]) == 0
    printed = capsys.readouterr()
    frames = 0
    for split in ("train", "val"):
        clips = open_shards(out / split)
        assert clips is not None and clips.read(0, [0])[0].size == (53, 40)
        frames += int(clips.lengths.sum())
    # At 12 frames a second, every fourth of 12 + 5 n.
    assert frames == sum(-(-(12 + 5 * n) // 4) for n in range(8))
    assert f"{out} holds {frames} frames of 8 videos; 2 that could not be" in printed.out
    assert "video" in printed.err and "100%" in printed.err
    with open(out / "bad_videos.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["split", "path", "reason"]
    bad = [["train", "class 0/empty.mp4"], ["val", "class 1/text.mp4"]]
    assert [row[:2] for row in rows] == bad
    assert rows[0][2] == "is empty" and rows[1][2].startswith("cannot be read: Invalid data")


def test_however_many_work_the_bytes_are_the_same(videos: Path, tmp_path: Path):
    listed = find_videos(videos, "train")
    for jobs in (1, 3):
        extract(listed, tmp_path / str(jobs), jobs=jobs, videos_per_shard=2)
    one, three = contents(tmp_path / "1"), contents(tmp_path / "3")
    assert one == three and len(one) == 3 * 2 + 1


def test_what_is_done_is_kept_and_what_has_changed_is_done_again(videos: Path, tmp_path: Path):
    listed = find_videos(videos, "train")
    extract(listed, tmp_path, videos_per_shard=2)
    before = times(tmp_path)
    extract(listed, tmp_path, videos_per_shard=2)
    assert before == times(tmp_path)
    # The last shard's video goes, and with it the shard; the first one's label is another.
    labels = ["other", *listed.labels[1:4]]
    fewer = VideoList(listed.folder, listed.paths[:4], labels)
    clips = extract(fewer, tmp_path, videos_per_shard=2)
    after = times(tmp_path)
    assert len(after) == 4 and len(after.keys() & before.keys()) == 2
    assert strings(clips.labels) == labels


def test_files_of_others_are_left_alone(videos: Path, tmp_path: Path):
    """A WebDataset, and all else that happens to have a name like those of shards."""
    names = [
        "shard_000000.tar", "shard_000001.tar", "shard_00000.bin", "shard_00000_cafe.npz",
        "shard_00000_0123abcd.txt", "shard_list.txt", "shard_00000_0123abcd.bin.part",
    ]  # fmt: skip
    for name in names:
        (tmp_path / name).write_text("precious")
    assert open_shards(tmp_path) is None
    listed = find_videos(videos, "val")
    for short_side in (40, 24):
        extract(listed, tmp_path, short_side)
        assert {(tmp_path / name).read_text() for name in names} == {"precious"}
        assert len(contents(tmp_path)) == len(names) + 3
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "index.npz").write_text("precious")
    assert open_shards(tmp_path / "own") is None
    with pytest.raises(UserError, match=r"own/index.npz is there already and is none of"):
        extract(listed, tmp_path / "own")
    assert contents(tmp_path / "own") == {"index.npz": b"precious"}


@pytest.mark.parametrize("state", ["whole", "killed", "old"])
def test_shards_of_other_videos_are_never_replaced(videos: Path, tmp_path: Path, state: str):
    # With times of change of their own.
    other = shutil.copytree(videos, tmp_path / "other", copy_function=shutil.copy)
    out = tmp_path / "out"
    ours, theirs = find_videos(videos, "train"), find_videos(other, "train")
    extract(theirs, out, videos_per_shard=2)
    if state == "killed":
        (out / "index.npz").unlink()
    elif state == "old":
        for file in out.glob("shard_*.npz"):
            with np.load(file) as arrays:
                np.savez(file, **{name: arrays[name] for name in arrays if name != "source"})
    before = contents(out)
    source = "unknown videos" if state == "old" else str(other / "train")
    # Other videos, a part of the same ones, and the same ones from a list.
    (tmp_path / "list.csv").touch()
    fewer = VideoList(theirs.folder, theirs.paths[:2], theirs.labels[:2])
    cases = [(ours, None), (fewer, tmp_path / "list.csv")]
    for listed, file in cases:
        with pytest.raises(UserError, match=f"out holds frames of {source}.*choose another --out"):
            extract(listed, out, videos_per_shard=2, source=file)
        assert contents(out) == before
    # All of the same ones have the same shards, wherever they lie by now.
    clips = extract(theirs, out, videos_per_shard=2, source=tmp_path / "list.csv")
    assert strings(clips.paths) == theirs.paths


def test_two_at_once_are_one_and_a_refusal(videos: Path, tmp_path: Path, capsys):
    words = ["kinetics", "extract", str(videos), "--output", str(tmp_path), "--jobs", "1"]
    (tmp_path / "train").mkdir()
    with ThreadPoolExecutor(1) as pool, locked(tmp_path / "train" / "extract.lock"):
        assert pool.submit(main, words).result(60) == 2
    sentence = f"another `critical-periods kinetics extract` writes to {tmp_path / 'train'} now; wa"
    assert sentence in capsys.readouterr().err
    assert main(words) == 0 and not list(tmp_path.rglob("*.lock"))
    report = tmp_path / "bad_videos.csv"
    report.write_text("precious")
    assert main(words) == 2 and report.read_text() == "precious"
    assert "bad_videos.csv is there already and is no report; choose an" in capsys.readouterr().err


@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE, errno.ESTALE])
def test_what_the_system_says_no_to_is_told_and_never_kept(
    number: int, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    listed, words = find_videos(videos, "train"), os.strerror(number)
    refused = str(videos / "train" / listed.paths[4])
    probe = module.probe

    def refusing(path: str) -> Any:
        if path == refused:
            raise VideoAccessError(path, f"cannot be read: {words}")
        return probe(path)

    with monkeypatch.context() as patch:
        patch.setattr(module, "probe", refusing)
        with pytest.raises(UserError, match=f"mp4 cannot be read: {words}; as the .* 1 of 3 shard"):
            extract(listed, tmp_path, videos_per_shard=2)
    kept = times(tmp_path)
    assert len(kept) == 4
    clips = extract(listed, tmp_path, videos_per_shard=2)
    assert kept.items() <= times(tmp_path).items() and clips.lengths[4] > 0
    # What an older version took for broken is looked at again.
    (old,) = tmp_path.glob("shard_00002*.npz")
    with np.load(old) as arrays:
        reasons = [b"", f"cannot be read: {words}".encode()]
        np.savez(old, **{**arrays, "reasons": np.array(reasons)})
    again = extract(listed, tmp_path, videos_per_shard=2)
    assert again.reasons.tolist() == clips.reasons.tolist()


@pytest.mark.slow
def test_killed_and_run_again_it_ends_with_the_same_bytes(tmp_path: Path):
    """Two processes are killed with their parent when a shard is whole and others are begun."""
    root, out, reference = (tmp_path / name for name in ("videos", "shards", "reference"))
    first = write_video(root / "train" / "a" / "0.mp4", film(16))
    for number in range(1, 400):
        os.link(first, root / "train" / "a" / f"{number}.mp4")
    write_video(root / "val" / "a" / "0.mp4", film(8))
    words = ["kinetics", "extract", str(root), "--jobs", "2", "--output"]
    with subprocess.Popen(
        [sys.executable, "-m", "critical_periods", *words, str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        until = time.monotonic() + 120
        while not list(out.glob("train/shard_*.npz")) and process.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.002)
        assert process.poll() is None and process.stdout is not None
        process.kill()
        whole = {path: path.stat().st_mtime_ns for path in out.glob("train/shard_*.npz")}
        assert 1 <= len(whole) < 4
        # The last process that holds the pipe closes it.
        start = time.monotonic()
        assert process.stdout.read() == b"" and time.monotonic() - start < 60
    with pytest.raises(UserError, match=r"holds a part of an extraction; run the same"):
        open_shards(out / "train")
    assert main([*words, str(out)]) == 0
    assert {path: path.stat().st_mtime_ns for path in whole} == whole
    assert main([*words, str(reference)]) == 0
    assert contents(out) == contents(reference)
    assert not [name for name in contents(out) if "part" in name]


def test_an_error_leaves_no_index(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    listed = find_videos(videos, "train")
    extract(listed, tmp_path)

    def fail(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_write_index", fail)
    with pytest.raises(KeyboardInterrupt):
        extract(listed, tmp_path)
    with pytest.raises(UserError, match="holds a part of an extraction"):
        open_shards(tmp_path)
    assert open_shards(tmp_path / "nowhere") is None


def test_a_damaged_shard_is_a_video_error(videos: Path, tmp_path: Path):
    clips = extract(find_videos(videos, "val"), tmp_path)
    (shard,) = tmp_path.glob("*.bin")
    raw = shard.read_bytes()
    for bad in (raw[:50], raw[: len(raw) - 300], b"", bytes(len(raw)), raw[:40] + bytes(len(raw))):
        shard.write_bytes(bad)
        with pytest.raises(VideoError, match="is damaged"):
            clips.read(2, [int(clips.lengths[2]) - 1])
    shard.unlink()
    with pytest.raises(VideoError, match="No such file"):
        clips.read(2, [0])


@pytest.mark.parametrize("name", ["index.npz", "shard_*.npz", "shard_*.bin"])
@pytest.mark.parametrize("damage", ["gone", "empty", "cut off", "garbage"])
def test_what_is_damaged_is_named_and_made_anew(
    videos: Path, tmp_path: Path, name: str, damage: str
):
    listed = find_videos(videos, "val")
    extract(listed, tmp_path, videos_per_shard=2)
    sound, made = contents(tmp_path), module._make_shard
    file = max(tmp_path.glob(name))
    raw = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        damaged = {"empty": b"", "cut off": raw[: len(raw) // 2], "garbage": b"garbage"}
        file.write_bytes(damaged[damage])
    # The index says all that the shards' own files do, and without it nothing is read.
    if name == "shard_*.npz":
        assert open_shards(tmp_path) is not None
        (tmp_path / "index.npz").unlink()
    part = name == "shard_*.npz" or (name, damage) == ("index.npz", "gone")
    sentence = "holds a part of" if part else rf"{file.name} (cannot be read|has \d+ bytes, which)"
    with pytest.raises(UserError, match=sentence) as caught:
        open_shards(tmp_path)
    assert "run the same `critical-periods kinetics extract` again" in str(caught.value)
    tasks = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_make_shard", lambda task: (tasks.append(task), made(task)))
        extract(listed, tmp_path, videos_per_shard=2)
    assert contents(tmp_path) == sound
    assert len(tasks) == (name != "index.npz")


def test_a_long_video_is_extracted_part_by_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_video(tmp_path / "a" / "0.mp4", film(60))
    listed = VideoList(tmp_path, ["a/0.mp4"], ["a"])
    extract(listed, tmp_path / "whole")
    read, most = module.read_frames, []

    def counted(path: str, times: list[float], short_side: int) -> object:
        most.append(len(times))
        return read(path, times, short_side)

    monkeypatch.setattr(module, "_FRAMES", 8)
    monkeypatch.setattr(module, "read_frames", counted)
    extract(listed, tmp_path / "parts")
    # At 12 frames a second every fourth is on the grid.
    assert most == [8, 7]
    assert contents(tmp_path / "whole") == contents(tmp_path / "parts")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "critical-periods kinetics: the following arguments are required: extract"),
        (["extract", "VIDEOS"], "extract: the following arguments are required: --output"),
        (["extrac"], "critical-periods kinetics: argument extract: invalid choice: 'extrac'"),
        (["extract", "VIDEOS", "--output", "OUT", "--jobs", "x"], "--jobs: invalid int value: 'x'"),
        (["extract", "VIDEOS", "--output", "OUT", "--jobs", "0"], "--jobs 0 must be at least 1."),
        (["extract", "VIDEOS", "--output", "OUT", "--short-side", "-2"], "--short-side -2 must be"),
        (["extract", "VIDEOS/none", "--output", "OUT"], "input 'VIDEOS/none' is no folder; name"),
        (
            ["extract", "VIDEOS/val", "--output", "OUT"],
            "input='VIDEOS/val' holds no folder train/ with a folder of videos for every class; "
            "set input, or --train-csv to a list",
        ),
        (
            ["extract", "VIDEOS", "--output", "OUT", "--train-csv", "VIDEOS/none.csv"],
            "the list VIDEOS/none.csv cannot be read: ",
        ),
        (
            ["extract", "VIDEOS", "--output", "VIDEOS/val/class 1/text.mp4"],
            "--output VIDEOS/val/class 1/text.mp4 lies in VIDEOS/val, where it would be taken",
        ),
        (
            ["extract", "VIDEOS", "--output", "VIDEOS/train"],
            "VIDEOS/train lies in VIDEOS/train, wh",
        ),
        (
            ["extract", "VIDEOS", "--output", __file__],
            f"--output {__file__} cannot be written to: ",
        ),
        (["extract", "VIDEOS", "--output", ""], "argument --output: is empty, as of a shell's"),
    ],
)
def test_mistakes_end_in_one_sentence(
    words: list[str], sentence: str, videos: Path, tmp_path: Path, capsys
):
    def full(text: str) -> str:
        return text.replace("VIDEOS", str(videos)).replace("OUT", str(tmp_path / "out"))

    assert main(["kinetics", *map(full, words)]) == 2
    printed = capsys.readouterr().err
    assert full(sentence) in printed
    assert printed.startswith("critical-periods: error: ") and len(printed.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_an_extraction_of_an_older_version_is_read_and_gone_on_with(videos: Path, tmp_path: Path):
    """It has its strings as one row of bytes and the places where each one ends."""
    listed = find_videos(videos, "val")
    clips = extract(listed, tmp_path, videos_per_shard=2)
    for file in tmp_path.glob("*.npz"):
        with np.load(file) as arrays:
            new = dict(arrays)
        for name in {"shards", "paths", "labels", "reasons"} & new.keys():
            strings = new.pop(name).tolist()
            new[f"{name}_text"] = np.frombuffer(b"".join(strings), np.uint8)
            new[f"{name}_ends"] = np.cumsum([len(one) for one in strings], dtype=np.int64)
        np.savez(file, **new)
    found = open_shards(tmp_path)
    assert found is not None
    for name in ("shards", "paths", "labels", "reasons"):
        assert getattr(found, name).tolist() == getattr(clips, name).tolist()
    before = times(tmp_path)
    again = extract(listed, tmp_path, videos_per_shard=2)
    assert again.reasons.tolist() == clips.reasons.tolist() and before == times(tmp_path)


def test_palettes_that_an_older_version_lost_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """They are told of where shards are read, and extracted anew; other shards are kept."""
    write_palette_video(tmp_path / "b.avi", 12)
    write_video(tmp_path / "a.mp4", film(12))
    listed, out = VideoList(tmp_path, ["a.mp4", "b.avi"], ["x", "x"]), tmp_path / "out"
    with monkeypatch.context() as patch:
        jpegs, black = module._jpegs, io.BytesIO()
        Image.new("RGB", (32, 24)).save(black, "JPEG")
        lost = lambda path, side: [black.getvalue()] * 3 if "avi" in path else jpegs(path, side)  # noqa: E731
        patch.setattr(module, "_jpegs", lost)
        extract(listed, out, videos_per_shard=1)
    for file in out.glob("*.npz"):
        with np.load(file) as arrays:
            old = {n: of for n, of in arrays.items() if n not in ("source", "keeps_palettes")}
        np.savez(file, **old)
    before = times(out)
    open_shards(out)
    assert f"1 of 2 videos in {out}, such as b.avi, are black, as an older version" in caplog.text
    clips = extract(listed, out, videos_per_shard=1)
    assert clips.keeps_palettes and clips.read(1, [1])[0].convert("L").getextrema()[1] > 50
    same = {path for path, time in times(out).items() if before.get(path) == time}
    assert {path.name[:11] for path in same} == {"shard_00000"}
