"""Make the notebook of its source, and run it.

    python lesson/make_lesson.py

jupytext makes the cells, nbclient runs them, and the outputs are stored without what differs from
one machine to another.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

SOURCE = Path(__file__).parent / "mnist37_lesson" / "lesson.md"
NOTEBOOK = SOURCE.with_suffix(".ipynb")
CELL_SECONDS_MAX = 600  # of a cell that hangs


def make() -> NotebookNode:
    """Return the notebook that jupytext makes of the source, without outputs."""
    notebook: NotebookNode = jupytext.read(SOURCE)
    notebook.nbformat_minor = 5
    kernel = notebook.metadata["kernelspec"]
    notebook.metadata = NotebookNode(kernelspec=kernel, language_info={"name": "python"})
    for cell in notebook.cells:
        # jupytext draws a new id each time; an id of the content makes the same file each time.
        cell.id = hashlib.sha256(f"{cell.cell_type} {cell.source}".encode()).hexdigest()[:8]
        cell.metadata = NotebookNode()
    nbformat.validate(notebook)
    return notebook


def run(notebook: NotebookNode) -> None:
    """Run all cells in a new folder; their outputs become the notebook's.

    Raises:
        CellExecutionError: a cell failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        client = NotebookClient(
            notebook,
            timeout=CELL_SECONDS_MAX,
            record_timing=False,
            coalesce_streams=True,  # what a cell prints arrives in pieces, of other sizes each time
            resources=resources,
        )
        client.execute()
    notebook.metadata["language_info"] = NotebookNode(name="python")  # without Python's release


def main() -> None:
    """Make, run and write the notebook."""
    notebook = make()
    run(notebook)
    nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    main()
