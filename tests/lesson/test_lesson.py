"""Tests of the lesson: the notebook is made of its source, and every output is that of a run."""

from __future__ import annotations

import base64
import copy
import io
import re
from collections.abc import Callable, Iterator

import make_lesson
import nbformat
import pytest
from nbformat import NotebookNode
from PIL import Image, ImageDraw
from support.notebooks import differences

# What the learner's notes print, in their order.
NOTES = [
    "(torch.Size([12396, 784]), torch.Size([12396, 1]))",
    "(torch.Size([784]), tensor([1]))",
    "tensor([20.2336], grad_fn=<AddBackward0>)",
    "tensor([[20.2336],\n        [17.0644],\n        [15.2384],\n        ...,\n        [18.3804],\n"
    "        [23.8567],\n        [28.6816]], grad_fn=<AddBackward0>)",
    "tensor([[ True],\n        [ True],\n        [ True],\n        ...,\n        [False],\n"
    "        [False],\n        [False]])",
    "0.4912068545818329",
    "0.4912068545818329",
    "tensor([0.1000, 0.4000, 0.8000])",
    "tensor(0.4333)",
    "tensor(0.2333)",
]
PLACE = re.compile(r"/(?:home|root|tmp|usr|var|Users)\b|[A-Z]:\\|site-packages")
PORT = re.compile(r"(?:127\.0\.0\.1|localhost):\d")
TIME = re.compile(r"\b20\d\d-\d\d-\d\d\b|\b\d\d:\d\d:\d\d\b|\b\d+(?:\.\d+)? (?:ms|seconds)\b")


def test_every_output_is_that_of_a_run(committed: NotebookNode, executed: NotebookNode) -> None:
    assert list(differences(committed, executed)) == []


def test_the_notebook_is_what_jupytext_makes_of_the_source(committed: NotebookNode) -> None:
    without = copy.deepcopy(committed)
    for cell in without.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    assert list(differences(make_lesson.make(), without)) == []


def test_the_file_is_what_the_library_writes(committed: NotebookNode) -> None:
    written = io.StringIO()
    nbformat.write(committed, written)
    assert written.getvalue() == make_lesson.NOTEBOOK.read_text()


def texts(notebook: NotebookNode) -> Iterator[str]:
    """Yield what the cells print and return, as texts."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "text" in output:
                yield output["text"]
            elif "image/png" not in output["data"]:
                yield output["data"]["text/plain"]


def test_every_number_of_the_notes_is_printed_in_their_order(executed: NotebookNode) -> None:
    printed = texts(executed)
    for expected in NOTES:
        assert expected in printed, expected  # searches on from the one before


def test_no_cell_fails_or_warns(committed: NotebookNode, executed: NotebookNode) -> None:
    for notebook in (committed, executed):
        for cell in notebook.cells:
            for output in cell.get("outputs", []):
                assert output["output_type"] != "error"
                assert output.get("name") != "stderr", output


def test_the_outputs_name_no_place_no_port_and_no_time(committed: NotebookNode) -> None:
    for text in texts(committed):
        for pattern in (PLACE, PORT, TIME):
            assert not pattern.search(text), text


def test_each_code_cell_was_run_once_and_in_order(committed: NotebookNode) -> None:
    counts = [cell.execution_count for cell in committed.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))


@pytest.mark.parametrize(
    ("text", "count"), [("**Mended.**", 4), ("04_mnist_basics", 1), ("**Trap", 10)]
)
def test_the_source_says_what_was_mended_and_shows_the_traps(
    notes: str, text: str, count: int
) -> None:
    assert notes.count(text) >= count


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def pictures(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the data of each output that is a picture."""
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return [output["data"] for output in outputs if "image/png" in output.get("data", {})]


def printed(notebook: NotebookNode) -> list[NotebookNode]:
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return [output for output in outputs if output["output_type"] == "stream"]


def change_a_number(notebook: NotebookNode) -> None:
    (data,) = [
        output["data"]
        for cell in code_cells(notebook)
        for output in cell.outputs
        if "[15.2384]" in output.get("data", {}).get("text/plain", "")
    ]
    data["text/plain"] = data["text/plain"].replace("15.2384", "15.2385")


def change_a_printed_number(notebook: NotebookNode) -> None:
    output = printed(notebook)[-1]
    output["text"] = re.sub(r"\d", lambda digit: str((int(digit[0]) + 1) % 10), output["text"])


def change_a_shape(notebook: NotebookNode) -> None:
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if "data" in output:
                text = output["data"]["text/plain"]
                output["data"]["text/plain"] = text.replace("12396, 784", "784, 12396")


def draw_into_a_picture(notebook: NotebookNode) -> None:
    """Put a grey square of 8 pixels' side into the first picture."""
    data = pictures(notebook)[0]
    picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    ImageDraw.Draw(picture).rectangle((40, 40, 47, 47), fill=(128, 128, 128))
    replace_picture(data, picture)


def shift_a_picture(notebook: NotebookNode) -> None:
    data = pictures(notebook)[2]
    picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    replace_picture(
        data, picture.transform(picture.size, Image.Transform.AFFINE, (1, 0, 1, 0, 1, 0))
    )


def shrink_a_picture(notebook: NotebookNode) -> None:
    data = pictures(notebook)[1]
    picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    replace_picture(data, picture.resize((picture.width - 1, picture.height)))


def replace_picture(data: NotebookNode, picture: Image.Image) -> None:
    png = io.BytesIO()
    picture.save(png, "png")
    data["image/png"] = base64.b64encode(png.getvalue()).decode()


def exchange_two_pictures(notebook: NotebookNode) -> None:
    first, second = pictures(notebook)[-2:]
    first["image/png"], second["image/png"] = second["image/png"], first["image/png"]


def leave_out_a_picture(notebook: NotebookNode) -> None:
    for cell in code_cells(notebook):
        cell.outputs = [output for output in cell.outputs if "image/png" not in str(output)[:200]]


def drop_a_cell(notebook: NotebookNode) -> None:
    del notebook.cells[notebook.cells.index(code_cells(notebook)[5])]


def drop_the_last_cell(notebook: NotebookNode) -> None:
    del notebook.cells[-1]


def exchange_two_cells(notebook: NotebookNode) -> None:
    cells = notebook.cells
    cells[-1], cells[-2] = cells[-2], cells[-1]


def change_a_source(notebook: NotebookNode) -> None:
    code_cells(notebook)[0].source += "\n"


def change_prose(notebook: NotebookNode) -> None:
    notebook.cells[0].source += " "


def drop_an_output(notebook: NotebookNode) -> None:
    (next(cell for cell in reversed(code_cells(notebook)) if cell.outputs)).outputs.pop()


def add_an_output(notebook: NotebookNode) -> None:
    code_cells(notebook)[0].outputs.append(
        NotebookNode(output_type="stream", name="stdout", text="done\n")
    )


def change_a_count(notebook: NotebookNode) -> None:
    code_cells(notebook)[3].execution_count += 1


def name_another_kernel(notebook: NotebookNode) -> None:
    notebook.metadata.kernelspec.name = "python4"


@pytest.mark.parametrize(
    "mutate",
    [
        change_a_number,
        change_a_printed_number,
        change_a_shape,
        draw_into_a_picture,
        shift_a_picture,
        shrink_a_picture,
        exchange_two_pictures,
        leave_out_a_picture,
        drop_a_cell,
        drop_the_last_cell,
        exchange_two_cells,
        change_a_source,
        change_prose,
        drop_an_output,
        add_an_output,
        change_a_count,
        name_another_kernel,
    ],
)
def test_a_changed_notebook_is_noticed(
    mutate: Callable[[NotebookNode], None], committed: NotebookNode, executed: NotebookNode
) -> None:
    mutant = copy.deepcopy(committed)
    mutate(mutant)
    assert mutant != committed
    assert list(differences(mutant, executed))
