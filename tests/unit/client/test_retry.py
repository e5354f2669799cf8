"""Tests of the client's retries: which errors, and how long it waits."""

from __future__ import annotations

import time

import pytest
from mnist37_client._rpc.methods.retry import RetryAttempts, RetryPolicy
from mnist37_client.errors import Exhausted, Mnist37Error, Unavailable


def attempts(retry_for: float = 60) -> RetryAttempts:
    policy = RetryPolicy(retry_for)
    policy.connected = True
    return policy.attempts()


def with_retry_after(error: Mnist37Error, seconds: float | None) -> Mnist37Error:
    error.retry_after = seconds
    return error


def test_pauses_grow_and_are_a_second_at_most() -> None:
    retries = attempts()
    pauses = [retries.next_pause(Unavailable()) for _ in range(20)]
    assert pauses[0] <= 0.05
    assert 0.5 <= min(pauses[-5:]) <= max(pauses[-5:]) <= 1


def test_a_pause_is_at_least_the_time_that_the_server_names() -> None:
    retries = attempts()
    for _ in range(20):
        assert 3 <= retries.next_pause(with_retry_after(Unavailable(), 3.0)) <= 6


def test_a_time_longer_than_retry_for_is_not_waited_for() -> None:
    error = with_retry_after(Unavailable(), 3.0)
    with pytest.raises(Unavailable) as raised:
        attempts(retry_for=2).next_pause(error)
    assert raised.value is error


def test_a_full_server_is_not_retried() -> None:
    with pytest.raises(Exhausted):
        attempts().next_pause(with_retry_after(Exhausted(), 1.0))


def test_the_time_of_the_retries_begins_with_the_first_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A stream, or a run that waits for its turn, may be silent for long before the server goes.
    now = 1_000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    retries = attempts(retry_for=60)
    for _ in range(2):
        now += 3_600
        assert retries.next_pause(Unavailable()) <= 0.05
        now += 61
        with pytest.raises(Unavailable):
            retries.next_pause(Unavailable())
        retries.record_success()
