"""Tools of any MCP server, over its standard input and output or over streamable HTTP.

Needs the extra ``mcp``.
"""

from __future__ import annotations

import asyncio
import json
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
from agentgym.tools.limits import event_loop
from agentgym.tools.tool import Check, Tool, without_titles
from agentgym.utils.bounds import above

if TYPE_CHECKING:
    import mcp

_CLOSING = 10.0
"""Seconds that a server is given to end."""
_PAGES = 100
"""Pages of a list of tools; more is no list."""


class ToolServer:
    """A connection to an MCP server; its ``tools`` go wherever ours go.

    What a server says of a call that failed is read by the model. A server that dies, or breaks
    the protocol, breaks the world: whether the call was carried out is unknown, so it is not made
    again, and what the server remembered is gone; the next episode gets a new connection.
    The connection is closed by ``close``, at the end of a ``with`` block, or when nothing uses
    the tools any more.

    A server's state is its own: forks of a world share it, and so do all worlds that are given
    the same tools. Give each world a ``ToolServer`` of its own where that matters.

    Raises:
        ConfigError: The server has a tool that cannot be called.
        MissingExtra: The MCP library is not installed.
        Unreachable: The server does not start, or cannot be reached.
        EnvTimeout: It does not tell its tools in time.
    """

    def __init__(
        self,
        server: str | Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,
    ) -> None:
        """Connect, and ask for the tools.

        Args:
            server: An address such as ``http://127.0.0.1:8000/mcp``, or the command that starts
                the server, in words or as in a shell.
            env: More environment variables of the command; it inherits few.
            headers: Sent with every request to the address.
            timeout: Seconds to connect in. A call's time is bounded by ``CallLimits``.
        """
        self._reach = _Reach(server, env or {}, headers or {}, timeout)
        self._lock = threading.Lock()
        self._line = _Line(self._reach)
        # Ends a connection that nobody can use any more; it must not know this object.
        self._forgotten = weakref.finalize(self, _Line.hang_up, self._line)
        self.tools = tuple(_tool(self, each) for each in self._line.listed())

    def begin(self) -> None:
        """A new episode; a connection that was lost is made anew."""
        with self._lock:
            # A connection that was closed on purpose stays closed: it was detached then.
            if self._line.lost and self._forgotten.detach() is not None:
                self._line.close()
                self._line = _Line(self._reach)
                self._forgotten = weakref.finalize(self, _Line.hang_up, self._line)
                self._line.listed()

    async def call(self, name: str, arguments: Mapping[str, object]) -> str:
        """Call a tool, as the text that a model reads.

        Raises:
            MalformedAction: The server refuses the arguments, or says that the call failed.
            EnvError: The server is gone, or does not keep to the protocol.
        """
        return await self._line.call(name, arguments)

    def close(self) -> None:
        """Close the connection, and end a server that was started for it."""
        with self._lock:
            self._forgotten.detach()
            self._line.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Reach:
    """How a server is reached."""

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
        """A client, not yet connected; the command's errors go to a file."""
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


class _Line:
    """One connection: a task on the tools' event loop opens it, waits, and closes it."""

    def __init__(self, reach: _Reach) -> None:
        try:
            import mcp  # noqa: F401
        except ImportError:
            raise MissingExtra(
                'MCP servers need a library: pip install "agentic-gym[mcp]"'
            ) from None
        self.lost = ""
        """Why it is of no use any more."""
        self._reach = reach
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the task
        self._client: mcp.Client | None = None
        self._ready: Future[list[mcp.Tool]] = Future()
        self._leave = asyncio.Event()
        self._loop = event_loop()
        self._over = asyncio.run_coroutine_threadsafe(self._live(), self._loop)

    def listed(self) -> list[mcp.Tool]:
        """The server's tools, once it is connected.

        Raises:
            Unreachable: It cannot be connected.
            EnvTimeout: It did not tell in time.
        """
        try:
            return self._ready.result(self._reach.timeout)
        except TimeoutError:
            self._over.cancel()
            self._lose(f"did not tell its tools within {self._reach.timeout:g} s")
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
        except Exception as problem:  # Whatever the library raises, the server is to blame.
            raise self._broken(problem) from problem
        text = _text(result)
        if result.is_error:
            raise MalformedAction(text or "The call failed.")
        return text

    def hang_up(self) -> None:
        """Let the connection close, without waiting for it."""
        self._lose("was closed")
        self._loop.call_soon_threadsafe(self._leave.set)

    def close(self) -> None:
        """Close it, and wait until it is."""
        self.hang_up()
        wait([self._over], _CLOSING)
        self._over.cancel()

    async def _live(self) -> None:
        with self._errors:
            try:
                async with AsyncExitStack() as stack:
                    client = await self._reach.client(stack, self._errors)
                    self._client = await stack.enter_async_context(client)
                    self._ready.set_result(await _listed(self._client))
                    await self._leave.wait()
            except Exception as problem:
                # What goes wrong later is told by the calls that it concerns.
                if not self._ready.done():
                    self._ready.set_exception(self._broken(problem, Unreachable))

    def _broken(self, problem: Exception, kind: type[EnvError] = EnvError) -> EnvError:
        """The error to raise; the library wraps those of its tasks in groups."""
        while isinstance(problem, ExceptionGroup):
            problem = problem.exceptions[0]
        words = f"{type(problem).__name__}: {problem}".removesuffix(": ")
        self._lose(f"failed: {' '.join(words.split())[:200]}")
        return kind(self.lost)

    def _lose(self, why: str) -> None:
        """Note why it is of no use, with the last line that a command wrote to standard error."""
        if self.lost:
            return
        said = ""
        if not self._errors.closed:
            file = self._errors.fileno()
            # Read by position: the command writes where the file stands.
            end = os.pread(file, 2000, max(0, os.fstat(file).st_size - 2000))
            lines = end.decode(errors="replace").strip().splitlines()
            said = f"; its last words: {lines[-1][:200]}" if lines else ""
        self.lost = f"the MCP server {self._reach.name!r} {why}{said}"


class _Remote:
    """What a ``Tool`` calls: one tool of a server."""

    def __init__(self, server: ToolServer, name: str) -> None:
        self.server, self.name = server, name

    async def __call__(self, **arguments: object) -> str:
        return await self.server.call(self.name, arguments)

    def begin(self) -> None:
        self.server.begin()


async def _listed(client: mcp.Client) -> list[mcp.Tool]:
    tools: list[mcp.Tool] = []
    cursor: str | None = None
    for _ in range(_PAGES):
        page = await client.list_tools(cursor=cursor)
        tools += page.tools
        cursor = page.next_cursor
        if cursor is None:
            return tools
    raise EnvError(f"its list of tools has more than {_PAGES} pages")


def _tool(server: ToolServer, theirs: mcp.Tool) -> Tool:
    description = theirs.description or theirs.title or theirs.name
    schema = without_titles(theirs.input_schema)
    check = _checker(theirs.name, schema)
    return Tool(theirs.name, description, schema, check, _Remote(server, theirs.name))


def _checker(name: str, schema: dict[str, Any]) -> Check:
    """Checks arguments against a JSON schema; nothing is fetched for it."""
    from jsonschema import Draft202012Validator, SchemaError
    from referencing import Registry

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as problem:
        raise ConfigError(f"tool {name!r} has no valid schema: {problem.message}") from None
    validator = Draft202012Validator(schema, registry=Registry())
    properties = schema.get("properties", {})

    def check(given: Mapping[str, object], texts: bool) -> dict[str, Any]:
        arguments = {
            key: _read(str(value), properties.get(key, {})) if texts else value
            for key, value in given.items()
        }
        faults = sorted(validator.iter_errors(arguments), key=lambda fault: str(fault.json_path))
        if faults:
            told = (f"{fault.json_path}: {fault.message[:120]}." for fault in faults[:3])
            raise MalformedAction(" ".join(told))
        return arguments

    return check


def _read(text: str, schema: Mapping[str, Any]) -> object:
    """A text from a tag as a value of the parameter's type."""
    if "string" in json.dumps(schema.get("type", "string")):
        return text
    try:
        found: object = json.loads(text)
    except ValueError:
        return text
    return found


def _text(result: mcp.types.CallToolResult) -> str:
    """A result as a model reads it: texts as they are, the rest by name."""
    parts = []
    for block in result.content:
        if block.type == "text":
            parts.append(block.text)
        elif block.type == "resource":
            parts.append(getattr(block.resource, "text", f"[{block.resource.uri}]"))
        elif block.type == "resource_link":
            parts.append(f"[{block.name}: {block.uri}]")
        else:
            parts.append(f"[{block.type}, {block.mime_type}]")
    if not parts and result.structured_content is not None:
        return json.dumps(result.structured_content, ensure_ascii=False)
    return "\n".join(parts)
