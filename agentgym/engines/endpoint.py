"""An HTTP service that answers in JSON: asked again while that may help, but not forever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from agentgym.errors import AgentGymError, ConfigError, EngineError

T = TypeVar("T")

RETRY_STATUSES = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""HTTP statuses after which the same request may succeed."""
MALFORMED = (AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What reading an answer raises that is not as expected."""


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How long to try."""

    deadline: float = 600.0
    """Seconds until an answer must be there, all tries and pauses included."""
    initial_delay: float = 0.1
    """Seconds before the second try; every further pause is twice as long."""
    max_delay: float = 10.0
    """Seconds of the longest pause, unless the service asks for more."""

    def delays(self) -> Iterator[float]:
        """The seconds between tries."""
        pause = self.initial_delay
        while True:
            yield pause
            pause = min(2 * pause, self.max_delay)


class Endpoint:
    """Requests to one service.

    Args:
        url: Where it is, such as ``http://127.0.0.1:8000``.
        key: Sent as a bearer token.
        retry: How long to try.
        on_unreachable: Called after a try that found nobody; may start the service again.

    Raises:
        ConfigError: The address is none.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        retry: RetryPolicy | None = None,
        on_unreachable: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        try:
            host = httpx.URL(url).host if url.startswith(("http://", "https://")) else ""
        except httpx.InvalidURL:
            host = ""
        if not host:
            raise ConfigError(f"expected an address such as http://127.0.0.1:8000, got {url!r}")
        self.url = url.rstrip("/")
        self.retry = retry or RetryPolicy()
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._on_unreachable = on_unreachable
        # Certificates are read once, and only where they are needed: it takes a while.
        secure = self.url.startswith("https://")
        self._verify = httpx.create_ssl_context() if secure else False
        # A proxy knows nothing of this machine's own services.
        self._trust_env = host not in ("127.0.0.1", "localhost")
        self._shared: _Shared | None = None

    async def post(self, path: str, body: Mapping[str, Any], read: Callable[[Any], T]) -> T:
        """Ask until there is a usable answer.

        Args:
            path: Of the request, from the service's address.
            body: Sent as JSON.
            read: Takes what it needs from the answer; raises one of ``MALFORMED`` when that is not
                there, and the request is made again.

        Raises:
            EngineError: The service refused the request, or gave no usable answer in time.
        """
        end = time.monotonic() + self.retry.deadline
        for tries, pause in enumerate(self.retry.delays(), 1):
            left = end - time.monotonic()
            wait = pause
            try:
                # The client's own limits are per read; this one is for the whole answer.
                async with asyncio.timeout(left), self._connection() as client:
                    answer = await client.post(
                        self.url + path, json=body, headers=self._headers, timeout=left
                    )
                return self._read(answer, read)
            except _Unusable as problem:
                reason, wait = str(problem), max(pause, problem.pause)
            except (httpx.RequestError, TimeoutError) as problem:
                reason = _told(problem)
                if self._on_unreachable is not None:
                    await self._on_unreachable()
            if time.monotonic() + wait >= end:
                raise EngineError(
                    f"{self.url} gave no usable answer in {self.retry.deadline:g} s, tried "
                    f"{tries} times; the last time: {reason}"
                )
            await asyncio.sleep(wait)
        raise AssertionError("pauses never end")

    def request(
        self,
        method: str,
        path: str,
        read: Callable[[Any], T] = lambda found: found,
        **options: Any,
    ) -> T:
        """One request, now, and not again; blocks. ``read`` as for ``post``.

        Raises:
            EngineError: It failed; the message says how.
        """
        try:
            answer = httpx.request(
                method,
                self.url + path,
                headers=self._headers,
                timeout=self.retry.deadline,
                verify=self._verify,
                trust_env=self._trust_env,
                **options,
            )
            return self._read(answer, read)
        except (_Unusable, httpx.HTTPError) as problem:
            raise EngineError(f"{self.url}{path} failed: {_told(problem)}") from problem

    def _read(self, answer: httpx.Response, read: Callable[[Any], T]) -> T:
        if answer.status_code in RETRY_STATUSES:
            raise _Unusable(f"status {answer.status_code}: {_reason(answer)}", _asked_for(answer))
        if answer.is_error or answer.is_redirect:
            raise EngineError(
                f"{answer.request.url} refused the request with status {answer.status_code}: "
                f"{_reason(answer)}"
            )
        if not answer.content:
            return read(None)
        try:
            return read(answer.json())
        except AgentGymError:
            raise
        except MALFORMED as problem:
            raise _Unusable(f"not the expected answer ({_told(problem)})", 0.0) from problem

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[httpx.AsyncClient]:
        """One client for all requests in flight; the last to leave closes it."""
        loop = asyncio.get_running_loop()
        if self._shared is None or self._shared.loop is not loop:
            # As many connections as there are requests: the service decides how many it serves.
            limits = httpx.Limits(max_connections=None)
            client = httpx.AsyncClient(
                limits=limits, verify=self._verify, trust_env=self._trust_env
            )
            self._shared = _Shared(loop, client)
        shared = self._shared
        shared.users += 1
        try:
            yield shared.client
        finally:
            shared.users -= 1
            if not shared.users:
                if self._shared is shared:
                    self._shared = None
                await shared.client.aclose()


@dataclass(slots=True, eq=False)
class _Shared:
    """Connections belong to the event loop that opened them, and must not outlive it."""

    loop: asyncio.AbstractEventLoop
    client: httpx.AsyncClient
    users: int = 0


class _Unusable(Exception):
    """An answer after which another try may succeed, in ``pause`` seconds or more."""

    def __init__(self, reason: str, pause: float) -> None:
        super().__init__(reason)
        self.pause = pause


def _asked_for(answer: httpx.Response) -> float:
    """Seconds that the service asks us to wait; dates are not understood."""
    try:
        return max(0.0, float(answer.headers.get("retry-after", 0.0)))
    except ValueError:
        return 0.0


def _reason(answer: httpx.Response) -> str:
    """What a service says of a failure: OpenAI's form, FastAPI's, or the beginning of anything."""
    try:
        told = answer.json()
        error = told.get("error", told.get("detail", told))
        reason = error["message"] if isinstance(error, dict) else error
    except (AttributeError, KeyError, ValueError):
        reason = answer.text
    return " ".join(str(reason).split())[:300] or "no reason given"


def _told(problem: Exception) -> str:
    text = " ".join(str(problem).split())[:300]
    return f"{type(problem).__name__}: {text}" if text else type(problem).__name__
