"""Bounds on tool calls: time, tries, number, and the length of results."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from agentgym.errors import EnvError, EnvTimeout, Unreachable
from agentgym.utils.bounds import above, at_least

if TYPE_CHECKING:
    from agentgym.models.protocols import Tokenizer

Cut = Callable[[str], str]
"""Shortens a text that is too long."""


def cut_characters(limit: int = 4000) -> Cut:
    r"""Keep the beginning and the end of a text of more than ``limit`` characters.

    Examples:
        >>> cut_characters(10)("0123456789abcdef")
        '01234\n[... 6 characters left out ...]\nbcdef'
    """

    def cut(text: str) -> str:
        left_out = len(text) - limit
        if left_out <= 0:
            return text
        end = limit // 2
        return (
            f"{text[: limit - end]}\n[... {left_out} characters left out ...]\n"
            f"{text[len(text) - end :]}"
        )

    return cut


def cut_tokens(tokenizer: Tokenizer, limit: int = 512) -> Cut:
    """Keep the beginning and the end of a text of more than ``limit`` tokens.

    Args:
        tokenizer: A Hugging Face tokenizer.
        limit: Tokens kept; the note that some are left out comes on top.
    """

    def cut(text: str) -> str:
        tokens = tokenizer.encode(text, add_special_tokens=False)
        left_out = len(tokens) - limit
        if left_out <= 0:
            return text
        end = limit // 2
        head = tokenizer.decode(tokens[: limit - end])
        tail = tokenizer.decode(tokens[len(tokens) - end :])
        return f"{head}\n[... {left_out} tokens left out ...]\n{tail}"

    return cut


@dataclass(frozen=True, kw_only=True)
class CallLimits:
    """Limits on the tool calls of one episode."""

    timeout: float = 30.0
    """Seconds for one call. A later async call is cancelled; a later thread is
    abandoned."""
    retries: int = 2
    """More tries for a call that did not reach its tool; errors of the tool are not retried."""
    backoff: float = 0.2
    """Seconds before the first retry; doubles each time."""
    calls: int = 32
    """Calls of an episode."""
    per_turn: int = 4
    """Calls of one turn."""
    cut: Cut = field(default_factory=cut_characters)
    """Shortens each result."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        above(0, self, "timeout")
        at_least(0, self, "retries", "backoff")
        at_least(1, self, "calls", "per_turn")

    def run(self, name: str, call: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        """Call a tool with a timeout; retry where it was not reached.

        Raises:
            EnvTimeout: No result in time.
            Unreachable: All tries failed to reach the tool.
            Exception: Any other exception of the tool.
        """
        for retry in range(self.retries + 1):
            future = _started(call, arguments)
            try:
                return future.result(self.timeout)
            except TimeoutError:
                future.cancel()
                raise EnvTimeout(
                    f"tool {name!r} did not answer within {self.timeout:g} s"
                ) from None
            except (ConnectionError, Unreachable) as fault:
                if retry == self.retries:
                    tries = f"{retry + 1} {'try' if retry == 0 else 'tries'}"
                    raise Unreachable(f"tool {name!r} failed in {tries}: {fault}") from fault
                time.sleep(self.backoff * 2**retry)
        raise AssertionError("unreachable: the last try returns or raises")


def _started(call: Callable[..., Any], arguments: dict[str, Any]) -> Future[Any]:
    """A call under way: an async one on the shared event loop, a sync one in its own thread."""
    body = call if inspect.isroutine(call) else type(call).__call__
    if inspect.iscoroutinefunction(body):
        return asyncio.run_coroutine_threadsafe(_contained(call, arguments), event_loop())
    future: Future[Any] = Future()
    # A thread cannot be stopped, so the future is no longer cancellable.
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            future.set_result(call(**arguments))
        except BaseException as problem:
            future.set_exception(problem)

    threading.Thread(target=run, name="tool", daemon=True).start()
    return future


async def _contained(call: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Await a tool; an exit in it would end the shared event loop."""
    try:
        return await call(**arguments)
    except (SystemExit, KeyboardInterrupt) as problem:
        raise EnvError(f"a tool raised {type(problem).__name__}: {problem}") from problem


def event_loop() -> asyncio.AbstractEventLoop:
    """The event loop of async tools: one in a thread of this process."""
    return _loop(os.getpid())


@cache
def _loop(process: int) -> asyncio.AbstractEventLoop:
    """One event loop per process, so that async tools can keep connections open across calls."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="async tools", daemon=True).start()
    return loop
