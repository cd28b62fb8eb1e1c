"""The endpoint of agent programs: a server on this machine in front of the run's engine.

Every episode has keys of its own, valid while it lasts. A key opens the model to one agent of the
program; the address of the environment holds a key as well. Nothing else is served.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from agentgym.programs.dialects import DIALECTS, Dialect
from agentgym.programs.listening import listening
from agentgym.programs.mcp_world import mcp_app
from agentgym.programs.openenv_world import converse
from agentgym.programs.reading import bearer, json_body
from agentgym.programs.session import Session
from agentgym.programs.values import Call, Request, RequestRefused
from agentgym.utils.access import same

if TYPE_CHECKING:
    from starlette.requests import Request as HttpRequest
    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send
    from starlette.websockets import WebSocket


class _Grant(NamedTuple):
    """What a key opens."""

    secret: str
    session: Session
    agent: str
    """Name of the agent; empty for the key of an environment."""


class ProgramServer:
    """Serves the episodes of all players of a run, in its event loop, on the loopback address."""

    def __init__(self) -> None:
        self._grants: dict[str, _Grant] = {}
        self._stack = AsyncExitStack()
        self.url = ""
        """Set while it runs."""
        self.served = 0
        """Calls of the model that were answered."""

    async def __aenter__(self) -> Self:
        """Listen on a free port.

        Raises:
            MissingExtra: The packages of a server are not installed.
        """
        served = listening(self._direct)
        async with AsyncExitStack() as stack:  # It closes what was opened before a failure.
            self._mcp = await stack.enter_async_context(mcp_app())
            self.url = await stack.enter_async_context(served)
            self._rest = self._site()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *raised: object) -> None:
        """Stop listening."""
        self._grants.clear()
        await self._stack.aclose()

    @contextmanager
    def granted(self, session: Session, agents: tuple[str, ...]) -> Iterator[dict[str, str]]:
        """Keys for one episode, one per agent and one, named ``""``, for its world."""
        names = [secrets.token_hex(8) for _ in range(len(agents) + 1)]
        keys = {}
        for name, agent in zip(names, (*agents, ""), strict=True):
            self._grants[name] = _Grant(secrets.token_urlsafe(24), session, agent)
            keys[agent] = f"{name}.{self._grants[name].secret}"
        try:
            yield keys
        finally:
            for name in names:
                self._grants.pop(name, None)

    def _granted(self, key: str, *, world: bool) -> _Grant:
        """What a key opens; its secret is compared in constant time."""
        name, _, secret = key.partition(".")
        found = self._grants.get(name)
        right = same(secret, found.secret if found else "")
        if found is None or not right or world != (not found.agent):
            raise RequestRefused("the key is not valid, or its episode is over", 401, "bad_key")
        return found

    # ---- HTTP --------------------------------------------------------------------------------

    async def _direct(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What programs call often, without the way through routes and middleware."""
        answering = self._often(scope)
        if answering is None:
            await self._rest(scope, receive, send)
            return
        from starlette.requests import Request as HttpRequest

        answer = await answering(HttpRequest(scope, receive))
        await answer(scope, receive, send)

    def _often(self, scope: Scope) -> Callable[[HttpRequest], Awaitable[Response]] | None:
        """The method for a call of the model, or for a step; None for everything else."""
        if scope["type"] != "http" or scope["method"] != "POST":
            return None
        if scope["path"] in DIALECTS:
            return self._model
        _, first, *rest = scope["path"].split("/")
        if first != "worlds" or len(rest) != 2 or rest[1] not in ("step", "call"):
            return None
        scope["path_params"] = {"key": rest[0], "verb": rest[1]}
        return self._act

    def _site(self) -> Any:
        from starlette.applications import Starlette
        from starlette.routing import Route, WebSocketRoute

        return Starlette(
            routes=[
                *(Route(path, self._model, methods=["POST"]) for path in DIALECTS),
                Route("/v1/models", self._models),
                Route("/worlds/{key}", self._world),
                Route("/worlds/{key}/mcp", _Application(self._mcp_call)),
                WebSocketRoute("/worlds/{key}/ws", self._openenv),
                Route("/worlds/{key}/{verb}", self._act, methods=["POST"]),
            ]
        )

    async def _model(self, http: HttpRequest) -> Response:
        """One call of the model."""
        dialect = DIALECTS[http.scope["path"]]
        try:
            grant = self._granted(bearer(http), world=False)
        except RequestRefused as problem:
            return _refusal(problem, dialect)
        try:
            request = dialect.read(await json_body(http))
            answering = grant.session.complete(grant.agent, request)
            call = await _unless_gone(http, grant.session.over, answering)
        except RequestRefused as problem:
            grant.session.refusal = str(problem)
            return _refusal(problem, dialect)
        self.served += 1
        return _answer(dialect, call, request)

    async def _models(self, http: HttpRequest) -> Response:
        from starlette.responses import JSONResponse

        try:
            self._granted(bearer(http), world=False)
        except RequestRefused as problem:
            return _refusal(problem, DIALECTS["/v1/chat/completions"])
        model = {"id": "policy", "object": "model", "created": 0, "owned_by": "agentgym"}
        return JSONResponse({"object": "list", "data": [model]})

    async def _world(self, http: HttpRequest) -> Response:
        from starlette.responses import JSONResponse

        try:
            grant = self._granted(http.path_params["key"], world=True)
        except RequestRefused as problem:
            return _refusal(problem, DIALECTS["/v1/chat/completions"])
        session = grant.session
        assert session.world is not None, "keys are given out after the reset"
        about = {"task": session.task.id, "seed": session.task.seed, "sample": session.sample}
        return JSONResponse(about | session.world.start())

    async def _act(self, http: HttpRequest) -> Response:
        from starlette.responses import JSONResponse

        try:
            grant = self._granted(http.path_params["key"], world=True)
            answer = await _use(grant.session, http.path_params["verb"], await json_body(http))
        except RequestRefused as problem:
            return _refusal(problem, DIALECTS["/v1/chat/completions"])
        return JSONResponse(answer)

    async def _mcp_call(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The environment of an episode for MCP clients."""
        try:
            grant = self._granted(scope["path_params"]["key"], world=True)
        except RequestRefused as problem:
            await _refusal(problem, DIALECTS["/v1/chat/completions"])(scope, receive, send)
            return
        scope["agentgym.world"] = grant.session.world
        await self._mcp(scope, receive, send)

    async def _openenv(self, socket: WebSocket) -> None:
        """The world of an episode for OpenEnv's clients."""
        try:
            grant = self._granted(socket.path_params["key"], world=True)
        except RequestRefused:
            await socket.close(1008)
            return
        await converse(grant.session, socket)


class _Application:
    """An ASGI application for a route, which takes a method for a handler of requests."""

    def __init__(self, call: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._call = call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        await self._call(scope, receive, send)


async def _use(session: Session, verb: str, body: dict[str, Any]) -> dict[str, Any]:
    """Act in the environment of an episode, or rate it."""
    assert session.world is not None, "keys are given out after the reset"
    if verb == "step":
        if not isinstance(body.get("action"), str):
            raise RequestRefused('step: expected {"action": "..."}')
        return await session.world.step(body["action"])
    if verb == "call":
        name, arguments = body.get("name"), body.get("arguments", {})
        if not isinstance(name, str) or not isinstance(arguments, dict):
            raise RequestRefused('call: expected {"name": "...", "arguments": {...}}')
        return await session.world.call(name, arguments)
    if verb == "score":
        session.rate(body.get("score"))  # type: ignore[arg-type]  # It checks the type.
        return {"score": session.score}
    raise RequestRefused(f"there is no {verb!r:.40}: post to step, call or score", 404, "not_found")


async def _unless_gone(
    http: HttpRequest, over: asyncio.Future[None], answering: Coroutine[Any, Any, Call]
) -> Call:
    """The answer, unless its client closes the connection or its episode ends before."""
    answer, gone = asyncio.ensure_future(answering), asyncio.ensure_future(_gone(http))

    def withdraw(_: asyncio.Future[None]) -> None:
        answer.cancel()

    ends: tuple[asyncio.Future[None], ...] = (gone, over)
    for end in ends:
        end.add_done_callback(withdraw)
    try:
        return await answer
    except asyncio.CancelledError:
        asked = asyncio.current_task()
        if asked is not None and asked.cancelling():
            raise  # The server stops.
        raise RequestRefused(
            "the request was withdrawn, or its episode is over", 410, "withdrawn"
        ) from None
    finally:
        for end in ends:
            end.remove_done_callback(withdraw)
        gone.cancel()


async def _gone(http: HttpRequest) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass


def _refusal(problem: RequestRefused, dialect: Dialect) -> Response:
    from starlette.responses import JSONResponse

    body = dialect.error(str(problem), problem.status, problem.code)
    return JSONResponse(body, status_code=problem.status)


def _answer(dialect: Dialect, call: Call, request: Request) -> Response:
    from starlette.responses import JSONResponse, StreamingResponse

    name = secrets.token_hex(8)
    if not request.stream:
        return JSONResponse(dialect.write(call, request, name))

    async def lines() -> AsyncIterator[str]:
        for kind, data in dialect.events(call, request, name):
            text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
            yield (f"event: {kind}\n" if kind else "") + f"data: {text}\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream")
