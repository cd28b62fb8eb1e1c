"""Texts between tags, such as tool calls: where one holds JSON, the JSON decides where it ends."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import NamedTuple

_DECODER = json.JSONDecoder()
_BLANKS = re.compile(r"\s*")
_MAX_FAILURES = 16


class Span(NamedTuple):
    """Positions of one span; ``end`` and ``after`` are -1 for one that is not closed."""

    before: int
    """Start of the opening tag."""
    start: int
    """Start of the text inside."""
    end: int
    after: int
    """End of the closing tag."""


def spans(text: str, opening: str, closing: str) -> Iterator[Span]:
    r"""Spans between two tags, left to right; one that is not closed is the last.

    A closing tag inside a string of a JSON object does not close the span. Where there is no JSON
    object right before a closing tag, the first closing tag counts. Linear in the length of the
    text: after some spans without JSON, no more is looked for.

    Examples:
        >>> text = '<call>{"a": "</call>"}</call> and <call>1'
        >>> [text[span.start : span.end] for span in spans(text, "<call>", "</call>")][0]
        '{"a": "</call>"}'
    """
    at = failures = 0
    while (before := text.find(opening, at)) >= 0:
        start = before + len(opening)
        end = _json_end(text, start) if failures < _MAX_FAILURES else -1
        if end < 0 or not text.startswith(closing, end):
            failures += 1
            end = text.find(closing, start)
        if end < 0:
            yield Span(before, start, -1, -1)
            return
        at = end + len(closing)
        yield Span(before, start, end, at)


def _json_end(text: str, start: int) -> int:
    """Where a JSON object and the blanks after it end; -1 if there is none."""
    first = _BLANKS.match(text, start)
    begin = first.end() if first else start
    if not text.startswith("{", begin):
        return -1
    try:
        _, end = _DECODER.raw_decode(text, begin)
    except (ValueError, RecursionError):
        return -1
    last = _BLANKS.match(text, end)
    return last.end() if last else end
