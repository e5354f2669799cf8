from integration import test_open_inference as original
from integration.test_open_inference import *  # noqa: F403
from support.fronted import FrontedServer
if hasattr(original, "LocalServer"):
    original.LocalServer = FrontedServer
