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
from typing import Self

from agentgym.env.connection import Connection
from agentgym.env.executor import EnvHandle, MakeEnv, ResetResult, StepResult
from agentgym.env.worker import Fork, Open, Reset, Step, serve
from agentgym.errors import ConfigError
from agentgym.types import Task

LOOKS = 8
"""How often a call is looked at until its time is over."""


@dataclass(kw_only=True)
class ProcessPool:
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
    step_timeout: float = 60.0
    """Seconds in which a world must answer an action, waiting in its process included."""
    reset_timeout: float = 300.0
    """The same for making a world and for starting its task."""
    envs_per_worker: int = 1000
    """Worlds that a process opens before another takes its place."""

    def __post_init__(self) -> None:
        """Start nothing yet."""
        for name in ("workers", "step_timeout", "reset_timeout", "envs_per_worker"):
            if not getattr(self, name) > 0:
                raise ConfigError(
                    f"ProcessPool.{name} is {getattr(self, name)}, expected more than 0"
                )
        self._lines: list[Connection] = []
        self._numbers = itertools.count()
        self._starting = asyncio.Lock()
        self._watch: asyncio.Task[None] | None = None
        self._pickled: tuple[MakeEnv, bytes] | None = None
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

    async def open(self, make: MakeEnv, task: Task) -> EnvHandle:
        """The world of a task, in the process that has the fewest.

        Args:
            make: A function of a module, or another value that ``pickle`` can send.
            task: What to make it for.

        Raises:
            ConfigError: ``make`` cannot be sent to another process.
            EnvError: The world broke, gave no answer in time, or its process died.
        """
        sent = self._sendable(make)
        async with self._starting:
            self._lines = [line for line in self._lines if not line.gone]
            while len(accepting := [line for line in self._lines if line.accepting]) < self.workers:
                self._lines.append(await self._start())
            line = min(accepting, key=lambda line: len(line.living))
            line.served += 1
            if line.served >= self.envs_per_worker:
                line.accepting = False
            world = next(self._numbers)
            line.living.add(world)
        handle = _Pooled(self, line, world)
        try:
            await line.ask(Open(world, sent, task), self.reset_timeout)
        except BaseException:
            await handle.close()
            raise
        return handle

    @property
    def processes(self) -> tuple[int, ...]:
        """Ids of the processes that serve."""
        return tuple(line.process.pid for line in self._lines if not line.ended)

    async def _start(self) -> Connection:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["agentgym.env.worker"])
        ours, theirs = socket.socketpair()
        process = context.Process(target=serve, args=(theirs,), daemon=True)
        await asyncio.to_thread(process.start)
        theirs.close()
        line = Connection(process)
        await asyncio.get_running_loop().create_connection(lambda: line, sock=ours)
        self.started += 1
        self._watch = self._watch or asyncio.create_task(self._look())
        return line

    async def _look(self) -> None:
        """Write off the worlds whose time is over."""
        while True:
            await asyncio.sleep(min(self.step_timeout, self.reset_timeout) / LOOKS)
            for line in list(self._lines):
                line.expire()

    def _sendable(self, make: MakeEnv) -> bytes:
        if self._pickled is None or self._pickled[0] is not make:
            try:
                self._pickled = make, pickle.dumps(make)
            except Exception as problem:
                raise ConfigError(
                    f"{make!r} cannot be sent to another process ({problem}): make worlds with "
                    f"agentgym.env.registry.EnvFactory or a function of a module"
                ) from problem
        return self._pickled[1]


@dataclass(frozen=True)
class _Pooled:
    """A world of a pool."""

    pool: ProcessPool
    line: Connection
    number: int

    async def reset(self, task: Task) -> ResetResult:
        return ResetResult(*await self.line.ask(Reset(self.number, task), self.pool.reset_timeout))

    async def step(self, action: str) -> StepResult:
        return StepResult(*await self.line.ask(Step(self.number, action), self.pool.step_timeout))

    async def fork(self) -> EnvHandle:
        twin = _Pooled(self.pool, self.line, next(self.pool._numbers))
        self.line.living.add(twin.number)
        try:
            await self.line.ask(Fork(self.number, twin.number), self.pool.step_timeout)
        except BaseException:
            await twin.close()
            raise
        return twin

    async def close(self) -> None:
        self.line.close(self.number)
