"""An HTTP server in the event loop of a run, on the loopback address."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from importlib.util import find_spec
from typing import Any

from agentgym.errors import EngineError, MissingExtra


def listening(app: Any) -> AbstractAsyncContextManager[str]:
    """Serve an ASGI application on a free port while the context lasts; its value is the URL.

    Raises:
        MissingExtra: The packages of a server are not installed; at once, before it is entered.
    """
    if find_spec("uvicorn") is None:
        raise MissingExtra('agent programs need a server: pip install "agentic-gym[serve]"')
    return _serving(app)


@asynccontextmanager
async def _serving(app: Any) -> AsyncIterator[str]:
    import uvicorn

    # With the protocol named, asyncio sends small answers at once (TCP_NODELAY); else a client
    # waits 40 ms for the body after the head of each.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            interface="asgi3",
            proxy_headers=False,
            server_header=False,
            date_header=False,
            ws="websockets-sansio" if find_spec("websockets") else "none",
            timeout_graceful_shutdown=1,
            backlog=2048,
        )
        server = uvicorn.Server(config)
        server.capture_signals = nullcontext  # type: ignore[assignment]  # Ctrl-C is the run's.
        running = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            while not server.started:
                await asyncio.wait((running,), timeout=0.01)
                if running.done():
                    await running  # Raises what kept it from starting.
                    raise EngineError("the server of agent programs ended before it listened")
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await running
