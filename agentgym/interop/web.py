"""One HTTP request with a deadline for the whole of it, for adapters of servers."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from agentgym.errors import ConfigError, EnvError, EnvTimeout, Unreachable

CONNECT = 10.0
"""Seconds to connect."""
LARGEST = 1 << 24
"""Bytes of the largest answer that is read."""


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    headers: http.client.HTTPMessage
    data: bytes


def checked_url(url: str, kind: str) -> str:
    """The address of a server, without a slash at its end.

    Args:
        url: As a user wrote it; ``ws`` and ``wss`` stand for ``http`` and ``https``.
        kind: Prefix of the name, for the error.

    Raises:
        ConfigError: It is no address.
    """
    given = url if "://" in url else f"http://{url}"
    parts = urlsplit(given)
    try:
        valid = parts.scheme in ("http", "https", "ws", "wss") and bool(parts.hostname)
        valid = valid and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid:
        raise ConfigError(f"{kind}: got {url!r}, expected an address such as http://127.0.0.1:8000")
    return (given.replace("ws", "http", 1) if given.startswith("ws") else given).rstrip("/")


def request(
    url: str,
    path: str,
    *,
    timeout: float,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Ask a server once.

    Args:
        url: Its address.
        path: The route.
        timeout: Seconds in which the whole answer must have come.
        body: Sent as JSON by POST; unset: GET.
        headers: Sent in addition.

    Raises:
        Unreachable: There is no server.
        EnvTimeout: The answer did not come in time.
        EnvError: The answer is too long.
    """
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=min(timeout, CONNECT))
    late = threading.Event()

    def cut() -> None:
        late.set()
        with suppress(OSError, AttributeError):
            connection.sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(timeout, cut)
    timer.daemon = True
    timer.start()
    try:
        sent = None if body is None else json.dumps(body)
        verb = "GET" if body is None else "POST"
        all_headers = {"Content-Type": "application/json", **(headers or {})}
        connection.request(verb, f"{parts.path}{path}", body=sent, headers=all_headers)
        if connection.sock is not None:
            connection.sock.settimeout(timeout)
        response = connection.getresponse()
        data = response.read(LARGEST + 1)
    except (OSError, http.client.HTTPException) as problem:
        if late.is_set() or isinstance(problem, TimeoutError):
            raise EnvTimeout(f"{url}{path} did not answer within {timeout:g} s") from problem
        raise Unreachable(
            f"{url} was not reached ({type(problem).__name__}: {problem}): is the server running?"
        ) from problem
    finally:
        timer.cancel()
        connection.close()
    if late.is_set():
        raise EnvTimeout(f"{url}{path} did not answer within {timeout:g} s")
    if len(data) > LARGEST:
        raise EnvError(f"{url}{path} answered with more than {LARGEST} bytes")
    return Answer(response.status, response.headers, data)
