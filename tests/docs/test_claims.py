"""What README, site, notebooks and comments say of damage that stays, and the page of claims."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("critical_periods", "docs", "experiments", "notebooks")
ENDINGS = (".cff", ".html", ".ipynb", ".md", ".py", ".toml", ".yaml")
FILES = [path for path in ROOT.iterdir() if path.suffix in ENDINGS] + sorted(
    path
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*")
    if path.suffix in ENDINGS and "_build" not in path.parts
)
ALWAYS = r"for good|permanent\w*|irrevers\w*|irrecover\w*|irrepara\w*|for ?ever|never"
DAMAGE = (
    r"damag\w*|impair\w*|loss\w*|los[et]\w*|cost\w*|scars?|heal\w*|recover\w*|"
    r"make up|catch\w* up|use[sd]? the|critical periods?"
)
# Sentences about something else, by some of their words.
OTHERS = (
    "no pixel of the original", "loses its left view", "lose the batch",
    "best curve that never falls",
)  # fmt: skip


def text_of(path: Path) -> str:
    """What people read, on one line."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells)
    return re.sub(r"[\s#]+", " ", text)


def damage_for_ever(text: str) -> list[str]:
    sentences = re.split(r"[.:;?!|][\"'`*)]*\s", text)
    found = [one for one in sentences if re.search(rf"\b(?:{ALWAYS})\b", one, re.IGNORECASE)]
    found = [one for one in found if re.search(rf"\b(?:{DAMAGE})\b", one, re.IGNORECASE)]
    return [one for one in found if not any(words in one for words in OTHERS)]


def test_no_damage_is_said_to_stay_for_ever():
    assert {str(path): found for path in FILES if (found := damage_for_ever(text_of(path)))} == {}


@pytest.mark.parametrize(
    "sentence",
    [
        "Blur damages a network for good.",
        "The loss is permanent.",
        "It never\n# recovers from that.",
        "Networks are irreversibly impaired.",
    ],
)
def test_such_a_sentence_is_found(sentence, tmp_path):
    (tmp_path / "page.md").write_text(f"First. {sentence} Last.")
    assert len(damage_for_ever(text_of(tmp_path / "page.md"))) == 1


def test_each_of_the_twelve_claims_has_its_scale_its_numbers_and_its_command():
    text = (ROOT / "docs" / "claims.md").read_text(encoding="utf-8")
    _, *sections = re.split(r"^## ", text, flags=re.MULTILINE)
    assert [one.split()[0] for one in sections] == [f"C{number}" for number in range(1, 13)]
    for number, one in enumerate(sections, 1):
        assert f"| [C{number}](#" in text
        *_, claim, tried, found = re.split(r"\*(?:Claim|Tried|Came out)\b[^*]*\*", one)
        assert claim and ('scale("' in tried or "As C" in tried)
        assert "{n}`" in found and ('command("' in found or "commands of C1" in found)
