"""A worker process of a pool: serves requests to its environments; a slow one blocks no other.

Requests come in frames, many at a time, and one thread serves them in order, so quick steps cost
no thread switch. A monitor checks every few milliseconds whether that thread is still in the same
call, such as one that waits for another program. If so, it starts a new serving thread, and the
old one ends when its call returns.
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

CHECK_EVERY = 0.002
"""Seconds between two checks of the serving thread: how long a slow call can delay the others."""
MAX_DELAY = 0.0005
"""Seconds that a reply may wait for others to share its frame."""
HEADER = 4
"""Bytes of a frame's length."""


class Open(NamedTuple):
    """Make an environment."""

    env: int
    """Its number."""
    make: bytes
    """Pickled separately, so that one that cannot be unpickled here fails alone."""
    task: Task


class Reset(NamedTuple):
    """Start its task."""

    env: int
    task: Task


class Step(NamedTuple):
    """Act in it."""

    env: int
    action: str


class Fork(NamedTuple):
    """Copy it under another number."""

    env: int
    copy: int


class Close(NamedTuple):
    """Close and remove it; has no reply."""

    env: int


Request = Open | Reset | Step | Fork | Close


class Reply(NamedTuple):
    """The result of a request; an environment has one request at a time."""

    env: int
    value: Any = None
    error: Exception | None = None


def frame(messages: list[Request] | list[Reply]) -> bytes:
    """Messages as bytes, preceded by their length."""
    body = pickle.dumps(messages, pickle.HIGHEST_PROTOCOL)
    return len(body).to_bytes(HEADER, "big") + body


def serve(connection: socket.socket) -> None:
    """Serve until the other side disconnects; then the process ends, even if calls still run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which disconnects
    connection.setblocking(True)
    worker = Worker(connection)
    worker.start_serving()
    worker.monitor()


class Worker:
    """Environments by number, and the thread that serves requests to them."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.envs: dict[int, Env] = {}
        self._requests: deque[Request] = deque()
        self._replies: list[Reply] = []
        self._sending = threading.Lock()
        self._switching = threading.Lock()
        """Held to change the serving thread: when a call returns, and by the monitor."""
        self._serving = 0
        """Number of the serving thread."""
        self._since = 0.0
        """When its present call started; 0 between calls."""
        self._busy = threading.Event()
        self._received = bytearray()

    def start_serving(self) -> None:
        """Start a thread that serves requests."""
        self._serving += 1
        threading.Thread(target=self._serve, args=(self._serving,), daemon=True).start()

    def monitor(self) -> None:
        """Replace a serving thread that is blocked; never returns."""
        while True:
            self._busy.wait()
            time.sleep(CHECK_EVERY)
            with self._switching:
                since = self._since
                if not since and not self._requests:
                    self._busy.clear()
                late = bool(since) and time.perf_counter() - since > CHECK_EVERY
                if late:
                    self._since = 0.0
                    self.start_serving()
            if late:
                self._send()

    def _serve(self, number: int) -> None:
        while True:
            if not self._requests:
                self._send()
                self._receive()
                self._busy.set()
            request = self._requests.popleft()
            started = self._since = time.perf_counter()
            reply = self._execute(request)
            with self._switching:
                current = self._serving == number
                if current:
                    self._since = 0.0
                if not isinstance(request, Close):
                    self._replies.append(reply)
            if not current:
                self._send()
                return
            if time.perf_counter() - started > MAX_DELAY:
                self._send()

    def _receive(self) -> None:
        """Wait for a frame."""
        size = int.from_bytes(self._read(HEADER), "big")
        self._requests.extend(pickle.loads(self._read(size)))

    def _read(self, count: int) -> bytes:
        while len(self._received) < count:
            data = self.connection.recv(1 << 18)
            if not data:
                os._exit(0)  # an ordinary exit would wait for threads that hang
            self._received += data
        found = bytes(self._received[:count])
        del self._received[:count]
        return found

    def _send(self) -> None:
        """Send the replies at hand."""
        with self._sending:
            with self._switching:
                replies, self._replies = self._replies, []
            if not replies:
                return
            try:
                data = frame(replies)
            except Exception:
                data = frame([_portable(reply) for reply in replies])
            try:
                self.connection.sendall(data)
            except OSError:
                os._exit(0)

    def _execute(self, request: Request) -> Reply:
        """The result of a request.

        Catches everything, ``SystemExit`` included, because an environment is foreign code: an
        exception that left this thread would leave the request without a reply.
        """
        try:
            return Reply(request.env, self._value(request))
        except AgentGymError as problem:
            return _portable(Reply(request.env, error=problem))
        except BaseException as problem:
            return Reply(request.env, error=_as_env_error(problem))

    def _value(self, request: Request) -> Any:
        match request:
            case Step(number, action):
                return step_env(self.envs[number], action)
            case Reset(number, task):
                return reset_env(self.envs[number], task)
            case Open(number, make, task):
                self.envs[number] = pickle.loads(make)(task)
            case Fork(number, copy):
                self.envs[copy] = fork_env(self.envs[number])
            case Close(number):
                env = self.envs.pop(number, None)
                if env is not None:
                    env.close()
        return None


def _as_env_error(problem: BaseException) -> EnvError:
    """Foreign exceptions may not survive pickling, so only their text is sent."""
    return EnvError(f"{type(problem).__name__}: {problem}")


def _portable(reply: Reply) -> Reply:
    """The reply, or an error that states why it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(reply))
    except Exception as problem:
        return Reply(reply.env, error=_as_env_error(problem))
    return reply
