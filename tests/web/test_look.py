"""Tests of how the page looks: on a phone, a desktop and a large screen, in both colour schemes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from mnist37_client import Client
from mnist37_client.local_server import LocalServer
from support.drawings import three
from support.local_web import LocalWeb
from support.web_page import DESKTOP, PHONE, Open, WebPage

SCREENS = {"phone": PHONE, "tablet": {"width": 900, "height": 1000}, "desktop": DESKTOP}
SCREENS["large"] = {"width": 3840, "height": 2160}
SCHEMES = ["light", "dark"]

# Visible controls that are less than 44 pixels high or wide, and texts that do not fit their boxes.
SMALL = """() => Array.from(document.querySelectorAll('button, input, select, canvas[tabindex]'))
    .filter((element) => element.checkVisibility())
    .filter((element) => Math.min(element.offsetWidth, element.offsetHeight) < 44)
    .map((element) => element.outerHTML)"""
CLIPPED = """() => Array.from(document.querySelectorAll('body *:not(#announcer, #history-box, #track)'))
    .filter((element) => element.checkVisibility() && getComputedStyle(element).display !== 'inline')
    .filter((element) => element.scrollWidth > element.clientWidth + 1
        || element.scrollHeight > element.clientHeight + 1)
    .filter((element) => !['INPUT', 'SELECT', 'TABLE', 'THEAD', 'TBODY', 'TR', 'DL', 'DIV']
        .includes(element.tagName) || element.scrollWidth > element.clientWidth + 1)
    .map((element) => element.outerHTML.slice(0, 200))"""


def fill(page: WebPage) -> None:
    """Show something everywhere: a drawing and its answer, errors and history."""
    page.draw(three())
    page.wait_for("#sentence", "3")
    page.click("errors-refresh", "history-refresh")
    page.until(lambda: page["#errors li"].count() > 20 and page["#history tr"].count() > 1)


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.usefixtures("trained")
def test_it_fits_the_screen(open_page: Open, screen: str, shots: Path) -> None:
    page = open_page(viewport=SCREENS[screen])
    for is_full in (False, True):
        if is_full:
            fill(page)
        assert page.page.evaluate(
            "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        )
        assert page.page.evaluate(SMALL) == []
        assert page.page.evaluate(CLIPPED) == []
    page.page.screenshot(path=shots / f"{screen}.png", full_page=screen != "large")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.usefixtures("trained")
def test_the_pictures_have_their_colours(open_page: Open, scheme: str, shots: Path) -> None:
    page = open_page(color_scheme=scheme, viewport=DESKTOP)
    fill(page)
    colours = {"three": (179, 71, 0), "seven": (11, 92, 173)}
    if scheme == "dark":
        colours = {"three": (255, 158, 74), "seven": (108, 180, 255)}
    for name in ("weights", "counted"):
        pixels = page.pixels(f"#{name}").reshape(-1, 4)
        strong = pixels[pixels[:, 3] > 60, :3].astype(int)  # of fainter ones, the colour is rounded
        distances = {
            colour: np.abs(strong - rgb).max(axis=1) <= 5 for colour, rgb in colours.items()
        }
        assert all(found.sum() > 2 for found in distances.values())
        assert (distances["three"] | distances["seven"]).all()
    seen = page.pixels("#sees").reshape(-1, 4)
    assert (seen[seen[:, 3] > 0, :3] > 250).all()  # white ink, on the paper of the element
    background = page["#sees"].evaluate("canvas => getComputedStyle(canvas).backgroundColor")
    assert max(int(value) for value in background[4:-1].split(",")) < 40
    page.page.screenshot(path=shots / f"{scheme}.png", full_page=True)


@pytest.mark.usefixtures("trained")
def test_the_pictures_follow_a_change_of_the_scheme(page: WebPage) -> None:
    page.draw(three())
    page.wait_for("#sentence", "It is a 3")
    light = page.pixels("#weights")
    page.page.emulate_media(color_scheme="dark")
    page.until(lambda: not np.array_equal(page.pixels("#weights"), light))


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
@pytest.mark.usefixtures("trained")
def test_nothing_moves_for_people_who_want_less_motion(open_page: Open, motion: str) -> None:
    page = open_page(reduced_motion=motion)
    page.draw(three())
    page.wait_for("#sentence", "3")
    duration = page["#marker"].evaluate("marker => getComputedStyle(marker).transitionDuration")
    assert duration == ("0s" if motion == "reduce" else "0.15s")


@pytest.mark.parametrize(
    ("screen", "scheme"), [("phone", "light"), ("phone", "dark"), ("desktop", "dark")]
)
def test_nothing_hinders_people(open_page: Open, screen: str, scheme: str) -> None:
    """axe-core finds nothing: when it is empty, when it is full, and while the server is away."""
    with (
        LocalServer() as server,
        LocalWeb(server.address) as web,
        Client(server.address) as client,
    ):
        client.initialize(std=0)
        client.train(epochs=20).wait()
        page = open_page(web.url, viewport=SCREENS[screen], color_scheme=scheme)
        assert violations(page) == ""
        fill(page)
        page["button:text-is('Predict')"].first.click()
        page.wait_for("#pinned", "answers")
        page["#schedule"].select_option("cosine")
        assert violations(page) == ""
        server.kill()
        page.wait_for("#server", "away")
        assert violations(page) == ""
    page.complaints.clear()  # the browser notes the calls that failed


def violations(page: WebPage) -> str:
    results = Axe().run(page.page)
    report: str = results.generate_report() if results.violations_count else ""
    return report
