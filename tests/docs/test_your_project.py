"""The programs of the page "In your project" print what it says, and are refused as it says."""

import re
from pathlib import Path

import nbformat
import pytest

from critical_periods.core.errors import UserError

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "your_project.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
CODE = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PROGRAMS = {title: "".join(CODE.findall(text)) for title, text in SECTIONS.items()}
PROGRAMS = {title: code for title, code in PROGRAMS.items() if "trainer.fit(" in code}
REFUSAL = re.compile(r"^Without `(.*?)`:\n\n```text\n(.*?)^```$", re.DOTALL | re.MULTILINE)
REFUSALS = {title: REFUSAL.findall(SECTIONS[title]) for title in PROGRAMS}


@pytest.fixture(autouse=True)
def somewhere_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def printed(code: str) -> str:
    """What a program prints itself; progress bars and Lightning write elsewhere."""
    lines: list[str] = []

    def keep(*values: object) -> None:
        lines.append(" ".join(map(str, values)))

    exec(compile(code, "your_project.md", "exec"), {"__name__": "program", "print": keep})
    return " ".join(lines)


def test_each_kind_of_project_has_its_program():
    assert list(PROGRAMS) == [
        "A dict batch", "A segmentation", "A compiled network", "An audio classifier", "A stream",
        "A tone and a picture",
    ]  # fmt: skip
    assert sum(map(len, REFUSALS.values())) == PAGE.count("\nWithout `") >= 3
    for code in PROGRAMS.values():
        assert code.startswith("import") and code.count("trainer.fit(") == 1


def test_the_fourth_notebook_follows_the_page():
    cells = nbformat.read(ROOT / "notebooks" / "04_your_own_project.ipynb", 4).cells
    text = "\n".join(cell.source for cell in cells)
    assert re.findall("^## (.*)", text, re.MULTILINE) == ["Two callbacks in a list", *PROGRAMS]
    modules = re.findall(r"^class (\w+)\(pl\.LightningModule\)", PAGE, re.MULTILINE)
    classes = re.findall(r"^class (\w+)", text, re.MULTILINE)
    assert [name for name in classes if name in modules] == modules


def test_two_callbacks_are_all_that_a_trainer_needs():
    (code,) = CODE.findall(SECTIONS["Two callbacks in a list"])
    assert printed(code) == ""


@pytest.mark.parametrize("title", PROGRAMS)
@pytest.mark.filterwarnings("ignore")
def test_it_prints_what_stands_below_it(title):
    said = PROGRAMS[title].partition("print(*sorted(trainer.callback_metrics))")[2]
    assert printed(PROGRAMS[title]) == " ".join(said.replace("#", " ").split()) != ""


@pytest.mark.parametrize(
    ("title", "part", "sentence"),
    [(title, *found) for title, all_of_it in REFUSALS.items() for found in all_of_it],
)
@pytest.mark.filterwarnings("ignore")
def test_it_is_refused_by_the_sentence_that_is_quoted(title, part, sentence):
    """Without a part of the program that has to be there: an argument, wherever it is given."""
    without = PROGRAMS[title].replace(f", {part}", "")
    assert without != PROGRAMS[title]
    with pytest.raises(UserError) as refused:
        printed(without)
    assert str(refused.value) == " ".join(sentence.split())
