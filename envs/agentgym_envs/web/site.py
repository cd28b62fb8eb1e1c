"""What an author of web tasks writes, and the server of their pages."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from html import escape
from socketserver import ThreadingMixIn
from typing import Any, NamedTuple
from urllib.parse import parse_qs
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import numpy as np

from agentgym.browser import Tab
from agentgym.browser.env import Verdict

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
"""A WSGI application (PEP 3333); Flask, Django and Bottle make them too."""


class Goal(NamedTuple):
    """What a task asks for."""

    text: str
    task_type: str = ""


class Site(ABC):
    """A web site with tasks; one instance serves one episode at a time.

    ``begin`` resets its data, ``app`` answers the browser's requests, ``check`` looks at the data
    after every action. Everything random comes from the task, or from the generator.
    """

    @abstractmethod
    def tasks(self, split: str) -> Sequence[str]:
        """Ids of the tasks of a split; a ``LookupError`` for an unknown split."""

    @abstractmethod
    def begin(self, task: str, rng: np.random.Generator) -> Goal:
        """Reset the site's data for a task; a ``LookupError`` for an unknown one."""

    @abstractmethod
    def page(self, path: str, form: dict[str, str] | None) -> str | None:
        """HTML of a page; after a form, None sends the browser back to the page by GET.

        Args:
            path: Such as ``/tickets/3``.
            form: What was submitted; None for a page that is only looked at.
        """

    @abstractmethod
    def check(self, tab: Tab) -> Verdict:
        """How the episode stands."""

    def oracle(self) -> tuple[str, ...] | None:
        """Commands that win from the start, or None."""
        return None

    def app(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """The site as a WSGI application; by default it serves ``page``."""
        path, form = environ.get("PATH_INFO", "/"), None
        if environ["REQUEST_METHOD"] == "POST":
            size = int(environ.get("CONTENT_LENGTH") or 0)
            fields = parse_qs(environ["wsgi.input"].read(size).decode(), keep_blank_values=True)
            form = {name: values[0] for name, values in fields.items()}
        text = self.page(path, form)
        if text is None:
            start_response("303 See Other", [("Location", path)])
            return [b""]
        start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
        return [text.encode()]


def document(title: str, body: str) -> str:
    """An HTML page around a body."""
    return (
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{escape(title)}</title>"
        f"<link rel=icon href='data:,'></head><body>{body}</body></html>"
    )


class Server:
    """Serves an application on a free loopback port until it is closed."""

    def __init__(self, app: Application) -> None:
        self._server = make_server("127.0.0.1", 0, app, _Threads, _Silent)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Free the port."""
        self._server.shutdown()
        self._server.server_close()


class _Threads(ThreadingMixIn, WSGIServer):
    """A thread per request: browsers keep spare connections open."""

    daemon_threads = True


class _Silent(WSGIRequestHandler):
    """Logs nothing."""

    def log_message(self, *arguments: object) -> None:
        """Nothing."""
