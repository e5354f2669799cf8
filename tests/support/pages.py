"""The project's pages: their tables and their links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

Row = dict[str, str]  # a cell's text by the text of its column's header


def table(page: str, *header: str) -> list[Row]:
    """Return the rows of a page's one table whose first columns have these headers.

    Args:
        page: the page's path below the root.
        header: the first columns' headers; without one, the page's only table.
    """
    (found,) = [
        rows for columns, rows in tables(ROOT / page) if columns[: len(header)] == list(header)
    ]
    return found


def tables(page: Path) -> Iterator[tuple[list[str], list[Row]]]:
    """Yield each table of a page: its columns' headers, and its rows."""
    for block in re.findall(r"(?:^\|.*\|\n)+", page.read_text() + "\n", re.MULTILINE):
        columns, _, *lines = [_cells(line) for line in block.splitlines()]
        yield columns, [dict(zip(columns, line, strict=True)) for line in lines]


def _cells(line: str) -> list[str]:
    cells = re.split(r"(?<!\\)\|", line.strip()[1:-1])
    return [cell.strip().replace(r"\|", "|") for cell in cells]


def plain(cell: str) -> str:
    """Return a cell's text without backticks."""
    return cell.replace("`", "")


def names(cell: str) -> list[str]:
    """Return the texts between backticks in a cell."""
    return re.findall(r"`([^`]+)`", cell)


def pages() -> list[Path]:
    """Return every page that people read, and no results of benchmarks."""
    return [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("lesson/*/*.md"),
        ROOT / "benchmarks" / "README.md",
    ]


def without_code(page: Path) -> str:
    """Return a page's text without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def links(page: Path) -> list[str]:
    """Return the targets of a page's links and pictures that lie in this repository."""
    targets = re.findall(r"\]\(([^)\s]+)\)", without_code(page))
    return [target for target in targets if "://" not in target]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", without_code(page), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")
        for heading in headings
    }
