"""Web APIs for tools: one pool of connections, deadlines, back-off, and a cache on disk.

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

_LATER = (429, 500, 502, 503, 504)
"""Statuses after which the same request may succeed."""
_KEPT = (404, 410)
"""Statuses of failures that stay."""


class Answer(NamedTuple):
    """What a server said."""

    status: int
    body: bytes
    type: str = ""
    """The content type, as sent."""

    @property
    def text(self) -> str:
        """The body as UTF-8; what is not is replaced."""
        return self.body.decode(errors="replace")

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            EnvError: It is something else.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise EnvError(f"expected JSON, got {self.text[:80]!r}") from None


@dataclass(frozen=True)
class Cache:
    """Answers on disk, a file per request, by method, address and body; headers do not count.

    Answers of failures are not kept, except that something is not there.
    """

    folder: str | Path
    mode: Literal["use", "record", "replay"] = "use"
    """``use``: ask what is not there. ``record``: ask always. ``replay``: never ask."""

    def __post_init__(self) -> None:
        """Refuse an unknown mode."""
        one_of("mode", self.mode, ("use", "record", "replay"))

    def find(self, request: httpx.Request) -> Answer | None:
        """The answer to a request, if it is to come from here and is there.

        Raises:
            ConfigError: The file is damaged.
            EnvError: It is not there, and no other will be asked.
        """
        path = self.path(request)
        if self.mode == "record":
            return None
        try:
            found = parse_object(path.read_text())
            body = (
                base64.b64decode(found["base64"]) if "base64" in found else found["text"].encode()
            )
            return Answer(int(found["status"]), body, str(found["type"]))
        except FileNotFoundError:
            if self.mode == "use":
                return None
            raise EnvError(
                f"no answer to {request.method} {request.url} is recorded in {self.folder}"
            ) from None
        except (AttributeError, KeyError, TypeError, ValueError) as problem:
            raise ConfigError(f"{path} is no recorded answer, remove it: {problem}") from None

    def keep(self, request: httpx.Request, answer: Answer) -> None:
        """Write an answer down, in one step."""
        if answer.status >= 300 and answer.status not in _KEPT:
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
    """How long to try."""

    deadline: float = 20.0
    """Seconds for all tries of a request together."""
    retries: int = 3
    """More tries after a fault of the transport, and after 429 and 5xx."""
    backoff: float = 0.25
    """Seconds before the first retry; doubles each time, and up to half of it is left to chance.
    A server's ``Retry-After`` comes first."""
    longest: int = 4 * 2**20
    """Bytes of an answer."""

    def __post_init__(self) -> None:
        """Refuse what no request can keep to."""
        above(0, self, "deadline")
        at_least(0, self, "retries", "backoff")
        at_least(1, self, "longest")


class Web:
    """A client for tools; use one for all calls, so that connections are used again.

    ``get`` and ``post`` are for plain functions, ``request`` for async ones. What comes back is an
    ``Answer``, whatever its status; but 429 and 5xx, and what goes wrong on the way, is tried again
    with growing pauses, and raises in the end: not the model's fault, so the episode is broken.

    Examples:
        >>> web = Web(cache=Cache("recorded", "replay"))
        >>> web.get("https://example.org/")  # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        EnvError: no answer to GET https://example.org/ is recorded in recorded
    """

    def __init__(
        self,
        *,
        cache: Cache | None = None,
        patience: RetryPolicy | None = None,
        connections: int = 32,
        **options: Any,
    ) -> None:
        """Nothing is connected yet.

        Args:
            cache: Where answers are kept; nowhere unless given.
            patience: How long to try.
            connections: At the same time.
            **options: More of ``httpx.AsyncClient``, such as ``headers`` and ``base_url``.

        Raises:
            MissingExtra: httpx is not installed.
        """
        try:
            import httpx
        except ImportError:
            raise MissingExtra('web APIs need httpx: pip install "agentic-gym[http]"') from None
        self.cache, self.patience = cache, patience or RetryPolicy()
        self._options = {"limits": httpx.Limits(max_connections=connections), **options}
        self._clients: dict[int, httpx.AsyncClient] = {}

    def get(self, url: str, params: Mapping[str, Any] | None = None) -> Answer:
        """``request`` with GET, for a function that waits."""
        return self._wait("GET", url, params=params)

    def post(self, url: str, body: object) -> Answer:
        """``request`` with POST and a JSON body, for a function that waits."""
        return self._wait("POST", url, json=body)

    async def request(self, method: str, url: str, **options: Any) -> Answer:
        """Ask, or find the answer in the cache.

        Args:
            method: Of HTTP.
            url: Where; relative to a ``base_url``.
            **options: Of ``httpx.AsyncClient.build_request``, such as ``params`` and ``json``.

        Raises:
            EnvTimeout: The deadline is over.
            EnvError: No try succeeded, or nothing is recorded.
            ValueError: The address is none, or the answer is too long.
        """
        import httpx

        try:
            request = self._client().build_request(method, url, **options)
        except (httpx.InvalidURL, TypeError) as problem:
            raise ValueError(f"{url[:200]!r} is no address: {problem}") from None
        known = self.cache.find(request) if self.cache else None
        if known is not None:
            return known
        try:
            async with asyncio.timeout(self.patience.deadline):
                answer = await self._try(request)
        except TimeoutError:
            seconds = f"{self.patience.deadline:g} s"
            raise EnvTimeout(f"{_where(request)} did not answer within {seconds}") from None
        if self.cache:
            await asyncio.to_thread(self.cache.keep, request, answer)
        return answer

    def close(self) -> None:
        """Close the connections; a later request opens new ones."""
        client = self._clients.pop(os.getpid(), None)
        if client is not None:
            asyncio.run_coroutine_threadsafe(client.aclose(), event_loop()).result()

    def _wait(self, method: str, url: str, **options: Any) -> Answer:
        """Called from another thread than that of the loop, as tools that are functions are."""
        asked = self.request(method, url, **options)
        return asyncio.run_coroutine_threadsafe(asked, event_loop()).result()

    def _client(self) -> httpx.AsyncClient:
        """One per process: a forked one must not share sockets. Called on the loop alone."""
        import httpx

        process = os.getpid()
        if process not in self._clients:
            self._clients = {process: httpx.AsyncClient(timeout=None, **self._options)}
        return self._clients[process]

    async def _try(self, request: httpx.Request) -> Answer:
        """The answer of the first try that gets one."""
        import httpx

        for retry in range(self.patience.retries + 1):
            pause = self.patience.backoff * 2**retry * (1 - random.random() / 2)
            try:
                answer, after = await self._once(request)
                if answer.status not in _LATER:
                    return answer
                fault = f"it answered {answer.status}"
                pause = max(pause, after)
            except httpx.UnsupportedProtocol as problem:
                raise ValueError(str(problem)) from None
            except httpx.RequestError as problem:
                fault = f"{type(problem).__name__}: {problem}".removesuffix(": ")
            if retry < self.patience.retries:
                await asyncio.sleep(pause)
        tries = f"{self.patience.retries + 1} tries"
        raise EnvError(f"{_where(request)} failed in {tries}: {fault}")

    async def _once(self, request: httpx.Request) -> tuple[Answer, float]:
        """One try; an answer, and for how many seconds the server wants to be left alone."""
        response = await self._client().send(request, stream=True)
        try:
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > self.patience.longest:
                    longest = self.patience.longest
                    raise ValueError(f"{_where(request)} sent more than {longest} bytes")
        finally:
            await response.aclose()
        headers = response.headers
        answer = Answer(response.status_code, bytes(body), headers.get("content-type", ""))
        return answer, _seconds(headers.get("retry-after", ""))


def _where(request: httpx.Request) -> str:
    """A request in an error: without its query, which may hold a key."""
    return f"{request.method} {request.url.copy_with(query=None)}"


def _seconds(after: str) -> float:
    """``Retry-After``, where it is a number; dates are passed over."""
    try:
        found = float(after)
    except ValueError:
        return 0.0
    return found if math.isfinite(found) else 0.0
