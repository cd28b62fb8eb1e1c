"""A process of a pool: carries out calls to its worlds, and lets no slow one hold up the others.

Calls come in frames, many at a time, and are carried out one after the other by one thread, the
leader: light steps cost no change of thread. A watch looks every few milliseconds whether the
leader is still in the same call, as in one that waits for another program. Then it makes a new
leader of a fresh thread, and the old one leaves when its call returns.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import threading
import time
from collections import deque
from typing import Any, NamedTuple

from agentgym.env.executor import Env, fork_env, reset_env, step_env
from agentgym.errors import AgentGymError, EnvError
from agentgym.types import Task

LOOK = 0.002
"""Seconds between two looks at the leader: how long a slow call can hold up the others."""
HOLD = 0.0005
"""Seconds that an answer may wait for others to travel with."""
HEADER = 4
"""Bytes that say how long a frame is."""


class Open(NamedTuple):
    """Make a world."""

    world: int
    make: bytes
    """Pickled, so that one that cannot be read here spoils no other call."""
    task: Task


class Reset(NamedTuple):
    """Start its task."""

    world: int
    task: Task


class Step(NamedTuple):
    """Act in it."""

    world: int
    action: str


class Fork(NamedTuple):
    """Copy it under another number."""

    world: int
    twin: int


class Close(NamedTuple):
    """Forget it."""

    world: int


Call = Open | Reset | Step | Fork | Close


class Reply(NamedTuple):
    """What a call gave; a world has one call under way, so its number says which."""

    world: int
    value: Any = None
    error: Exception | None = None


def frame(messages: list[Call] | list[Reply]) -> bytes:
    """Messages as bytes, led by their length."""
    body = pickle.dumps(messages, pickle.HIGHEST_PROTOCOL)
    return len(body).to_bytes(HEADER, "big") + body


def serve(line: socket.socket) -> None:
    """Serve until the other side closes the line; then the process ends, whatever still runs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which closes the line
    line.setblocking(True)
    worker = Worker(line)
    worker.lead()
    worker.watch()


class Worker:
    """Worlds by number, and who carries out the calls to them."""

    def __init__(self, line: socket.socket) -> None:
        self.line = line
        self.worlds: dict[int, Env] = {}
        self._calls: deque[Call] = deque()
        self._replies: list[Reply] = []
        self._sending = threading.Lock()
        self._leading = threading.Lock()
        """Held to change the leader: by a leader that returns from a call, and by the watch."""
        self._leader = 0
        """Number of the thread that leads."""
        self._since = 0.0
        """When its present call began; 0 between calls."""
        self._busy = threading.Event()
        self._received = bytearray()

    def lead(self) -> None:
        """Start a thread that carries out calls."""
        self._leader += 1
        threading.Thread(target=self._work, args=(self._leader,), daemon=True).start()

    def watch(self) -> None:
        """Replace a leader that is held up; never returns."""
        while True:
            self._busy.wait()
            time.sleep(LOOK)
            with self._leading:
                since = self._since
                if not since and not self._calls:
                    self._busy.clear()
                late = bool(since) and time.perf_counter() - since > LOOK
                if late:
                    self._since = 0.0
                    self.lead()
            if late:
                self._send()

    def _work(self, number: int) -> None:
        while True:
            if not self._calls:
                self._send()
                self._receive()
                self._busy.set()
            call = self._calls.popleft()
            began = self._since = time.perf_counter()
            reply = self._carry_out(call)
            with self._leading:
                leads = self._leader == number
                if leads:
                    self._since = 0.0
                if not isinstance(call, Close):
                    self._replies.append(reply)
            if not leads:
                self._send()
                return
            if time.perf_counter() - began > HOLD:
                self._send()

    def _receive(self) -> None:
        """Wait for a frame."""
        size = int.from_bytes(self._read(HEADER), "big")
        self._calls.extend(pickle.loads(self._read(size)))

    def _read(self, count: int) -> bytes:
        while len(self._received) < count:
            found = self.line.recv(1 << 18)
            if not found:
                os._exit(0)  # threads that hang would keep an ordinary exit waiting
            self._received += found
        taken = bytes(self._received[:count])
        del self._received[:count]
        return taken

    def _send(self) -> None:
        """Send the replies there are."""
        with self._sending:
            with self._leading:
                replies, self._replies = self._replies, []
            if not replies:
                return
            try:
                sent = frame(replies)
            except Exception:
                sent = frame([_portable(reply) for reply in replies])
            try:
                self.line.sendall(sent)
            except OSError:
                os._exit(0)

    def _carry_out(self, call: Call) -> Reply:
        """The one place that catches everything: a world is other people's code."""
        try:
            return Reply(call.world, self._value(call))
        except AgentGymError as problem:
            return _portable(Reply(call.world, error=problem))
        except Exception as problem:
            return Reply(call.world, error=_told(problem))

    def _value(self, call: Call) -> Any:
        match call:
            case Step(world, action):
                return step_env(self.worlds[world], action)
            case Reset(world, task):
                return reset_env(self.worlds[world], task)
            case Open(world, make, task):
                self.worlds[world] = pickle.loads(make)(task)
            case Fork(world, twin):
                self.worlds[twin] = fork_env(self.worlds[world])
            case Close(world):
                env = self.worlds.pop(world, None)
                if env is not None:
                    env.close()
        return None


def _told(problem: Exception) -> EnvError:
    """Foreign exceptions need not survive the journey, so their words travel."""
    return EnvError(f"{type(problem).__name__}: {problem}")


def _portable(reply: Reply) -> Reply:
    """The reply, or what keeps it from travelling."""
    try:
        pickle.loads(pickle.dumps(reply))
    except Exception as problem:
        return Reply(reply.world, error=_told(problem))
    return reply
