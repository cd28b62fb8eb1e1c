"""Who reaches a server of ours: this machine, and other machines with a token.

A server listens on a loopback address unless another one is named, and that takes a token in the
environment variable ``AGENTGYM_TOKEN``. Programs send it as bearer token. People open
``/?token=TOKEN`` once; their browser then keeps a cookie.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import os
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

from agentgym.errors import ConfigError

TOKEN = "AGENTGYM_TOKEN"
"""Environment variable with the token of a server, which our clients send by themselves."""
_COOKIE = "agentgym_token"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]
"""An ASGI application."""


class Reply(NamedTuple):
    """What a request gets in place of an answer of the server."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def body(self) -> bytes:
        """JSON with the reason."""
        return json.dumps({"detail": self.reason}).encode()


@dataclass(frozen=True)
class Access:
    """The rule of one server.

    Without a token it answers this machine alone: requests must name a loopback host, so that a
    web page cannot reach it through a name that it has pointed at this machine.
    """

    token: str = field(default="", repr=False)

    @classmethod
    def of(cls, host: str) -> Access:
        """The rule of a server that listens on an address.

        Raises:
            ConfigError: Other machines could reach the server, and there is no token.
        """
        token = os.environ.get(TOKEN, "")
        if not token and not is_loopback(host):
            raise ConfigError(
                f"{host} admits other machines: set the environment variable {TOKEN} to a secret, "
                f"which clients send as `Authorization: Bearer SECRET`"
            )
        return cls(token)

    def reply(self, method: str, target: str, headers: Mapping[str, str]) -> Reply | None:
        """What to answer instead; None lets the request pass.

        Args:
            method: Of HTTP.
            target: Path and query of the request.
            headers: Of the request, with names in lower case.
        """
        host = headers.get("host", "")
        if "origin" in headers and urlsplit(headers["origin"]).netloc != host:
            return Reply(403, "requests from web pages of other sites are refused")
        if not self.token:
            if is_loopback(_hostname(host)):
                return None
            return Reply(403, f"without a token, only loopback names are served, not {host!r:.80}")
        _, _, query = target.partition("?")
        given = dict(parse_qsl(query)).get("token")
        if method == "GET" and given is not None and same(given, self.token):
            return self._welcome(target)
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        right = same(_from_header(bearer), self.token) and kind.lower() == "bearer"
        if right or same(_cookie(headers.get("cookie", "")), self._cookie_value()):
            return None
        return Reply(
            401,
            "send `Authorization: Bearer TOKEN` with the server's token, or open /?token=TOKEN",
            (("WWW-Authenticate", "Bearer"),),
        )

    def _welcome(self, target: str) -> Reply:
        """Back to the same page without the token, which a cookie replaces."""
        path, _, query = target.partition("?")
        others = urlencode([pair for pair in parse_qsl(query) if pair[0] != "token"])
        cookie = f"{_COOKIE}={self._cookie_value()}; HttpOnly; SameSite=Strict; Path=/"
        place = "/" + path.lstrip("/") + (f"?{others}" if others else "")
        return Reply(303, "welcome", (("Location", place), ("Set-Cookie", cookie)))

    def _cookie_value(self) -> str:
        """A cookie takes fewer characters than a token, and browsers store it in the clear."""
        return hashlib.sha256(self.token.encode("utf-8", "surrogatepass")).hexdigest()


class Guarded:
    """An ASGI application behind a rule.

    Args:
        app: The application.
        access: The rule; unset: the token of the environment variable ``AGENTGYM_TOKEN``. A server
            that takes the name of a middleware class, as vLLM does, is guarded by this.
    """

    def __init__(self, app: Application, access: Access | None = None) -> None:
        self.app = app
        self.access = access or Access(os.environ.get(TOKEN, ""))

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve a connection."""
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        target = scope["path"] + "?" + scope.get("query_string", b"").decode("latin-1")
        reply = self.access.reply(scope.get("method", ""), target, headers)
        if reply is None:
            return await self.app(scope, receive, send)
        if scope["type"] == "websocket":
            await receive()
            return await send({"type": "websocket.close", "code": 1008})
        named = [("Content-Type", "application/json"), *reply.headers]
        encoded = [(name.lower().encode(), value.encode()) for name, value in named]
        await send({"type": "http.response.start", "status": reply.status, "headers": encoded})
        return await send({"type": "http.response.body", "body": reply.body})


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def same(given: str, expected: str) -> bool:
    """Whether a secret is the expected one, in a time that does not tell how much of it is."""
    one, other = (text.encode("utf-8", "surrogatepass") for text in (given, expected))
    return hmac.compare_digest(one, other)


def _from_header(value: str) -> str:
    """Headers arrive as Latin-1, whatever their sender wrote."""
    return value.encode("latin-1", "replace").decode("utf-8", "replace")


def _hostname(host: str) -> str:
    """The name in a header ``Host``, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _cookie(header: str) -> str:
    try:
        found = SimpleCookie(header).get(_COOKIE)
    except CookieError:
        return ""
    return "" if found is None else found.value
