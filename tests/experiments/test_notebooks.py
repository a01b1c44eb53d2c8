"""The notebooks run from a clean kernel, and hold what one run of theirs printed."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client import AsyncKernelManager
from jupyter_core.utils import run_sync
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# The same cells with fewer epochs.
SHORTER = {
    "01_quickstart": {
        "removal=[0,10]": "removal=[0,1]", "epochs_after=10": "epochs_after=1",
        "epochs == 20": "epochs == 2", "in (10, 0)": "in (1, 0)",
    },
    "02_relative_source_variance": {"max_epochs=25": "max_epochs=2", "removal=15": "removal=1"},
    "03_linear_theory": {"range(8)": "range(2)", "range(3)": "range(1)"},
    "04_your_own_project": {
        "epochs=16": "epochs=2", "removal=8": "removal=1", '"max_epochs": 8': '"max_epochs": 2',
        "removal=4": "removal=1", "epochs[3]": "epochs[0]",
    },
}  # fmt: skip
# A study's worker would be a Python more, which imports everything anew.
IN_THIS_PROCESS = """
from critical_periods.studies import worker
from critical_periods.studies.launchers import local
local.launch = lambda folder, *_, work=worker.work: work(folder) or []
"""
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_all_four_are_there():
    assert [path.stem for path in NOTEBOOKS] == [
        "01_quickstart", "02_relative_source_variance", "03_linear_theory", "04_your_own_project",
    ]  # fmt: skip


@each_notebook
def test_it_holds_the_outputs_of_one_run_and_is_small(path):
    notebook = read(path)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output.output_type == "error"]
    assert path.stat().st_size < 2 * 1024**2
    # Nothing of the machine that it ran on.
    assert not re.search(r"/(work|home|root|Users)/", path.read_text(encoding="utf-8"))


def printed(cells: list[Any]) -> list[list[str]]:
    """What the cells printed, without numbers, paths and how far a study had come at what time."""
    streams = [
        # Warnings are of the machine.
        "".join(output.text for output in cell.outputs if output.get("name") == "stdout")
        for cell in cells
    ]
    told = [re.sub(r"(?m)^Segment .* is done; .*$", "", text) for text in streams]
    return [re.sub(r"\S*[\d/]\S*", "", text).split() for text in told]


@pytest.fixture(scope="module")
def kernel() -> Iterator[AsyncKernelManager]:
    """One for all of them, which has imported torch once; each begins with no names."""
    manager = AsyncKernelManager(kernel_name="python3")
    yield manager
    run_sync(manager.shutdown_kernel)(now=True)


@pytest.mark.slow
@each_notebook
def test_it_runs_from_a_clean_kernel_and_holds_what_it_prints(path, tmp_path, kernel):
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    folder = tmp_path / "notebooks"
    folder.mkdir()
    notebook = read(path)
    held = printed(code_cells(notebook))
    for cell in code_cells(notebook):
        cell.outputs = []
        for whole, short in SHORTER.get(path.stem, {}).items():
            cell.source = cell.source.replace(whole, short)
    clean = nbformat.v4.new_code_cell(f"%cd -q {folder}\n{IN_THIS_PROCESS}%reset -f")
    notebook.cells.insert(0, clean)
    # Raises where a cell does.
    NotebookClient(notebook, timeout=300, km=kernel).execute()
    assert notebook.cells.pop(0) is clean and not clean.outputs
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    # Numbers may differ in their last digits between machines; the words may not.
    assert printed(code_cells(notebook)) == held
    # Beside the notebooks, whose folder is the repository's, they leave nothing.
    assert list(folder.iterdir()) == []
