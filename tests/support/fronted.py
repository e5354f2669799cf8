"""A server behind a native front, in the place of a server alone."""

from __future__ import annotations

from types import ModuleType

from mnist37_client.local_server import LocalServer
from mnist37_client.processes import python_process
from mnist37_front.envoy.process import environment, module_path
from mnist37_server.errors import CannotStart


class FrontedServer(LocalServer):
    """The processes of `mnist37 serve --front`, ready when the constructor returns."""

    command = (*python_process.command("mnist37_front"), "serve")


def put_before_servers(module: ModuleType) -> None:
    """Have each server that the tests of a module start be one behind a front."""
    vars(module)["LocalServer"] = FrontedServer


def missing() -> str:
    """Return what a front lacks on this machine, or an empty text."""
    try:
        module_path()
        environment()
    except CannotStart as error:
        return str(error)
    return ""
