"""When a client tries again, and when not."""

from __future__ import annotations

import pytest
from mnist37_client._rpc.retry import RetryAttempts, RetryPolicy
from mnist37_client.errors import Exhausted, Mnist37Error, Unavailable


def attempts(retry_for: float = 60) -> RetryAttempts:
    patience = RetryPolicy(retry_for)
    patience.connected = True
    return patience.attempts()


def after(error: Mnist37Error, seconds: float | None) -> Mnist37Error:
    error.retry_after = seconds
    return error


def test_pauses_grow_and_are_a_second_at_most() -> None:
    mine = attempts()
    pauses = [mine.next_pause(Unavailable()) for _ in range(20)]
    assert pauses[0] <= 0.05
    assert 0.5 <= min(pauses[-5:]) <= max(pauses[-5:]) <= 1


def test_a_server_that_names_a_time_is_given_it() -> None:
    mine = attempts()
    for _ in range(20):
        assert 3 <= mine.next_pause(after(Unavailable(), 3.0)) <= 6


def test_a_time_beyond_ones_patience_is_not_waited_for() -> None:
    error = after(Unavailable(), 3.0)
    with pytest.raises(Unavailable) as raised:
        attempts(retry_for=2).next_pause(error)
    assert raised.value is error


def test_a_server_that_is_full_is_the_callers_business() -> None:
    with pytest.raises(Exhausted):
        attempts().next_pause(after(Exhausted(), 1.0))
