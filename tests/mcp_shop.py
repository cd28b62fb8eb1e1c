"""An MCP server for tests, started as a process: tools that count, refuse, sleep and die."""

import json
import os
import sys
import time

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, TextContent

server = MCPServer("shop", log_level="CRITICAL")
asked: list[str] = []


@server.tool()
def price(item: str, count: int = 1) -> str:
    """What an item costs."""
    asked.append(item)
    if item == "moon":
        raise ToolError("the moon is not for sale")
    return f"{count} x {item}: {3 * count}"


@server.tool()
def double(number: int) -> int:
    """Twice a number."""
    return 2 * number


@server.tool()
def total() -> dict[str, int]:
    """How much was asked for."""
    return {"asked": len(asked)}


@server.tool()
def stock(same: bool = False) -> CallToolResult:
    """A summary as text, with the data as structured content."""
    data = {"items": ["tea", "moon"]}
    text = json.dumps(data) if same else "2 items"
    return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=data)


@server.tool()
def names() -> list[str]:
    """What there is."""
    return ["tea", "moon"]


@server.tool()
async def nap(seconds: float) -> str:
    """Wait."""
    time.sleep(seconds)
    return "slept"


@server.tool()
def die() -> str:
    """End the server."""
    sys.stderr.write("out of memory\n")
    sys.stderr.flush()
    os._exit(3)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", port=int(sys.argv[1]))
    else:
        server.run("stdio")
