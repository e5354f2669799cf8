"""Attacks by pages of other sites, which a person visits while web runs on the same machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mnist37_client import Client, errors
from mnist37_client.local_server import LocalServer
from playwright.sync_api import Browser
from support.attacker import ATTACK, READS, WRITES, Attacker
from support.local_web import LocalWeb
from support.web_page import Launch, Open

TOKEN = "w" * 32


@pytest.fixture(scope="module")
def attacker() -> Iterator[Attacker]:
    with Attacker() as attacker:
        yield attacker


@pytest.fixture(scope="module", params=["without tokens", "with tokens"])
def owner(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Client, LocalWeb]]:
    """Return a client of a server, and a web that may write there."""
    file = tmp_path_factory.mktemp("owner") / "tokens"
    file.write_text(f"train {hashlib.sha256(TOKEN.encode()).hexdigest()}\n")
    has_tokens = request.param == "with tokens"
    options = ("--tokens", str(file)) if has_tokens else ()
    token = TOKEN if has_tokens else None
    with (
        LocalServer(*options) as server,
        Client(server.address, token=token) as client,
        LocalWeb(server.address, *(("--token", TOKEN) if has_tokens else ())) as web,
    ):
        client.train(epochs=1).wait()
        yield client, web


def state(client: Client) -> object:
    """Return all that a write would change."""
    return client.get_model().version, client.versions(), client.runs(), client.tags()


@pytest.mark.parametrize("site", ["127.0.0.1", "localhost"])
def test_a_foreign_page_reads_and_changes_nothing(
    browser: Browser, owner: tuple[Client, LocalWeb], attacker: Attacker, site: str
) -> None:
    client, web = owner
    before = state(client)
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"http://{site}:{attacker.port}/")
    read = page.evaluate(ATTACK, [web.url, {**WRITES, **READS}])
    page.wait_for_timeout(200)
    context.close()
    assert read == []
    assert state(client) == before


def test_the_attack_would_work_from_the_page_itself(
    browser: Browser, owner: tuple[Client, LocalWeb]
) -> None:
    """The control of the tests above: what they try has an effect where it is allowed."""
    client, web = owner
    before = client.get_model().version
    context = browser.new_context()
    page = context.new_page()
    page.goto(web.url)
    routes = {path: WRITES[path] for path in ("/page/step", "/page/initialize")}
    read = page.evaluate(ATTACK, [web.url, {**routes, "/page/model": "{}"}])
    context.close()
    assert any("parameters" in text for text in read) or len(read) > 2
    assert client.get_model().version > before


def test_a_name_that_an_attacker_points_here_reads_and_changes_nothing(
    launch: Launch, owner: tuple[Client, LocalWeb]
) -> None:
    """DNS rebinding: the browser takes the attacker's name for web's origin."""
    client, web = owner
    before = state(client)
    browser = launch("--host-resolver-rules=MAP rebind.test 127.0.0.1")
    page = browser.new_page()
    reply = page.goto(f"http://rebind.test:{web.address.rpartition(':')[2]}/")
    assert reply is not None
    assert reply.status == 403
    assert "is not an address of this server" in reply.text()
    for path, body in {**WRITES, **READS}.items():
        found = page.evaluate(
            """async ([path, body]) => { const reply = await fetch(path, body ? { method: 'POST', body,
            headers: { 'Content-Type': 'application/json' } } : {});
            return [reply.status, (await reply.json()).reason] }""",
            [path, body],
        )
        assert found == [403, "HOST_UNKNOWN"], path
    browser.close()
    assert state(client) == before


def test_beyond_this_machine_it_starts_with_https_and_a_password_alone(
    browser: Browser, open_page: Open, address: str, pki: Path, tmp_path: Path
) -> None:
    password = tmp_path / "password"
    password.write_text("correct horse battery\n")
    certificate = ("--https-cert", str(pki / "server.pem"), "--https-key", str(pki / "server.key"))
    everywhere = ("--address", "0.0.0.0:0")
    for given in ((), certificate, ("--password-file", str(password))):
        with pytest.raises(
            errors.Unavailable, match="other machines can reach 0\\.0\\.0\\.0; add --"
        ):
            LocalWeb(address, *everywhere, *given)
    options = (*everywhere, *certificate, "--password-file", str(password))
    with LocalWeb(address, *options) as web, Client(address) as client:
        client.initialize(std=0)
        client.train(epochs=20).wait()
        url = f"https://127.0.0.1:{web.address.rpartition(':')[2]}"
        credentials = {"username": "", "password": "correct horse battery"}
        page = open_page(url, ignore_https_errors=True, http_credentials=credentials)
        page.click("show-3")
        page.wait_for("#pad-caption", "A 3 that")
        page.train(2, 1)
        page.wait_for("#run", "is finished: epoch 2 of 2")
        wrong: Any = {"username": "", "password": "wrong horse battery"}
        context = browser.new_context(ignore_https_errors=True, http_credentials=wrong)
        reply = context.new_page().goto(url)
        assert reply is not None
        assert reply.status == 401
        context.close()
