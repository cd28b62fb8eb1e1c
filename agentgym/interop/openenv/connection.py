"""A client's connection: one WebSocket, one question at a time, every wait bounded."""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from agentgym.errors import (
    AgentGymError,
    ConfigError,
    EnvError,
    EnvLost,
    EnvTimeout,
    MissingExtra,
    UnknownTask,
    Unreachable,
)
from agentgym.interop.web import CONNECT, LARGEST, request
from agentgym.utils.access import TOKEN, is_loopback


class Refused(EnvError):
    """The server answered with an error; ``code`` is one of OpenEnv's."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


_KINDS: dict[str, type[AgentGymError]] = {
    "UnknownTask": UnknownTask,
    "ConfigError": ConfigError,
    "MissingExtra": MissingExtra,
}
"""Exceptions that a server of ours names, and that mean the same here."""


def _headers() -> dict[str, str]:
    token = os.environ.get(TOKEN)
    return {"Authorization": f"Bearer {token}"} if token else {}


def get_json(url: str, path: str, *, timeout: float, body: dict[str, Any] | None = None) -> Any:
    """The answer of an HTTP route; None where the server has no such route.

    Args:
        url: Address of the server.
        path: The route.
        timeout: Seconds in which the whole answer must have come.
        body: Sent by POST; unset: GET.

    Raises:
        Unreachable: There is no server.
        EnvTimeout: The answer did not come in time.
        EnvError: It is no JSON, or reports an error.
    """
    answer = request(url, path, timeout=timeout, body=body, headers=_headers())
    return _read(f"{url}{path}", answer.status, answer.data)


def _read(where: str, status: int, data: bytes) -> Any:
    if status in (404, 405, 501):
        return None
    try:
        value = json.loads(data)
    except ValueError:
        raise EnvError(f"{where} answered {data[:80]!r}, expected JSON") from None
    if status >= 400:
        detail = value.get("detail") if isinstance(value, dict) else value
        named = value.get("kind", "") if isinstance(value, dict) else ""
        raise _KINDS.get(named, EnvError)(
            f"{detail}" if named in _KINDS else f"{where} answered {status}: {detail!s:.200}"
        )
    return value


class Connection:
    """A session of a server. Opens when the first question is asked."""

    def __init__(self, url: str, timeout: float) -> None:
        self.url = url
        self.timeout = timeout
        """Seconds for an answer."""
        self._socket: Any = None

    def ask(self, kind: str, data: dict[str, Any] | None = None) -> dict[str, Any]:
        """The data of the answer to a message.

        Raises:
            Unreachable: There is no server.
            EnvTimeout: No answer came in time; the session is gone.
            EnvLost: The server ended the session.
            EnvError: The answer reports an error, or is none.
        """
        message = json.dumps({"type": kind} if data is None else {"type": kind, "data": data})
        return self._checked(kind, self._exchange(kind, message))

    def raw(self, text: str) -> str | bytes:
        """The answer to any text, as it came; raises what ``ask`` does."""
        return self._exchange("a message", text)

    def close(self) -> None:
        """End the session, and wait shortly until the server has.

        Raises:
            EnvError: The server reports that the environment could not be closed.
        """
        from websockets.exceptions import ConnectionClosed

        connection, self._socket = self._socket, None
        if connection is None:
            return
        last: str | bytes = ""
        with suppress(ConnectionClosed, TimeoutError, OSError):
            connection.send('{"type":"close"}')
            while True:
                last = connection.recv(2.0)
        with suppress(Exception):
            connection.close()
        with suppress(ValueError, AttributeError):
            reported = json.loads(last).get("data") or {}
            if "kind" in reported:  # One of ours: its environment could not be closed.
                raise EnvError(str(reported.get("message")))

    def _exchange(self, kind: str, text: str) -> str | bytes:
        from websockets.exceptions import ConnectionClosed

        connection = self._open()
        with suppress(ConnectionClosed, OSError):  # A refused session sends its reason first.
            connection.send(text)
        try:
            answer: str | bytes = connection.recv(self.timeout)
        except TimeoutError:
            self._drop()
            raise EnvTimeout(
                f"{self.url} did not answer {kind} within {self.timeout:g} s"
            ) from None
        except (ConnectionClosed, OSError) as problem:
            self._drop()
            raise EnvLost(f"{self.url} ended the session: {problem}") from None
        return answer

    def _open(self) -> Any:
        if self._socket is not None:
            return self._socket
        try:
            from websockets.exceptions import WebSocketException
            from websockets.sync.client import connect
        except ImportError:
            raise MissingExtra(
                'OpenEnv needs a library: pip install "agentic-gym[openenv]"'
            ) from None
        address = self.url.replace("http", "ws", 1) + "/ws"
        direct = is_loopback(urlsplit(self.url).hostname or "")
        try:
            opening = connect(
                address,
                open_timeout=min(CONNECT, self.timeout),
                close_timeout=2,
                max_size=LARGEST,
                compression=None,
                ping_interval=None,
                additional_headers=_headers(),
                proxy=None if direct else True,
            )
            # Entered here and left in `close`: the session outlives this call.
            self._socket = opening.__enter__()
        except TimeoutError:
            raise EnvTimeout(f"{address} opened no session within {CONNECT:g} s") from None
        except (OSError, WebSocketException) as problem:
            raise Unreachable(
                f"{address} opened no session ({type(problem).__name__}: {problem}): is it an "
                f"OpenEnv server?"
            ) from None
        return self._socket

    def _drop(self) -> None:
        """Close without waiting; a late answer must not meet the next question."""
        connection, self._socket = self._socket, None
        if connection is not None:
            with suppress(Exception):
                connection.socket.shutdown(socket.SHUT_RDWR)
            with suppress(Exception):
                connection.close()

    def _checked(self, kind: str, answer: str | bytes) -> dict[str, Any]:
        try:
            value = json.loads(answer)
        except ValueError:
            raise EnvError(
                f"{self.url} answered {answer[:80]!r} to {kind}, expected JSON"
            ) from None
        data = value.get("data") if isinstance(value, dict) else None
        if not isinstance(value, dict) or not isinstance(data, dict):
            raise EnvError(
                f"{self.url} answered {value!r:.80} to {kind}, expected an object with type and "
                f"data"
            )
        if value.get("type") == "error":
            text, named = str(data.get("message")), str(data.get("kind", ""))
            text = " ".join(text.split())[:2000]
            if named in _KINDS:
                raise _KINDS[named](text)
            raise Refused(text, str(data.get("code")))
        expected = "observation" if kind in ("reset", "step") else kind
        if value.get("type") != expected:
            raise EnvError(
                f"{self.url} answered {kind} with type {value.get('type')!r:.40}, expected "
                f"{expected!r}"
            )
        return data
