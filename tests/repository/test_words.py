"""Tests of words that the contract no longer has, and of paths in texts outside the sources."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest
from support.pages import ROOT, pages

# The contract's words until commit d40bbcd. Names that are stored still have them.
OLD_WORDS = [
    r"[Cc]ut(?:[ _-]|\s+(?:#\s*)?)?off|CUT_OFF",
    r"(?<!asyncio\.)\bgather\b(?!\()",
    r"NOT_KEPT\b",
    r"INFO run began|\"run began\"",
    r"RUN_CANNOT_GO_ON",
    r"TOO_MANY_CALLERS",
    r"\bNO_ROOM",
    r"DEVICE_FULL",
    r"CALLER_LEFT",
    r"DEADLINE_PASSED",
    r"\bNO_TOKEN",
    r"TOKEN_UNKNOWN",
    r"ROLE_NOT_ENOUGH",
    r"max[-_]waiting|MAX_WAITING",
    r"--grace|MNIST37_GRACE",
    r"--max-message(?!-mib)|MNIST37_MAX_MESSAGE(?!_MIB)",
    r"\bStepped\b",
]
EXEMPT = {"CHANGELOG.md", "tests/repository/test_words.py"}

# Names that are stored, and may never change.
FROZEN = {
    "server/mnist37_server/storage/tables/rows.py": ("began      REAL NOT NULL", "committed  REAL"),
    "server/mnist37_server/storage/tables/request_log.py": ("committed   REAL", "place       TEXT"),
    "server/mnist37_server/domain/commands/train.py": (
        'return "Train", {',
        '"learning_rate": self',
    ),
    "server/mnist37_server/domain/commands/commands.py": (
        'return "TagVersion", {',
        '{"tag": version}',
    ),
}

# What a front runs too, under other names: the parts whose texts must name no command and no flag
# of one command alone.
SHARED_WITH_A_FRONT = ("server/mnist37_server", "web/mnist37_web")
NAMES_OF_ONE_COMMAND = re.compile(r"mnist37 (?:web|serve)\b|--follow.")
COMMAND_LINES = {
    "server/mnist37_server/command_line",
    "web/mnist37_web/command.py",
}

# A path in a text: from a folder at the top to a file, or to a folder of tests or benchmarks.
PATH = re.compile(
    r"(?<![\w./-])(?:(?:benchmarks|client|cluster|docker|docs|examples|mnist37|front|lesson|protos|server|tests|web)/"
    r"[\w./-]*\.(?:py|md|proto|yaml|yml|sh|txt|json|npz)|(?:tests|benchmarks|examples)(?:/\w+)+)\b"
)
FILES_WITH_PATHS = [
    *("Makefile", "Dockerfile", "docker-compose.yml", ".ci/run", "pyproject.toml"),
    *(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/*.yaml")),
    "benchmarks/on_device.py",
    *(str(page.relative_to(ROOT)) for page in pages() if page.name != "CHANGELOG.md"),
]


def tracked() -> list[str]:
    process = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if process.returncode:
        pytest.skip("this is no checkout")
    return process.stdout.split()


def test_the_contracts_old_words_are_gone() -> None:
    old = re.compile("|".join(OLD_WORDS))
    occurrences = []
    for name in tracked():
        path = ROOT / name
        if name in EXEMPT or name.startswith("benchmarks/results/") or not path.is_file():
            continue
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        occurrences += [f"{name}: {word[0]}" for word in old.finditer(text)]
    assert not occurrences


@pytest.mark.parametrize("name", FROZEN)
def test_stored_names_stay(name: str) -> None:
    text = (ROOT / name).read_text()
    for stored in FROZEN[name]:
        assert stored in text


def texts(source: Path) -> list[str]:
    """Return the texts in a source of Python or JavaScript, without docstrings and comments."""
    content = source.read_text()
    if source.suffix == ".js":
        return re.findall(
            r'"[^"\n]*"|`[^`]*`', re.sub(r"^\s*(?://|/?\*).*", "", content, flags=re.M)
        )
    tree = ast.parse(content)
    bodies = [node for node in ast.walk(tree) if hasattr(node, "body")]
    docstrings = {
        id(line.value)
        for node in bodies
        if isinstance(node.body, list)
        for line in node.body[:1]
        if isinstance(line, ast.Expr)
    }
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in docstrings
    ]


@pytest.mark.parametrize("part", SHARED_WITH_A_FRONT)
def test_what_a_front_runs_too_names_no_command_and_no_flag_that_a_front_lacks(part: str) -> None:
    found = 0
    for source in [*(ROOT / part).rglob("*.py"), *(ROOT / part).rglob("*.js")]:
        name = str(source.relative_to(ROOT))
        if any(name.startswith(prefix) for prefix in COMMAND_LINES):
            continue
        for text in texts(source):
            found += 1
            assert not NAMES_OF_ONE_COMMAND.search(text), f"{name}: {text}"
    assert found > 100


@pytest.mark.parametrize("name", FILES_WITH_PATHS)
def test_paths_in_texts_exist(name: str) -> None:
    for path in PATH.findall((ROOT / name).read_text()):
        assert (ROOT / path).exists() or (ROOT / f"{path}.py").exists(), path


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_tests_that_a_page_names_exist(page: Path) -> None:
    for module, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)", page.read_text()):
        assert f"def {name}(" in (ROOT / module).read_text(), name
