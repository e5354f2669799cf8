from integration import test_access as original
from integration.test_access import *  # noqa: F403
from support.fronted import FrontedServer
if hasattr(original, "LocalServer"):
    original.LocalServer = FrontedServer
