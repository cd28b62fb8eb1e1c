"""A language model behind an OpenAI-compatible endpoint that judges by a rubric."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from agentgym.engines.chat import api_root
from agentgym.engines.endpoint import Endpoint
from agentgym.errors import MalformedAnswer, RequestRejected
from agentgym.evaluation.records import EpisodeRecord
from agentgym.scoring.rubric import Rubric, transcript
from agentgym.scoring.scorer import Score, Unscored

_OF_THIS_EPISODE = (400, 413, 422)
"""HTTP statuses of a request that is too long or against a rule; others concern all requests."""
ASKED = 3
"""Times that a judge is asked for a verdict that can be read."""


@dataclass(eq=False)
class Judge:
    """Asks for one JSON verdict per episode; waits, retries and rate limits are the endpoint's.

    A service that does not know ``response_format`` is asked without it.
    """

    rubric: Rubric
    endpoint: Endpoint
    model: str
    concurrency: int = 8
    """Requests in flight."""
    max_tokens: int = 1024
    """Longest answer, in tokens."""
    _fields: dict[str, Any] = field(
        default_factory=lambda: {"temperature": 0.0, "response_format": {"type": "json_object"}}
    )
    """Fields that the service may refuse."""
    _slots: tuple[Any, asyncio.Semaphore] | None = None

    @property
    def name(self) -> str:
        """The name of the model."""
        return f"judge:{self.model}"

    async def score(self, episode: EpisodeRecord) -> Score:
        """Judge an episode.

        Raises:
            Unscored: Several answers in a row were no verdict.
            EngineError: The service gave no answer in time, or refused the request.
        """
        reason = ""
        async with self._slot():
            for _ in range(ASKED):
                try:
                    return self.rubric.read(await self._ask(episode, reason))
                except (ValueError, RecursionError) as problem:
                    reason = " ".join(str(problem).split())[:200]
                except MalformedAnswer as problem:
                    raise Unscored(str(problem)) from problem
                except RequestRejected as problem:
                    if problem.status not in _OF_THIS_EPISODE:
                        raise
                    raise Unscored(str(problem)) from problem
        raise Unscored(f"{ASKED} answers of {self.model} were no verdict; the last: {reason}")

    async def _ask(self, episode: EpisodeRecord, reason: str) -> str:
        again = f"\n\nYour last answer could not be read: {reason}." if reason else ""
        text = f"Episode:\n{transcript(episode)}{again}".encode(errors="replace").decode()
        messages = [
            {"role": "system", "content": self.rubric.system},
            {"role": "user", "content": text},
        ]
        path = f"{api_root(self.endpoint.url)}/chat/completions"
        while True:
            body = {"model": self.model, "messages": messages, "max_tokens": self.max_tokens}
            try:
                return await self.endpoint.post(path, body | self._fields, _content)
            except RequestRejected as problem:
                reported = f"{problem.param} {problem}"
                refused = [name for name in self._fields if name in reported]
                if not refused:
                    raise
                self._fields = {k: v for k, v in self._fields.items() if k not in refused}

    def _slot(self) -> asyncio.Semaphore:
        """One of the slots for requests; they belong to the running event loop."""
        loop = asyncio.get_running_loop()
        if self._slots is None or self._slots[0] is not loop:
            self._slots = loop, asyncio.Semaphore(self.concurrency)
        return self._slots[1]


def _content(answer: Any) -> str:
    """The text of the first choice; a refusal is a text like any other."""
    message = answer["choices"][0]["message"]
    text = message.get("content") or message.get("refusal") or ""
    if not isinstance(text, str):
        raise TypeError("the content is no text")
    return text
