"""Tests of what the store retains: tagged and best versions, and the curves of runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from mnist37_server.domain.commands.commands import DeleteTag, TagVersion
from mnist37_server.domain.commands.train import Train
from mnist37_server.domain.early_stopping import Baseline, BestEpoch
from mnist37_server.domain.records import RequestRecord, RunCheckpoint, RunRecord, TagRecord
from mnist37_server.domain.results import Progress
from mnist37_server.domain.snapshot import Origin, Snapshot
from mnist37_server.errors import Exhausted, NotFound
from mnist37_server.storage.store import Store
from mnist37_server.storage.tables.run_log import (
    RETAINED_CURVES,
    RETAINED_EPOCHS,
    RETAINED_RUNS,
    epoch_stride,
)
from mnist37_server.storage.tables.version_slots import RETAINED_VERSIONS


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path)
    store.commit([snapshot(0)], [])
    yield store
    store.close()


def snapshot(version: int, run: int | None = None) -> Snapshot:
    random = np.random.default_rng(version)
    content = random.standard_normal(785, np.float32).tobytes()
    return Snapshot(version, content, version % 49, Origin.TRAIN if run else Origin.STEP, run)


def progress(epoch: int, version: int, run: int) -> Progress:
    return Progress(epoch, 10**6, 0.5, 0.4, 0.9, version, float(epoch), run)


def commit_run(
    store: Store, number: int, epochs: int, best: int = 1, versions: int | None = None
) -> int:
    """Commit a run with so many epochs, all at once, and return its first version.

    Args:
        store: the store.
        number: the number of the run.
        epochs: how many epochs it has.
        best: the best of them.
        versions: how many of the last versions to commit; None commits all.
    """
    newest = store.latest()
    assert newest is not None
    first = newest.version + 1
    progresses = [progress(epoch, first + epoch - 1, number) for epoch in range(1, epochs + 1)]
    run = RunRecord(
        number,
        None,
        Train(epochs=10**6),
        1.5,
        first + epochs - 1,
        True,
        progresses[-1],
        BestEpoch(best, 0.1, first + best - 1),
    )
    made = [snapshot(first + i, number) for i in range(epochs - (versions or epochs), epochs)]
    store.commit(made, [], [(run, progresses)])
    return first


def commit_steps(store: Store, count: int) -> None:
    newest = store.latest()
    assert newest is not None
    for start in range(0, count, 500):
        versions = range(newest.version + 1 + start, newest.version + 1 + min(count, start + 500))
        store.commit([snapshot(version) for version in versions], [])


def tag(store: Store, name: str, version: int | str | None = None) -> int:
    return store.change_tag(TagVersion(name, version), lambda _: None)


def delete(store: Store, name: str) -> int:
    return store.change_tag(DeleteTag(name), lambda _: None)


def rows_with(store: Store, version: int) -> list[int]:
    """Return how many versions each row has that holds a version."""
    from mnist37_server.storage.tables.rows import unpack_versions

    abouts = store._reader.execute("SELECT about FROM versions").fetchall()
    rows = [[number for number, *_ in unpack_versions(about)] for (about,) in abouts]
    return sorted(len(row) for row in rows if version in row)


def test_a_tagged_version_has_a_row_of_its_own(store: Store, tmp_path: Path) -> None:
    commit_steps(store, 100)
    assert rows_with(store, 50) == [16]
    tag(store, "monday", 50)
    assert rows_with(store, 50) == [1, 16]
    tag(store, "tuesday", 50)
    assert rows_with(store, 50) == [1, 16], "one copy is enough"
    commit_steps(store, 2 * RETAINED_VERSIONS)
    for _ in range(2):
        assert rows_with(store, 50) == [1], "the row of many must be overwritten"
        assert store.version(50) == snapshot(50)
        assert [record.version for record in store.versions(10**6)][-1] == 50
        store.close()
        store.__init__(tmp_path)  # type: ignore[misc]
    delete(store, "monday")
    assert store.version(50) == snapshot(50)
    delete(store, "tuesday")
    assert store.version(50) is None
    assert store.resolve("monday") is None


def test_a_tag_that_moves_releases_its_version(store: Store) -> None:
    commit_steps(store, 100)
    tag(store, "monday", 50)
    commit_steps(store, RETAINED_VERSIONS)
    assert tag(store, "monday") == RETAINED_VERSIONS + 100
    assert store.version(50) is None


def test_the_best_version_of_a_run_is_retained_until_100_runs_later(store: Store) -> None:
    first = commit_run(store, 1, 30, best=5)
    assert store.resolve("best@1") == first + 4
    assert rows_with(store, first + 4) == [1]
    for number in range(2, RETAINED_CURVES + 1):
        commit_run(store, number, 30)
    assert store.version(first + 4) == snapshot(first + 4, 1)
    assert store.version(first) is None
    assert len([found for found in store.tags() if found.name.startswith("best@")]) == 100
    commit_run(store, RETAINED_CURVES + 1, 30)
    assert store.resolve("best@1") is None
    assert store.version(first + 4) is None


def test_the_best_version_moves_with_the_run(store: Store) -> None:
    run = RunRecord(1, "a", Train(epochs=9), 0, 1, False, None, BestEpoch(1, 0.5, 1))
    store.commit([snapshot(1, 1)], [], [(run, [progress(1, 1, 1)])])
    later = RunRecord(1, "a", Train(epochs=9), 0, 3, False, None, BestEpoch(3, 0.4, 3))
    epochs = [progress(2, 2, 1), progress(3, 3, 1)]
    store.commit([snapshot(2, 1), snapshot(3, 1)], [], [(later, epochs)])
    assert store.resolve("best@1") == 3
    commit_steps(store, RETAINED_VERSIONS)
    assert store.version(3) is not None
    assert store.version(1) is None


def test_tags_are_listed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1234.5)
    first = commit_run(store, 1, 3, best=2)
    tag(store, "b", "best@1")
    tag(store, "a", 0)
    assert store.tags() == [
        TagRecord("a", 0, None, 1234.5),
        TagRecord("b", first + 1, 1, 1234.5),
        TagRecord("best@1", first + 1, 1, 1234.5),
    ]


def test_there_are_at_most_100_tags(store: Store) -> None:
    for number in range(100):
        tag(store, f"tag-{number}")
    with pytest.raises(Exhausted, match="there are 100 tags already"):
        tag(store, "one-more")
    tag(store, "tag-7", 0)  # to move one is possible
    delete(store, "tag-8")
    tag(store, "one-more")


def test_a_refused_change_leaves_no_trace(store: Store) -> None:
    def record(version: int) -> RequestRecord:
        return RequestRecord("id", b"x", version, (version,))

    for change in (TagVersion("a", 99), TagVersion("a", "no"), DeleteTag("a")):
        with pytest.raises(NotFound):
            store.change_tag(change, record)
    assert store.find("id") is None
    assert store.change_tag(TagVersion("a"), record) == 0
    assert store.find("id") == record(0)
    commit_steps(store, 1)  # the index must be as it was


def test_the_curve_has_all_epochs_until_1000_and_then_every_second(store: Store) -> None:
    version, done = 0, 0
    for size in (1, 3, 600, 396, 1, 998, 1, 1500):
        epochs = [progress(done + i, version + i, 1) for i in range(1, size + 1)]
        version, done = version + size, done + size
        run = RunRecord(1, "a", Train(epochs=10**6), 0, version, False, epochs[-1])
        made = [snapshot(found.version, 1) for found in epochs]
        store.commit(made, [], [(run, epochs)])
        stride = epoch_stride(done)
        kept = [epoch for epoch in range(1, done + 1) if epoch in (1, done) or not epoch % stride]
        assert [found.epoch for found in store.curve(1)] == kept
        assert store.curve(1)[-1] == epochs[-1]
    assert done == 3500


def test_strides() -> None:
    strides = {1: 1, 1000: 1, 1001: 2, 2000: 2, 2001: 4, 4000: 4, 4001: 8, 10**6: 1024}
    assert {epochs: epoch_stride(epochs) for epochs in strides} == strides
    assert all(n // epoch_stride(n) <= RETAINED_EPOCHS for n in range(1, 10**4))


@pytest.mark.parametrize("epochs", [1_000, 1_999, 2_000, 3_999])
def test_a_curve_has_at_most_1001_epochs(store: Store, epochs: int) -> None:
    commit_run(store, 1, epochs, versions=1)
    curve = [found.epoch for found in store.curve(1)]
    assert (curve[0], curve[-1]) == (1, epochs)
    assert len(curve) == (1_000 if epochs == 1_000 else 1_001)


def test_the_curve_of_an_old_run_is_retained_for_a_tag(store: Store, tmp_path: Path) -> None:
    first = commit_run(store, 1, 5)
    commit_run(store, 2, 5)
    tag(store, "kept", first + 2)
    tag(store, "also", first + 3)
    for number in range(3, 103):
        commit_run(store, number, 1)
    for _ in range(2):
        assert [found.epoch for found in store.curve(1)] == [1, 2, 3, 4, 5]
        assert [found.epoch for found in store.curve(2)] == [5], "only the last line is left"
        store.close()
        store.__init__(tmp_path)  # type: ignore[misc]
    delete(store, "kept")
    assert len(store.curve(1)) == 5
    tag(store, "also", 0)
    assert [found.epoch for found in store.curve(1)] == [5]


def test_1000_runs_are_retained_and_those_with_a_tag(store: Store) -> None:
    first = commit_run(store, 1, 5)
    tag(store, "kept", first)
    for number in range(2, RETAINED_RUNS + 11):
        commit_run(store, number, 1)
    numbers = [run.number for run in store.runs()]
    assert numbers == [*range(RETAINED_RUNS + 10, 10, -1), 1]
    assert len(store.curve(1)) == 5
    delete(store, "kept")
    assert [run.number for run in store.runs()] == numbers[:-1]
    assert store.curve(1) == []
    assert store.next_run() == RETAINED_RUNS + 11


def test_the_file_is_bounded_with_all_of_it_in_use(tmp_path: Path) -> None:
    # docs/operations.md has the bound: 100 tags into 100 old runs, and 1,000 runs more, of which
    # 100 have the longest curve.
    store = Store(tmp_path)
    store.commit([snapshot(0)], [])
    for number in range(1, 101 + RETAINED_RUNS):
        epochs = 1000 if number <= 100 or number > RETAINED_RUNS else 20
        # The last version is in a full row, which its run alone retains; the best has its own.
        commit_run(store, number, epochs, best=epochs - 1, versions=17)
        if number <= 100:
            tag(store, f"tag-{number}", f"best@{number}")
    assert len(store.runs()) == RETAINED_RUNS + 100
    assert all(len(store.curve(number)) == 1000 for number in (1, 100, 1002, 1100))
    size = sum(file.stat().st_size for file in tmp_path.iterdir() if "-" not in file.name)
    store.close()
    assert size < 20e6
    assert size > 15e6, f"the test must use all of it, not {size:,} bytes"


def test_a_checkpoint_is_found_with_its_best_epoch_and_baseline(store: Store) -> None:
    for number, (best, baseline) in enumerate(
        [(None, None), (BestEpoch(3, 0.25, 9), None), (BestEpoch(3, 0.25, 9), Baseline(2, 0.5))]
    ):
        place = RunCheckpoint(49, 5, 0.1, 1, 1.5, best, baseline)
        record = RequestRecord(str(number), b"x", number + 1, None, place)
        store.commit([snapshot(number + 1)], [record])
        assert store.find(str(number)) == record


def test_a_reader_finds_a_version_until_it_sees_that_it_is_dropped(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Between the commit and the end of the transaction, a reader still looks the version up.
    run = RunRecord(1, "a", Train(epochs=9), 0, 1, False, None, BestEpoch(1, 0.5, 1))
    store.commit([snapshot(1, 1)], [], [(run, [progress(1, 1, 1)])])
    run = RunRecord(1, "a", Train(epochs=9), 0, 2, False, None, BestEpoch(1, 0.5, 1))
    store.commit([snapshot(2, 1)], [], [(run, [])])
    commit_steps(store, RETAINED_VERSIONS)
    end, found = store._history.end_transaction, []

    def read_then_end() -> None:
        found.append(store.version(1))
        end()

    monkeypatch.setattr(store._history, "end_transaction", read_then_end)
    version = RETAINED_VERSIONS + 3
    run = RunRecord(1, "a", Train(epochs=9), 0, version, False, None, BestEpoch(2, 0.4, version))
    store.commit([snapshot(version, 1)], [], [(run, [progress(2, version, 1)])])
    assert found == [snapshot(1, 1)]
    assert store.version(1) is None
