from integration import test_concurrency as original
from integration.test_concurrency import *  # noqa: F403
from support.fronted import FrontedServer
if hasattr(original, "LocalServer"):
    original.LocalServer = FrontedServer
