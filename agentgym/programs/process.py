"""Running an agent program: a command in a process of its own, or a Python function here."""

from __future__ import annotations

import asyncio
import inspect
import os
import shlex
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from agentgym.env.by_class import load_object, names_class
from agentgym.errors import AgentGymError, ConfigError
from agentgym.programs.values import Access
from agentgym.types import Stop

ProgramFunction = Callable[[Access], Awaitable[float | None] | float | None]
"""Plays one episode; may return its own score in [0, 1]."""
_GRACE = 2.0
"""Seconds between the request to end and the end."""
_TAIL = 8192
"""Bytes of output that are kept for an error message."""
_MARK = "AGENTGYM_EPISODE"
"""Environment variable that every process of an episode inherits."""


class ProgramFailed(AgentGymError):
    """A program crashed, hung or was killed: the episode does not measure the policy."""

    def __init__(self, stop: Stop, message: str) -> None:
        super().__init__(message)
        self.stop = stop


class Program(Protocol):
    """Plays episodes through the endpoint that it is given."""

    async def __call__(self, access: Access) -> float | None:
        """Play one episode; cancelling it ends the program.

        Returns:
            The program's own score, if it returns one.

        Raises:
            ProgramFailed: It crashed.
        """


def load_program(given: str | ProgramFunction) -> Program:
    """A program from a command line, from ``file.py:function``, or from a function.

    Raises:
        ConfigError: There is no such function or command.
    """
    if not isinstance(given, str):
        return Function(given)
    words = shlex.split(given)
    if len(words) == 1 and names_class(given):
        function = load_object(given)
        if not callable(function):
            raise ConfigError(f"{given} is a {type(function).__name__}, expected a function")
        return Function(function)
    if not words:
        raise ConfigError('the agent program is empty, expected such as "python my_agent.py"')
    return Command(tuple(words))


@dataclass(frozen=True)
class Command:
    """A command line; each episode is a process with its own session and keys."""

    words: tuple[str, ...]

    async def __call__(self, access: Access) -> None:
        """Run it to its end; what it leaves running is killed."""
        read, write = os.pipe()
        output = _Tail()
        loop = asyncio.get_running_loop()
        pipe = await loop.connect_read_pipe(lambda: output, os.fdopen(read, "rb"))
        transport = pipe[0]
        try:
            process = await self._start(access, write)
        except BaseException:
            transport.close()
            raise
        finally:
            os.close(write)
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            await _end(process)
            raise
        finally:
            await _kill_rest(process.pid, access.api_key)
            with suppress(TimeoutError):
                await asyncio.wait_for(output.ended.wait(), 0.2)
            transport.close()
        if code:
            stop = Stop.ABORTED if code < 0 else Stop.ENV_ERROR
            how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
            last = output.last_line()
            raise ProgramFailed(stop, f"the program {how}" + (f": {last}" if last else ""))

    async def _start(self, access: Access, write: int) -> asyncio.subprocess.Process:
        words = [sys.executable if self.words[0] == "python" else self.words[0], *self.words[1:]]
        try:
            return await asyncio.create_subprocess_exec(
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=write,
                stderr=write,
                env={**os.environ, **variables(access)},
                start_new_session=True,
            )
        except OSError as problem:
            raise ConfigError(
                f"the agent program {shlex.join(self.words)!r} cannot be started: {problem}"
            ) from problem


def variables(access: Access) -> dict[str, str]:
    """The environment variables of a program."""
    host = access.base_url.removesuffix("/v1")
    around = ",".join(filter(None, (os.environ.get("no_proxy"), "127.0.0.1")))
    return {
        "OPENAI_BASE_URL": access.base_url,
        "OPENAI_API_KEY": access.api_key,
        "ANTHROPIC_BASE_URL": host,
        "ANTHROPIC_API_KEY": access.api_key,
        "AGENTGYM_WORLD_URL": access.world_url,
        "AGENTGYM_MCP_URL": access.mcp_url,
        "AGENTGYM_OPENENV_URL": access.world_url,
        "AGENTGYM_TASK": access.task,
        "AGENTGYM_SAMPLE": str(access.sample),
        "AGENTGYM_SEED": str(access.seed),
        "NO_PROXY": around,
        "no_proxy": around,
        _MARK: access.api_key,
        **{f"AGENTGYM_KEY_{name.upper()}": key for name, key in access.keys.items()},
    }


class _Tail(asyncio.Protocol):
    """Reads the output of a program without end, and keeps the end of it."""

    def __init__(self) -> None:
        self.kept = bytearray()
        self.ended = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.kept += data
        if len(self.kept) > 2 * _TAIL:
            del self.kept[:-_TAIL]

    def connection_lost(self, problem: Exception | None) -> None:
        self.ended.set()

    def last_line(self) -> str:
        lines = self.kept.decode(errors="replace").strip().splitlines()
        return lines[-1].strip()[:300] if lines else ""


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ask a program to end, then kill it."""
    for number, patience in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, None)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(TimeoutError):
            await asyncio.shield(asyncio.wait_for(process.wait(), patience))
            return


async def _kill_rest(group: int, mark: str) -> None:
    """Kill what a program left running, its own sessions included where /proc shows them."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
    await asyncio.shield(asyncio.to_thread(_kill_marked, mark))


def _kill_marked(mark: str) -> None:
    wanted = f"{_MARK}={mark}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                os.kill(int(folder.name), signal.SIGKILL)


@dataclass(frozen=True)
class Function:
    """A Python function in this process: a coroutine function, or one that runs in a thread."""

    function: ProgramFunction

    async def __call__(self, access: Access) -> float | None:
        """Call it; what it raises is a crash. A thread that hangs cannot be ended."""
        try:
            if _is_async(self.function):
                result = await self.function(access)  # type: ignore[misc]
            else:
                result = await _in_thread(self.function, access)
        except (Exception, SystemExit) as problem:
            while isinstance(problem, ExceptionGroup):
                problem = problem.exceptions[0]
            words = " ".join(f"{type(problem).__name__}: {problem}".split())[:300]
            raise ProgramFailed(Stop.ENV_ERROR, f"the program raised {words}") from problem
        if result is not None and (isinstance(result, bool) or not isinstance(result, int | float)):
            raise ConfigError(
                f"the agent program returned {result!r:.80}, expected its score from 0 to 1, or "
                f"None"
            )
        return result


def _is_async(function: Callable[..., Any]) -> bool:
    """Whether it is a coroutine function, or an object whose call is one."""
    body = function if inspect.isroutine(function) else type(function).__call__
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(body)


async def _in_thread(function: Callable[[Access], Any], access: Access) -> Any:
    """Call in a daemon thread, which does not keep the interpreter alive when it hangs."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, problem: BaseException | None) -> None:
        if future.done():
            return
        if problem is None:
            future.set_result(result)
        else:
            future.set_exception(problem)

    def run() -> None:
        result, problem = None, None
        try:
            result = function(access)
        except BaseException as raised:
            problem = raised if isinstance(raised, Exception) else RuntimeError(repr(raised))
        with suppress(RuntimeError):  # The loop is closed: nothing waits any more.
            loop.call_soon_threadsafe(settle, result, problem)

    threading.Thread(target=run, name="program", daemon=True).start()
    return await future
