"""The attacks on a server by callers without a token, with a front before it."""

from __future__ import annotations

from mnist37_client.local_server import LocalServer
from stress import test_strangers as original
from stress.test_strangers import *  # noqa: F403
from support.fronted import FrontedServer, put_before_servers
from support.raw_http2 import RawConnection

put_before_servers(original)

# A front decodes no metadata but tokens, so it has nothing to say of them.
del test_the_log_says_once_that_headers_are_not_utf8  # noqa: F821

# It has no number of places, but a time for each answer to be read.
del test_answers_that_are_not_read_hold_their_places_for_a_moment  # noqa: F821

# A server alone fails it: what grpcio cannot limit, Envoy does.
del test_half_sent_messages_to_open_methods_hold_little_memory  # noqa: F821


def test_answers_that_are_not_read_end_in_time() -> None:
    with (
        FrontedServer("--device", "cpu", "--message-timeout", "1") as server,
        RawConnection(server.address, window=0) as stranger,
    ):
        streams = [stranger.call(original.CHECK) for _ in range(200)]
        assert all(stranger.wait(stream) is not None for stream in streams)


def test_half_sent_messages_to_open_methods_hold_little_memory_in_a_front(
    victim: LocalServer,
) -> None:
    original.verify_half_sent_messages_hold_little_memory(victim)
