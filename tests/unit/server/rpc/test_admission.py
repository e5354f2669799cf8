"""Tests of the limit on streams: callers share its places, and none keeps the others out."""

from __future__ import annotations

from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest
from mnist37_server.errors import Exhausted, Reason
from mnist37_server.rpc.admission import StreamLimit

HOST = "ipv4:10.0.0.1"


class Stream:
    """A stream of a caller that holds a place until it is closed."""

    def __init__(self, limit: StreamLimit, token: str | None, peer: str = f"{HOST}:1") -> None:
        metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        self.is_cancelled = False
        context: Any = SimpleNamespace(
            invocation_metadata=lambda: (("other", "x"), *metadata),
            peer=lambda: peer,
            cancel=self._cancel,
        )
        self._place = ExitStack()
        self._place.enter_context(limit.admit(context))

    def close(self) -> None:
        self._place.close()

    def _cancel(self) -> None:
        self.is_cancelled = True


def test_one_caller_may_take_all_places_and_no_more() -> None:
    limit = StreamLimit(3, "streams")
    streams = [Stream(limit, "a") for _ in range(3)]
    with pytest.raises(
        Exhausted, match=r"^3 streams are open already; try again later$"
    ) as refused:
        Stream(limit, "a")
    assert refused.value.reason is Reason.TOO_MANY_STREAMS
    assert not any(stream.is_cancelled for stream in streams)
    streams[0].close()
    Stream(limit, "a")


def test_a_caller_with_fewer_streams_takes_the_newest_of_the_one_with_most() -> None:
    limit = StreamLimit(5, "streams")
    many = [Stream(limit, "many") for _ in range(4)]
    one = Stream(limit, "one")
    Stream(limit, "new")
    assert [stream.is_cancelled for stream in many] == [False, False, False, True]
    Stream(limit, "new")
    assert [stream.is_cancelled for stream in many] == [False, False, True, True]
    assert not one.is_cancelled
    for token in ("many", "new", "one"):  # 2, 2 and 1: nobody has two more than another
        with pytest.raises(Exhausted):
            Stream(limit, token)


def test_a_displaced_stream_that_ends_frees_no_second_place() -> None:
    limit = StreamLimit(2, "streams")
    many = [Stream(limit, "many") for _ in range(2)]
    other = Stream(limit, "other")
    assert many[1].is_cancelled
    many[1].close()
    for token in ("many", "other"):
        with pytest.raises(Exhausted):
            Stream(limit, token)
    other.close()
    Stream(limit, "many")


def test_without_tokens_the_hosts_tell_callers_apart() -> None:
    limit = StreamLimit(2, "streams")
    many = [Stream(limit, None, f"{HOST}:{port}") for port in (1, 2)]
    Stream(limit, None, "ipv6:[fe80::1]:3")
    assert [stream.is_cancelled for stream in many] == [False, True]


def test_at_an_open_method_an_invented_token_makes_no_other_caller() -> None:
    limit = StreamLimit(2, "streams", is_open=True)
    many = [Stream(limit, f"invented-{number}") for number in (1, 2)]
    with pytest.raises(Exhausted):
        Stream(limit, "invented-3")
    Stream(limit, None, "ipv4:10.0.0.2:1")
    assert [stream.is_cancelled for stream in many] == [False, True]
