"""What is read of an HTTP request: its key and its body."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from agentgym.programs.values import RequestRefused

if TYPE_CHECKING:
    from starlette.requests import Request

LARGEST = 32 * 2**20
"""Bytes of a request."""


def bearer(http: Request) -> str:
    """The key of a request, as OpenAI's or as Anthropic's clients send it."""
    kind, _, key = http.headers.get("authorization", "").partition(" ")
    return key if kind.lower() == "bearer" else http.headers.get("x-api-key", "")


async def json_body(http: Request) -> dict[str, Any]:
    """The body, a JSON object.

    Raises:
        RequestRefused: It is none, or too large.
    """
    body = bytearray()
    async for part in http.stream():
        body += part
        if len(body) > LARGEST:
            raise RequestRefused(f"the request has more than {LARGEST >> 20} MiB", 413, "too_large")
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestRefused("the body is not JSON") from None
    if not isinstance(found, dict):
        raise RequestRefused("the body is not a JSON object")
    if b"\\ud" in body.lower():
        _refuse_half_characters(found)
    return found


def _refuse_half_characters(body: dict[str, Any]) -> None:
    """Refuse halves of surrogate pairs, which have no tokens."""
    try:
        json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise RequestRefused("the body contains half of a surrogate pair") from None
