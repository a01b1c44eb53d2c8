"""Single frames of video files: the right ones, at no more cost than needed, or a clear error."""

import errno
import os
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import av
import numpy as np
import pytest
import torch
from small_videos import (
    SIDES,
    FullDecode,
    film,
    without_first_packets,
    write_changing_video,
    write_palette_video,
    write_video,
)

from critical_periods.core.errors import UserError
from critical_periods.data.video import video_file, video_index
from critical_periods.data.video.frame_pairs import (
    centre_box,
    draw_box,
    draw_pairs,
    grid_length,
    needed_length,
)
from critical_periods.data.video.frames import probe, read_frames
from critical_periods.data.video.index_folder import index_folder
from critical_periods.data.video.labels import number_labels
from critical_periods.data.video.list_file import SUFFIXES
from critical_periods.data.video.truncation import is_cut_off
from critical_periods.data.video.video_file import VideoError, VideoFile
from critical_periods.data.video.video_index import VideoClips, as_bytes, read_index
from critical_periods.data.video.video_lists import VideoList, find_videos

REAL = os.environ.get("CRITICAL_PERIODS_VIDEOS", "")
CLIPS: list[Path | None] = [None]
if REAL:
    CLIPS = sorted(path for path in Path(REAL).iterdir() if path.suffix.lower() in SUFFIXES)


@pytest.fixture(scope="module", params=CLIPS, ids=lambda clip: clip.name if clip else "none")
def clip(request: pytest.FixtureRequest) -> Path:
    """Each of the real clips."""
    if not REAL:
        pytest.skip("CRITICAL_PERIODS_VIDEOS names no folder of real clips")
    return request.param


@pytest.fixture(scope="module")
def full(clip: Path) -> FullDecode:
    return FullDecode(clip)


def equal(found: list[np.ndarray], expected: list[np.ndarray]) -> bool:
    return len(found) == len(expected) and all(map(np.array_equal, found, expected))


# What reading costs, counted at the decoder.


class Counter:
    """Stands before an object of PyAV's, and counts the frames that its decoder gives."""

    def __init__(self, inner: Any, counted: list[int]) -> None:
        self.__dict__.update(inner=inner, counted=counted)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        return Counter(found, self.counted) if name == "codec_context" else found

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.inner, name, value)

    def decode(self, packet: Any) -> Iterator[Any]:
        for frame in self.inner.decode(packet):
            self.counted[0] += 1
            yield frame

    def seek(self, place: int, stream: "Counter") -> None:
        self.inner.seek(place, stream=stream.inner)

    def demux(self, stream: "Counter") -> Any:
        return self.inner.demux(stream.inner)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    count = [0]
    after = VideoFile.__post_init__

    def count_frames(video: VideoFile) -> None:
        video.stream = Counter(video.stream, count)  # type: ignore[assignment]
        video.container = Counter(video.container, count)  # type: ignore[assignment]
        after(video)

    monkeypatch.setattr(VideoFile, "__post_init__", count_frames)
    return count


def needed(full: FullDecode, numbers: list[int]) -> int:
    """Frames from the key frame before to the wanted frame; together where that is the same."""
    last: dict[int, int] = {}
    for number in numbers:
        key = max(n for n in range(number + 1) if full.frames[n].key_frame)
        last[key] = max(number, last.get(key, 0))
    return sum(number - key + 1 for key, number in last.items())


# The eight real clips.


@pytest.mark.real_data
def test_frames_of_real_clips_are_those_of_a_full_decode(clip: Path, full: FullDecode):
    grid = [place / 3 for place in range(grid_length(probe(clip)))]
    assert equal(read_frames(clip, grid).images, full.images_at(grid))
    # Anywhere in between, in any order, and long after the end.
    draws = np.random.default_rng(0)
    for pair in draws.uniform(0, full.starts[-1] + 0.1, (4, 2)):
        assert equal(read_frames(clip, pair).images, full.images_at(pair))
    assert equal(read_frames(clip, [1e4]).images, [full.image(-1)])


@pytest.mark.real_data
def test_pairs_of_real_clips_cost_no_more_frames_than_they_need(
    clip: Path, full: FullDecode, counted: list[int]
):
    lengths = torch.full((8,), grid_length(full.starts[-1]))
    delay = min(4, int(lengths[0]) - 1)
    draws = torch.rand(8, 2, generator=torch.Generator().manual_seed(0))
    for pair in draw_pairs(lengths, delay, draws, centred=False).tolist():
        times = [place / 3 for place in pair]
        counted[0] = 0
        assert read_frames(clip, times).decoded == counted[0]
        assert 1 <= counted[0] <= needed(full, [full.number_at(time) for time in times])


@pytest.mark.real_data
def test_a_probe_knows_what_a_full_decode_finds(clip: Path, full: FullDecode, counted: list[int]):
    duration = probe(clip)
    assert counted[0] == 1
    steps = np.diff(full.starts)
    assert duration == pytest.approx(full.starts[-1] + np.median(steps), abs=0.04)


@pytest.mark.real_data
def test_scaled_frames_of_real_clips_keep_their_shape(clip: Path):
    (image,) = read_frames(clip, [0.5], short_side=120).images
    (whole,) = read_frames(clip, [0.5], short_side=4000).images
    height, width = whole.shape[:2]
    assert min(image.shape[:2]) == 120
    assert image.shape[1] / image.shape[0] == pytest.approx(width / height, rel=0.01)
    assert np.array_equal(whole, read_frames(clip, [0.5]).images[0])


# Made up files of all kinds.


OPEN = {"g": 10, "bf": 3, "x264-params": "open-gop=1:b-pyramid=normal"}
FORMATS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "mp4": ("libx264", "yuv420p", {"g": 10, "bf": 2}),
    "open.mp4": ("libx264", "yuv420p", OPEN),
    "10bit.mp4": ("libx265", "yuv420p10le", {"x265-params": "keyint=10:log-level=none"}),
    "keys.mov": ("libx264", "yuv444p", {"g": 1}),
    "m4v": ("mpeg4", "yuv420p", {"g": 10, "bf": 2}),
    "webm": ("libvpx-vp9", "yuv420p", {"g": 10, "deadline": "realtime"}),
    "plain.avi": ("mpeg4", "yuv420p", {"g": 10}),
    "b_frames.avi": ("mpeg4", "yuv420p", {"g": 10, "bf": 2}),
    "h264.avi": ("libx264", "yuv420p", {"g": 10, "bf": 2}),
    "jpeg.avi": ("mjpeg", "yuvj420p", {}),
    "mpg": ("mpeg2video", "yuv420p", {"g": 10, "bf": 2}),
    "ts": ("libx264", "yuv420p", {"g": 10, "bf": 2}),
    "flv": ("libx264", "yuv420p", {"g": 10, "bf": 2}),
    "wmv": ("wmv2", "yuv420p", {"g": 10}),
    "3gp": ("mpeg4", "yuv420p", {"g": 10}),
}
# Counted from their first frame, or each frame a key frame's next.
COUNTED_FROM_START = ("b_frames.avi", "h264.avi")


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_read_frame_by_frame(name: str, tmp_path: Path, counted: list[int]):
    codec, pix_fmt, options = FORMATS[name]
    file = tmp_path / f"film.{name}"
    rate = 25 if codec == "mpeg2video" else 12
    write_video(file, film(40), codec, rate, pix_fmt, **options)
    full = FullDecode(file, rate)
    assert len(full.frames) == 40 and probe(file) == pytest.approx(40 / rate, abs=2e-3)
    draws = np.random.default_rng(1)
    for pair in draws.integers(0, 40, (20, 2)).tolist():
        counted[0] = 0
        # Well within the time of each frame: some formats round to thousandths of a second.
        read = read_frames(file, [(number + 0.3) / rate for number in pair])
        assert equal(read.images, [full.image(number) for number in pair])
        assert read.decoded == counted[0]
        if name not in COUNTED_FROM_START:
            assert counted[0] <= needed(full, pair)


CLOSED = {"g": 10, "bf": 2}
# Each with how many packets are left out at its beginning.
WITHOUT_KEY_FRAME: dict[str, tuple[str, dict[str, Any], int]] = {
    "film.mp4": ("libx264", CLOSED, 3),
    "film.mkv": ("libx264", CLOSED, 5),
    "film.ts": ("libx264", CLOSED, 4),
    "film.flv": ("libx264", CLOSED, 3),
    "film.3gp": ("mpeg4", CLOSED, 3),
    "film.avi": ("mpeg4", {"g": 10}, 3),
    "film.mpg": ("mpeg2video", CLOSED, 5),
    "film.wmv": ("wmv2", {"g": 10}, 3),
    "film.webm": ("libvpx-vp9", {"g": 10, "deadline": "realtime"}, 3),
    # The first is a key frame, but frames that are shown before it need what was before it.
    "open.mp4": ("libx264", OPEN, 10),
    "open.mkv": ("libx265", {"x265-params": "open-gop=1:keyint=10:bframes=3:log-level=none"}, 10),
    # Each frame renews a part of the picture, and one in ten says that a renewal begins.
    "refreshed.mp4": ("libx264", {"x264-params": "intra-refresh=1:keyint=10"}, 0),
    "late.mp4": ("libx264", {"x264-params": "intra-refresh=1:keyint=10"}, 4),
}


def assert_same_as_full(file: Path, rate: float) -> None:
    """Every third of a second, each alone and all at once, and how long all is."""
    try:
        full = FullDecode(file)
    except av.error.InvalidDataError:
        # PyAV gives up at the first packet; there are whole frames after the next key frame.
        assert probe(file) == pytest.approx((40 - 10) / rate, abs=2e-3)
        assert len(read_frames(file, [1.0]).images) == 1
        return
    assert probe(file) == pytest.approx(full.starts[-1] + 1 / rate, abs=0.01)
    times = [place / 3 for place in range(grid_length(full.starts[-1]))]
    assert equal(read_frames(file, times).images, full.images_at(times))
    alone = [read_frames(file, [time]).images[0] for time in times]
    assert equal(alone, full.images_at(times))


@pytest.mark.parametrize("name", WITHOUT_KEY_FRAME)
def test_clips_that_begin_without_a_key_frame_are_read_as_by_a_full_decode(
    name: str, tmp_path: Path
):
    codec, options, left_out = WITHOUT_KEY_FRAME[name]
    rate = 25 if codec == "mpeg2video" else 12
    file = write_video(tmp_path / name, film(40), codec, rate, **options)
    assert_same_as_full(without_first_packets(file, left_out) if left_out else file, rate)


@pytest.mark.parametrize("suffix", ["avi", "mov"])
def test_colours_of_a_palette_are_those_of_a_full_decode(suffix: str, tmp_path: Path):
    file = write_palette_video(tmp_path / f"film.{suffix}", 20)
    assert_same_as_full(file, 12)
    (image,) = read_frames(file, [1.0]).images
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 200


CHANGES = {"film.webm": ("libvpx-vp9", {"deadline": "realtime"}), "film.ts": ("libx264", {"bf": 0})}


@pytest.mark.parametrize("name", CHANGES)
def test_each_frame_has_its_own_size_where_that_changes(name: str, tmp_path: Path):
    codec, options = CHANGES[name]
    large = [np.repeat(image, 2, 1).repeat(2, 0) for image in film(24)]
    write_changing_video(tmp_path / name, [large, film(24)], codec, g=10, **options)
    assert_same_as_full(tmp_path / name, 12)
    images = read_frames(tmp_path / name, [0.5, 3.0]).images
    assert [image.shape[:2] for image in images] == [(96, 128), (48, 64)]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("start", [0, 700])
def test_a_frame_is_shown_until_the_next_one_begins(suffix: str, start: int, tmp_path: Path):
    gaps = np.random.default_rng(2).choice([20, 33, 40, 170, 900], 30)
    ticks = np.cumsum(gaps) - gaps[0]
    shown = (start + ticks).tolist()
    file = write_video(tmp_path / f"film.{suffix}", film(30), ticks=shown, g=8, bf=2)
    full = FullDecode(file)
    for number, tick in enumerate(ticks):
        times = [tick / 1000 + 0.001, (tick + gaps[(number + 1) % 30]) / 1000 - 0.002]
        assert equal(read_frames(file, times).images, 2 * [full.image(number)])
    assert equal(read_frames(file, [0.0]).images, [full.image(0)])


MATRICES = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}


@pytest.mark.parametrize("turn", MATRICES)
def test_frames_are_turned_as_the_file_says(turn: int, tmp_path: Path):
    """QuickTime: the pixel that is stored at (x, y) is shown at (a x + c y, b x + d y), shifted."""
    file = write_video(tmp_path / "film.mp4", film(12), g=4)
    stored = FullDecode(file).image(7)
    raw, (a, b, c, d) = bytearray(file.read_bytes()), MATRICES[turn]
    place = raw.index(b"tkhd") + 44
    for number, value in zip((0, 1, 3, 4), (a, b, c, d), strict=True):
        struct.pack_into(">i", raw, place + 4 * number, value << 16)
    file.write_bytes(raw)
    height, width = SIDES
    expected = np.empty((width, height, 3) if turn in (90, 270) else (height, width, 3), np.uint8)
    for y, x in np.ndindex(height, width):
        # A negative place counts from the far side, as an index of Python's does.
        expected[b * x + d * y - (b + d < 0), a * x + c * y - (a + c < 0)] = stored[y, x]
    assert np.array_equal(read_frames(file, [7.3 / 12]).images[0], expected)
    (small,) = read_frames(file, [0.0], short_side=24).images
    assert small.shape == (expected.shape[0] // 2, expected.shape[1] // 2, 3)
    (whole,) = read_frames(file, [7.3 / 12], short_side=4000).images
    assert np.array_equal(whole, expected)


# Files that are none.


def test_broken_files_say_what_is_wrong_with_them(tmp_path: Path):
    raw = write_video(tmp_path / "whole.mp4", film(12)).read_bytes()
    (tmp_path / "truncated.mp4").write_bytes(raw[: len(raw) * 2 // 3])
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("This is no video.\n" * 50)
    (tmp_path / "folder.mp4").mkdir()
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        for _ in range(5):
            silence = np.zeros((1, 1024), np.float32)
            frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
            frame.sample_rate = 8000
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    for name, reason in {
        "truncated.mp4": "is cut off",
        "empty.mp4": "is empty",
        "text.mp4": "cannot be read: Invalid data",
        "folder.mp4": "cannot be read: Is a directory",
        "sound.mp4": "holds no video",
        "none.mp4": "cannot be read: No such file",
    }.items():
        for reading in (probe, lambda path: read_frames(path, [0.0])):
            with pytest.raises(VideoError, match=f"{name} {reason}") as caught:
                reading(tmp_path / name)
            assert str(caught.value) == f"{tmp_path / name} {caught.value.reason}"


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv", "film.avi"])
def test_a_file_that_was_cut_anywhere_is_found_out(name: str, tmp_path: Path):
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    file = write_video(tmp_path / name, film(24), codec)
    raw = file.read_bytes()
    assert not is_cut_off(file)
    for kept in (*np.linspace(len(raw) // 50, len(raw) - 1, 20).astype(int), len(raw) - 1):
        file.write_bytes(raw[:kept])
        assert is_cut_off(file)
    # More than was promised is no less.
    file.write_bytes(raw + b"and so on, for as long as one likes")
    assert not is_cut_off(file) and len(read_frames(file, [1.0]).images) == 1


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv", "film.avi", "film.ts"])
def test_whatever_is_damaged_is_a_frame_or_a_video_error(name: str, tmp_path: Path):
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    file = write_video(tmp_path / name, film(24), codec, g=6)
    raw, draws = file.read_bytes(), np.random.default_rng(3)
    outcomes = set()
    for _ in range(60):
        damaged = np.frombuffer(raw, np.uint8).copy()
        # Headers lie at the ends.
        reach = draws.choice([300, len(raw)])
        places = draws.integers(-reach // 2, reach // 2, draws.choice([1, 20]))
        damaged[places] = draws.integers(0, 256, len(places))
        file.write_bytes(damaged.tobytes())
        try:
            duration = probe(file)
            images = read_frames(file, [0.0, duration / 2, duration]).images
            assert 0 <= duration < 1e6 and all(image.ndim == 3 for image in images)
            outcomes.add("frames")
        except VideoError as error:
            assert error.reason
            outcomes.add("error")
    assert "frames" in outcomes


# Which frames, and which part of them.


def test_the_grid_ends_before_the_video_does():
    for frames in range(1, 60):
        for rate in (3, 12, 25, 29.97):
            places = [n for n in range(400) if n / 3 < frames / rate - 1e-7]
            assert grid_length(frames / rate) == len(places)
    assert grid_length(0.0) == 1
    assert [needed_length(delay) for delay in (None, 1, 4)] == [2, 2, 5]


@pytest.mark.parametrize("delay", [1, 4, None])
def test_all_pairs_of_a_delay_are_as_likely(delay: int | None):
    steps = torch.arange(0, 1, 1 / 720, dtype=torch.float64)
    draws = torch.cartesian_prod(steps, steps)
    found = draw_pairs(torch.full((len(draws),), 9), delay, draws, centred=False)
    # One number a pair is faster to count.
    pairs, counts = (found @ torch.tensor([9, 1])).unique(return_counts=True)
    possible = [9 * a + b for a in range(9) for b in range(a + 1, 9) if delay in (None, b - a)]
    assert pairs.tolist() == possible
    assert (counts / len(draws) * len(possible) - 1).abs().max() < 0.02


@pytest.mark.parametrize("delay", [1, 4, None])
def test_centred_pairs_leave_as_much_before_them_as_behind(delay: int | None):
    lengths = torch.arange(needed_length(delay), 40).repeat(5)
    draws = torch.rand(len(lengths), 2, generator=torch.Generator().manual_seed(0))
    first, second = draw_pairs(lengths, delay, draws, centred=True).unbind(1)
    behind = lengths - 1 - second
    assert ((behind - first) >= 0).all() and ((behind - first) <= 1).all()
    assert (first >= 0).all() and (second > first).all()
    assert delay is None or ((second - first) == delay).all()


def test_boxes_have_the_share_and_the_shape_that_are_asked_for():
    draws = torch.rand(4000, 4, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([draw_box(each, 340, 256, (0.2, 1.0)) for each in draws])
    left, top, right, bottom = boxes.double().unbind(1)
    assert (left >= 0).all() and (top >= 0).all()
    assert (right <= 340 + 1e-3).all() and (bottom <= 256 + 1e-3).all()
    width, height = right - left, bottom - top
    ratio = (width / height).log() / np.log(4 / 3)
    inside = (width < 339.9) & (height < 255.9)
    assert ratio[inside].abs().max() <= 1 + 1e-4
    area = width * height / (340 * 256)
    assert area.min() >= 0.2 - 1e-6 and area.max() > 0.85
    # Where no side is cut down, area and shape are the drawn ones.
    expected = 0.2 + 0.8 * draws[:, 0].double()
    torch.testing.assert_close(area[inside], expected[inside], rtol=1e-5, atol=0)
    assert abs(ratio[inside & (expected < 0.5)].mean()) < 0.05
    assert centre_box(100, 256) == (0, 78, 100, 178)


# The index.


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []

    def counted_probe(path: str) -> Any:
        names.append(Path(path).name)
        return probe(path)

    monkeypatch.setattr(video_index, "probe", counted_probe)
    return names


def clips_of(folder: Path, names: list[str]) -> VideoClips:
    return read_index(VideoList(folder, names, ["x"] * len(names)), folder / "index" / "a.npz")


def test_an_index_is_built_once_and_brought_up_to_date(tmp_path: Path, looked_at: list[str]):
    names = [f"{n}.mp4" for n in range(5)]
    for number, name in enumerate(names):
        write_video(tmp_path / name, film(12 + 4 * number))
    (tmp_path / "3.mp4").write_text("no video")
    clips = clips_of(tmp_path, names)
    assert sorted(looked_at) == names
    # At 12 frames a second every fourth lies on the grid.
    assert clips.lengths.tolist() == [3, 4, 5, 0, 7]
    assert [bool(reason) for reason in clips.reasons] == [False, False, False, True, False]
    looked_at.clear()
    again = clips_of(tmp_path, names)
    assert not looked_at and again.lengths.tolist() == [3, 4, 5, 0, 7]
    assert list(again.reasons) == list(clips.reasons)
    # One is mended, one changes within the same second and size, one goes and one comes.
    write_video(tmp_path / "3.mp4", film(8))
    stamp = (tmp_path / "1.mp4").stat().st_mtime_ns
    os.utime(tmp_path / "1.mp4", ns=(stamp, stamp + 1))
    write_video(tmp_path / "new.mp4", film(4))
    clips = clips_of(tmp_path, ["new.mp4", *names[1:]])
    assert sorted(looked_at) == ["1.mp4", "3.mp4", "new.mp4"]
    assert clips.lengths.tolist() == [1, 4, 5, 2, 7]
    # An index that is damaged, or that another version wrote, is made anew.
    index = tmp_path / "index" / "a.npz"
    for spoil in (
        lambda: index.write_bytes(b"PK\x03\x04 and then nothing"),
        lambda: np.savez(index, format=1, paths_text=np.zeros(9), paths_ends=np.zeros(5)),
    ):
        spoil()
        looked_at.clear()
        assert clips_of(tmp_path, names).lengths.tolist() == [3, 4, 5, 2, 7]
        assert sorted(looked_at) == names
    assert not list(tmp_path.rglob("*.part"))


@pytest.fixture
def three(tmp_path: Path) -> list[str]:
    """Videos of 3, 4 and 5 frames of the grid in a folder, which has no index yet."""
    for number in range(3):
        write_video(tmp_path / f"{number}.mp4", film(12 + 4 * number))
    return [f"{number}.mp4" for number in range(3)]


def raising(error: Exception, name: str, otherwise: Any) -> Any:
    """A function of a path that raises an error for the files of this name."""

    def function(path: Any, *arguments: Any, **settings: Any) -> Any:
        if Path(path).name == name:
            raise error
        return otherwise(path, *arguments, **settings)

    return function


REFUSALS = ("EACCES", "EPERM", "EMFILE", "ENFILE", "EIO", "ESTALE", "ENOMEM", "ETIMEDOUT", "ENODEV")


@pytest.mark.parametrize("way", ["system", "FFmpeg", "hidden"])
def test_what_the_system_says_no_to_is_told_and_never_kept(
    way: str, tmp_path: Path, three: list[str], looked_at: list[str], monkeypatch
):
    for number in (getattr(errno, name) for name in REFUSALS):
        words = os.strerror(number)
        with monkeypatch.context() as patch:
            if way == "system":
                function = raising(OSError(number, words), "1.mp4", is_cut_off)
                patch.setattr(video_file, "is_cut_off", function)
            elif number in (errno.EPERM, errno.EIO, errno.ENOMEM) and way == "FFmpeg":
                continue
            else:
                # FFmpeg says itself what the system said, or takes it for an error in the file.
                invalid = av.error.InvalidDataError(1094995529, "Invalid data", "1.mp4")
                told = av.error.OSError(number, words, "1.mp4")
                error = told if way == "FFmpeg" else invalid
                patch.setattr(av, "open", raising(error, "1.mp4", av.open))
            if way == "hidden":
                function = raising(OSError(number, words), "1.mp4", lambda path: None)
                patch.setattr(video_file, "_read_through", function)
            with pytest.raises(UserError, match=f"/1.mp4 cannot be read: {words}; as the system"):
                clips_of(tmp_path, three)
        looked_at.clear()
        assert clips_of(tmp_path, three[:1]).lengths.tolist() == [3] and not looked_at
    assert clips_of(tmp_path, three).lengths.tolist() == [3, 4, 5]
    assert looked_at == ["1.mp4"]


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOMEM, errno.EIO])
def test_what_may_be_otherwise_another_time_is_bad_for_now(
    number: int, tmp_path: Path, three: list[str], monkeypatch: pytest.MonkeyPatch
):
    """A file that was gone for a moment; and numbers that FFmpeg gives for damaged files, too."""
    with monkeypatch.context() as patch:
        error = av.error.OSError(number, os.strerror(number), "1.mp4")
        patch.setattr(av, "open", raising(error, "1.mp4", av.open))
        clips = clips_of(tmp_path, three)
        assert clips.lengths.tolist() == [3, 0, 5]
        assert os.fsdecode(clips.reasons[1]) == f"cannot be read: {os.strerror(number)}"
    assert clips_of(tmp_path, three).lengths.tolist() == [3, 4, 5]


def test_an_index_has_an_entry_a_file_that_all_lists_share(
    tmp_path: Path, three: list[str], looked_at: list[str]
):
    folder, index = tmp_path / "train", tmp_path / "index" / "train.npz"
    folder.mkdir()
    for name in three:
        (tmp_path / name).rename(folder / name)

    def read(root: Path, names: list[str], *others: Path) -> list[int]:
        looked_at.clear()
        videos = VideoList(root, names, ["x"] * len(names))
        return read_index(videos, index, root=tmp_path, others=others).lengths.tolist()

    assert read(folder, three[:2]) == [3, 4] and sorted(looked_at) == three[:2]
    assert read(tmp_path, [f"./train/{name}" for name in three[1:]]) == [4, 5]
    assert looked_at == ["2.mp4"]
    assert read(folder, three[::-1]) == [5, 4, 3] and not looked_at
    assert read(tmp_path, [str(folder / "0.mp4")]) == [3] and looked_at == ["0.mp4"]
    # What another index says holds as well, and is taken over.
    other = index.replace(tmp_path / "other.npz")
    assert read(folder, three, other) == [3, 4, 5] and not looked_at
    assert read(folder, three) == [3, 4, 5] and not looked_at
    # Version 2 had paths relative to the list's folder, and broken ones that may be sound now.
    with np.load(index) as arrays:
        old = dict(arrays) | {"format": 2}
    old["paths"] = np.array([path.removeprefix(b"train/") for path in old["paths"].tolist()])
    old["lengths"][old["paths"] == b"1.mp4"] = 0
    np.savez(index, **old)
    assert read(folder, three) == [3, 4, 5] and looked_at == ["1.mp4"]
    assert not list(tmp_path.rglob("*.part"))


def test_two_that_index_at_once_look_at_each_video_once(
    tmp_path: Path, three: list[str], looked_at: list[str], monkeypatch: pytest.MonkeyPatch
):
    counted, begun, go_on = video_index.probe, Event(), Event()

    def slow(path: str) -> Any:
        begun.set()
        assert go_on.wait(20)
        return counted(path)

    monkeypatch.setattr(video_index, "probe", slow)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(clips_of, tmp_path, three[:2])
        assert begun.wait(20)
        second = pool.submit(clips_of, tmp_path, three)
        go_on.set()
        assert first.result(20).lengths.tolist() == [3, 4]
        assert second.result(20).lengths.tolist() == [3, 4, 5]
    assert sorted(looked_at) == three


def test_an_index_that_cannot_be_read_or_written_is_a_sentence(
    tmp_path: Path, three: list[str], monkeypatch: pytest.MonkeyPatch
):
    """The disk is full, or the file is another's; what it holds is not thrown away."""
    clips_of(tmp_path, three[:1])
    index = tmp_path / "index" / "a.npz"
    before = index.read_bytes()
    for number, name in ((errno.ENOSPC, "save_arrays"), (errno.EMFILE, "_load")):
        words = os.strerror(number)
        with monkeypatch.context() as patch:
            patch.setattr(video_index, name, raising(OSError(number, words), "a.npz", None))
            with pytest.raises(UserError, match=f"a.npz cannot be read and written: {words}; see"):
                clips_of(tmp_path, three)
    assert index.read_bytes() == before


def test_the_index_lies_where_it_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "root"
    root.mkdir()
    beside = index_folder(root)
    assert beside == root / "critical_periods_index"
    chosen = index_folder(root, tmp_path / "chosen")
    assert chosen.parent == tmp_path / "chosen" and chosen.is_dir()
    assert index_folder(tmp_path, tmp_path / "chosen") != chosen
    # A lock that cannot be opened, as another user's cannot.
    (beside / "val.lock").unlink()
    (beside / "val.lock").mkdir()
    cache = index_folder(root)
    assert cache == tmp_path / "cache" / "critical_periods" / chosen.name
    # A user without a home.
    monkeypatch.setenv("XDG_CACHE_HOME", "~/.cache")
    with pytest.raises(UserError, match=r"written to \S+_index \([^()]+\); set data"):
        index_folder(root)
    # No place at all.
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for setting, places in ((None, "_index .* or .*file/"), (tmp_path / "file" / "x", "file/x/")):
        sentence = f"root=.* cannot be written to .*{places}.*Not a dir.*set data.init_args.index_"
        with pytest.raises(UserError, match=sentence):
            index_folder(root, setting)


def test_strings_are_what_they_were():
    names = ["", "a", "Füße/跳.mp4", "\udcff\udc80.mp4", "", "x" * 300, ""]
    assert [*map(os.fsdecode, as_bytes(names))] == names
    assert as_bytes([]).tolist() == []


# Folders and lists.


def test_a_folder_of_classes(tmp_path: Path):
    names = ["train/b c/2.MP4", "train/b c/10.webm", "train/a/1.avi", "validation/a/1.mp4"]
    others = ["a/notes.txt", "readme.mp4", ".thumbnails/1.mp4", "a/._1.avi"]
    for name in [*names, *(f"train/{other}" for other in others)]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    train, val = (find_videos(tmp_path, split) for split in ("train", "val"))
    found = ["a/1.avi", "b c/10.webm", "b c/2.MP4"]
    assert train == (tmp_path / "train", found, ["a", "b c", "b c"])
    assert val == (tmp_path / "validation", ["a/1.mp4"], ["a"])


LISTS = {
    "commas": "a b/1.mp4,riding a bike\nc/2.mp4,0x\n",
    "commas and a header": "path,label\na b/1.mp4,riding a bike\nc/2.mp4,0x\n",
    "a header in another order": "Label,split,PATH\nriding a bike,val,a b/1.mp4\n0x,val,c/2.mp4\n",
    "comments": "# my list\npath,label\na b/1.mp4,riding a bike\n  # 0x is no number\nc/2.mp4,0x\n",
    "quotes": '"a b/1.mp4","riding a bike"\nc/2.mp4,0x\n',
    "tabs": "a b/1.mp4\triding a bike\nc/2.mp4\t0x\n",
    "a byte order mark, Windows' ends and empty lines": (
        "\ufeffa b/1.mp4, riding a bike\r\n\r\nc/2.mp4, 0x\r\n\r\n"
    ),
}


@pytest.mark.parametrize("kind", LISTS)
def test_lists_of_path_and_label(kind: str, tmp_path: Path):
    file = tmp_path / "list.csv"
    file.write_text(LISTS[kind], encoding="utf-8", newline="")
    expected = (tmp_path, ["a b/1.mp4", "c/2.mp4"], ["riding a bike", "0x"])
    assert find_videos(tmp_path, "train", file) == expected


def test_columns_of_other_names(tmp_path: Path):
    """One says what they are called; another name is no header, and is told as such."""
    file = tmp_path / "list.csv"
    file.write_text("Class Name,path,Video-ID\nyoga,x,a/1.mp4\n")
    found = find_videos(tmp_path, "train", file, ("video-id", "class name"))
    assert found == (tmp_path, ["a/1.mp4"], ["yoga"])
    with pytest.raises(UserError, match=r"line 1 of .*'Class Name,path,Video-ID', but each line"):
        find_videos(tmp_path, "train", file)


def test_lists_with_spaces_between(tmp_path: Path):
    file = tmp_path / "list.txt"
    file.write_text("a/1.mp4 3\na b/2.mp4   12\n/else/where.mp4\t0\n")
    paths = ["a/1.mp4", "a b/2.mp4", "/else/where.mp4"]
    assert find_videos(tmp_path, "val", file)[1:] == (paths, ["3", "12", "0"])
    file.write_text('"a, b/1.mp4",3\n"c, d/2.mp4",4\n')
    assert find_videos(tmp_path, "val", file).paths == ["a, b/1.mp4", "c, d/2.mp4"]


@pytest.mark.parametrize(
    ("header", "suffix"), [("", ".mp4"), ("path label\n", ".mp4"), ("path label\n", "")]
)
def test_one_mark_for_all_lines_of_a_list(tmp_path: Path, header: str, suffix: str):
    """Commas in paths do not end them where spaces before numbers do."""
    file = tmp_path / "list.txt"
    paths = [f"train/a, b/c{suffix}", f"train/a, b/d{suffix}"]
    file.write_text(f"{header}{paths[0]} 3\n{paths[1]} 0\n")
    assert find_videos(tmp_path, "val", file)[1:] == (paths, ["3", "0"])
    paths = [f"a b/c{suffix}", f"a b/d{suffix}"]
    file.write_text(f'{header.replace(" ", ",")}{paths[0]},"riding a, b"\n{paths[1]},yoga\n')
    assert find_videos(tmp_path, "val", file)[1:] == (paths, ["riding a, b", "yoga"])


def test_numbers_may_be_written_as_fractions(tmp_path: Path):
    file = tmp_path / "list.csv"
    file.write_text("path,label\na.mp4,3.0\nb.mp4,0.0\n")
    labels = find_videos(tmp_path, "train", file).labels
    assert number_labels(labels, ["2", "1."]) == (["0", "1", "2", "3"], [3, 0], [2, 1])
    # Halves are names.
    assert number_labels(["0.5", "1"], ["1"]) == (["0.5", "1"], [0, 1], [1])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "list.csv is empty; each line is a path and a label"),
        ("path,label\n", "list.csv is empty"),
        ("a.mp4,1\nb.mp4\n", "line 2 of .* is 'b.mp4', but each line is a video file and a label"),
        ("a.mp4,1\n\nb.mp4,\n", "line 3 of .*list.csv"),
        ("a.mp4,1\n,2\n", "line 2 of .*list.csv"),
        ("split,label,path\nval,x,a.mp4\nval,x\n", "line 3 of .*list.csv"),
        ("path,where\na.mp4,1\n", "line 1 .*'path,where', .* header that names 'path' and 'label'"),
        ("path,label,path\na.mp4,1,b.mp4\n", "line 1 of .* is 'path,label,path', but"),
        ("a/1 3\na/2 4\n", "line 1 of .* is 'a/1 3', .* with other files .* needs a header"),
        ("a.mp4,1,2\nb.mp4,1,2\n", "line 1 .* 'a.mp4,1,2', but .* or more columns needs a header"),
        ("a.mp4 30 1\nb.mp4 40 0\n", "line 1 of .* is 'a.mp4 30 1', but"),
        ("path,label\na.mp4,riding a, b\n", "line 2 of .* is 'a.mp4,riding a, b', but"),
        ("filename,class_id\na.mp4,1\n", "line 1 of .* is 'filename,class_id', but"),
        ("foo,bar\na.mp4,x\nb.mp4,y\n", "line 1 of .* is 'foo,bar', but each line is a video"),
        (
            "label,youtube_id,split\nyoga,0aB,val\n",
            "line 1 .*'label,youtube_id,.*needs a header",
        ),
        ("# numbers\nfoo bar\na 1\nb 2\n", "line 2 of .* is 'foo bar', but each line is a video"),
        ("a.mp4 1\nb.mp4 100000000\n", "line 2 of .* has the class number 100000000, but numbers"),
        ("x" * 200_000, "line 1 of .* is 'xxx"),
    ],
)
def test_lists_that_are_none(text: str, sentence: str, tmp_path: Path):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(UserError, match=sentence):
        find_videos(tmp_path, "train", tmp_path / "list.csv")


def test_folders_that_hold_nothing(tmp_path: Path):
    with pytest.raises(UserError, match=r"holds no folder val/ or validation/ or test/.* val_csv"):
        find_videos(tmp_path, "val")
    (tmp_path / "train" / "a").mkdir(parents=True)
    with pytest.raises(UserError, match="train holds no videos; it must hold a folder for every"):
        find_videos(tmp_path, "train")
    with pytest.raises(UserError, match=r"the list .*none.csv cannot be read"):
        find_videos(tmp_path, "train", tmp_path / "none.csv")


def test_class_numbers_are_taken_and_names_are_numbered():
    numbered = [str(number) for number in range(700)]
    assert number_labels(numbered, ["599", "3"]) == (numbered, [*range(700)], [599, 3])
    words = [f"class {number:03d}" for number in range(600)]
    assert number_labels(words[::-1], words[:2]) == (words, [*range(600)][::-1], [0, 1])
    with pytest.raises(UserError, match="a video has the class number 20260101, but numbers count"):
        number_labels(["20260101", "1"], ["1"])
    with pytest.raises(UserError, match="class 'yoga' occurs in validation but not in training"):
        number_labels(["a"], ["yoga"])
