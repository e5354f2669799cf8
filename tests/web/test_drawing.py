"""Tests of the pad and the answer, in a browser."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable

import numpy as np
import pytest
from mnist37_client import Client
from playwright.sync_api import Route
from support.drawings import Drawing, placed, seven, three
from support.web_page import PHONE, Open, WebPage

THREE_BY_KEYS = [" ", "9 ArrowRight", "8 ArrowDown", "6 ArrowLeft", "6 ArrowRight"]
THREE_BY_KEYS += ["8 ArrowDown", "9 ArrowLeft", " "]
SEVEN_BY_KEYS = [" ", "9 ArrowRight", "5 ArrowDown", "2 ArrowLeft", "4 ArrowDown", "ArrowLeft"]
SEVEN_BY_KEYS += ["7 ArrowDown", " "]


@pytest.mark.parametrize(("drawing", "answer"), [(three, "It is a 3"), (seven, "It is a 7")])
def test_a_digit_by_mouse(
    trained: Client, page: WebPage, drawing: Callable[[], Drawing], answer: str
) -> None:
    page.draw(drawing())
    page.wait_for("#sentence", answer, f"version {trained.get_model().version:,}")


@pytest.mark.parametrize(("drawing", "answer"), [(three, "It is a 3"), (seven, "It is a 7")])
@pytest.mark.usefixtures("trained")
def test_a_digit_by_touch(open_page: Open, drawing: Callable[[], Drawing], answer: str) -> None:
    page = open_page(viewport=PHONE, has_touch=True, is_mobile=True, device_scale_factor=2)
    before: int = page.page.evaluate("scrollY")
    page.touch(drawing())
    page.wait_for("#sentence", answer)
    assert page.page.evaluate("scrollY") == before


@pytest.mark.parametrize(
    ("keys", "answer"), [(THREE_BY_KEYS, "It is a 3"), (SEVEN_BY_KEYS, "It is a 7")]
)
@pytest.mark.usefixtures("trained")
def test_a_digit_by_keyboard(page: WebPage, keys: list[str], answer: str) -> None:
    page["#pad"].focus()
    page.press("6 ArrowUp", "4 ArrowLeft", *keys)
    page.wait_for("#sentence", answer)
    page.wait_for("#announcer", answer)
    page.press("Delete")
    page.wait_for("#sentence", "The pad is empty.")


@pytest.mark.usefixtures("trained")
def test_a_small_digit_in_a_corner(page: WebPage) -> None:
    page.draw(placed(seven(), 0.25, 0.02, 0.7))
    page.wait_for("#sentence", "It is a 7")
    rows = page.pixels("#sees")[..., 3].max(axis=1) > 127
    assert 18 <= rows.sum() <= 21  # as tall as MNIST's digits, whatever its size on the pad


@pytest.mark.usefixtures("trained")
def test_undo_and_clear(page: WebPage) -> None:
    assert page["#undo"].is_disabled()
    page.draw(seven())
    page.wait_for("#sentence", "It is a 7")
    two = page.pixels("#pad")
    page.click("undo")
    one = page.pixels("#pad")
    assert 0 < one[..., 3].sum() < two[..., 3].sum()
    page["#pad"].focus()
    page.press("u")
    page.wait_for("#sentence", "The pad is empty.")
    assert not page.pixels("#pad").any()
    page.draw(three())
    page.wait_for("#sentence", "It is a 3")
    page.click("clear")
    page.wait_for("#sentence", "The pad is empty.")
    assert page["#clear"].is_disabled()


@pytest.mark.parametrize("digit", [3, 7])
@pytest.mark.usefixtures("trained")
def test_an_example(page: WebPage, digit: int) -> None:
    page.click(f"show-{digit}")
    page.wait_for("#pad-caption", f"A {digit} that the model was not trained on.")
    page.until(lambda: page.calls("predict") == 1)
    assert page.text("#sentence").startswith(("It is a", "Perhaps a"))
    page.draw(three())  # takes its place
    page.wait_for("#sentence", "It is a 3")
    assert page.text("#pad-caption") == ""


def test_an_example_comes_while_the_pen_of_the_keyboard_is_down(page: WebPage) -> None:
    """The answer to the click comes when the person is back at the pad."""
    held: list[Route] = []
    page.page.route("**/page/example", lambda route: held.append(route))
    page.click("show-3")
    page.until(lambda: bool(held))
    page["#pad"].focus()
    page.press(" ", "2 ArrowLeft")
    held[0].continue_()
    page.wait_for("#pad-caption", "A 3 that the model")
    page.press("2 ArrowLeft")  # moves the pen, and draws nothing
    assert page.text("#pad-caption") == "A 3 that the model was not trained on."


def test_the_numbers_are_those_of_the_formula_and_of_the_server(
    trained: Client, page: WebPage
) -> None:
    asked = []
    page.page.on("response", lambda r: asked.append(r) if r.url.endswith("/predict") else None)
    page.draw(three())
    page.wait_for("#sentence", "It is a 3")
    page.until(lambda: bool(asked) and page["data#probability"].count() == 1)
    page.page.wait_for_timeout(100)
    from_server = asked[-1].json()["probability"]
    sent = asked[-1].request.post_data_json["pixels"]
    total, bias = page.number("sum"), page.number("bias")
    assert page.number("score") == pytest.approx(total + bias, abs=1e-9)
    assert 1 / (1 + math.exp(-total - bias)) == pytest.approx(from_server, abs=1e-5)
    assert page.number("probability") == pytest.approx(from_server, abs=1e-12)
    assert bias == trained.get_model().bias
    # By hand, from the image that the page sent.
    pixels = np.frombuffer(base64.b64decode(sent), np.uint8) / 255
    assert total == pytest.approx(float(pixels @ trained.get_model().weights), abs=1e-4)
    assert trained.predict(pixels.astype(np.float32)).probabilities[0] == pytest.approx(from_server)


def test_an_empty_pad_is_never_asked_about(trained: Client, page: WebPage) -> None:
    page.click("show-3")
    page.until(lambda: page.calls("predict") == 1)
    page.click("clear")
    page["#pad"].focus()
    page.press("5 ArrowLeft")
    trained.train(epochs=3).wait()
    page.until(lambda: page.version() == trained.get_model().version)
    page.page.wait_for_timeout(300)
    assert page.calls("predict") == 1


@pytest.mark.usefixtures("trained")
def test_one_question_is_on_its_way_at_a_time(page: WebPage) -> None:
    """The answer that the page shows is the one to the whole drawing, however slow the network."""
    waiting: list[Route] = []
    page.page.route("**/page/predict", lambda route: waiting.append(route))
    page.draw(seven())
    page.draw(three())
    page.page.wait_for_timeout(300)
    assert len(waiting) == 1
    waiting[0].continue_()
    page.until(lambda: len(waiting) == 2)
    waiting[1].continue_()
    page.page.wait_for_timeout(300)
    assert len(waiting) == 2


@pytest.mark.usefixtures("trained")
def test_a_digit_that_is_drawn_while_the_model_trains(page: WebPage) -> None:
    page.click("forget-zero")
    page.train(5000, 0.01)
    page.wait_for("#run", "running")
    page.draw(three())
    page.wait_for("#sentence", "It is a 3")
    first = page.text("#sentence")
    page.until(lambda: page.text("#sentence") != first)  # a newer version answers
    assert page.number("probability") == pytest.approx(
        1 / (1 + math.exp(-page.number("sum") - page.number("bias"))), abs=1e-3
    )
    page.click("stop")
    page.wait_for("#run", "is interrupted")


@pytest.mark.usefixtures("client")
def test_before_training_it_says_that_it_guesses(page: WebPage) -> None:
    page.click("forget-zero")
    page.draw(three())
    page.wait_for("#sentence", "it guesses", "hardly been trained")


@pytest.mark.usefixtures("trained")
def test_announcements_wait_until_the_answer_stays(page: WebPage) -> None:
    """A screen reader hears the answer once, when the drawing is done."""
    page.page.evaluate(
        """() => { window.heard = []; new MutationObserver(() => heard.push(
        document.getElementById('announcer').textContent)).observe(
        document.getElementById('announcer'), { childList: true, characterData: true, subtree: true })
        }"""
    )
    page.draw(seven())
    page.draw(seven())
    page.page.wait_for_timeout(400)
    assert page.page.evaluate("heard") == []
    page.page.wait_for_timeout(900)
    assert [text[:9] for text in page.page.evaluate("heard")] == ["It is a 7"]
