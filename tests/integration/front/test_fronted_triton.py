"""The server's own tests of Triton's extensions, with a front before each server."""

from __future__ import annotations

from integration import test_triton as original
from integration.test_triton import *  # noqa: F403
from support.fronted import put_before_servers

put_before_servers(original)

# The statistics of a front are of its own predictions; streams are the owner's.
del test_each_prediction_is_counted_once_by_whichever_method  # noqa: F821

# One of the refused requests comes by a stream, which the owner counts.
del test_a_refused_request_is_a_failure_with_its_time  # noqa: F821

# Of a run this short, the newest version may be the only one that a stream sees behind a front.
del test_a_stream_predicts_with_the_live_model  # noqa: F821
