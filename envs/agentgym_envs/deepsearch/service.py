"""A search server by Search-R1's protocol: ``POST /retrieve`` (extra ``serve``)."""

from __future__ import annotations

import json
from typing import Any

from agentgym.errors import ConfigError, MissingExtra
from agentgym_envs.deepsearch.corpora import open_corpus
from agentgym_envs.deepsearch.pages import open_encyclopaedia
from agentgym_envs.deepsearch.sources import Hit, Source

_BODY = 2**20
"""Largest request in bytes."""
_QUERIES, _TOPK = 512, 100
"""Most queries of a request, and most documents per query."""


def retrieve(*, corpus: str = "", size: int = 2000, corpus_seed: int = 0, topk: int = 3) -> Any:
    """The ASGI application that searches a corpus; ``agentgym serve retrieve`` runs it.

    Args:
        corpus: A file of documents, or BEIR's folder; the generated encyclopaedia if empty.
        size: Number of its pages.
        corpus_seed: Seed of its facts.
        topk: Default number of documents per query.

    Raises:
        ConfigError: The corpus is missing, or has another format.
        MissingExtra: Starlette is not installed.
    """
    if not 1 <= topk <= _TOPK:
        raise ConfigError(f"topk: got {topk!r}, expected 1 to {_TOPK}")
    return application(
        open_corpus(corpus) if corpus else open_encyclopaedia(size, corpus_seed), topk
    )


def application(source: Source, topk: int = 3) -> Any:
    """An ASGI application over any source.

    ``query`` may replace ``queries``, as in verl-agent's client. An invalid request is answered
    with 422 and the reason under ``detail``.
    """
    try:
        from starlette.applications import Starlette
        from starlette.concurrency import run_in_threadpool
        from starlette.requests import Request
        from starlette.responses import JSONResponse
        from starlette.routing import Route
    except ModuleNotFoundError:
        raise MissingExtra('serving needs Starlette: pip install "agentic-gym[serve]"') from None

    async def answer(request: Request) -> JSONResponse:
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > _BODY:
                return JSONResponse({"detail": f"more than {_BODY} bytes"}, 413)
        try:
            queries, count, scores = _read(bytes(body), topk)
        except ValueError as problem:
            return JSONResponse({"detail": str(problem)}, 422)

        def look() -> list[list[object]]:
            return [
                [_document(hit, scores) for hit in source.search(query, count)] for query in queries
            ]

        return JSONResponse({"result": await run_in_threadpool(look)})

    return Starlette(routes=[Route("/retrieve", answer, methods=["POST"])])


def _read(body: bytes, topk: int) -> tuple[list[str], int, bool]:
    """Queries, number of documents, and whether to return scores.

    Raises:
        ValueError: The body is invalid; the message states what was expected.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("expected a JSON object") from None
    if not isinstance(found, dict):
        raise ValueError("expected a JSON object")
    queries = found["queries"] if "queries" in found else found.get("query")
    if isinstance(queries, str):
        queries = [queries]
    if not isinstance(queries, list) or not all(isinstance(query, str) for query in queries):
        raise ValueError("expected a list of texts under 'queries', or a text under 'query'")
    if len(queries) > _QUERIES:
        raise ValueError(f"expected at most {_QUERIES} queries, got {len(queries)}")
    count, scores = found.get("topk") or topk, found.get("return_scores") or False
    if not isinstance(count, int) or not 1 <= count <= _TOPK:
        raise ValueError(f"expected 1 to {_TOPK} under 'topk'")
    if not isinstance(scores, bool):
        raise ValueError("expected true or false under 'return_scores'")
    return queries, count, scores


def _document(hit: Hit, scores: bool) -> dict[str, object]:
    document: dict[str, object] = {"id": hit.id, "contents": f'"{hit.title}"\n{hit.text}'}
    return {"document": document, "score": hit.score} if scores else document
