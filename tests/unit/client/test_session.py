"""Tests of the session: whatever comes in whatever order, the floor of its reads never falls."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from mnist37_client._rpc.methods.session import Floor, Session
from mnist37_protos.v1 import mnist37_pb2 as pb

STARTS = (11, 22, 33)
VERSIONS_A_START = 4

# All positions of one history: each start begins at the version with which the one before ended.
HISTORY = [
    (start, version)
    for index, start in enumerate(STARTS)
    for version in range(index * VERSIONS_A_START, (index + 1) * VERSIONS_A_START + 1)
]


def place(floor: Floor) -> int:
    """Return where in the history a floor is; -1 if it is at no position."""
    return HISTORY.index((floor.start, floor.version)) if floor.start else -1


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_sequence_of_answers_lowers_the_floor(data: st.DataObject) -> None:
    session = Session()
    newest = 0  # where the owner is
    seen = -1  # the latest position that the caller has got
    reads: list[tuple[Floor, int]] = []  # in flight, with what the caller had seen at its begin
    for _ in range(data.draw(st.integers(1, 30))):
        before = session.floor
        action = data.draw(st.sampled_from(["write", "send", "answer", "restart"]))
        if action == "restart":
            later = [i for i, each in enumerate(HISTORY) if each[0] != HISTORY[newest][0]]
            newest = next((i for i in later if i > newest), newest)
        elif action == "write":
            same = newest + 1 < len(HISTORY) and HISTORY[newest + 1][0] == HISTORY[newest][0]
            newest += same
            session.record_owner(session.floor, *HISTORY[newest])
            seen = max(seen, newest)
        elif action == "send":
            reads.append((session.floor, seen))
        elif reads:
            sent, seen_then = reads.pop(data.draw(st.integers(0, len(reads) - 1)))
            # A server answers from where it is, which is not before the floor; the owner, which is
            # asked while something is unproven, from the newest position.
            at_least = newest if sent.unproven else max(place(sent), 0)
            answer = data.draw(st.integers(at_least, newest))
            assert answer >= seen_then, "the answer is older than what the caller had seen"
            session.record_read(sent, *HISTORY[answer])
            seen = max(seen, answer)
        assert place(session.floor) >= place(before)
        assert session.floor.unproven or place(session.floor) >= seen


def test_an_older_server_changes_nothing() -> None:
    session = Session()
    session.record_read(session.floor, 0, 7)
    session.record_owner(session.floor, 0, 8)
    assert session.floor == Floor()
    request = pb.PredictRequest(pixels=b"")
    session.floor.put_into(request)
    assert not request.ListFields()


def test_a_request_has_the_floor_of_its_last_attempt() -> None:
    request = pb.GetLossRequest()
    Floor(0, 11, 5).put_into(request)
    assert (request.start, request.min_version) == (11, 5)
    Floor(1).put_into(request)
    assert not request.ListFields()


def test_a_later_start_is_one_whose_server_accepts_the_floor() -> None:
    session = Session()
    session.record_read(Floor(), 11, 5)
    session.record_read(Floor(0, 11, 5), 22, 3)  # of a retained version
    assert session.floor == Floor(0, 22, 5)
    session.record_read(Floor(0, 11, 5), 11, 9)  # an answer that was late
    assert session.floor == Floor(0, 22, 5)


def test_only_the_owner_answers_until_a_writes_start_is_proven() -> None:
    session = Session()
    session.record_read(Floor(), 11, 5)
    sent_before = session.floor
    session.record_owner(session.floor, 22, 6)
    assert session.floor == Floor(0, 11, 5, unproven=((22, 6),))
    session.record_read(sent_before, 11, 5)  # a follower's answer proves nothing
    assert session.floor.unproven == ((22, 6),)
    session.record_read(session.floor, 22, 2)  # the owner's, of a retained version
    assert session.floor == Floor(0, 22, 6)


def test_the_owner_proves_a_start_by_a_later_one_and_an_earlier_start_by_its_own() -> None:
    session = Session()
    session.record_read(Floor(), 11, 5)
    session.record_owner(session.floor, 22, 6)
    session.record_read(session.floor, 33, 3)  # of a retained version, after another restart
    assert session.floor == Floor(0, 33, 6)
    session.record_owner(session.floor, 22, 6)  # a write's answer that was late
    session.record_read(session.floor, 33, 3)
    assert session.floor == Floor(0, 33, 6)


def test_a_floor_of_an_earlier_start_or_session_is_not_the_present_one() -> None:
    session = Session()
    session.record_read(Floor(), 11, 5)
    old = session.floor
    session.record_read(old, 22, 6)
    assert not session.begin_anew(old)
    assert session.floor == Floor(0, 22, 6)
    assert session.begin_anew(session.floor)
    session.record_read(session.floor, 11, 5)
    assert not session.begin_anew(old)
    assert session.floor == Floor(1, 11, 5)


def test_one_call_begins_the_session_anew() -> None:
    session = Session()
    session.record_read(Floor(), 11, 5)
    first, second = session.floor, session.floor
    session.record_read(first, 11, 6)  # the floor is another one now, of the same lost history
    assert session.begin_anew(first)
    assert session.floor == Floor(1)
    assert not session.begin_anew(second)
    session.record_read(second, 11, 7)  # late answers of the lost history
    session.record_owner(second, 11, 7)
    assert session.floor == Floor(1)
    session.record_read(session.floor, 44, 0)
    assert session.floor == Floor(1, 44, 0)
    assert not session.begin_anew(second)
