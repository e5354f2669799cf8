"""Verify host, origin, password and body type of a request before any route sees it.

A browser sends requests for every page that its user visits. The rules here are those that such a
page cannot meet: the Host must be web's own name (a foreign name that leads here is DNS
rebinding), an Origin must be web's own, and the body's type is one that a browser sends to another
origin only after it has asked, which web never allows.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from mnist37_web.errors import HttpError
from mnist37_web.replies.json_replies import error_reply
from mnist37_web.settings import Settings, is_loopback

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

TOKEN = "mnist37.token"  # the caller's token in the scope of a request
PAGE = "/page/"  # the routes that act with web's own token
OPEN_PATHS = {"/v2/health/live", "/v2/health/ready"}  # for probes, which have no password
JSON = "application/json"
REST, RPC = "/v2/", "/mnist37.v1.Mnist37Service/"
# A page can have its browser send this header only after the browser has asked web.
JSON_SIZE = b"inference-header-content-length"
EXPECT = (b"expect", b"100-continue")
ENCODING = b"content-encoding"
SINGLE_HEADERS = {
    *(b"host", b"origin", b"content-type", b"authorization", b"content-length"),
    *(ENCODING, JSON_SIZE),
}
SECURITY_HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
]


class Boundary:
    """The application behind the rules for all requests.

    Args:
        app: the application.
        settings: of web.
        ports: returns the ports on which web listens.
    """

    def __init__(self, app: App, settings: Settings, ports: Callable[[], set[int]]) -> None:
        self._app = app
        self._settings = settings
        self._ports = ports
        self._is_secure = settings.https_cert is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or reply with the error that says what it lacks."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *SECURITY_HEADERS]
                if message["status"] >= 400 and EXPECT in scope["headers"]:
                    # After an error, the client may send its body or not: nobody could tell.
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        try:
            scope[TOKEN] = self._check(scope)
        except HttpError as error:
            reply = error_reply(error)
            if error.reason == "PASSWORD_MISSING":
                reply.headers["WWW-Authenticate"] = 'Basic realm="mnist37", charset="UTF-8"'
            await reply(scope, receive, send_with_headers)
            return
        await self._app(scope, receive, send_with_headers)

    def _check(self, scope: Scope) -> str | None:
        """Return the caller's token; raise HttpError if a rule is not met."""
        headers: dict[bytes, str] = {}
        for name, value in scope["headers"]:
            if name in SINGLE_HEADERS:
                if name in headers:
                    raise HttpError(
                        400, f"{name.decode()}: got it twice; must be one", "INVALID_REQUEST"
                    )
                headers[name] = value.decode("latin-1")
        host = headers.get(b"host", "")
        is_named = self._check_host(host, scope.get("server"))
        is_page = scope["path"].startswith(PAGE)
        self._check_origin(headers.get(b"origin"), host, is_named, is_page)
        if scope["method"] == "POST" and headers.get(b"content-type") != JSON:
            check_type(headers.get(b"content-type"), scope["path"], scope["headers"])
        if (encoding := headers.get(ENCODING, "identity")).lower() != "identity":
            raise HttpError(
                415,
                f"Content-Encoding: got {encoding[:64]!r}; must be left out",
                "CONTENT_ENCODING",
            )
        if scope["path"] in OPEN_PATHS:
            return None
        return self._parse_authorization(headers.get(b"authorization"))

    def _check_host(self, host: str, server: tuple[str, int] | None) -> bool:
        """Return whether a Host is one of --host-name; raise HttpError unless it is web's own."""
        host = host.lower()
        name, port = split_host(host)
        if {host, name} & {given.lower() for given in self._settings.host_names}:
            return True
        ports = self._ports()
        default = 443 if self._is_secure else 80
        own_address = server[0] if server else ""
        is_own = name.strip("[]") == own_address or name == self._settings.host.lower()
        is_own = is_own or (is_loopback(own_address) and name == "localhost")
        if not is_own or (port or default) not in ports:
            raise HttpError(
                403,
                f"Host: got {host[:100]!r}, which is not an address of this server; its"
                " operator allows another name with --host-name",
                "HOST_UNKNOWN",
            )
        return False

    def _check_origin(self, origin: str | None, host: str, is_named: bool, is_page: bool) -> None:
        """Raise HttpError unless a request comes from web's own page, or from no page."""
        if origin is None:
            if is_page:
                raise HttpError(
                    403,
                    "Origin: missing; this is a route of the page, for a browser that shows it;"
                    " programs use /v2 or /mnist37.v1.Mnist37Service",
                    "ORIGIN_MISSING",
                )
            return
        # Behind a proxy, the browser's scheme is the proxy's.
        schemes = ["http", "https"] if is_named else [self._settings.scheme]
        if origin.lower() not in [f"{scheme}://{host.lower()}" for scheme in schemes]:
            raise HttpError(
                403,
                f"Origin: got {origin[:100]!r}; a page from elsewhere may not call this server",
                "ORIGIN_FOREIGN",
            )

    def _parse_authorization(self, authorization: str | None) -> str | None:
        """Return the caller's token, None for an anonymous caller.

        With a password, the header is Basic TOKEN:PASSWORD, without one, Bearer TOKEN.

        Raises:
            HttpError: the password is missing or wrong, or the header has another form.
        """
        kind, _, value = (authorization or "").partition(" ")
        kind, value = kind.lower(), value.strip()
        password = self._settings.password
        if kind == "basic":
            try:
                token, _, given = base64.b64decode(value, validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                token = given = ""
            if password is not None and hmac.compare_digest(given.encode(), password.encode()):
                return check_token(token) if token else None
        elif password is None and authorization is None:
            return None
        elif password is None and kind == "bearer" and value:
            return check_token(value)
        if password is None:
            raise HttpError(
                401, "Authorization: must be Bearer TOKEN, or left out", "INVALID_AUTHORIZATION"
            )
        raise HttpError(
            401,
            "Authorization: must be Basic with the password of this server, and a token of the"
            " model server, or nothing, as the user's name",
            "PASSWORD_MISSING",
        )


def check_token(token: str) -> str:
    """Return a token; raise HttpError unless it is one that can be sent."""
    if not re.fullmatch(r"[!-~]{1,512}", token):
        raise HttpError(
            401,
            "Authorization: the token must be up to 512 printable ASCII characters without spaces",
            "INVALID_AUTHORIZATION",
        )
    return token


def check_type(content_type: str | None, path: str, headers: Headers) -> None:
    """Raise HttpError unless the body of a POST has a type that its route reads.

    Args:
        content_type: the header, if the request has one.
        path: of the route.
        headers: of the request.
    """
    accepted = [JSON]
    if path.startswith(REST):
        if content_type is None and not may_be_from_page(headers):
            return  # tritonclient.http sends none
        accepted.append("application/octet-stream")
    elif path.startswith(RPC):
        accepted.append("application/x-ndjson")
    if (content_type or "").partition(";")[0].strip().lower() not in accepted:
        got = "missing" if content_type is None else f"got {content_type[:100]!r}"
        raise HttpError(
            415, f"Content-Type: {got}; must be {' or '.join(accepted)}", "CONTENT_TYPE"
        )


def may_be_from_page(headers: Headers) -> bool:
    """Return whether a POST without a type may be one that a browser sends for a foreign page.

    A browser sends the Origin with every POST, and old ones that do not have a User-Agent that
    begins with Mozilla. A page can change neither without the browser's question beforehand.
    """
    names = {name for name, _ in headers}
    if JSON_SIZE in names:
        return False
    if b"origin" in names or any(name.startswith(b"sec-fetch-") for name in names):
        return True
    return any(
        name == b"user-agent" and value.lower().startswith(b"mozilla") for name, value in headers
    )


def split_host(host: str) -> tuple[str, int | None]:
    """Return the name and the port of a Host; the name of IPv6 has its brackets."""
    match = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::(\d{1,5}))?", host)
    if match is None:
        return "", None
    return match[1], None if match[2] is None else int(match[2])
