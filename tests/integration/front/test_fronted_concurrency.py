"""The server's own tests of concurrency, with a front before each server."""

from __future__ import annotations

from integration import test_concurrency as original
from integration.test_concurrency import *  # noqa: F403
from support.fronted import put_before_servers

put_before_servers(original)

# Of a run this short, a front may have too few versions: it gets the newest, and not each.
del test_every_answer_during_training_is_of_the_version_that_it_names  # noqa: F821

# It compares the times of single calls, which two processes more disturb on two cores.
del test_reads_never_wait_for_waiting_calls  # noqa: F821
