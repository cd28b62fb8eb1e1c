"""Web APIs for tools: a connection pool, deadlines, exponential backoff and a disk cache.

Needs the extra ``http``.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import math
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from agentgym.env.base import one_of
from agentgym.errors import ConfigError, EnvError, EnvTimeout, MissingExtra
from agentgym.tools.limits import event_loop
from agentgym.utils.bounds import above, at_least
from agentgym.utils.jsonl import parse_object, write_atomic

if TYPE_CHECKING:
    import httpx

_RETRIED = (429, 500, 502, 503, 504)
"""Statuses after which the same request may succeed."""
_CACHED_ERRORS = (404, 410)
"""Statuses of failures that stay."""


class Response(NamedTuple):
    """A response of a server."""

    status: int
    body: bytes
    type: str = ""
    """The content type, as sent."""

    @property
    def text(self) -> str:
        """The body as UTF-8; invalid bytes are replaced."""
        return self.body.decode(errors="replace")

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            EnvError: It is not JSON.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise EnvError(f"expected JSON, got {self.text[:80]!r}") from None


@dataclass(frozen=True)
class ResponseCache:
    """Responses on disk, a file per request, keyed by method, URL and body.

    Headers are not part of the key. Errors are not cached, except 404 and 410.
    """

    folder: str | Path
    mode: Literal["use", "record", "replay"] = "use"
    """``use``: send requests that are not cached. ``record``: send all. ``replay``: send none."""

    def __post_init__(self) -> None:
        """Refuse an unknown mode."""
        one_of("mode", self.mode, ("use", "record", "replay"))

    def load(self, request: httpx.Request) -> Response | None:
        """The cached response to a request; None if it has to be sent.

        Raises:
            ConfigError: The file is damaged.
            EnvError: It is not cached, and the mode is ``replay``.
        """
        path = self.path(request)
        if self.mode == "record":
            return None
        try:
            found = parse_object(path.read_text(encoding="utf-8"))
            body = (
                base64.b64decode(found["base64"]) if "base64" in found else found["text"].encode()
            )
            return Response(int(found["status"]), body, str(found["type"]))
        except FileNotFoundError:
            if self.mode == "use":
                return None
            raise EnvError(
                f"no response to {request.method} {request.url} is recorded in {self.folder}"
            ) from None
        except (AttributeError, KeyError, TypeError, ValueError) as problem:
            raise ConfigError(f"{path} is not a recorded response, remove it: {problem}") from None

    def store(self, request: httpx.Request, answer: Response) -> None:
        """Write a response to disk atomically."""
        if answer.status >= 300 and answer.status not in _CACHED_ERRORS:
            return
        try:
            body = {"text": answer.body.decode()}
        except UnicodeDecodeError:
            body = {"base64": base64.b64encode(answer.body).decode()}
        asked = request.content.decode(errors="replace")
        entry = {
            "request": {"method": request.method, "url": str(request.url), "body": asked},
            "status": answer.status,
            "type": answer.type,
            **body,
        }
        write_atomic(self.path(request), json.dumps(entry, ensure_ascii=False, indent=1))

    def path(self, request: httpx.Request) -> Path:
        """The file of a request."""
        digest = hashlib.sha256()
        for part in (request.method.encode(), str(request.url).encode(), request.content):
            digest.update(len(part).to_bytes(8, "big") + part)
        name = digest.hexdigest()
        return Path(self.folder) / name[:2] / f"{name}.json"


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Retries and limits of a request."""

    deadline: float = 20.0
    """Seconds for all tries of a request together."""
    retries: int = 3
    """More tries after transport errors, 429 and 5xx."""
    backoff: float = 0.25
    """Seconds before the first retry; doubles each time, less a random part of up to one
    half. A longer ``Retry-After`` of the server takes precedence."""
    max_bytes: int = 4 * 2**20
    """Largest response in bytes."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        above(0, self, "deadline")
        at_least(0, self, "retries", "backoff")
        at_least(1, self, "max_bytes")


class HttpClient:
    """An HTTP client for tools; share one instance, so that connections are reused.

    ``get`` and ``post`` are for sync functions, ``request`` for async ones. They return a
    ``Response`` of any status. 429, 5xx and transport errors are retried with growing pauses; the
    last failure raises, which marks the episode as broken: it is not the model's fault.

    Examples:
        >>> web = HttpClient(cache=ResponseCache("recorded", "replay"))
        >>> web.get("https://example.org/")  # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        EnvError: no response to GET https://example.org/ is recorded in recorded
    """

    def __init__(
        self,
        *,
        cache: ResponseCache | None = None,
        retry: RetryPolicy | None = None,
        connections: int = 32,
        **options: Any,
    ) -> None:
        """Connections open at the first request.

        Args:
            cache: Stores responses; no cache if None.
            retry: Retries and limits.
            connections: Most open at the same time.
            **options: Arguments of ``httpx.AsyncClient``, such as ``headers`` and ``base_url``.

        Raises:
            MissingExtra: httpx is not installed.
        """
        try:
            import httpx
        except ImportError:
            raise MissingExtra('web APIs need httpx: pip install "agentic-gym[http]"') from None
        self.cache, self.retry = cache, retry or RetryPolicy()
        self._options = {"limits": httpx.Limits(max_connections=connections), **options}
        self._clients: dict[int, httpx.AsyncClient] = {}

    def get(self, url: str, params: Mapping[str, Any] | None = None) -> Response:
        """Blocking ``request`` with GET."""
        return self._blocking("GET", url, params=params)

    def post(self, url: str, body: object) -> Response:
        """Blocking ``request`` with POST and a JSON body."""
        return self._blocking("POST", url, json=body)

    async def request(self, method: str, url: str, **options: Any) -> Response:
        """Send a request, or return the cached response.

        Args:
            method: HTTP method.
            url: Absolute, or relative to ``base_url``.
            **options: Arguments of ``httpx.AsyncClient.build_request``, such as ``json``.

        Raises:
            EnvTimeout: The deadline passed.
            EnvError: All tries failed, or no response is recorded.
            ValueError: The URL is invalid, or the response is too large.
        """
        import httpx

        try:
            request = self._client().build_request(method, url, **options)
        except (httpx.InvalidURL, TypeError) as problem:
            raise ValueError(f"{url[:200]!r} is not a valid URL: {problem}") from None
        known = self.cache.load(request) if self.cache else None
        if known is not None:
            return known
        try:
            async with asyncio.timeout(self.retry.deadline):
                answer = await self._try(request)
        except TimeoutError:
            seconds = f"{self.retry.deadline:g} s"
            raise EnvTimeout(f"{_where(request)} did not answer within {seconds}") from None
        if self.cache:
            await asyncio.to_thread(self.cache.store, request, answer)
        return answer

    def close(self) -> None:
        """Close the connections; a later request opens new ones."""
        client = self._clients.pop(os.getpid(), None)
        if client is not None:
            asyncio.run_coroutine_threadsafe(client.aclose(), event_loop()).result()

    def _blocking(self, method: str, url: str, **options: Any) -> Response:
        """Called from a tool's thread, never from the thread of the loop."""
        asked = self.request(method, url, **options)
        return asyncio.run_coroutine_threadsafe(asked, event_loop()).result()

    def _client(self) -> httpx.AsyncClient:
        """One per process, since forks must not share sockets. Called on the loop only."""
        import httpx

        process = os.getpid()
        if process not in self._clients:
            self._clients = {process: httpx.AsyncClient(timeout=None, **self._options)}
        return self._clients[process]

    async def _try(self, request: httpx.Request) -> Response:
        """The response of the first try that succeeds."""
        import httpx

        for retry in range(self.retry.retries + 1):
            pause = self.retry.backoff * 2**retry * (1 - random.random() / 2)
            try:
                answer, after = await self._once(request)
                if answer.status not in _RETRIED:
                    return answer
                fault = f"status {answer.status}"
                pause = max(pause, after)
            except httpx.UnsupportedProtocol as problem:
                raise ValueError(str(problem)) from None
            except httpx.RequestError as problem:
                fault = f"{type(problem).__name__}: {problem}".removesuffix(": ")
            if retry < self.retry.retries:
                await asyncio.sleep(pause)
        tries = f"{self.retry.retries + 1} tries"
        raise EnvError(f"{_where(request)} failed in {tries}: {fault}")

    async def _once(self, request: httpx.Request) -> tuple[Response, float]:
        """One try; the response, and the seconds of its ``Retry-After``."""
        response = await self._client().send(request, stream=True)
        try:
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > self.retry.max_bytes:
                    longest = self.retry.max_bytes
                    raise ValueError(f"{_where(request)} sent more than {longest} bytes")
        finally:
            await response.aclose()
        headers = response.headers
        answer = Response(response.status_code, bytes(body), headers.get("content-type", ""))
        return answer, _retry_after(headers.get("retry-after", ""))


def _where(request: httpx.Request) -> str:
    """A request in an error message, without its query, which may hold a key."""
    return f"{request.method} {request.url.copy_with(query=None)}"


def _retry_after(after: str) -> float:
    """``Retry-After`` in seconds; 0 for a date."""
    try:
        found = float(after)
    except ValueError:
        return 0.0
    return found if math.isfinite(found) else 0.0
