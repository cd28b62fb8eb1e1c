"""A JSON service over HTTP, with retries, rate limits and a deadline."""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from agentgym.engines.http_answers import RetryableError, describe, is_web_page, read_answer
from agentgym.engines.http_pool import ConnectionPool
from agentgym.errors import ConfigError, EngineError, MalformedAnswer

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How long and how often to try."""

    deadline: float = 600.0
    """Seconds until an answer must have arrived, including all tries and delays."""
    connect_deadline: float = 10.0
    """The same while the service has never answered: the address is probably wrong."""
    malformed: int = 5
    """Unexpected answers in a row after which a request fails."""
    initial_delay: float = 0.1
    """Seconds before the second try; every further delay is twice as long."""
    max_delay: float = 10.0
    """Longest delay in seconds, unless the service asks for more."""
    report_after: float = 15.0
    """Seconds without an answer after which waiting is reported, and between two reports."""

    def delays(self) -> Iterator[float]:
        """The seconds between tries, spread so that many clients do not retry in step."""
        delay = self.initial_delay
        while True:
            yield delay * (1 + random.random() / 4)
            delay = min(2 * delay, self.max_delay)


class Endpoint:
    """Requests to one service.

    Args:
        url: Address, such as ``http://127.0.0.1:8000``; with or without ``/v1`` at its end.
        key: Sent as a bearer token.
        retry: How long to try.
        on_unreachable: Called after a try that got no answer; may restart the service. The
            service is then expected to start, so ``connect_deadline`` does not apply.
        report: Called with one line when requests wait for long; default: silent.

    Raises:
        ConfigError: The address is invalid.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        retry: RetryPolicy | None = None,
        on_unreachable: Callable[[], Awaitable[None]] | None = None,
        report: Callable[[str], None] | None = None,
    ) -> None:
        try:
            host = httpx.URL(url).host if url.startswith(("http://", "https://")) else ""
        except httpx.InvalidURL:
            host = ""
        if not host:
            raise ConfigError(f"expected an address such as http://127.0.0.1:8000, got {url!r}")
        self.url = url.rstrip("/").removesuffix("/chat/completions").removesuffix("/v1")
        self.retry = retry or RetryPolicy()
        self._headers = {"Content-Type": "application/json"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._on_unreachable = on_unreachable
        self._report_line = report
        self._reported = -math.inf
        self._answered = False
        self._not_before = 0.0
        """Monotonic time before which the service asked for no further requests."""
        # Certificates are read once, and only for https: it takes a while.
        secure = self.url.startswith("https://")
        self._verify = httpx.create_ssl_context() if secure else False
        # The proxy of the environment cannot reach services of this machine.
        self._trust_env = host not in ("127.0.0.1", "localhost")
        self._pool = ConnectionPool(self._verify, trust_env=self._trust_env)

    async def post(self, path: str, body: Mapping[str, Any], parse: Callable[[Any], T]) -> T:
        """Send a request until there is a usable answer.

        Args:
            path: Of the request, relative to the address of the service.
            body: Sent as JSON.
            parse: Converts the decoded answer; raises a plain Python error if it is not as
                expected, and the request is sent again.

        Raises:
            RequestRejected: The service refused the request; another try would not help.
            EngineError: The service gave no usable answer in time.
        """
        content = json.dumps(body).encode()

        async def send(end: float) -> T:
            return self._parse(await self._send(path, content, end), parse)

        return await self._until(send)

    async def reach(self) -> None:
        """Wait until the service answers at all, whatever it answers.

        Raises:
            EngineError: Nothing answered in time.
        """

        async def knock(end: float) -> None:
            left = min(end - time.monotonic(), self.retry.connect_deadline)
            async with self._pool.client() as client:
                try:
                    await client.get(self.url, headers=self._headers, timeout=left)
                except (httpx.ConnectError, httpx.ConnectTimeout):
                    raise
                except httpx.TransportError:
                    return  # Whatever hangs up, or takes its time, is there.

        await self._until(knock)

    async def _until(self, send: Callable[[float], Awaitable[T]]) -> T:
        """Try until there is a usable answer; ``send`` gets the time at which it must be there."""
        started = time.monotonic()
        malformed = 0
        for tries, delay in enumerate(self.retry.delays(), 1):
            deadline = self.retry.deadline
            wait = delay
            try:
                return await send(started + deadline)
            except RetryableError as problem:
                reason, wait = str(problem), max(delay, problem.delay)
                malformed = malformed + 1 if problem.malformed else 0
            except (httpx.RequestError, TimeoutError) as problem:
                reason = describe(problem)
                if self._on_unreachable is not None:
                    await self._on_unreachable()
                elif not self._answered and not isinstance(problem, TimeoutError):
                    deadline = min(deadline, self.retry.connect_deadline)
            spent = time.monotonic() - started
            if spent + wait >= deadline or malformed >= self.retry.malformed:
                kind = MalformedAnswer if malformed >= self.retry.malformed else EngineError
                raise kind(
                    f"{self.url} gave no usable answer in {spent:.1f} s, tried {tries} times; "
                    f"the last time: {reason}{self._hint()}"
                )
            self._report(f"{self.url}: {reason}; next try in {wait:.1f} s")
            await asyncio.sleep(wait)
        raise AssertionError("delays never end")

    async def _send(self, path: str, content: bytes, end: float) -> httpx.Response:
        """One try; respects the rate limit that an earlier answer asked for."""
        while (pause := min(self._not_before, end) - time.monotonic()) > 0:
            await asyncio.sleep(pause)
        left = end - time.monotonic()
        # The client's own limits are per read; this one is for the whole answer.
        with self._silence_reported():
            async with asyncio.timeout(left), self._pool.client() as client:
                return await client.post(
                    self.url + path, content=content, headers=self._headers, timeout=left
                )

    def request(
        self,
        method: str,
        path: str,
        parse: Callable[[Any], T] = lambda found: found,
        *,
        decoded: bool = True,
        **options: Any,
    ) -> T:
        """One blocking request without retries; ``parse`` as for ``post``.

        Args:
            method: Of HTTP.
            path: Relative to the address of the service.
            parse: Converts the decoded answer.
            decoded: The answer is JSON; else only its status counts.
            **options: Of ``httpx.request``.

        Raises:
            EngineError: It failed; the message has the reason.
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
            if not decoded and answer.is_success:
                answer = httpx.Response(answer.status_code, request=answer.request)
            return self._parse(answer, parse)
        except (RetryableError, httpx.HTTPError) as problem:
            raise EngineError(
                f"{self.url}{path} failed: {describe(problem)}{self._hint()}"
            ) from problem

    def _parse(self, answer: httpx.Response, parse: Callable[[Any], T]) -> T:
        if is_web_page(answer) and not self._answered:
            raise EngineError(
                f"{answer.request.url} answered with a web page (status {answer.status_code}), "
                f"expected JSON: is this the address of an API?"
            )
        try:
            found = read_answer(answer, parse)
        except RetryableError as problem:
            self._not_before = max(self._not_before, time.monotonic() + problem.delay)
            raise
        self._answered = True
        return found

    def _hint(self) -> str:
        return "" if self._answered else "; is the server running, and is its address right?"

    @contextmanager
    def _silence_reported(self) -> Iterator[None]:
        """Report now and then that the request within waits."""
        loop, since = asyncio.get_running_loop(), time.monotonic()

        def remind() -> None:
            waited, count = time.monotonic() - since, self._pool.in_flight
            self._report(f"{self.url}: no answer for {waited:.0f} s, {count} requests in flight")
            timer[0] = loop.call_later(self.retry.report_after, remind)

        timer = [loop.call_later(self.retry.report_after, remind)]
        try:
            yield
        finally:
            timer[0].cancel()

    def _report(self, line: str) -> None:
        now = time.monotonic()
        if self._report_line is not None and now - self._reported >= self.retry.report_after:
            self._reported = now
            self._report_line(line)
