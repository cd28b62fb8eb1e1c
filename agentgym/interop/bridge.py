"""A chat endpoint with our agent as its model: libraries that call a model play an episode of ours.

A request to the endpoint becomes an observation, the next action becomes its completion. It listens
on loopback, with a key that is made for it.
"""

from __future__ import annotations

import json
import queue
import secrets
import threading
import time
from concurrent.futures import Future
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from agentgym.errors import EnvError, EnvTimeout
from agentgym.tools.calls import HermesCalls
from agentgym.utils.access import same

_LARGEST = 1 << 24
"""Bytes of the largest request that is read."""
_POLL = 0.02
"""Seconds between two looks at whether the episode has ended."""


class Asked(NamedTuple):
    """A request of the library, and where its completion goes."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    answer: Future[str]


class Bridge:
    """An OpenAI-compatible endpoint, ``/v1/chat/completions``, without streaming."""

    def __init__(self) -> None:
        """Listen on a free port of loopback."""
        self.key = secrets.token_urlsafe(24)
        self._asked: queue.Queue[Asked] = queue.Queue()
        self._open: Asked | None = None
        bridge = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                bridge._serve(self)

            def log_message(self, format: str, *arguments: Any) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def next(self, running: Future[Any], timeout: float) -> Asked | None:
        """The next request; None when the episode has ended without one.

        Args:
            running: The episode.
            timeout: Seconds to wait.

        Raises:
            EnvTimeout: Neither came in time.
        """
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            try:
                self._open = self._asked.get(timeout=_POLL)
                return self._open
            except queue.Empty:
                if running.done():
                    return None
        raise EnvTimeout(f"neither a request nor the end of the episode came within {timeout:g} s")

    def answer(self, action: str) -> None:
        """The completion of the request that is open.

        Raises:
            EnvError: None is.
        """
        asked, self._open = self._open, None
        if asked is None:
            raise EnvError("the episode is over: reset starts another")
        asked.answer.set_result(action)

    def close(self) -> None:
        """Stop listening; a request that is open is refused."""
        if self._open is not None:
            self._open.answer.cancel()
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        given = handler.headers.get("Authorization", "").removeprefix("Bearer ")
        size = int(handler.headers.get("Content-Length") or 0)
        if not same(given, self.key) or size > _LARGEST:
            return _send(handler, 401, {"error": {"message": "wrong key"}})
        try:
            body = json.loads(handler.rfile.read(size))
            asked = Asked(body["messages"], body.get("tools") or [], Future())
        except (ValueError, KeyError, TypeError) as problem:
            return _send(handler, 400, {"error": {"message": f"no request: {problem!r}"}})
        self._asked.put(asked)
        try:
            action = asked.answer.result()
        except BaseException:  # Cancelled: the episode was left.
            return _send(handler, 503, {"error": {"message": "the episode was closed"}})
        return _send(handler, 200, _completion(action, str(body.get("model", ""))))


def _completion(action: str, model: str) -> dict[str, Any]:
    calls = [call for call in HermesCalls().parse(action, ()) if not call.problem]
    message: dict[str, Any] = {"role": "assistant", "content": action}
    if calls:
        message["content"] = action.partition("<tool_call>")[0].strip() or None
        message["tool_calls"] = [
            {
                "id": f"call_{secrets.token_hex(8)}",
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments))},
            }
            for call in calls
        ]
    ended = "tool_calls" if calls else "stop"
    return {
        "id": f"chatcmpl-{secrets.token_hex(8)}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": ended}],
        "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    }


def _send(handler: BaseHTTPRequestHandler, status: int, value: Any) -> None:
    data = json.dumps(value).encode()
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)
