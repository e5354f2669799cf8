"""Tests of training, errors and history on the page."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

import numpy as np
from mnist37_client import Client, errors
from support.drawings import seven, three
from support.web_page import WebPage


def losses(page: WebPage) -> str:
    """Return what a screen reader says of the curve."""
    return page["#curve"].get_attribute("aria-label") or ""


def test_a_run_to_its_end(client: Client, page: WebPage) -> None:
    page.click("forget-zero")
    page.train(21, 1)
    page.wait_for("#run", "is finished: epoch 21 of 21")
    (run,) = client.runs(limit=1)
    assert (run.epochs, run.learning_rate, run.schedule) == (21, 1.0, "constant")
    accuracy = client.get_loss("valid").accuracy
    page.wait_for("#accuracy", f"{100 * accuracy:.2f} %")
    page.until(lambda: "epochs 1 to 21" in losses(page))
    page.page.wait_for_timeout(100)
    assert is_painted(page, "--three")
    assert is_painted(page, "--seven")
    assert page["#train"].is_enabled()


def is_painted(page: WebPage, colour: str) -> bool:
    """Return whether the curve has pixels in a colour of the page."""
    name: str = page.page.evaluate(
        "name => getComputedStyle(document.documentElement).getPropertyValue(name)", colour
    )
    red, green, blue = (int(name.strip()[i : i + 2], 16) for i in (1, 3, 5))
    pixels = page.pixels("#curve")
    return bool((pixels == (red, green, blue, 255)).all(axis=-1).sum() > 20)


def test_a_run_is_stopped(client: Client, page: WebPage) -> None:
    page.train(100_000, 0.001)
    page.wait_for("#run", "is running")
    assert page["#train"].is_disabled()
    assert page["#step"].is_disabled()  # the server would do it after the run
    page.click("stop")
    page.wait_for("#run", "is interrupted")
    version = client.get_model().version
    page.until(lambda: page.version() == version)
    assert page["#stop"].is_disabled()
    assert page["#train"].is_enabled()


def test_a_schedule(client: Client, page: WebPage) -> None:
    page.train(3, 1, schedule="cosine", final_rate="0.25")
    page.wait_for("#run", "is finished: epoch 3 of 3")
    (run,) = client.runs(limit=1)
    assert (run.schedule, run.final_learning_rate) == ("cosine", 0.25)


def test_a_number_that_is_not_shown_keeps_no_run_back(client: Client, page: WebPage) -> None:
    page["#schedule"].select_option("linear")
    page["#final-rate"].fill("-1")
    page.train(2, 1, schedule="constant")
    page.wait_for("#run", "is finished: epoch 2 of 2")
    assert client.runs(limit=1)[0].schedule == "constant"


def test_one_step(client: Client, page: WebPage) -> None:
    version = client.get_model().version
    page.click("step")
    page.until(lambda: page.version() == version + 1)
    page.wait_for("#announcer", f"version {version + 1:,}, loss 0.")
    page["#rate"].fill("")
    page.click("step")  # the browser says what is missing
    page.page.wait_for_timeout(200)
    assert client.get_model().version == version + 1


def test_forgetting(trained: Client, page: WebPage) -> None:
    page.click("forget-random")
    page.until(lambda: abs(float(trained.get_model().weights.std()) - 1) < 0.2)
    page.until(lambda: page.pixels("#weights")[..., 3].std() > 30)
    page.click("forget-zero")
    page.until(lambda: not trained.get_model().weights.any())
    page.until(lambda: not page.pixels("#weights")[..., 3].any())


def test_a_run_of_another_caller(client: Client, page: WebPage) -> None:
    run = client.train(epochs=50_000, learning_rate=0.001, name="monday")
    following = threading.Thread(target=lambda: suppressed(run.wait))
    following.start()
    try:
        page.wait_for("#run", "“monday” is running", "Another caller began it")
        page.until(lambda: "epochs 1 to" in losses(page))
        assert page["#stop"].is_disabled()
    finally:
        run.cancel()
        following.join()
    page.wait_for("#run", "is interrupted")


def suppressed(call: Callable[[], object]) -> None:
    with suppress(errors.Mnist37Error):
        call()


def test_a_refusal_is_shown_and_goes(client: Client, page: WebPage) -> None:
    page.train(5, 1)
    page.wait_for("#run", "is finished: epoch 5 of 5")
    page.page.evaluate("document.getElementById('epochs').max = ''")
    page.train(2_000_000, 1)
    page.wait_for("#problem", "epochs")
    assert client.runs(limit=1)[0].epochs == 5
    page.complaints.clear()  # the browser notes each answer with an error


def test_the_errors(trained: Client, page: WebPage) -> None:
    page.click("errors-refresh")
    page.until(lambda: page["#errors button"].count() == 24)
    loss = trained.get_loss("valid")
    wrong = round((1 - loss.accuracy) * loss.count)
    page.wait_for("#errors-text", f"is wrong about {wrong} of 2,038 images")
    first = page["#errors button"].first
    text = first.inner_text()
    digit, said = int(text[2]), int(text.partition("says ")[2][0])
    assert {digit, said} == {3, 7}
    first.click()
    page.wait_for("#sentence", f"It is a {said}")
    page.wait_for("#pad-caption", f"A {digit} that")


def test_the_history(trained: Client, page: WebPage) -> None:
    good = trained.get_model()
    trained.tag_version("good", good.version)
    page.click("forget-zero")
    page.draw(three())
    page.wait_for("#sentence", "it guesses")
    page.click("history-refresh")
    page["button[aria-label='Predict with good']"].click()
    page.wait_for("#pinned", f"Version {good.version:,} answers.")
    page.wait_for("#sentence", "It is a 3", f"version {good.version:,}")
    page.click("clear")
    page.draw(seven())  # the server is asked about that version
    page.wait_for("#sentence", "It is a 7", f"version {good.version:,}")
    page.click("unpin")
    page.wait_for("#sentence", "it guesses")
    earlier = trained.versions(2)[1].version
    page[f"button[aria-label='Predict with {earlier:,}']"].click()
    page.wait_for("#sentence", f"version {earlier:,}")
    newest = trained.get_model().version
    page["button[aria-label='Restore good']"].click()
    page.until(lambda: page.version() == newest + 1)
    assert np.array_equal(trained.get_model().weights, good.weights)
    page.until(page["#pinned"].is_hidden)
    assert page["#history tr"].count() > 2
    trained.delete_tag("good")


def test_a_page_that_nobody_sees_holds_no_connection(client: Client, page: WebPage) -> None:
    """A browser has six connections to a server; hidden pages must leave them to those seen."""
    page.page.evaluate(
        """() => { Object.defineProperty(document, 'hidden', { configurable: true, value: true });
        document.dispatchEvent(new Event('visibilitychange')) }"""
    )
    before, streams = page.text("#version"), page.calls("events")
    client.train(epochs=2).wait()
    page.page.wait_for_timeout(700)
    assert page.text("#version") == before
    assert page.text("#server") == "connected"  # nobody sees it, and nothing is wrong
    page.page.evaluate(
        """() => { delete document.hidden;
        document.dispatchEvent(new Event('visibilitychange')) }"""
    )
    version = client.get_model().version
    page.until(lambda: page.version() == version)
    assert page.calls("events") == streams + 1
    page.complaints.clear()
