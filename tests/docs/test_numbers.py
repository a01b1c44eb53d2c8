"""Every number in README and on the site's pages comes from a committed table, or is checked."""

import re
from collections.abc import Iterable
from pathlib import Path

import pytest
import tables
import yaml
from site_extension import evaluate

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("**/[a-z]*.md"))
PAGES = [page for page in PAGES if not {"_build", "notebooks"} & set(page.parts)]

# What the README says, with what it is called in tables.py.
README = [
    ("well for {} epochs.", "setting('quickstart', 'windows.epochs_after')"),
    (
        "Without a deficit mean RSV is {}; after {} epochs of blur the right eye still counts less "
        "{} clean epochs later: {} (control of the same length: {}). Accuracy hardly suffers on so "
        "easy a task: {} against {} (means over {} seeds).",
        "value('quickstart', 'rsv_mean', removal=0)",
        "max(setting('quickstart', 'windows.removal'))",
        "setting('quickstart', 'windows.epochs_after')",
        "value('quickstart', 'rsv_mean', removal=40)",
        "value('quickstart', 'rsv_mean_control', removal=40)",
        "share('quickstart', 'final_accuracy', removal=40)",
        "share('quickstart', 'final_accuracy_control', removal=40)",
        "seeds('quickstart')",
    ),
    ("cores it took {}.", "time('quickstart')"),
]  # fmt: skip

# Names that hold digits, and numbers that define something or name a place in a paper.
NAMES = [
    r"Kinetics-400, 600, 700",
    r"[A-Za-z_][\w.-]*\d[\w.-]*",  # CIFAR-10, SplitResNet18, conv3, t0
    r"Fig\. \d+(?: left| right)?(?:(?:,| and) \d+)*",
    r"(?:section|appendix) [A-Z.\d]+(?:, [A-Z.\d]+)*",
    r"\b(?:19|20)\d\d\b",
    r"arXiv [\d.]+",
    r"Python [\d.]+",
    r"Zen \d",
    r"Apache-2\.0|CC BY-NC 4\.0",
    r"torch [\d.]+|pytorch-lightning [\d.]+",
    r"95 % (?:confidence )?intervals?",
    r"[±+−]1\b",
    r"\|RSV\| > 0\.5",
    r"JPEGs of quality 75",
    r"rank \d+",
    r"depths? \d",
]

EPOCHS = re.compile(r"(?<![\d.])(\d+) (?:[a-z]+ )?epochs?\b|\bepochs? (\d+)\b(?!\.\d)")

# Sentences of these pages define something, or say what a machine or an example is.
DEFINITIONS = {
    "README.md": ["is +1 for a unit", "−1 for the right one alone", "on 2 quiet CPU"],
    "concepts.md": [
        "view 0", "view 1", "0: with both", "mean 0 and variance 1",
        "ends at epoch 40 and that trains on for another 40 epochs is 80 epochs long",
        "validates every 5 or 10 epochs", "removed at epochs 20 and 40",
    ],
    "full_scale.md": [
        "| 1 |", "| 8 |", "at 20 seconds an epoch", "on 8 GPUs", "with 8 tasks", "nodes of 4",
        "for 8 GPUs",
        "50,000 images", "240,000 pairs", "× 50,000 / rate / 3,600", "100 TFLOP/s",
        "a batch 8 times as large", "and 14",
    ],
    "reliability.md": ["at most 41 values"],
    "runs.md": ["(0 or 1)"],
    "wandb.md": [
        "from epoch 0", "for 5 seconds", "for more than 30", "ends with 0, 1 where it failed, 130",
        "143 after", "(75)", "100 ended runs", "latest 100 states",
    ],
    "your_project.md": ["a label of 0 or 1", "each 0, 1 or between", "up to 256 MiB"],
    "studies.md": ["from epoch 0 to", "between 0 and 1"],
    "results/commands.md": ["24 GB"],
    "results/kleinman2023.md": ["1 being no better"],
}  # fmt: skip


def prose(page: Path) -> str:
    """A page without code, calls of tables.py, links' targets and mathematics; on one line."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"<!--.*?-->", " ", text, flags=re.DOTALL)
    text = re.sub(r"^( *)(```|~~~).*?^\1\2$", " ", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"(?m)^ {4,}\S.*$", " ", text)
    text = re.sub(r"\$\$.*?\$\$|\$[^$\n]+\$", " ", text, flags=re.DOTALL)
    text = re.sub(r"(?:\{\w+\})?`[^`]*`", " ", text)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    return re.sub(r"\s+", " ", text)


def without(text: str, patterns: Iterable[str]) -> str:
    for pattern in patterns:
        text = re.sub(pattern, " ", text)
    return text


def epochs_of(page: Path) -> set[str]:
    """The epochs of the tables and study files that a page names, and differences of them."""
    text = page.read_text(encoding="utf-8")
    found: set[int] = set()
    for folder, row in tables.commands().items():
        if row["study"] and (f'"{folder}"' in text or f"`{row['study']}`" in text):
            results = tables.table(folder, "results")
            ends = {int(one) for name in ("onset", "removal", "epochs") for one in results[name]}
            found |= ends | {one - other for one in ends for other in ends}
            for name in ("fisher", "layers", "reconstruction"):
                if (tables.RESULTS / folder / f"{name}.csv").exists():
                    found |= set(tables.table(folder, name)["epoch"])
    return {str(one) for one in found}


def test_readme_says_what_the_tables_hold():
    text = prose(ROOT / "README.md")
    for sentence, *calls in README:
        said = sentence.format(*map(evaluate, calls))
        assert said in text
        text = text.replace(said, " ")
    text = without(text, map(re.escape, DEFINITIONS["README.md"]))
    assert re.findall(r".{0,40}\d.{0,20}", without(text, NAMES)) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT / "docs").as_posix())
def test_pages_type_no_results(page):
    name = page.relative_to(ROOT / "docs").as_posix()
    text = without(prose(page), map(re.escape, DEFINITIONS.get(name, [])))
    text = without(text, NAMES)
    found = {before or after for before, after in EPOCHS.findall(text)}
    assert found <= epochs_of(page)
    assert re.findall(r".{0,40}\d.{0,20}", EPOCHS.sub(" ", text)) == []


def test_the_epochs_of_each_study_are_those_of_its_plan_and_its_runs():
    # test_experiments.py checks the trained epochs of each plan.
    for folder, row in tables.commands().items():
        if row["study"]:
            results = tables.table(folder, "results")
            runs = results.drop_duplicates()
            assert set(results["study"]) == {row["study"]}
            finetuning = yaml.safe_load(tables.study_file(folder).read_text()).get("finetuning")
            if not finetuning:
                assert int(row["separate_epochs"]) == runs["epochs"].sum()
            assert int(row["epochs"]) <= int(row["separate_epochs"])


def test_tables_are_those_of_the_folders():
    folders = {path.name for path in tables.RESULTS.iterdir() if path.is_dir()}
    assert set(tables.commands()) == folders


def test_a_wrong_number_is_told():
    with pytest.raises(KeyError, match="no row"):
        tables.at("quickstart", "rsv_mean", removal=1)
    with pytest.raises(KeyError, match="no column"):
        tables.at("quickstart", "rsv_mean", variant="blur")
    with pytest.raises(KeyError, match="not one number"):
        tables.at("quickstart", "rsv_mean")


@pytest.mark.parametrize("folder", tables.TESTS)
def test_accuracies_are_shares_of_as_many_tests_as_is_said(folder):
    correct = tables.table(folder, "results")["final_accuracy"] * tables.TESTS[folder]
    # The mean of up to five validations, written with six digits.
    assert ((5 * correct - (5 * correct).round()).abs() < 0.02).all()


def test_statistics_computed_here_are_those_of_the_curve():
    """Losses by seed from results.csv give the interval that curve.csv holds."""
    for where in ({"variant": "blur", "removal": 20}, {"variant": "noise", "removal": 10}):
        losses = list(100 * tables.losses("deficits_mini", **where))
        assert tables.interval(losses) == tables.loss("deficits_mini", **where)
