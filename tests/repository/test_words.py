"""Words that the contract no longer has, and paths that are named outside the sources."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# The contract's words until commit d40bbcd. What is stored under such a name keeps it.
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
THEIR_PLACES = {"CHANGELOG.md", "tests/repository/test_words.py"}

# Names that are stored, and may never change.
FROZEN = {
    "server/mnist37_server/storage/rows.py": ("began      REAL NOT NULL", "committed  REAL"),
    "server/mnist37_server/storage/request_log.py": ("committed   REAL", "place       TEXT"),
    "server/mnist37_server/domain/commands.py": ('return "Train", {', '"learning_rate": self'),
}

# A path in a text: of a folder at the top, down to a file.
PATH = re.compile(
    r"(?<![\w./-])(?:(?:benchmarks|client|docker|docs|examples|mnist37|protos|server|tests)/"
    r"[\w./-]*\.(?:py|md|proto|yaml|yml|sh|txt|json|npz)|(?:tests|benchmarks|examples)(?:/\w+)+)\b"
)
SPEAK_OF_PATHS = [
    *("Makefile", "Dockerfile", "docker-compose.yml", ".ci/run", "pyproject.toml", "README.md"),
    *("ARCHITECTURE.md", "CONTRIBUTING.md", "benchmarks/on_device.py", "benchmarks/README.md"),
    *("docs/operations.md", "docs/kubernetes.yaml", "docs/kubernetes-gpu.yaml"),
]


def tracked() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("this is no checkout")
    return listed.stdout.split()


def test_the_contracts_old_words_are_gone() -> None:
    old = re.compile("|".join(OLD_WORDS))
    found = []
    for name in tracked():
        path = ROOT / name
        if name in THEIR_PLACES or name.startswith("benchmarks/results/") or not path.is_file():
            continue
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [f"{name}: {word[0]}" for word in old.finditer(text)]
    assert not found


@pytest.mark.parametrize("name", FROZEN)
def test_stored_names_stay(name: str) -> None:
    text = (ROOT / name).read_text()
    for stored in FROZEN[name]:
        assert stored in text


@pytest.mark.parametrize("name", SPEAK_OF_PATHS)
def test_paths_that_are_spoken_of_exist(name: str) -> None:
    """What only a device or a container runs moves too."""
    for path in PATH.findall((ROOT / name).read_text()):
        assert (ROOT / path).exists() or (ROOT / f"{path}.py").exists(), path
