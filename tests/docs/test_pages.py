"""The code of README and of the site's pages runs, each page's blocks in order as one program."""

import re
from pathlib import Path

import pytest
import yaml

from critical_periods.studies.study import read_study

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page: Path, language: str) -> list[str]:
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [code for name, code in found if name == language]


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
WITH_CODE = [page for page in PAGES if "_build" not in page.parts and blocks(page, "python")]
# Whose blocks are programs of their own.
WITH_CODE.remove(ROOT / "docs" / "your_project.md")


def test_every_kind_of_extension_has_code():
    assert {"deficit", "network", "measure", "dataset"} <= {page.stem for page in WITH_CODE}


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.stem)
@pytest.mark.filterwarnings("ignore")
def test_code_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "\n".join(blocks(page, "python"))
    exec(compile(code, str(page), "exec"), {"__name__": "page"})


def test_the_study_file_that_is_shown_can_be_read(tmp_path):
    (text,) = blocks(ROOT / "docs" / "studies.md", "yaml")
    (tmp_path / "studies").mkdir()
    base = ROOT / "experiments" / "digits_weak_eye.yaml"
    (tmp_path / base.name).write_text(base.read_text())
    path = tmp_path / "studies" / "shown.yaml"
    path.write_text(text)
    study = read_study(path)
    assert len(study.windows) == 5 and study.seeds == (0, 1, 2) and len(study.variations) == 2


def test_the_run_config_that_is_shown_has_the_fields_of_ours():
    (text,) = blocks(ROOT / "docs" / "runs.md", "yaml")
    ours = yaml.safe_load((ROOT / "experiments" / "digits_weak_eye.yaml").read_text())
    assert list(yaml.safe_load(text)) == list(ours)


def test_readme_is_of_one_screen_and_its_links_lead_somewhere():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("\n") <= 150
    links = re.findall(r"\]\(([^)#]+)", text)
    assert links and [link for link in links if not (ROOT / link).exists()] == []


def test_every_file_that_pages_name_exists():
    for page in PAGES:
        if "_build" in page.parts or page.name.startswith("CHANGELOG"):
            continue
        for name in re.findall(r"experiments/[\w/.]+\.(?:yaml|py)", page.read_text()):
            if name != "experiments/X.yaml":
                assert (ROOT / name).exists(), (page, name)
