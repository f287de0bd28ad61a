"""The notebooks of the documentation, run from the first cell to the last, without a window."""

from __future__ import annotations

from pathlib import Path

import nbclient
import nbformat
import pytest

from tests.conftest import ROOT, environment

FOLDER = ROOT / "docs" / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
# As small as shows that every cell runs; as they are committed they take minutes.
SMALL = {"EPOCHS": "1", "TRIALS": "2", "IMAGES": "300"}
SHORTEST = "lenet_prune"


def test_they_are_committed_without_outputs() -> None:
    assert SHORTEST in NAMES
    for name in NAMES:
        for cell in nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells:
            assert cell.cell_type == "markdown" or (cell.outputs == [] and cell.execution_count is None), name


@pytest.mark.parametrize(
    "name", [name if name == SHORTEST else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_it_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in {**environment(), **SMALL}.items():
        monkeypatch.setenv(variable, value)
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    said = "".join(output.text for output in outputs if output.get("name") == "stdout")
    assert "%" in said
    assert list(tmp_path.glob("**/*.onnx"))
