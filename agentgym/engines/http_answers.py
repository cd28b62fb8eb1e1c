"""What a service answered: a value, a reason to try again, or a refusal."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx

from agentgym.errors import AgentGymError, RequestRejected

T = TypeVar("T")

RETRY_STATUSES = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""HTTP statuses after which the same request may succeed."""
MALFORMED = (AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What parsing an unexpected answer raises."""
NO_RETRY_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
"""Error codes of status 429 that no waiting changes."""


class RetryableError(Exception):
    """An answer after which another try may succeed, in at least ``delay`` seconds."""

    def __init__(self, reason: str, delay: float, *, malformed: bool = False) -> None:
        super().__init__(reason)
        self.delay, self.malformed = delay, malformed


def read_answer(answer: httpx.Response, parse: Callable[[Any], T]) -> T:
    """What ``parse`` makes of the decoded answer.

    Raises:
        RetryableError: The service is busy or failed, or the answer is not as expected.
        RequestRejected: The service refused the request; another try would not help.
    """
    status = answer.status_code
    retry = status in RETRY_STATUSES
    if retry or answer.is_error or answer.is_redirect:
        reason, code, param = _reason(answer)
        if retry and code not in NO_RETRY_CODES:
            raise RetryableError(f"status {status}: {reason}", _retry_after(answer))
        line = f"{answer.request.url} refused the request with status {status}: {reason}"
        raise RequestRejected(line, status, code=code, param=param)
    try:
        return parse(answer.json() if answer.content else None)
    except AgentGymError:
        raise
    except MALFORMED as problem:
        reason = f"not the expected answer ({describe(problem)})"
        raise RetryableError(reason, 0.0, malformed=True) from problem


def is_web_page(answer: httpx.Response) -> bool:
    """Whether it is no answer of an API, though the service works."""
    return answer.content[:1] == b"<" and answer.status_code not in RETRY_STATUSES


def _retry_after(answer: httpx.Response) -> float:
    """Seconds that the service asks to wait: ``retry-after-ms``, or seconds or a date; else 0."""
    text = answer.headers.get("retry-after", "0")
    try:
        if "retry-after-ms" in answer.headers:
            return max(0.0, float(answer.headers["retry-after-ms"]) / 1000)
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return 0.0


def _reason(answer: httpx.Response) -> tuple[str, str, str]:
    """Message, code and parameter of a failure, in OpenAI's form, FastAPI's, or any other."""
    error: Any = None
    try:
        found = answer.json()
        error = found.get("error", found.get("detail", found))
        reason = error["message"] if isinstance(error, dict) else error
    except (AttributeError, KeyError, ValueError):
        reason = answer.text
    fields = error if isinstance(error, dict) else {}
    line = " ".join(str(reason).split())[:300] or "no reason given"
    return line, str(fields.get("code") or ""), str(fields.get("param") or "")


def describe(problem: Exception) -> str:
    """Kind and message of an exception, in one line."""
    text = " ".join(str(problem).split())[:300]
    return f"{type(problem).__name__}: {text}" if text else type(problem).__name__
