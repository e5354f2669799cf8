from integration import test_triton as original
from integration.test_triton import *  # noqa: F403
from support.fronted import FrontedServer
if hasattr(original, "LocalServer"):
    original.LocalServer = FrontedServer
