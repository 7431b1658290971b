"""A notebook shows the bar of a run as a widget, its epochs as lines, and a comparison as its table."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import write_npz

CELLS = (
    """
import mixskd
summary = mixskd.train(
    data="toy.npz", out="run", backbone="wrn_10_1", method="baseline", run={"epochs": 1, "batch_size": 4}
)
""",
    """
from pathlib import Path
from mixskd.comparison.comparison import Comparison, tabulate
tabulate(Path("."))
Comparison(Path("."), [], {"other": "no | memory"})
""",
)


@pytest.mark.long
def test_notebook_shows_a_run_and_a_table(tmp_path: Path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipywidgets")
    write_npz(tmp_path / "toy.npz")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    shown, table = ([output.get("data", {}) for output in cell.outputs] for cell in notebook.cells)
    assert sum("application/vnd.jupyter.widget-view+json" in data for data in shown) == 1
    lines = "".join(data.get("text/plain", "") for data in shown)
    assert "data: toy.npz, 3 classes" in lines
    assert "epoch   1/1  loss" in lines
    assert "| run | wrn_10_1 |" in table[-1]["text/markdown"]
    assert "other failed: no \\| memory" in table[-1]["text/markdown"]
