"""The notebooks in `examples/` run from top to bottom."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parent.parent / "examples"
BOOKS = sorted(path.name for path in EXAMPLES.glob("*.ipynb"))


def test_there_are_three_notebooks():
    assert len(BOOKS) == 3


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", BOOKS)
def test_a_notebook_runs_from_top_to_bottom(name, tmp_path):
    book = nbformat.read(EXAMPLES / name, as_version=4)
    NotebookClient(book, timeout=500, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in book.cells for output in cell.get("outputs", ())]
    assert any("text/html" in output.get("data", {}) for output in outputs), "no rich display"
    assert not any(output.output_type == "error" for output in outputs)


@pytest.mark.parametrize("name", BOOKS)
def test_a_notebook_is_stored_without_outputs(name):
    book = nbformat.read(EXAMPLES / name, as_version=4)
    assert not any(cell.get("outputs") for cell in book.cells)
