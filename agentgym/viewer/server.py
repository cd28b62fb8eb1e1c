"""The page over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from agentgym.utils.access import Access

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
"""Nothing is loaded from anywhere, even if a page could be tricked into trying."""


def server(make: Callable[[], str], host: str, port: int) -> ThreadingHTTPServer:
    """A server of the page that ``make`` returns; it is made for every visit.

    Raises:
        OSError: The address is in use.
        ConfigError: Other machines could reach it, and there is no token.
    """
    access = Access.of(host)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = access.reply("GET", self.path, headers)
            known = self.path.partition("?")[0] == "/"
            if reply is not None:
                status, body = reply.status, reply.body
            else:
                status, body = (200, make().encode()) if known else (404, b"not found")
            self.send_response(status)
            for name, value in reply.headers if reply is not None else ():
                self.send_header(name, value)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Security-Policy", POLICY)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    return ThreadingHTTPServer((host, port), Handler)
