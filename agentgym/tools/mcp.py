"""Tools of any MCP server, over its standard input and output or over streamable HTTP.

Needs the extra ``mcp``.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import tempfile
import threading
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Self

from agentgym.errors import (
    ConfigError,
    EnvError,
    EnvTimeout,
    MalformedAction,
    MissingExtra,
    Unreachable,
)
from agentgym.tools.json_schema import schema_check
from agentgym.tools.limits import event_loop
from agentgym.tools.mcp_results import result_text
from agentgym.tools.tool import Tool, without_titles
from agentgym.utils.bounds import above

if TYPE_CHECKING:
    import mcp

_CLOSE_SECONDS = 10.0
"""Seconds that a server has to shut down."""
_MAX_PAGES = 100
"""Most pages of a list of tools."""


class ToolServer:
    """A connection to an MCP server; its ``tools`` can be used wherever ours can.

    The model reads the error message of a failed call. A server that dies or violates the
    protocol ends the episode as an environment error: it is unknown whether the call was executed,
    so it is not repeated, and the server's state is lost; the next episode gets a new connection.
    The connection is closed by ``close``, at the end of a ``with`` block, or when the tools are
    garbage collected.

    Forks of an environment share the state of the server, and so do all environments with the
    same tools. Give each environment its own ``ToolServer`` where that matters.

    Raises:
        ConfigError: The server has a tool that cannot be called.
        MissingExtra: The MCP library is not installed.
        Unreachable: The server does not start, or cannot be reached.
        EnvTimeout: It does not list its tools in time.
    """

    def __init__(
        self,
        server: str | Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,
    ) -> None:
        """Connect, and list the tools.

        Args:
            server: An address such as ``http://127.0.0.1:8000/mcp``, or the command that starts
                the server, as a list or as a shell would split it.
            env: Extra environment variables of the command; it inherits only a few.
            headers: Sent with every request to the address.
            timeout: Seconds to connect. ``CallLimits`` bounds the time of a call.
        """
        self._address = _ServerAddress(server, env or {}, headers or {}, timeout)
        self._lock = threading.Lock()
        self._connection = _Connection(self._address)
        # Closes the connection when this object is collected, so it must not refer to it.
        self._finalizer = weakref.finalize(self, _Connection.disconnect, self._connection)
        self.tools = tuple(_tool(self, each) for each in self._connection.listed())

    def reset(self) -> None:
        """Start an episode; reconnect if the connection was lost."""
        with self._lock:
            # A connection closed on purpose stays closed: its finalizer is detached.
            if self._connection.lost and self._finalizer.detach() is not None:
                self._connection.close()
                self._connection = _Connection(self._address)
                self._finalizer = weakref.finalize(self, _Connection.disconnect, self._connection)
                self._connection.listed()

    async def call(self, name: str, arguments: Mapping[str, object]) -> str:
        """Call a tool and return the text that the model reads.

        Raises:
            MalformedAction: The server refuses the arguments, or reports that the call failed.
            EnvError: The server is gone, or violates the protocol.
        """
        return await self._connection.call(name, arguments)

    def close(self) -> None:
        """Close the connection, and end a server that was started for it."""
        with self._lock:
            self._finalizer.detach()
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _ServerAddress:
    """Address or command of a server."""

    def __init__(
        self,
        server: str | Sequence[str],
        env: Mapping[str, str],
        headers: Mapping[str, str],
        timeout: float,
    ) -> None:
        url = isinstance(server, str) and server.startswith(("http://", "https://"))
        self.url = str(server) if url else ""
        self.words = [] if url else shlex.split(server) if isinstance(server, str) else [*server]
        self.name = self.url or " ".join(self.words)
        self.env, self.headers, self.timeout = dict(env), dict(headers), timeout
        above(0, self, "timeout")
        if not self.name:
            raise ConfigError("the MCP server is '', expected an address or a command")

    async def client(self, stack: AsyncExitStack, errors: Any) -> mcp.Client:
        """A client, not yet connected; standard error of the command goes to a file."""
        import mcp
        from mcp.client.stdio import StdioServerParameters, stdio_client
        from mcp.client.streamable_http import streamable_http_client
        from mcp.shared._httpx_utils import create_mcp_http_client

        if self.url:
            http = await stack.enter_async_context(create_mcp_http_client(self.headers))
            return mcp.Client(streamable_http_client(self.url, http_client=http))
        command, *args = self.words
        how = StdioServerParameters(command=command, args=args, env=self.env)
        return mcp.Client(stdio_client(how, errlog=errors))


class _Connection:
    """One connection: a task on the tools' event loop opens it, waits, and closes it."""

    def __init__(self, address: _ServerAddress) -> None:
        try:
            import mcp  # noqa: F401
        except ImportError:
            raise MissingExtra(
                'MCP servers need a library: pip install "agentic-gym[mcp]"'
            ) from None
        self.lost = ""
        """Why the connection is unusable; empty while it works."""
        self._address = address
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the task
        self._client: mcp.Client | None = None
        self._ready: Future[list[mcp.Tool]] = Future()
        self._closing = asyncio.Event()
        self._loop = event_loop()
        self._task = asyncio.run_coroutine_threadsafe(self._run(), self._loop)

    def listed(self) -> list[mcp.Tool]:
        """The server's tools, once it is connected.

        Raises:
            Unreachable: The connection failed.
            EnvTimeout: No list in time.
        """
        try:
            return self._ready.result(self._address.timeout)
        except TimeoutError:
            self._task.cancel()
            self._mark_lost(f"did not list its tools within {self._address.timeout:g} s")
            raise EnvTimeout(self.lost) from None

    async def call(self, name: str, arguments: Mapping[str, object]) -> str:
        """See ``ToolServer.call``."""
        import mcp
        import mcp_types

        if self.lost or self._client is None:
            raise EnvError(self.lost)
        try:
            result = await self._client.call_tool(name, dict(arguments))
        except mcp.MCPError as problem:
            if problem.code == mcp_types.INVALID_PARAMS:
                raise MalformedAction(problem.message) from problem
            raise self._broken(problem) from problem
        except Exception as problem:  # Any error of the library counts as the server's.
            raise self._broken(problem) from problem
        text = result_text(result)
        if result.is_error:
            raise MalformedAction(text or "The call failed.")
        return text

    def disconnect(self) -> None:
        """Close the connection without waiting for it."""
        self._mark_lost("was closed")
        self._loop.call_soon_threadsafe(self._closing.set)

    def close(self) -> None:
        """Close the connection and wait for it."""
        self.disconnect()
        wait([self._task], _CLOSE_SECONDS)
        self._task.cancel()

    async def _run(self) -> None:
        with self._errors:
            try:
                async with AsyncExitStack() as stack:
                    client = await self._address.client(stack, self._errors)
                    self._client = await stack.enter_async_context(client)
                    self._ready.set_result(await _listed(self._client))
                    await self._closing.wait()
            except Exception as problem:
                # Later errors are reported by the calls that they affect.
                if not self._ready.done():
                    self._ready.set_exception(self._broken(problem, Unreachable))

    def _broken(self, problem: Exception, kind: type[EnvError] = EnvError) -> EnvError:
        """The error to raise; the library wraps those of its tasks in groups."""
        while isinstance(problem, ExceptionGroup):
            problem = problem.exceptions[0]
        words = f"{type(problem).__name__}: {problem}".removesuffix(": ")
        self._mark_lost(f"failed: {' '.join(words.split())[:200]}")
        return kind(self.lost)

    def _mark_lost(self, why: str) -> None:
        """Record why it is unusable, with the last line of the command's standard error."""
        if self.lost:
            return
        last_words = ""
        if not self._errors.closed:
            file = self._errors.fileno()
            # `pread`: the command writes at the current position of the file.
            end = os.pread(file, 2000, max(0, os.fstat(file).st_size - 2000))
            lines = end.decode(errors="replace").strip().splitlines()
            last_words = f"; last line of its stderr: {lines[-1][:200]}" if lines else ""
        self.lost = f"the MCP server {self._address.name!r} {why}{last_words}"


class _RemoteTool:
    """The callable of a ``Tool``: one tool of a server."""

    def __init__(self, server: ToolServer, name: str) -> None:
        self.server, self.name = server, name

    async def __call__(self, **arguments: object) -> str:
        return await self.server.call(self.name, arguments)

    def reset(self) -> None:
        self.server.reset()


async def _listed(client: mcp.Client) -> list[mcp.Tool]:
    tools: list[mcp.Tool] = []
    cursor: str | None = None
    for _ in range(_MAX_PAGES):
        page = await client.list_tools(cursor=cursor)
        tools += page.tools
        cursor = page.next_cursor
        if cursor is None:
            return tools
    raise EnvError(f"the list of tools has more than {_MAX_PAGES} pages")


def _tool(server: ToolServer, theirs: mcp.Tool) -> Tool:
    description = theirs.description or theirs.title or theirs.name
    schema = without_titles(theirs.input_schema)
    check = schema_check(theirs.name, schema)
    return Tool(theirs.name, description, schema, check, _RemoteTool(server, theirs.name))
