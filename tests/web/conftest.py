"""Fixtures of the tests in a browser: Chromium, a server, web, and the page."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mnist37_client import Client
from playwright.sync_api import Browser, BrowserContext, Playwright, sync_playwright
from support.browser import start_chromium
from support.local_web import LocalWeb
from support.web_page import DESKTOP, Launch, Open, WebPage


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="session")
def launch(playwright: Playwright) -> Iterator[Launch]:
    """Return a function that starts a browser with further flags."""
    browsers = []

    def launch(*flags: str) -> Browser:
        browser = start_chromium(playwright, *flags)
        browsers.append(browser)
        return browser

    yield launch
    for browser in browsers:
        browser.close()


@pytest.fixture(scope="session")
def browser(launch: Launch) -> Browser:
    return launch()


@pytest.fixture(scope="session")
def shared_web(address: str) -> Iterator[LocalWeb]:
    """Return the web of the server that the tests share."""
    with LocalWeb(address) as web:
        yield web


@pytest.fixture
def open_page(browser: Browser, shared_web: LocalWeb) -> Iterator[Open]:
    """Return a function that opens the page; at the end, no page may have complained.

    The settings are those of a context of the browser. A test that provokes complaints empties
    the page's list of them.
    """
    pages: list[WebPage] = []
    contexts: list[BrowserContext] = []

    def open_page(url: str = shared_web.url, **settings: Any) -> WebPage:
        context = browser.new_context(**{"viewport": DESKTOP, "locale": "en-US", **settings})
        contexts.append(context)
        page = WebPage(context, url)
        pages.append(page)
        page.open()
        return page

    yield open_page
    complaints = [complaint for page in pages for complaint in page.complaints]
    foreign = [url for page in pages for url in page.foreign()]
    for context in contexts:
        context.close()
    assert not complaints
    assert not foreign


@pytest.fixture
def page(open_page: Open) -> WebPage:
    return open_page()


@pytest.fixture
def trained(client: Client) -> Client:
    """Return a client of the shared server, whose model was trained from zero."""
    client.initialize(std=0)
    client.train(epochs=20).wait()
    return client


@pytest.fixture(scope="session")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder for pictures of the page: MNIST37_SHOTS, for people who look at them."""
    folder = Path(os.environ.get("MNIST37_SHOTS") or tmp_path_factory.mktemp("shots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
