"""A server behind a native front, in the place of a server alone."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from mnist37_client import Unavailable, health
from mnist37_client.local_server import UNWANTED_VARIABLES, LocalServer
from mnist37_client.processes import python_process
from mnist37_client.processes.local_process import LocalProcess
from mnist37_front.envoy.process import environment, module_path
from mnist37_server.errors import CannotStart
from support.local_web import WebCaller
from support.scraping import wait_until


class FrontedServer(LocalServer):
    """The processes of `mnist37 serve --front`, ready when the constructor returns."""

    command = (*python_process.command("mnist37_front"), "serve")


def put_before_servers(module: ModuleType) -> None:
    """Have each server that the tests of a module start be one behind a front."""
    vars(module)["LocalServer"] = FrontedServer


def put_in_place_of_web(module: ModuleType) -> None:
    """Have each web that the tests of a module start be a front."""
    vars(module)["LocalWeb"] = FrontedWeb


def missing() -> str:
    """Return what a front lacks on this machine, or an empty text."""
    try:
        module_path()
        environment()
    except CannotStart as error:
        return str(error)
    return ""


class Front(LocalProcess):
    """A process of `mnist37 front`, ready when the constructor returns."""

    def __init__(self, owner: str, *options: str) -> None:
        address = () if "--address" in options else ("--address", "127.0.0.1:0")
        command = (*python_process.command("mnist37_front"), "--owner", owner, *address, *options)
        super().__init__("the front", command, UNWANTED_VARIABLES)


def is_serving(front: LocalProcess, **tls: Any) -> bool:
    """Return whether a front says that it is serving."""
    try:
        health.check(front.address, **tls)
    except Unavailable:
        return False
    return True


class FrontedWeb(LocalProcess, WebCaller):
    """The page and the HTTP API in a front of a server, ready when the front has a version.

    Args:
        server: HOST:PORT of the server.
        options: further options of `mnist37 front`.
    """

    def __init__(self, server: str, *options: str) -> None:
        command = (*python_process.command("mnist37_front"), "--owner", server)
        LocalProcess.__init__(
            self, "the front", (*command, "--address", "127.0.0.1:0", *options), UNWANTED_VARIABLES
        )
        WebCaller.__init__(self, f"http://{self.address}")
        if not wait_until(lambda: is_serving(self), 30):
            raise AssertionError(self.kill()[1])
