"""The site builds without a warning, and describes every public name."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pytest
from site_extension import FACES, public_names
from sphinx.util.inventory import InventoryFile

import critical_periods

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("site")
    # In a process of its own: sphinx puts their source text in the place of functions' defaults.
    command = [sys.executable, "-m", "sphinx", "-q", "-n", "-W", "--keep-going"]
    subprocess.run([*command, ROOT / "docs", output], check=True)
    return output


@pytest.mark.slow
def test_every_public_name_is_in_the_inventory(site):
    with (site / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "", lambda base, path: path)
    known = {name for kind, names in inventory.items() if kind.startswith("py:") for name in names}
    for face, names in public_names().items():
        assert [name for name in names if f"{face}.{name}" not in known] == []


@pytest.mark.slow
def test_pages_hold_numbers_figures_and_mathematics_and_nothing_of_the_machine(site):
    page = (site / "results" / "achille2019.html").read_text(encoding="utf-8")
    assert "22.6 (19.2 to 26.0)" in page or "(22.6: 19.2 to 26.0)" in page
    assert "<math" in (site / "concepts.html").read_text(encoding="utf-8")
    figures = {path.name for path in (site / "_images").iterdir()}
    assert {"curve.png", "fig2.png", "epoch_0159_from_view_0.png"} <= figures
    for page in site.glob("**/*.html"):
        text = page.read_text(encoding="utf-8")
        assert str(ROOT) not in text and "cdn.jsdelivr" not in text, page


def test_faces_are_all_packages_with_public_names():
    packages = walk_packages(critical_periods.__path__, "critical_periods.")
    found = {name for _, name, is_package in packages if is_package}
    with_names = {name for name in found if getattr(import_module(name), "__all__", [])}
    others = {"critical_periods.cli", "critical_periods.core.internals"}
    assert with_names - others <= {f"critical_periods.{face}" for face in FACES}
