"""Environments in worker processes: many in each, stepped without waiting for one another.

A process that dies loses its own environments and nothing else; it is replaced when the next
environment is opened. An environment that does not reply in time is given up; its process takes no
further environments and ends once its others are closed. Processes are also replaced after a
number of environments, which bounds what an environment can leak.
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

CHECKS = 8
"""How often deadlines are checked during the shortest timeout."""


@dataclass(kw_only=True)
class ProcessPool:
    """An ``Executor`` that runs environments in worker processes.

    An environment's answers depend on task, seed and actions alone, so results do not depend on
    the number of workers. Use it as ``async with ProcessPool(workers=4) as pool``, in one event
    loop. Python's fork server starts the processes, so a script guards its main part with
    ``if __name__ == "__main__"``.

    Raises:
        ConfigError: A value is out of range.
    """

    workers: int = 2
    """Number of processes."""
    step_timeout: float = 60.0
    """Seconds in which an environment must answer an action or fork, queueing included."""
    reset_timeout: float = 300.0
    """The same for making an environment and for starting its task."""
    envs_per_worker: int = 1000
    """Environments that a process opens before it is replaced."""

    def __post_init__(self) -> None:
        """Start nothing yet."""
        for name in ("workers", "step_timeout", "reset_timeout", "envs_per_worker"):
            if not getattr(self, name) > 0:
                raise ConfigError(
                    f"ProcessPool.{name} is {getattr(self, name)}, expected more than 0"
                )
        self._connections: list[Connection] = []
        self._numbers = itertools.count()
        self._starting = asyncio.Lock()
        self._checking: asyncio.Task[None] | None = None
        self._pickled: tuple[MakeEnv, bytes] | None = None
        self.started = 0
        """Processes started so far."""

    async def __aenter__(self) -> Self:
        """Itself."""
        return self

    async def __aexit__(self, *problem: object) -> None:
        """End every process."""
        if self._checking is not None:
            self._checking.cancel()
        connections, self._connections = self._connections, []
        for connection in connections:
            connection.end("the pool was closed")
        await asyncio.gather(*(connection.wait_finished() for connection in connections))

    async def open(self, make: MakeEnv, task: Task) -> EnvHandle:
        """Make the environment of a task, in the process that has the fewest.

        Args:
            make: A function of a module, or another value that ``pickle`` can send.
            task: The task to make it for.

        Raises:
            ConfigError: ``make`` cannot be sent to another process.
            EnvError: The environment failed, did not answer in time, or its process died.
        """
        sent = self._pickle(make)
        async with self._starting:
            self._connections = [each for each in self._connections if not each.finished]
            while len(accepting := [c for c in self._connections if c.accepting]) < self.workers:
                self._connections.append(await self._start())
            connection = min(accepting, key=lambda each: len(each.envs))
            connection.opened += 1
            if connection.opened >= self.envs_per_worker:
                connection.accepting = False
            number = next(self._numbers)
            connection.envs.add(number)
        handle = _PooledEnv(self, connection, number)
        try:
            await connection.request(Open(number, sent, task), self.reset_timeout)
        except BaseException:
            await handle.close()
            raise
        return handle

    @property
    def processes(self) -> tuple[int, ...]:
        """Ids of the running processes."""
        return tuple(each.process.pid for each in self._connections if not each.ended)

    async def _start(self) -> Connection:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["agentgym.env.worker"])
        ours, theirs = socket.socketpair()
        process = context.Process(target=serve, args=(theirs,), daemon=True)
        await asyncio.to_thread(process.start)
        theirs.close()
        connection = Connection(process)
        await asyncio.get_running_loop().create_connection(lambda: connection, sock=ours)
        self.started += 1
        self._checking = self._checking or asyncio.create_task(self._check_deadlines())
        return connection

    async def _check_deadlines(self) -> None:
        """Give up the environments whose deadline has passed; never returns."""
        while True:
            await asyncio.sleep(min(self.step_timeout, self.reset_timeout) / CHECKS)
            for connection in list(self._connections):
                connection.give_up_late()

    def _pickle(self, make: MakeEnv) -> bytes:
        if self._pickled is None or self._pickled[0] is not make:
            try:
                self._pickled = make, pickle.dumps(make)
            except Exception as problem:
                raise ConfigError(
                    f"{make!r} cannot be sent to another process ({problem}): make environments "
                    f"with agentgym.env.registry.EnvFactory or a function of a module"
                ) from problem
        return self._pickled[1]


@dataclass(frozen=True)
class _PooledEnv:
    """An environment in a worker process."""

    pool: ProcessPool
    connection: Connection
    number: int

    async def reset(self, task: Task) -> ResetResult:
        timeout = self.pool.reset_timeout
        return ResetResult(*await self.connection.request(Reset(self.number, task), timeout))

    async def step(self, action: str) -> StepResult:
        timeout = self.pool.step_timeout
        return StepResult(*await self.connection.request(Step(self.number, action), timeout))

    async def fork(self) -> EnvHandle:
        copy = _PooledEnv(self.pool, self.connection, next(self.pool._numbers))
        self.connection.envs.add(copy.number)
        try:
            timeout = self.pool.step_timeout
            await self.connection.request(Fork(self.number, copy.number), timeout)
        except BaseException:
            await copy.close()
            raise
        return copy

    async def close(self) -> None:
        self.connection.close_env(self.number)
