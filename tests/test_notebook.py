"""The notebook, cell by cell."""

import json
import os
import subprocess
import sys

import pytest
from workflow_fixtures import ROOT

pytestmark = pytest.mark.slow
NOTEBOOK = ROOT / "docs/notebook.ipynb"


def test_its_cells_run_one_after_the_other(tmp_path):
    """As they stand, but for the length of the training."""
    notebook = json.loads(NOTEBOOK.read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    script = "\n".join(cells)
    assert script.count("iterations = 40\n") == 1
    (tmp_path / "cells.py").write_text(script.replace("iterations = 40\n", "iterations = 1\n"))
    command = [sys.executable, "cells.py"]
    run = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert (tmp_path / "notebook_results/P00/quality.html").exists()
    assert (tmp_path / "notebook_results/label_on_fixed.nii.gz").exists()


def test_it_holds_no_output():
    """Which would grow with every run, and name folders."""
    assert not [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell.get("outputs")]
