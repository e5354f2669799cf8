"""A log line for the first start on a machine, which compiles the kernels for some seconds."""

from __future__ import annotations

import logging

from numba.core import event

log = logging.getLogger(__name__)


class CompilationListener(event.Listener):
    """A listener that logs the first compilation of a kernel that numba's cache does not have."""

    def __init__(self) -> None:
        self._has_logged = False

    def on_start(self, _: event.Event) -> None:
        """Log the first compilation when it starts."""
        if not self._has_logged:
            self._has_logged = True
            log.info("compiling the kernels for this processor, once: it takes some seconds")

    def on_end(self, _: event.Event) -> None:
        """Ignore the end of a compilation."""


def announce() -> None:
    """Log the first compilation from now on; call this before mnist37.kernels is imported."""
    event.register("numba:compile", CompilationListener())
