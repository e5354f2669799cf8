from integration import test_standard as original
from integration.test_standard import *  # noqa: F403
from support.fronted import FrontedServer
if hasattr(original, "LocalServer"):
    original.LocalServer = FrontedServer
