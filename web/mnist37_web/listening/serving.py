"""The process that serves web, from its sockets to its end."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import uvicorn

from mnist37_web.access.boundary import App
from mnist37_web.errors import CannotStart
from mnist37_web.listening.connections import LimitedProtocol
from mnist37_web.settings import Settings

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE_SECONDS = 5  # for requests in flight at the end
IDLE_SECONDS = 30  # for which a connection is kept without a request

log = logging.getLogger(__name__)


def serve(
    app: App, settings: Settings, sockets: list[socket.socket], stop: Callable[[], None]
) -> None:
    """Serve until a signal ends the process.

    Args:
        app: the application.
        settings: of web.
        sockets: to listen on.
        stop: ends the streams of the application; called at the first signal.

    Raises:
        CannotStart: the certificate or its key cannot be used.
    """
    config = uvicorn.Config(
        app,
        http=LimitedProtocol,
        ws="none",
        loop="uvloop",
        interface="asgi3",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        ssl_certfile=settings.https_cert,
        ssl_keyfile=settings.https_key,
    )
    try:
        config.load()
    except OSError as error:  # SSLError is one
        raise CannotStart(
            f"--https-cert, --https-key: cannot be used: {error.strerror or error}; must be a"
            " certificate and its private key, in PEM"
        ) from error
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    port = sockets[0].getsockname()[1]
    server = _Server(config, stop, f"{settings.scheme}://{host}:{port}")
    server.run(sockets)


class _Server(uvicorn.Server):
    """A server that ends with the exit status 0 after a signal, and says when it listens."""

    def __init__(self, config: uvicorn.Config, stop: Callable[[], None], url: str) -> None:
        super().__init__(config)
        self._stop = stop
        self._url = url

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End the server by the first signal, and the requests in flight by the second."""
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            # SIGHUP is left alone where it is ignored: nohup wants the process to go on.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._end)
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say where."""
        await super().startup(sockets)
        log.info("started address=%s", self._url)
        # The collector need not look again and again at what stays until the end: a request makes
        # about 100 objects, and by default a collection begins after 700.
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000)
        with suppress(OSError):  # its reader may be gone
            print(f"listening on {self._url}", flush=True)

    def _end(self) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True
        self._stop()
