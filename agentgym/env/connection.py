"""The line to one worker process of a pool: calls out, answers in, and who is late."""

from __future__ import annotations

import asyncio
import pickle
from dataclasses import dataclass
from typing import Any

from agentgym.env.worker import HEADER, Call, Close, Reply, frame
from agentgym.errors import EnvError, EnvLost, EnvTimeout

PATIENCE = 2.0
"""Seconds that a process is given to end by itself."""


@dataclass
class _Asked:
    """A call under way."""

    future: asyncio.Future[Any]
    seconds: float
    """Time it has."""
    due: float
    """When that is over, by the clock of the event loop."""
    closing: bool = False
    """Nobody waits any more; the world is closed when the answer comes."""


class Connection(asyncio.Protocol):
    """The connection to one worker, and what is known of it."""

    def __init__(self, process: Any) -> None:
        self.process = process
        self.living: set[int] = set()
        """Its worlds, without those written off."""
        self.served = 0
        """Worlds opened here so far."""
        self.accepting = True
        """It takes further worlds."""
        self.ended = ""
        """Why it ended; empty while it has not."""
        self._asked: dict[int, _Asked] = {}
        self._outbox: list[Call] = []
        self._received = bytearray()
        self._loop = asyncio.get_running_loop()
        self._reaping: asyncio.Future[None] | None = None

    # ---- calls -----------------------------------------------------------------------------------

    async def ask(self, call: Call, seconds: float) -> Any:
        """The answer to a call; calls made in one turn of the event loop travel together."""
        number = call.world
        if self.ended:
            raise EnvLost(f"{self.ended}, while this world was idle")
        if number not in self.living:
            raise EnvTimeout("the world was written off: it gave no answer in time")
        if number in self._asked:
            raise RuntimeError("a world takes one call at a time; the last has not been answered")
        future = self._loop.create_future()
        self._asked[number] = _Asked(future, seconds, self._loop.time() + seconds)
        self._post(call)
        return await future

    def close(self, number: int) -> None:
        """Close a world; one that is still in a call, when that returns."""
        if self.ended or number not in self.living:
            return
        if number in self._asked:
            self._asked[number].closing = True
            return
        self._post(Close(number))
        self._bury(number)

    def expire(self) -> None:
        """Write off the worlds that are late."""
        now = self._loop.time()
        for number in [number for number, asked in self._asked.items() if asked.due < now]:
            asked = self._asked.pop(number)
            self.accepting = False
            if not asked.future.done():
                problem = EnvTimeout(f"the world gave no answer within {asked.seconds:g} seconds")
                asked.future.set_exception(problem)
            self._bury(number)

    def end(self, why: str) -> None:
        """Hang up; the process ends, and calls under way with an error."""
        if self.ended:
            return
        self.ended, self.accepting = why, False
        self.living.clear()
        asked, self._asked = self._asked, {}
        for call in asked.values():
            if not call.future.done():
                call.future.set_exception(EnvError(f"{why}, while it was asked"))
        self._flush()
        self._transport.close()
        self._reaping = asyncio.ensure_future(asyncio.to_thread(_reap, self.process))

    @property
    def gone(self) -> bool:
        """Its process is no more."""
        return self._reaping is not None and self._reaping.done()

    async def leave(self) -> None:
        """Wait until its process is no more."""
        if self._reaping is not None:
            await self._reaping

    def _post(self, call: Call) -> None:
        if not self._outbox:
            self._loop.call_soon(self._flush)
        self._outbox.append(call)

    def _flush(self) -> None:
        if self._outbox and not self._transport.is_closing():
            self._transport.write(frame(self._outbox))
        self._outbox = []

    def _bury(self, number: int) -> None:
        self.living.discard(number)
        if not self.living and not self.accepting:
            self.end("the worker was replaced")

    # ---- what the event loop calls ---------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """The line is there."""
        self._transport: asyncio.Transport = transport

    def data_received(self, data: bytes) -> None:
        """Take the frames that are complete."""
        self._received += data
        while len(self._received) >= HEADER:
            end = HEADER + int.from_bytes(self._received[:HEADER], "big")
            if len(self._received) < end:
                return
            body = bytes(self._received[HEADER:end])
            del self._received[:end]
            try:
                replies = pickle.loads(body)
            except Exception as problem:
                self.end(f"a worker's answer cannot be read ({problem})")
                return
            for reply in replies:
                self._take(reply)

    def connection_lost(self, problem: Exception | None) -> None:
        """The process is gone, or soon will be."""
        self.end("the worker died")

    def _take(self, reply: Reply) -> None:
        asked = self._asked.pop(reply.world, None)
        if asked is None:
            return
        if not asked.future.done():
            if reply.error is None:
                asked.future.set_result(reply.value)
            else:
                asked.future.set_exception(reply.error)
        if asked.closing:
            self.close(reply.world)


def _reap(process: Any) -> None:
    """Wait for a process that was told to end, and kill one that does not."""
    process.join(PATIENCE)
    if process.exitcode is None:
        process.kill()
        process.join()
    process.close()
