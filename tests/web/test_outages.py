"""Tests of the page while the server or web is away, and with a token that may read alone."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mnist37_client import Client
from mnist37_client.local_server import LocalServer
from support.drawings import three
from support.local_web import LocalWeb
from support.web_page import Open


def test_a_killed_server_comes_back_and_the_run_goes_on(open_page: Open, tmp_path: Path) -> None:
    state = ("--state", str(tmp_path / "state"))
    with LocalServer(*state) as server, LocalWeb(server.address) as web:
        page = open_page(web.url)
        page.train(3_000, 0.01)
        page.wait_for("#run", "is running")
        page.draw(three())
        page.wait_for("#sentence", "3")
        server.kill()
        page.wait_for("#problem", "The server does not answer")
        page.wait_for("#server", "away")
        assert page["#train-form"].is_hidden()
        page.click("show-3")  # the examples are web's own
        page.wait_for("#pad-caption", "A 3 that")
        with LocalServer("--address", server.address, *state):
            page.wait_for("#server", "connected", seconds=20)
            assert page["#problem"].is_hidden()
            page.wait_for("#run", "Run 1 is running", seconds=20)
            before = page.version()
            page.until(lambda: page.version() > before)
            page.click("stop")
            page.wait_for("#run", "is interrupted")
    page.complaints.clear()  # the browser notes each call that failed


def test_the_failure_of_a_call_does_not_hide_the_outage(open_page: Open) -> None:
    with LocalServer() as server, LocalWeb(server.address) as web:
        page = open_page(web.url)
        page.page.clock.install()
        server.kill()
        page.wait_for("#problem", "The server does not answer")
        page.click("history-refresh")
        page.wait_for("#problem", "The server does not answer", "\nno server listens at")
        page.page.clock.fast_forward(13_000)
        page.until(lambda: "\n" not in page.text("#problem"))
        page.wait_for("#problem", "The server does not answer")
    page.complaints.clear()


def test_a_killed_web_comes_back(open_page: Open, address: str, client: Client) -> None:
    with LocalWeb(address) as web:
        page = open_page(web.url)
        page.draw(three())
        page.wait_for("#sentence", "3")
        web.kill()
    page.wait_for("#problem", "the server of this page has ended")
    client.train(epochs=2).wait()
    with LocalWeb(address, "--address", web.address):
        page.wait_for("#server", "connected")
        assert page["#problem"].is_hidden()
        page.until(lambda: page.version() == client.get_model().version)
        page.wait_for("#sentence", f"version {client.get_model().version:,}")
    page.complaints.clear()


def test_a_token_that_may_read_alone(open_page: Open, tmp_path: Path) -> None:
    """The page shows no control that would be refused; and what is hidden is refused too."""
    tokens = {"predict": "r" * 32, "train": "w" * 32}
    file = tmp_path / "tokens"
    hashes = {role: hashlib.sha256(token.encode()).hexdigest() for role, token in tokens.items()}
    file.write_text("".join(f"{role} {value}\n" for role, value in hashes.items()))
    with (
        LocalServer("--tokens", str(file)) as server,
        LocalWeb(server.address, "--token", tokens["predict"]) as web,
        Client(server.address, token=tokens["train"]) as writer,
    ):
        writer.train(epochs=20).wait()
        page = open_page(web.url)
        page.wait_for("#readonly", "This page may read, and not train.")
        page.draw(three())
        page.wait_for("#sentence", "It is a 3")
        page.click("errors-refresh", "history-refresh")
        page.until(lambda: page["#history tr"].count() > 1)
        for name in ("train", "stop", "step", "forget-zero"):
            assert page[f"#{name}"].is_hidden()
        assert page["button:text-is('Restore')"].count() == 0
        version = writer.get_model().version
        status = page.page.evaluate(
            """async () => (await fetch('page/initialize', { method: 'POST', body: '{"std": 0}',
            headers: { 'Content-Type': 'application/json' } })).status"""
        )
        assert status == 403
        assert writer.get_model().version == version
        writer.train(epochs=1).wait()  # it sees what others train
        page.until(lambda: page.version() == writer.get_model().version)
        page.complaints.clear()
