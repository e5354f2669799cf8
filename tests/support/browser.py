"""Chromium, as the system has it."""

from __future__ import annotations

import os
import shutil

from playwright.sync_api import Browser, Playwright

CHROMIUM = os.environ.get("MNIST37_CHROMIUM") or shutil.which("chromium")
FLAGS = [
    "--no-sandbox",  # root has no other way to start it, in a container for example
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def start_chromium(playwright: Playwright, *flags: str) -> Browser:
    """Return a browser that runs with further flags."""
    browser: Browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *flags])
    return browser
