"""The connection to one worker process of a pool: requests out, replies in, and timeouts."""

from __future__ import annotations

import asyncio
import pickle
from dataclasses import dataclass
from typing import Any

from agentgym.env.worker import HEADER, Close, Reply, Request, frame
from agentgym.errors import EnvError, EnvLost, EnvTimeout

GRACE = 2.0
"""Seconds that a process has to end by itself before it is killed."""


@dataclass
class _Pending:
    """A request without a reply yet."""

    future: asyncio.Future[Any]
    timeout: float
    """Seconds the environment has to reply."""
    deadline: float
    """When they are over, by the clock of the event loop."""
    closing: bool = False
    """The caller no longer waits; the environment is closed when the reply comes."""


class Connection(asyncio.Protocol):
    """The connection to one worker, and the state of that worker."""

    def __init__(self, process: Any) -> None:
        self.process = process
        self.envs: set[int] = set()
        """Numbers of its open environments, without those given up."""
        self.opened = 0
        """Environments opened here so far."""
        self.accepting = True
        """Takes further environments."""
        self.ended = ""
        """Why the connection ended; empty while it is up."""
        self._pending: dict[int, _Pending] = {}
        self._outbox: list[Request] = []
        self._received = bytearray()
        self._loop = asyncio.get_running_loop()
        self._reaping: asyncio.Future[None] | None = None

    # ---- requests --------------------------------------------------------------------------------

    async def request(self, request: Request, timeout: float) -> Any:
        """The reply to a request; requests of one turn of the event loop travel in one frame.

        Raises:
            EnvLost: The worker ended before the request was made.
            EnvTimeout: The environment does not reply in time, or did not before.
            EnvError: The environment raised, or its process ended during the request.
        """
        number = request.env
        if self.ended:
            raise EnvLost(f"{self.ended} while this environment was idle")
        if number not in self.envs:
            raise EnvTimeout("the environment was given up: an earlier reply did not come in time")
        if number in self._pending:
            raise RuntimeError("an environment takes one call at a time; one is still running")
        future = self._loop.create_future()
        self._pending[number] = _Pending(future, timeout, self._loop.time() + timeout)
        self._send(request)
        return await future

    def close_env(self, number: int) -> None:
        """Close an environment; one that is still in a call, when that returns."""
        if self.ended or number not in self.envs:
            return
        if number in self._pending:
            self._pending[number].closing = True
            return
        self._send(Close(number))
        self._remove(number)

    def give_up_late(self) -> None:
        """Give up the environments whose deadline has passed."""
        now = self._loop.time()
        for number in [n for n, pending in self._pending.items() if pending.deadline < now]:
            pending = self._pending.pop(number)
            self.accepting = False
            if not pending.future.done():
                problem = EnvTimeout(f"no reply within {pending.timeout:g} seconds")
                pending.future.set_exception(problem)
            self._remove(number)

    def end(self, reason: str) -> None:
        """Disconnect; the process ends, and pending requests fail."""
        if self.ended:
            return
        self.ended, self.accepting = reason, False
        self.envs.clear()
        pending, self._pending = self._pending, {}
        for each in pending.values():
            if not each.future.done():
                each.future.set_exception(EnvError(f"{reason} during a call"))
        self._flush()
        self._transport.close()
        self._reaping = asyncio.ensure_future(asyncio.to_thread(_reap, self.process))

    @property
    def finished(self) -> bool:
        """The process has ended and is reaped."""
        return self._reaping is not None and self._reaping.done()

    async def wait_finished(self) -> None:
        """Wait until the process has ended."""
        if self._reaping is not None:
            await self._reaping

    def _send(self, request: Request) -> None:
        if not self._outbox:
            self._loop.call_soon(self._flush)
        self._outbox.append(request)

    def _flush(self) -> None:
        if self._outbox and not self._transport.is_closing():
            self._transport.write(frame(self._outbox))
        self._outbox = []

    def _remove(self, number: int) -> None:
        self.envs.discard(number)
        if not self.envs and not self.accepting:
            self.end("the worker was replaced")

    # ---- callbacks of the event loop -------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """The connection is up."""
        self._transport: asyncio.Transport = transport

    def data_received(self, data: bytes) -> None:
        """Handle the complete frames."""
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
                self.end(f"a worker's reply cannot be unpickled ({problem})")
                return
            for reply in replies:
                self._receive(reply)

    def connection_lost(self, problem: Exception | None) -> None:
        """The process has ended, or is about to."""
        self.end("the worker died")

    def _receive(self, reply: Reply) -> None:
        pending = self._pending.pop(reply.env, None)
        if pending is None:
            return
        if not pending.future.done():
            if reply.error is None:
                pending.future.set_result(reply.value)
            else:
                pending.future.set_exception(reply.error)
        if pending.closing:
            self.close_env(reply.env)


def _reap(process: Any) -> None:
    """Wait for a process to end; kill it after the grace period."""
    process.join(GRACE)
    if process.exitcode is None:
        process.kill()
        process.join()
    process.close()
