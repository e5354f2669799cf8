"""Tests of the pages: the README is short, and every link has a target."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mnist37_server.rpc import memory_trim
from mnist37_server.services.mnist37_service import READ_RPCS
from support.pages import ROOT, anchors, links, pages, table


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 150


def test_the_readme_names_every_page_of_the_reference() -> None:
    linked = set(links(ROOT / "README.md"))
    assert {str(page.relative_to(ROOT)) for page in ROOT.glob("docs/reference/*.md")} <= linked


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_the_table_of_the_decisions_lists_every_record() -> None:
    records = sorted(ROOT.glob("docs/decisions/[0-9]*.md"))
    titles = [record.read_text().splitlines()[0] for record in records]
    rows = table("docs/decisions/README.md", "number", "title")
    assert [
        f"| {int(record.name[:4])} | [{title.partition('. ')[2]}]({record.name}) |"
        for record, title in zip(records, titles, strict=True)
    ] == [f"| {row['number']} | {row['title']} |" for row in rows]
    assert [title.partition(".")[0] for title in titles] == [f"# {row['number']}" for row in rows]


def test_contributing_lists_every_target_of_make() -> None:
    (phony,) = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert sorted(re.findall(r"^    make ([a-z-]+)", text, re.MULTILINE)) == sorted(phony.split())


def test_the_table_of_the_servers_threads() -> None:
    rows = {row["name"]: row for row in table("ARCHITECTURE.md", "name", "how many", "runs")}
    assert sorted(rows["`read-N`"]["runs"].split(", ")) == sorted(READ_RPCS)
    trim = rows["`memory-trim`"]
    assert trim["may block on"] == f"a pause of {memory_trim.INTERVAL_SECONDS:.0f} s"


def test_the_readme_the_page_and_the_lesson_point_to_each_other() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "](lesson/mnist37_lesson/lesson.ipynb)" in readme
    assert "](docs/page.md)" in readme
    page = (ROOT / "web/mnist37_web/page/static/index.html").read_text()
    assert "<code>mnist37 lesson</code>" in page
    assert "](../lesson/mnist37_lesson/lesson.ipynb)" in (ROOT / "docs/page.md").read_text()
    for name in ("lesson.md", "lesson.ipynb"):
        lesson = (ROOT / "lesson/mnist37_lesson" / name).read_text()
        assert {"README.md", "docs/page.md"} <= set(re.findall(r"`([\w./]+\.md)`", lesson))
