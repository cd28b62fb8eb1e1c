"""Worlds in other processes: any number in each, stepped without waiting for one another.

A process that dies costs its own worlds and nothing else, and is replaced when a world is next
opened. A world that gives no answer in time is written off; its process takes no further worlds
and is ended once the others there are closed. Processes are also replaced after so many worlds,
so that what a world leaks is bounded.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import pickle
import socket
from dataclasses import dataclass
from typing import Any, Self

from agentgym.errors import ConfigError, WorldError, WorldLost, WorldTimeout
from agentgym.host import Answer, Make, Start, World
from agentgym.types import Task
from agentgym.worker import HEADER, Call, Close, Fork, Open, Reply, Reset, Step, frame, serve

LOOKS = 8
"""How often a call is looked at until its time is over."""
PATIENCE = 2.0
"""Seconds that a process is given to end by itself."""


@dataclass(kw_only=True)
class Pool:
    """A ``Host`` whose worlds live in worker processes.

    What a world answers depends on task, seed and actions alone, so results are the same however
    many workers there are. Use it as ``async with Pool(workers=4) as pool``, in one event loop.
    Processes are started by Python's fork server: a script guards its main part with
    ``if __name__ == "__main__"``.

    Raises:
        ConfigError: A number is out of range.
    """

    workers: int = 2
    """Processes."""
    deadline: float = 60.0
    """Seconds in which a world must answer an action, waiting in its process included."""
    opening: float = 300.0
    """The same for making a world and for starting its task."""
    recycle: int = 1000
    """Worlds that a process opens before another takes its place."""

    def __post_init__(self) -> None:
        """Start nothing yet."""
        for name in ("workers", "deadline", "opening", "recycle"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"Pool.{name} is {getattr(self, name)}, expected more than 0")
        self._lines: list[_Line] = []
        self._numbers = itertools.count()
        self._starting = asyncio.Lock()
        self._watch: asyncio.Task[None] | None = None
        self._pickled: tuple[Make, bytes] | None = None
        self.started = 0
        """Processes started so far."""

    async def __aenter__(self) -> Self:
        """Itself."""
        return self

    async def __aexit__(self, *problem: object) -> None:
        """End every process."""
        if self._watch is not None:
            self._watch.cancel()
        lines, self._lines = self._lines, []
        for line in lines:
            line.end("the pool was closed")
        await asyncio.gather(*(line.leave() for line in lines))

    async def open(self, make: Make, task: Task) -> World:
        """The world of a task, in the process that has the fewest.

        Args:
            make: A function of a module, or another value that ``pickle`` can send.
            task: What to make it for.

        Raises:
            ConfigError: ``make`` cannot be sent to another process.
            WorldError: The world broke, gave no answer in time, or its process died.
        """
        sent = self._sendable(make)
        async with self._starting:
            self._lines = [line for line in self._lines if not line.gone]
            while len(accepting := [line for line in self._lines if line.accepting]) < self.workers:
                self._lines.append(await self._start())
            line = min(accepting, key=lambda line: len(line.living))
            line.served += 1
            if line.served >= self.recycle:
                line.accepting = False
            world = next(self._numbers)
            line.living.add(world)
        handle = _Pooled(self, line, world)
        try:
            await line.ask(Open(world, sent, task), self.opening)
        except BaseException:
            await handle.close()
            raise
        return handle

    @property
    def processes(self) -> tuple[int, ...]:
        """Ids of the processes that serve."""
        return tuple(line.process.pid for line in self._lines if not line.ended)

    async def _start(self) -> _Line:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["agentgym.worker"])
        ours, theirs = socket.socketpair()
        process = context.Process(target=serve, args=(theirs,), daemon=True)
        await asyncio.to_thread(process.start)
        theirs.close()
        line = _Line(process)
        await asyncio.get_running_loop().create_connection(lambda: line, sock=ours)
        self.started += 1
        self._watch = self._watch or asyncio.create_task(self._look())
        return line

    async def _look(self) -> None:
        """Write off the worlds whose time is over."""
        while True:
            await asyncio.sleep(min(self.deadline, self.opening) / LOOKS)
            for line in list(self._lines):
                line.expire()

    def _sendable(self, make: Make) -> bytes:
        if self._pickled is None or self._pickled[0] is not make:
            try:
                self._pickled = make, pickle.dumps(make)
            except Exception as problem:
                raise ConfigError(
                    f"{make!r} cannot be sent to another process ({problem}): make worlds with "
                    f"agentgym.registry.Maker or a function of a module"
                ) from problem
        return self._pickled[1]


@dataclass(frozen=True)
class _Pooled:
    """A world of a pool."""

    pool: Pool
    line: _Line
    number: int

    async def reset(self, task: Task) -> Start:
        return Start(*await self.line.ask(Reset(self.number, task), self.pool.opening))

    async def step(self, action: str) -> Answer:
        return Answer(*await self.line.ask(Step(self.number, action), self.pool.deadline))

    async def fork(self) -> World:
        twin = _Pooled(self.pool, self.line, next(self.pool._numbers))
        self.line.living.add(twin.number)
        try:
            await self.line.ask(Fork(self.number, twin.number), self.pool.deadline)
        except BaseException:
            await twin.close()
            raise
        return twin

    async def close(self) -> None:
        self.line.close(self.number)


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


class _Line(asyncio.Protocol):
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
            raise WorldLost(f"{self.ended}, while this world was idle")
        if number not in self.living:
            raise WorldTimeout("the world was written off: it gave no answer in time")
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
                problem = WorldTimeout(f"the world gave no answer within {asked.seconds:g} seconds")
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
                call.future.set_exception(WorldError(f"{why}, while it was asked"))
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
