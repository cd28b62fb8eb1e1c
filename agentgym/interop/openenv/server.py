"""The server of the protocol: HTTP routes and the WebSocket around sessions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from agentgym.errors import AgentGymError, ConfigError, MissingExtra
from agentgym.interop.openenv import served as schemas
from agentgym.interop.openenv.plain import to_json
from agentgym.interop.openenv.served import Served
from agentgym.interop.openenv.session import Session, Sessions, error

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.websockets import WebSocket

SESSIONS = 1024
"""Sessions at once; a further one is refused."""
_THREADS = 64
"""Calls into environments at once."""


def openenv_app(served: Served, doors: Doors | None = None) -> Starlette:
    """The application that serves an environment.

    Args:
        served: The environment.
        doors: The network's side, where it is not the usual one.

    Raises:
        ConfigError: There is no such environment, or it takes no such keyword.
        MissingExtra: Starlette or WebSockets are not installed.
    """
    try:
        import websockets  # noqa: F401
        from starlette.applications import Starlette
        from starlette.routing import Route, WebSocketRoute
    except ImportError:
        raise MissingExtra('OpenEnv needs libraries: pip install "agentic-gym[openenv]"') from None
    facts, metadata = served.facts(), served.metadata()
    doors = doors or Doors(served)
    routes = [
        *(
            Route(path, partial(doors.json, method), methods=[verb])
            for verb, path, method in _routes(served, facts, metadata)
        ),
        WebSocketRoute("/ws", doors.websocket),
    ]
    return Starlette(routes=routes)


Method = Callable[[dict[str, Any]], Any]


def _routes(
    served: Served, facts: dict[str, Any], metadata: dict[str, Any]
) -> list[tuple[str, str, Method]]:
    """HTTP verb, path, and the function from the request's body to the response."""
    tasks = f"/{served.name}"
    routes: list[tuple[str, str, Method]] = [
        ("GET", "/health", lambda _: {"status": "healthy"}),
        ("GET", "/metadata", lambda _: metadata),
        ("GET", "/schema", lambda _: _schema()),
        ("GET", "/state", lambda _: {"episode_id": None, "step_count": 0}),
        ("GET", "/agentgym", lambda _: facts),
        ("GET", "/list_environments", lambda _: [served.name]),
        ("GET", f"{tasks}/splits", lambda _: [_split(name) for name in served.splits()]),
        (
            "POST",
            f"{tasks}/tasks",
            lambda body: {"tasks": served.tasks(_text(body)), "env_name": served.name},
        ),
        ("POST", f"{tasks}/num_tasks", lambda body: {"num_tasks": len(served.tasks(_text(body)))}),
        ("POST", f"{tasks}/task", lambda body: {"task": _task(served, body)}),
        ("POST", f"{tasks}/task_range", lambda body: {"tasks": _range(served, body)}),
        ("POST", "/reset", partial(_only_sessions, "reset")),
        ("POST", "/step", partial(_only_sessions, "step")),
        ("POST", "/mcp", _no_mcp),
    ]
    described: dict[str, Any] = {
        path: {verb.lower(): {"responses": {}}} for verb, path, _ in routes
    }
    openapi = {
        "openapi": "3.1.0",
        "info": {"title": served.name, "version": "1.0.0"},
        "paths": described,
    }
    return [*routes, ("GET", "/openapi.json", lambda _: openapi)]


class Doors:
    """The network's side of a server."""

    def __init__(self, served: Served, session: type[Session] = Session) -> None:
        self.sessions = Sessions(served)
        self.session = session
        self.threads = ThreadPoolExecutor(_THREADS, "openenv")
        self.count = 0

    async def json(self, method: Method, request: Request) -> JSONResponse:
        """Answer an HTTP request."""
        from starlette.responses import JSONResponse

        try:
            body = json.loads(await request.body() or b"{}")
            if not isinstance(body, dict):
                raise ValueError("the body is no object")
        except ValueError as problem:
            return JSONResponse({"detail": f"expected an object in JSON: {problem}"}, 422)
        try:
            return JSONResponse(await self._call(method, body))
        except (AgentGymError, IndexError) as problem:
            kind = type(problem).__name__
            return JSONResponse({"detail": str(problem), "kind": kind}, 400)
        except Exception as problem:
            detail = f"{type(problem).__name__}: {problem}"
            return JSONResponse({"detail": detail, "kind": "EnvError"}, 500)

    async def websocket(self, socket: WebSocket) -> None:
        """Serve a session until the client closes it."""
        from starlette.websockets import WebSocketDisconnect

        await socket.accept()
        if self.count >= SESSIONS:
            full = error(f"{SESSIONS} sessions are open", "CAPACITY_REACHED")
            await socket.send_text(to_json(full))
            await socket.close()
            return
        session, self.count = self.session(self.sessions), self.count + 1
        failed = ""
        try:
            while (text := await socket.receive_text()) != _CLOSE:
                answer = await self._call(_answer, session, text)
                if answer is None:
                    break
                await socket.send_text(answer)
            failed = await self._call(session.close)
            if failed:
                await socket.send_text(to_json(error(failed, "EXECUTION_ERROR", "EnvError")))
            await socket.close()
        except (WebSocketDisconnect, RuntimeError):
            pass
        finally:
            self.count -= 1
            await self._call(session.close)

    async def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call into an environment, in a thread: a slow one keeps no other waiting."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.threads, partial(function, *arguments))


_CLOSE = '{"type":"close"}'


def _answer(session: Session, text: str) -> str | None:
    """The answer to a message in JSON; None closes the session."""
    try:
        message = json.loads(text)
    except ValueError as problem:
        return to_json(error(f"Invalid JSON: {problem}", "INVALID_JSON"))
    if isinstance(message, dict) and message.get("type") == "close":
        return None
    try:
        return to_json(session.answer(message))
    except AgentGymError as problem:
        return to_json(error(str(problem), "EXECUTION_ERROR", type(problem).__name__))


def _schema() -> dict[str, Any]:
    return {
        "action": schemas.ACTION_SCHEMA,
        "observation": schemas.OBSERVATION_SCHEMA,
        "state": schemas.STATE_SCHEMA,
    }


def _split(name: str) -> dict[str, str]:
    """OpenEnv's kinds of splits are train, validation and test."""
    return {"name": name, "type": name if name in ("train", "test") else "validation"}


def _text(body: dict[str, Any]) -> str:
    split = body.get("split")
    if not isinstance(split, str):
        raise ConfigError(f"split is {split!r:.80}, expected its name")
    return split


def _task(served: Served, body: dict[str, Any]) -> dict[str, Any]:
    tasks, index = served.tasks(_text(body)), body.get("index")
    if not isinstance(index, int) or not 0 <= index < len(tasks):
        raise ConfigError(f"index is {index!r:.80}, expected 0 to {len(tasks) - 1}")
    return tasks[index]


def _range(served: Served, body: dict[str, Any]) -> list[dict[str, Any]]:
    start, stop = body.get("start"), body.get("stop")
    if not all(bound is None or isinstance(bound, int) for bound in (start, stop)):
        raise ConfigError("start and stop must be integers or null")
    return served.tasks(_text(body))[start:stop]


def _only_sessions(name: str, body: dict[str, Any]) -> dict[str, Any]:
    raise ConfigError(f"{name} needs a session: use the WebSocket at /ws, as OpenEnv's client does")


def _no_mcp(body: dict[str, Any]) -> dict[str, Any]:
    problem = {"code": -32601, "message": "no tools: start the server with `--mcp http` instead"}
    return {"jsonrpc": "2.0", "id": body.get("id"), "error": problem}
