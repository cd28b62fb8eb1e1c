"""Who plays a simulated user: a model at an endpoint, or any function of messages and a seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from agentgym.errors import EnvError
from agentgym.tools.http import HttpClient, RetryPolicy

Message = dict[str, str]
"""Role and content."""


class Reply(NamedTuple):
    """One message of a speaker, with its cost."""

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Speaker(Protocol):
    """A model that speaks; called from the thread of an environment."""

    def __call__(self, messages: Sequence[Message], seed: int) -> Reply:
        """The next message of the assistant's role.

        Raises:
            EnvError: There is none.
        """


class EndpointSpeaker:
    """A model behind an endpoint with OpenAI's chat completions; needs the extra ``http``.

    Args:
        url: With its version, such as ``http://127.0.0.1:8000/v1``.
        model: Its name there.
        key: API key; none is sent unless given.
        temperature: Of sampling.
        max_tokens: Longest message, in tokens.
        client: Sends the requests; its cache can replay them.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key: str = "",
        temperature: float = 1.0,
        max_tokens: int = 256,
        client: HttpClient | None = None,
    ) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.client = client or HttpClient(retry=RetryPolicy(deadline=120.0), headers=headers)
        self.url, self.model = url.rstrip("/"), model
        self.temperature, self.max_tokens = temperature, max_tokens

    def __call__(self, messages: Sequence[Message], seed: int) -> Reply:
        """Ask the endpoint.

        Raises:
            EnvError: It cannot be reached, refuses, or answers something else.
        """
        body = {
            "model": self.model,
            "messages": list(messages),
            "seed": seed % 2**31,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }
        answer = self.client.post(f"{self.url}/chat/completions", body)
        shown = " ".join(answer.text.split())[:200]
        if answer.status >= 400:
            raise EnvError(
                f"the user's model at {self.url} refused with status {answer.status}: {shown}"
            )
        found = answer.json()
        try:
            text, usage = found["choices"][0]["message"]["content"], found.get("usage") or {}
            counts = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
            return Reply(str(text or ""), *map(int, counts))
        except (AttributeError, LookupError, TypeError, ValueError):
            raise EnvError(
                f"the user's model at {self.url} sent no chat completion: {shown}"
            ) from None
