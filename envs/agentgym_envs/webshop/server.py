"""The shop as a web site: each visitor plays an episode."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from html import escape
from typing import Any
from urllib.parse import parse_qs

from agentgym.env import registry
from agentgym.errors import MissingExtra, UnknownTask
from agentgym_envs.webshop import pages
from agentgym_envs.webshop.env import WebShop
from agentgym_envs.webshop.goals import ENV

MAX_VISITS = 1000
"""Visits kept; the least recently used one is dropped first."""

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fafaf7 }
h1 { font-size: 1.4rem } h4 { margin: 1rem 0 .3rem; color: #666 } p { margin: .3rem 0 }
button { font: inherit; padding: .35rem .8rem; margin: .15rem; border-radius: .4rem;
  border: 1px solid #bbb; background: #fff; cursor: pointer }
button:hover { border-color: #333 } .btn { background: #f0e9d8 }
.chosen { background: #2f6f4f; color: #fff; border-color: #2f6f4f }
.product-link { display: block; margin: 1.2rem 0 .3rem; color: #2f6f4f; font-weight: 600 }
.product-link.chosen { color: #fff }
input { font: inherit; padding: .4rem .6rem; width: 60%; border: 1px solid #bbb;
  border-radius: .4rem }
"""


def shop(**env_args: Any) -> Any:
    """The application of a shop with these arguments, as ``agentgym serve webshop`` runs it.

    Raises:
        ConfigError: The environment has no such argument.
        MissingExtra: A package is not installed.
    """
    world = registry.world(ENV, **env_args)
    assert isinstance(world, WebShop), f"{ENV} is registered as {type(world).__name__}"
    return website(world)


def website(world: WebShop) -> Any:
    """A Starlette application.

    ``/`` starts a visit with a random task, ``/?task=ID`` with that task. Pages do not show the
    reward of a purchase; ``app.state.visits`` maps the name of each visit to its environment, which
    has it.

    Raises:
        MissingExtra: Starlette is not installed.
    """
    try:
        from starlette.applications import Starlette
        from starlette.requests import Request
        from starlette.responses import HTMLResponse, RedirectResponse, Response
        from starlette.routing import Route
    except ModuleNotFoundError:
        raise MissingExtra(
            'serving needs Starlette: pip install "agentic-gym[serve,webshop]"'
        ) from None

    visits: OrderedDict[str, WebShop] = OrderedDict()

    def find(request: Request) -> WebShop | None:
        name = request.path_params["name"]
        if name in visits:
            visits.move_to_end(name)
        return visits.get(name)

    async def enter(request: Request) -> Response:
        visit = world.fork()
        task = request.query_params.get("task")
        try:
            visit.reset(seed=secrets.randbits(31), options=None if task is None else {"task": task})
        except UnknownTask as problem:
            return HTMLResponse(
                _document(f"<h1>No such task</h1><p>{escape(str(problem))}</p>"), 404
            )
        name = secrets.token_urlsafe(9)
        visits[name] = visit
        while len(visits) > MAX_VISITS:
            visits.popitem(last=False)
        return RedirectResponse(f"/visit/{name}", 303)

    async def show(request: Request) -> Response:
        visit = find(request)
        return _gone() if visit is None else HTMLResponse(_document(_body(visit)))

    async def step(request: Request) -> Response:
        visit = find(request)
        if visit is None:
            return _gone()
        visit.step(_action((await request.body()).decode("utf-8", "replace")))
        return RedirectResponse(str(request.url.path), 303)

    def _gone() -> Response:
        text = "<h1>This visit is over</h1><p><a href='/'>Start another one</a></p>"
        return HTMLResponse(_document(text), 404)

    app = Starlette(
        routes=[
            Route("/", enter),
            Route("/visit/{name}", show),
            Route("/visit/{name}", step, methods=["POST"]),
        ]
    )
    app.state.visits = visits
    return app


def _action(form: str) -> str:
    """The action of a submitted form."""
    fields = parse_qs(form)
    if "action" in fields:
        return fields["action"][0]
    return f"search[{fields.get('query', [''])[0]}]"


def _body(visit: WebShop) -> str:
    """The nodes that an agent sees, as a form."""
    again = "<p><a href='/'>Shop for something else</a></p>" if visit.is_over else ""
    return pages.html(visit.nodes()) + again


def _document(body: str) -> str:
    return (
        "<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'><title>WebShop</title>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<link rel='icon' href='data:,'><style>{_STYLE}</style></head><body>{body}</body></html>"
    )
