"""Our environments over the HTTP interface of AgentGym's environment servers (``agentenv``).

``POST /create`` gives an id; ``/reset`` takes ``data_idx``, a place in the training split;
``/step`` takes an action; ``GET /observation`` and ``/available_actions`` repeat; ``POST /close``
ends.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from agentgym.env.registry import label
from agentgym.errors import AgentGymError, EnvError, MissingExtra
from agentgym.interop.there.episode import EnvEpisode, task_ids

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse

KEPT = 256
"""Open environments; beyond that, the least recently used one is closed."""


class Environments:
    """The open environments of a server, by number."""

    def __init__(self, env: str, kwargs: Mapping[str, Any]) -> None:
        """List the tasks; raises what ``agentgym.make`` does."""
        self._env, self._kwargs = env, dict(kwargs)
        self._tasks = task_ids(env, "train", None, kwargs)
        self._open: OrderedDict[int, tuple[EnvEpisode, threading.Lock, list[str]]] = OrderedDict()
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A new environment, at the first task."""
        episode = EnvEpisode(self._env, self._kwargs)
        shown = self._started(episode, 0)
        with self._lock:
            number = next(self._numbers)
            self._open[number] = episode, threading.Lock(), [shown]
            old = [self._open.popitem(last=False)[1] for _ in range(len(self._open) - KEPT)]
        for each, lock, _ in old:
            with lock:
                each.close()
        return {"id": number, **_told(shown, 0.0, False)}

    def reset(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Start the task at a place in the training split."""
        episode, lock, last = self._find(body)
        index = body.get("data_idx", body.get("idx", 0))
        if not isinstance(index, int) or not 0 <= index < len(self._tasks):
            raise EnvError(f"data_idx is {index!r:.80}, expected 0 to {len(self._tasks) - 1}")
        with lock:
            last[0] = self._started(episode, index)
        return {"id": body["id"], **_told(last[0], 0.0, False)}

    def step(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Act."""
        episode, lock, last = self._find(body)
        action = body.get("action")
        if not isinstance(action, str):
            raise EnvError(f"action is {action!r:.80}, expected a text")
        with lock:
            last[0], reward = episode.act(action)
            return _told(last[0], reward, episode.done)

    def observation(self, body: Mapping[str, Any]) -> str:
        """The last observation."""
        return self._find(body)[2][0]

    def available_actions(self, body: Mapping[str, Any]) -> list[str]:
        """Admissible actions, where the environment knows them."""
        bare: Any = self._find(body)[0].env.unwrapped
        return list(bare.admissible())

    def close(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Close an environment."""
        episode, lock, _ = self._find(body)
        with self._lock:
            self._open.pop(int(body["id"]), None)
        with lock:
            episode.close()
        return {"closed": True}

    def _find(self, body: Mapping[str, Any]) -> tuple[EnvEpisode, threading.Lock, list[str]]:
        given = str(body.get("id"))
        with self._lock:
            number = int(given) if given.isascii() and given.isdecimal() else -1
            if number not in self._open:
                raise EnvError(f"there is no environment {given[:80]!r}: POST /create makes one")
            self._open.move_to_end(number)
            return self._open[number]

    def _started(self, episode: EnvEpisode, index: int) -> str:
        return "\n\n".join(episode.start(self._tasks[index]))


def agentgym_http_app(env: str, kwargs: Mapping[str, Any]) -> Starlette:
    """The application of a server.

    Raises:
        ConfigError: There is no such environment, or it takes no such keyword.
        MissingExtra: Starlette is not installed.
    """
    try:
        from starlette.applications import Starlette
        from starlette.responses import PlainTextResponse
        from starlette.routing import Route
    except ImportError:
        raise MissingExtra('serving needs libraries: pip install "agentic-gym[serve]"') from None
    opened = Environments(env, kwargs)

    async def hello(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"This is environment {label(env)}.")

    posts = (opened.create, opened.reset, opened.step, opened.close)
    gets = (opened.observation, opened.available_actions)
    routes = [Route("/", hello)]
    routes += [Route(f"/{m.__name__}", partial(_post, m), methods=["POST"]) for m in posts]
    routes += [Route(f"/{m.__name__}", partial(_get, m)) for m in gets]
    return Starlette(routes=routes)


async def _post(method: Any, request: Request) -> JSONResponse:
    try:
        body = await request.json() if await request.body() else {}
    except ValueError:
        body = None
    return await _answered(method, body)


async def _get(method: Any, request: Request) -> JSONResponse:
    return await _answered(method, dict(request.query_params))


async def _answered(method: Any, body: Any) -> JSONResponse:
    from starlette.responses import JSONResponse

    if not isinstance(body, dict):
        return JSONResponse({"detail": "expected an object in JSON"}, 422)
    try:
        return JSONResponse(await asyncio.to_thread(method, body))
    except AgentGymError as problem:
        return JSONResponse({"detail": str(problem)}, 400)
    except BaseException as problem:
        detail = f"the environment failed: {type(problem).__name__}: {problem}"
        return JSONResponse({"detail": detail}, 500)


def _told(observation: str, reward: float, done: bool) -> dict[str, Any]:
    return {"observation": observation, "reward": reward, "done": done}
