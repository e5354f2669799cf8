"""The page in a real browser, and what a person does with it."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Protocol
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, Request
from support.drawings import Drawing

PHONE = {"width": 360, "height": 780}
DESKTOP = {"width": 1280, "height": 900}


class WebPage:
    """The page, and everything that it asked for or complained about.

    Args:
        context: of the browser.
        url: of web.
    """

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.url = url
        self.requests: list[Request] = []
        self.complaints: list[str] = []
        self.page: Page = context.new_page()
        self.page.set_default_timeout(10_000)
        self.page.on("request", lambda request: self.requests.append(request))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._note)

    def open(self) -> None:
        """Open the page, and wait until it shows a model."""
        self.page.goto(self.url)
        self.wait_for("#server", "connected")
        self.until(lambda: self.text("#version")[0].isdigit())

    def _note(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.text} ({message.location.get('url', '')})")

    # ---- what it asked for

    def calls(self, name: str) -> int:
        """Return how many times it called a route of web."""
        return sum(urlsplit(request.url).path == f"/page/{name}" for request in self.requests)

    def foreign(self) -> list[str]:
        """Return the URLs of requests to other servers."""
        return [r.url for r in self.requests if not r.url.startswith((f"{self.url}/", "data:"))]

    # ---- what it shows

    def __getitem__(self, selector: str) -> Locator:
        """Return an element."""
        return self.page.locator(selector)

    def text(self, selector: str) -> str:
        """Return the text of an element."""
        return str(self[selector].inner_text())

    def number(self, name: str) -> float:
        """Return a number of the formula, with all its digits."""
        value: str = self[f"data#{name}"].evaluate("element => element.value")
        return float(value)

    def pixels(self, selector: str) -> NDArray[np.uint8]:
        """Return the pixels of a canvas, (height, width, 4): red, green, blue and opacity."""
        url: str = self[selector].evaluate("canvas => canvas.toDataURL()")
        return np.array(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))

    def version(self) -> int:
        """Return the version that it shows."""
        return int(self.text("#version").replace(",", ""))

    def until(self, holds: Callable[[], bool], seconds: float = 10) -> None:
        """Wait until a condition holds."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"not within {seconds} s"
            self.page.wait_for_timeout(20)

    def wait_for(self, selector: str, *texts: str, seconds: float = 10) -> None:
        """Wait until an element's text has all these texts."""
        element = self[selector]
        with suppress(AssertionError):
            self.until(lambda: all(text in element.inner_text() for text in texts), seconds)
            return
        raise AssertionError(f"{selector} shows {element.inner_text()!r}, and not {texts}")

    # ---- what a person does

    def click(self, *names: str) -> None:
        """Press buttons, each by its id."""
        for name in names:
            self[f"#{name}"].click()

    def train(self, epochs: int, rate: float, **more: str) -> None:
        """Fill the form in and begin a run."""
        self["#epochs"].fill(str(epochs))
        self["#rate"].fill(str(rate))
        if "schedule" in more:
            self["#schedule"].select_option(more["schedule"])
        if "final_rate" in more:
            self["#final-rate"].fill(more["final_rate"])
        self.click("train")

    def draw(self, drawing: Drawing) -> None:
        """Draw with the mouse."""
        mouse = self.page.mouse
        for stroke in drawing:
            (first, *others) = self._places(stroke)
            mouse.move(*first)
            mouse.down()
            for place in others:
                mouse.move(*place)
            mouse.up()

    def touch(self, drawing: Drawing) -> None:
        """Draw with a finger: the browser gets touches, as from a screen."""
        session = self.page.context.new_cdp_session(self.page)
        for stroke in drawing:
            kind = "touchStart"
            for x, y in self._places(stroke):
                session.send(
                    "Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]}
                )
                kind = "touchMove"
            session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        session.detach()

    def press(self, *keys: str) -> None:
        """Press keys; "12 ArrowLeft" presses one twelve times."""
        for key in keys:
            times, _, name = key.rpartition(" ") if key != " " else ("", "", " ")
            for _ in range(int(times or 1)):
                self.page.keyboard.press(name)

    def _places(self, stroke: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
        self["#pad"].scroll_into_view_if_needed()
        box = self["#pad"].bounding_box()
        assert box is not None
        return [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]


class Launch(Protocol):
    """Starts a browser with further flags."""

    def __call__(self, *flags: str) -> Browser: ...


class Open(Protocol):
    """Opens the page in a new context of the browser, which has these settings."""

    def __call__(self, url: str = ..., **settings: Any) -> WebPage: ...
