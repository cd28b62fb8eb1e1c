"""The base of adapters for libraries that play episodes themselves: their model is our agent."""

from __future__ import annotations

import asyncio
import os
import threading
from abc import abstractmethod
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, NamedTuple

from agentgym.env.base import Opening, Promises, unknown_task
from agentgym.errors import EnvError
from agentgym.interop.bridge import Asked, Bridge
from agentgym.interop.foreign import ForeignEnv, Reply
from agentgym.interop.rows import split_rows


class Played(NamedTuple):
    """How the library ended an episode."""

    reward: float
    stop: str = ""
    """What ended it, in the library's words."""
    error: str = ""
    """What failed; empty: nothing."""


class BridgedEnv(ForeignEnv):
    """An episode runs in an event loop of its own, and asks a ``Bridge`` for completions.

    An adapter writes ``play``. Tasks are the places in a list of ``_count`` rows.
    """

    promises = Promises(fork="no", seeds=False, success=False, validity=False)

    def __init__(self, target: str, *, timeout: float = 300.0, **kwargs: Any) -> None:
        """See ``ForeignEnv`` for further arguments.

        Args:
            target: What stands behind the colon of its name.
            timeout: Seconds in which the next request of the model must come.
            **kwargs: Those of ``ForeignEnv``.
        """
        super().__init__(target, **kwargs)
        self.timeout = timeout
        self._count = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._bridge: Bridge | None = None
        self._running: Future[Played] = Future()
        self._seen = 0

    @abstractmethod
    def play(self, place: int, bridge: Bridge) -> Coroutine[Any, Any, Played]:
        """Let the library play a row, with the model behind the bridge."""

    def tasks(self, split: str) -> Sequence[str]:
        """Places in the list; of ten, eight train, one validates, one tests."""
        rows = [{"n": number} for number in range(self._count)]
        return split_rows(rows, self.name, split)

    def begin(self, task: str, seed: int) -> Opening:
        """Let the library start the episode, up to the first request of its model."""
        known = [f"row-{number}" for number in range(self._count)]
        if task not in known:
            raise unknown_task(self.name, task, known)
        self._leave()
        self._bridge, self._seen = Bridge(), 0
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=_forever, args=(self._loop,), daemon=True).start()
        episode = self.play(known.index(task), self._bridge)
        self._running = asyncio.run_coroutine_threadsafe(episode, self._loop)
        asked = self._bridge.next(self._running, self.timeout)
        if asked is None:
            raise EnvError(f"{self.name} asked its model nothing: {self._outcome().stop}")
        return Opening(self._shown(asked), "Do what the conversation asks.")

    def respond(self, action: str) -> Reply:
        """Hand the action to the library as the model's completion."""
        if self._bridge is None:
            raise EnvError("the episode is over: reset starts another")
        self._bridge.answer(action)
        asked = self._bridge.next(self._running, self.timeout)
        if asked is not None:
            return Reply(self._shown(asked))
        played = self._outcome()
        self._leave()
        return Reply(played.stop, played.reward, True)

    def manual(self) -> str:
        """The conversation holds the instructions."""
        return (
            f"You play {self.target} of verifiers: follow the conversation. Where it offers tools, "
            f'call one by <tool_call>{{"name": "...", "arguments": {{...}}}}</tool_call>.'
        )

    def close(self) -> None:
        """Leave the episode and end the event loop."""
        self._leave()
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)

    def _outcome(self) -> Played:
        """How the episode ended.

        Raises:
            EnvError: The library reports an error.
        """
        try:
            played = self._running.result(self.timeout)
        except Exception as problem:
            raise EnvError(f"{self.name} failed: {type(problem).__name__}: {problem}") from problem
        if played.error:
            raise EnvError(f"{self.name} failed: {' '.join(played.error.split()):.300}")
        return played

    def _shown(self, asked: Asked) -> str:
        """The messages since the last request, and the tools at the first."""
        new = [each for each in asked.messages[self._seen :] if each.get("role") != "assistant"]
        parts = [_text(message.get("content")) for message in new]
        if not self._seen and asked.tools:
            parts.append(f"Tools: {asked.tools}")
        self._seen = len(asked.messages) + 1  # The answer will be there, too.
        return "\n\n".join(filter(None, parts))

    def _leave(self) -> None:
        bridge, self._bridge = self._bridge, None
        if bridge is not None:
            bridge.close()
        if not self._running.done():
            self._running.cancel()


@contextmanager
def key_in_environment(bridge: Bridge) -> Iterator[str]:
    """The name of an environment variable that holds the key of a bridge, for the while."""
    name = f"AGENTGYM_BRIDGE_KEY_{id(bridge)}"
    os.environ[name] = bridge.key
    try:
        yield name
    finally:
        os.environ.pop(name, None)


def _forever(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
    loop.close()


def _text(content: Any) -> str:
    if isinstance(content, str) or content is None:
        return content or ""
    return "\n".join(str(part.get("text", "")) for part in content)
