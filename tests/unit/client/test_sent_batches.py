"""Tests of a stream of predictions that fails: when another stream continues it."""

from __future__ import annotations

import numpy as np
import pytest
from mnist37_client._rpc.channel import ConnectionSettings
from mnist37_client._rpc.methods.exchanges import Exchanges
from mnist37_client._rpc.methods.retry import RetryPolicy
from mnist37_client._rpc.methods.sent_batches import SentBatches
from mnist37_client.errors import InvalidInput, Unavailable
from mnist37_protos.v1 import mnist37_pb2 as pb


@pytest.fixture
def sent() -> SentBatches:
    """Return the batches of a client that has had an answer before."""
    settings = ConnectionSettings("127.0.0.1:50051", None, None, None, None, None, None, False)
    policy = RetryPolicy(60)
    policy.connected = True
    return SentBatches(Exchanges(settings, policy), iter([np.full(784, 200, np.uint8)]))


def test_a_server_that_is_away_is_waited_for_and_a_refusal_is_not(sent: SentBatches) -> None:
    for _ in range(5):
        assert sent.next_pause(Unavailable()) <= 1
    with pytest.raises(InvalidInput):
        sent.next_pause(InvalidInput())


def test_the_oldest_request_is_that_of_the_first_batch_without_an_answer(sent: SentBatches) -> None:
    assert sent.oldest_request() is None
    request = next(sent.requests())
    assert sent.oldest_request() == request
    sent.parse(pb.PredictResponse(probabilities=[0.5]).SerializeToString())
    assert sent.oldest_request() is None
