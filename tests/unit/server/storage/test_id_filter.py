"""Tests of the Bloom filter that recognises request_ids without the database."""

from __future__ import annotations

from mnist37_server.storage.tables.id_filter import IdFilter


def test_an_added_id_is_always_in_the_filter() -> None:
    added = [f"id {number}" for number in range(100_000)]
    ids = IdFilter(added[:50_000])
    for name in added[50_000:]:
        ids.add(name)
    assert all(name in ids for name in added)


def test_nearly_all_new_ids_are_not_in_the_filter() -> None:
    ids = IdFilter(f"id {number}" for number in range(100_000))
    false_positives = sum(f"new {number}" in ids for number in range(100_000))
    assert false_positives < 2_000, "600 are expected"
