"""Folders and lists of videos as people have them: read, refused, or left out with a word."""

import csv
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from small_videos import film, write_video

from critical_periods.cli import main
from critical_periods.core.errors import UserError
from critical_periods.data import KineticsDataModule
from critical_periods.data.class_folders import tell
from critical_periods.data.video.extraction import extract
from critical_periods.data.video.labels import number_labels
from critical_periods.data.video.video_lists import find_videos, tell_shared

NAMES = [f"{c}/{n}.mp4" for c in ("archery", "yoga") for n in range(2)]


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return touch(tmp_path, *(f"{split}/{name}" for split in ("train", "val") for name in NAMES))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of two films, for training and validation."""
    root = tmp_path_factory.mktemp("videos")
    for number, name in enumerate(NAMES):
        for split in ("train", "val"):
            write_video(root / split / name, film(24, number))
    return root


# Folders.


@pytest.mark.parametrize(
    "change",
    [
        lambda train: touch(train, *(f"{os.path.dirname(n)}/._{n[-5:]}" for n in NAMES)),
        lambda train: touch(train, ".ipynb_checkpoints/0.mp4", "yoga/.git/1.mp4"),
        lambda train: touch(train, "__MACOSX/yoga/0.mp4", ".DS_Store", "yoga/Thumbs.db"),
        lambda train: (train / "lost+found").mkdir(),
        lambda train: (train / "yoga" / "x.mp4").mkdir(),
        lambda train: (train / "yoga" / "loop").symlink_to(train / "yoga"),
        lambda train: [(train / "yoga").rename(train.parent / "y"),
                       (train / "yoga").symlink_to(train.parent / "y")],
    ],
)  # fmt: skip
def test_folders_that_change_nothing(change: Callable[[Path], Any], folder: Path, caplog):
    change(folder / "train")
    assert find_videos(folder, "train")[1:] == (NAMES, ["archery"] * 2 + ["yoga"] * 2)
    assert not caplog.messages


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda train: [(train / name).unlink() for name in NAMES[2:]],
            r"the class folder \S+/train/yoga holds no videos, such as \*.mp4; put some into",
        ),
        (
            lambda train: [(train / n).rename((train / n).with_suffix(".rm")) for n in NAMES[2:]],
            r"/train/yoga holds no videos, .* \(left out: 2 that end in \.rm\)",
        ),
        (
            lambda train: [(train / n).rename((train / n).with_suffix("")) for n in NAMES[2:]],
            r"/train/yoga holds no videos, .* \(left out: 2 without an ending\)",
        ),
        (
            lambda train: [train.rename(train.parent / "sport"), train.mkdir(),
                           (train.parent / "sport").rename(train / "sport")],
            r"train/sport holds videos in folders of its own \('archery', 'yoga'\), so that it may",
        ),
        (lambda train: touch(train, "yoga/more/1.mp4"), r"yoga holds videos .* own \('more'\)"),
        (
            lambda train: [(train / n).rename(train / n.replace("/", "_")) for n in NAMES],
            r"train holds 4 videos, but no folder of a class with any; move .* or set train_csv to",
        ),
    ],
)  # fmt: skip
def test_folders_that_are_refused(change: Callable[[Path], Any], sentence: str, folder: Path):
    change(folder / "train")
    with pytest.raises(UserError, match=sentence) as caught:
        find_videos(folder, "train")
    assert "\n" not in str(caught.value)


def test_one_line_says_what_is_left_out(folder: Path, caplog: pytest.LogCaptureFixture):
    train = touch(folder / "train", "readme.mp4", "yoga/a.rm", "yoga/b.RM", "yoga/list")
    for _ in range(2):
        assert find_videos(folder, "train").paths == NAMES
    assert caplog.messages == [
        f"4 of 8 files under {train} are left out, as no videos of a class: 2 that end in .rm, "
        "1 without an ending, 1 beside the classes' folders."
    ]


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [(".m2ts", "libx264"), (".vob", "mpeg2video"), (".mxf", "mpeg2video")],
)
def test_formats_by_other_endings(suffix: str, codec: str, tmp_path: Path):
    for split in ("train", "val"):
        write_video(tmp_path / split / "a" / f"0{suffix}", film(40), codec=codec, rate=25)
    data = KineticsDataModule(tmp_path, num_workers=0, delay=2)
    data.setup()
    assert data._clips["train"].lengths.tolist() == [5]


def test_names_that_are_no_unicode(videos: Path, tmp_path: Path):
    for split in ("train", "val"):
        name = os.fsdecode(b"caf\xe9")
        write_video(tmp_path / split / name / os.fsdecode(b"\xe9.mp4"), film(24))
        touch(tmp_path, f"{split}/{name}/{os.fsdecode(bytes([0xFC]))}.mp4")
    data = KineticsDataModule(tmp_path, num_workers=0, max_bad_share=1)
    data.setup()
    assert data.class_names == [name] and data._clips["train"].lengths.tolist() == [6, 0]


@pytest.mark.parametrize(
    ("labels", "found", "lines"),
    [
        ((["a", "b"], ["b"]), (["a", "b"], [0, 1], [1]), ["1 of the 2 classes have no validation"
            " videos, such as 'a'."]),
        ((["1", "2"], ["2", "1"]), (["0", "1", "2"], [1, 2], [2, 1]), [
            f"1 of the 3 classes have no {split} videos, such as '0' (the labels are whole numbers,"
            " and so class numbers)." for split in ("training", "validation")]),
        ((["a", "b"], ["b", "a"]), (["a", "b"], [0, 1], [1, 0]), []),
    ],
)  # fmt: skip
def test_classes_without_videos_are_named(labels, found, lines, caplog):
    tell.cache_clear()
    assert number_labels(*labels) == found
    assert caplog.messages == lines


@pytest.mark.parametrize(
    ("folders", "found"),
    [
        (["2019", "2020"], (["2019", "2020"], [0, 0, 1, 1])),
        (["1", "10"], (["1", "10"], [0, 0, 1, 1])),
        (["0", "1"], (["0", "1"], [0, 0, 1, 1])),
        (["000", "001"], (["0", "1"], [0, 0, 1, 1])),
    ],
)
@pytest.mark.parametrize("shards", [False, True], ids=["videos", "shards"])
def test_numbers_of_folders_are_class_numbers_only_from_0_on(
    folders, found, shards: bool, videos: Path, tmp_path: Path
):
    root = tmp_path / "root"
    for split in ("train", "val"):
        for new, old in zip(folders, ("archery", "yoga"), strict=True):
            shutil.copytree(videos / split / old, root / split / new)
        if shards:
            extract(find_videos(root, split), tmp_path / "out" / split)
    data = KineticsDataModule(tmp_path / "out" if shards else root, num_workers=0)
    data.setup()
    assert (data.class_names, data._target["train"].tolist()) == found


def test_videos_that_both_train_and_validate_are_said(videos: Path, tmp_path: Path, caplog):
    """However their paths are written, in lists and behind links."""
    (tmp_path / "link").symlink_to(videos)
    lists = []
    for root, name in (
        (videos, "train/yoga/0.mp4"),
        (tmp_path / "link", "val/../train/yoga/0.mp4"),
    ):
        file = tmp_path / f"{len(lists)}.csv"
        file.write_text(f"{name},yoga\nval/yoga/{len(lists)}.mp4,yoga\n")
        lists.append(find_videos(root, "train", file))
    tell_shared(*lists)
    assert [line.partition(videos.name)[0][:45] for line in caplog.messages] == [
        "1 videos are in training and in validation, s"
    ]
    caplog.clear()
    tell_shared(*(find_videos(videos, split) for split in ("train", "val")))
    assert not caplog.messages
    (tmp_path / "root").mkdir()
    for split in ("train", "val"):
        (tmp_path / "root" / split).symlink_to(videos / "train")
    KineticsDataModule(tmp_path / "root", num_workers=0).setup()
    assert sum(line.startswith("4 videos are in training and") for line in caplog.messages) == 1


def test_shards_beside_their_videos_are_read_and_it_is_said(videos: Path, tmp_path: Path, caplog):
    root = shutil.copytree(videos, tmp_path / "root")
    extract(find_videos(root, "train"), root / "train")
    KineticsDataModule(root, num_workers=0).setup()
    # The service of Weights & Biases may log what other tests of this process have left.
    said = [one.message for one in caplog.records if not one.name.startswith("wandb")]
    assert said == [f"{root}/train holds shards and folders; only the shards are read."]


def test_one_process_of_several_warns(folder: Path, monkeypatch, caplog):
    touch(folder / "train", "notes.mp4")
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    assert find_videos(folder, "train").paths == NAMES and not caplog.messages


# Lists.

ROWS = [("a b/1.mp4", "riding a bike"), ("c/2.mp4", "0x")]


def text(mark: str, end: str = "\n", header: str = "") -> str:
    return header + "".join(f"{path}{mark}{label}{end}" for path, label in ROWS)


@pytest.mark.parametrize(
    "content",
    [
        text(";").encode(),
        text("; ", header="path;label\n").encode(),
        text(",", "\r").encode(),
        text(",", "\r\n", "path,label\r\n").encode("utf-8-sig"),
        text("\t", "\r\n").encode("utf-16"),
        b",path,label\n0,a b/1.mp4,riding a bike\n1,c/2.mp4,0x\n",
        text(",", header='"path","label"\n\n').encode(),
    ],
)
def test_lists_of_other_programs(content: bytes, tmp_path: Path):
    (tmp_path / "list.csv").write_bytes(content)
    _, paths, labels = find_videos(tmp_path, "train", tmp_path / "list.csv")
    assert [*zip(paths, labels, strict=True)] == ROWS


def test_names_may_hold_what_ends_lines_elsewhere(tmp_path: Path):
    (tmp_path / "list.csv").write_text("a\u2028b.mp4,x\n\x0cc\x85.mp4,y\n", encoding="utf-8")
    found = find_videos(tmp_path, "train", tmp_path / "list.csv")
    assert found.paths == ["a\u2028b.mp4", "c\x85.mp4"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("a.mp4,1\nb.mp4,-1\n", "line 2 of .* has the label -1, which is no class number but says"),
        ("a.mp4 -1\nb.mp4 -1\n", "line 1 of .* has the label -1, which"),
        ("a.mp4,yoga\nb.mp4,-1.0\n", "line 2 of .* has the label -1.0, which"),
        (
            "path,label\na.mp4,1\nb.mp4,yoga\n",
            "list.csv has the class number 1 in line 2, but the name 'yoga' in line 3; number all",
        ),
        ("a.mp4,1\nb.mp4,nan\n", "the class number 1 in line 1, but the name 'nan' in line 2"),
        (
            "a.mp4,1\nb.mp4,0\n./a.mp4,0\n",
            "line 3 of .* labels ./a.mp4 as '0', but line 1 as '1'; keep one of them",
        ),
        ("a.mp4,1,10.0\nb.mp4,0,9.5\n", "line 1 of .* more columns needs a header"),
        ("a.mp4;1;30\nb.mp4;0;30\n", "line 1 of .* more columns needs a header"),
        ("a.mp4 48 1\nb.mp4 50 1\n", "line 1 of .* is 'a.mp4 48 1', but each line"),
        ("path,label\na.mp4\t1\nb.mp4\t0\n", "the same one in all lines"),
        ("video,label,name\na.mp4,1,x\n", "needs a header that names 'path' and 'label', as path_"),
        ("a.mp4,\xfc\n".encode("latin-1"), "line 1 of the list .* is not in UTF-8; save it so"),
        (b"a.mp4,1\nb\xff.mp4,0\n", "line 2 of the list .* is not in UTF-8; save it so"),
        ("a.mp4,1\n".encode("utf-32-le"), "line 1 of the list .* holds a zero byte and"),
    ],
)
def test_lists_that_are_refused(content: str | bytes, sentence: str, tmp_path: Path):
    file = tmp_path / "list.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=sentence) as caught:
        find_videos(tmp_path, "train", file)
    assert "\n" not in str(caught.value)


def test_a_video_twice_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "list.csv").write_text("a.mp4,1\nb.mp4,0\na.mp4,1\nx/../b.mp4,0\n")
    assert len(find_videos(tmp_path, "train", tmp_path / "list.csv").paths) == 4
    (line,) = caplog.messages
    tmp_path.joinpath("list.csv").write_text("a.mp4,Yoga\nb.mp4,yoga\n")
    find_videos(tmp_path, "train", tmp_path / "list.csv")
    assert "list.csv holds the classes 'Yoga' and 'yoga', which may be" in caplog.messages[1]
    assert line.startswith("2 of 4 lines of ") and "such as line 3, name a video again" in line


@pytest.mark.parametrize(
    ("train", "val", "sentence"),
    [
        (["3", "3"], ["3"], "all training videos have the class number 3, beside which there is"),
        (["0", "0"], ["1"], "all training videos have the class number 0, beside which"),
        (["0", "1"], ["yoga"], "the class 'yoga' occurs in validation but not in training"),
        (["Yoga", "b"], ["yoga"], r"alike; there it is written 'Yoga'\."),
        (["tai_chi", "b"], ["tai chi"], r"alike; did you mean 'tai_chi'\?"),
    ],
)
def test_labels_that_are_refused(train: list[str], val: list[str], sentence: str):
    with pytest.raises(UserError, match=sentence):
        number_labels(train, val)


def lists(root: Path, out: Path, *missing: str) -> dict[str, Path]:
    """Lists of the videos and of some that are not there."""
    files = {}
    for split in ("train", "val"):
        rows = [f"{root}/{split}/{name} {name.split('/')[0]}" for name in NAMES]
        files[split] = out / f"{split}.csv"
        files[split].write_text("\n".join([*rows, *missing] if split == "train" else rows))
    return files


def test_videos_that_do_not_exist_are_called_missing(videos: Path, tmp_path: Path, capsys):
    files = lists(videos, tmp_path, "none/1.mp4 yoga")
    settings: Any = {"train_csv": files["train"], "val_csv": files["val"], "num_workers": 0}
    root = tmp_path / "root"
    root.mkdir()
    data = KineticsDataModule(root, max_bad_share=0.2, **settings)
    data.setup()
    with open(data._report_file, newline="") as file:
        assert [*csv.reader(file)][1:] == [["train", "none/1.mp4", "does not exist"]]
    sentence = (
        r"1 of 9 videos under root='\S+' are missing \(1\), broken, empty or too short, more than "
        r"max_bad_share=0\.05; see \S+, put the missing ones there or correct the list, or raise"
    )
    with pytest.raises(UserError, match=sentence):
        KineticsDataModule(root, **settings).setup()
    words = ["kinetics", "extract", str(root), "--output", str(tmp_path / "out"), "--jobs", "1"]
    words += ["--train-csv", str(files["train"]), "--val-csv", str(files["val"])]
    assert main(words) == 2 and not (tmp_path / "out").exists()
    error = capsys.readouterr().err
    assert "1 of the 5 videos of" in error and "do not exist, such as 'none/1.mp4'" in error


@pytest.mark.parametrize("shards", [False, True], ids=["videos", "shards"])
def test_links_to_nothing_are_called_missing_too(shards: bool, videos: Path, tmp_path: Path):
    root = shutil.copytree(videos, tmp_path / "root")
    (root / "train/yoga/2.mp4").symlink_to("nowhere")
    if shards:
        for split in ("train", "val"):
            extract(find_videos(root, split), tmp_path / "out" / split)
    with pytest.raises(UserError, match=r"1 of 9 .* missing \(1\), .* or take their links away"):
        KineticsDataModule(tmp_path / "out" if shards else root, num_workers=0).setup()


def test_a_list_of_nothing_is_refused_before_the_index(videos: Path, tmp_path: Path):
    files = lists(Path("elsewhere"), tmp_path)
    data = KineticsDataModule(
        videos, train_csv=files["train"], val_csv=files["val"], max_bad_share=1, num_workers=0
    )
    with pytest.raises(
        UserError, match=r"4 of the 4 videos of \S+train.csv do not exist, such as 'elsewhere/.*:"
    ):
        data.setup()


def test_an_extraction_without_a_frame_is_an_error(folder: Path, tmp_path: Path, capsys):
    """All files are empty."""
    words = ["kinetics", "extract", str(folder), "--output", str(tmp_path / "out"), "--jobs", "1"]
    assert main(words) == 2
    assert "none of the 4 videos of 'train' can be decoded; see" in capsys.readouterr().err
    with open(tmp_path / "out" / "bad_videos.csv", newline="") as file:
        assert [row[2] for row in csv.reader(file)][1:] == ["is empty"] * 4
