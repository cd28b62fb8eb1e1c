"""The environments of programs as MCP tools: one server, which finds the episode in the request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from agentgym.errors import AgentGymError

if TYPE_CHECKING:
    from agentgym.programs.world import ProgramWorld


@asynccontextmanager
async def mcp_app() -> AsyncIterator[Any]:
    """An ASGI application; the episode's world is in its scope as ``agentgym.world``.

    Where the MCP library is not installed, it answers with a line that names it.
    """
    try:
        from mcp import types
        from mcp.server.lowlevel import Server
        from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
    except ImportError:
        yield _without_mcp
        return

    def world_of(context: Any) -> ProgramWorld:
        found: ProgramWorld = context.request.scope["agentgym.world"]
        return found

    def result(text: str, *, error: bool) -> types.CallToolResult:
        content = types.TextContent(type="text", text=text)
        return types.CallToolResult(content=[content], is_error=error)

    async def list_tools(context: Any, params: Any) -> types.ListToolsResult:
        functions = (tool["function"] for tool in world_of(context).tools)
        return types.ListToolsResult(
            tools=[
                types.Tool(
                    name=each["name"],
                    description=each.get("description") or "",
                    input_schema=dict(each.get("parameters") or {"type": "object"}),
                )
                for each in functions
            ]
        )

    async def call_tool(context: Any, params: Any) -> types.CallToolResult:
        try:
            answer = await world_of(context).call(params.name, params.arguments or {})
        except AgentGymError as problem:
            return result(str(problem), error=True)
        text = answer["observation"]
        if answer["done"]:
            text += "\n(The episode is over.)"
        return result(text, error=False)

    server: Server[Any] = Server("world", on_list_tools=list_tools, on_call_tool=call_tool)
    manager = StreamableHTTPSessionManager(server, json_response=True, stateless=True)
    async with manager.run():
        yield manager.handle_request


async def _without_mcp(scope: Any, receive: Any, send: Any) -> None:
    from starlette.responses import PlainTextResponse

    about = 'MCP needs a library: pip install "agentic-gym[mcp]"'
    await PlainTextResponse(about, status_code=501)(scope, receive, send)
