"""What is known of request_ids without the database."""

from __future__ import annotations

from mnist37_server.storage.id_filter import IdFilter


def test_what_was_added_is_never_taken_for_new() -> None:
    known = [f"id {number}" for number in range(100_000)]
    ids = IdFilter(known[:50_000])
    for name in known[50_000:]:
        ids.add(name)
    assert all(name in ids for name in known)


def test_nearly_all_that_is_new_is_known_to_be() -> None:
    ids = IdFilter(f"id {number}" for number in range(100_000))
    mistaken = sum(f"new {number}" in ids for number in range(100_000))
    assert mistaken < 2_000, "expected are 600"
