"""Entry point of `python -m mnist37_web`: first it takes over the signals."""

import os
import signal
import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the current folder, whose files must not take the place of modules
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Until web serves, nothing is under way that an end could damage.
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    # `mnist37 web` blocks them until here: Python would print a stack trace for SIGINT.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    from mnist37_web.command import start

    start()
