"""Says what a first start on a machine does meanwhile: it compiles the kernels, for seconds."""

from __future__ import annotations

import logging

from numba.core import event

log = logging.getLogger(__name__)


class Announcement(event.Listener):
    """Logs that kernels are compiled, once, where numba's cache does not have them."""

    def __init__(self) -> None:
        self._said = False

    def on_start(self, _: event.Event) -> None:
        """Take note that numba begins to compile a function."""
        if not self._said:
            self._said = True
            log.info("compiling the kernels for this processor, once: it takes some seconds")

    def on_end(self, _: event.Event) -> None:
        """Take note that numba has compiled a function."""


def announce() -> None:
    """Log it from now on; to be called before mnist37.kernels is imported."""
    event.register("numba:compile", Announcement())
