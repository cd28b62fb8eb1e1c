"""What passes between a program, the endpoint and the trace: requests, replies, calls."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from agentgym.errors import AgentGymError
from agentgym.rollout.tool_calls import ToolCall
from agentgym.types import Completion

Message = dict[str, Any]
"""A message of OpenAI's chat completions, its content a text."""


class RequestRefused(AgentGymError):
    """A request of a program is not served; the message is sent to it.

    Args:
        message: One line.
        status: Of HTTP.
        code: Of the error, such as ``context_length_exceeded``.
    """

    def __init__(self, message: str, status: int = 400, code: str = "invalid_request") -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Request(NamedTuple):
    """One call of the model, whatever the form in which it was sent.

    Temperature and other parameters of the distribution are not part of it: those of the run hold,
    because training assumes them.
    """

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    """Schemas, in the form of chat completions."""
    max_tokens: int | None = None
    """Longest completion that the program wants, in tokens."""
    stop: tuple[str, ...] = ()
    """Texts that end a completion; the program does not read them."""
    stream: bool = False
    model: str = "policy"
    """Echoed in the reply."""


class Reply(NamedTuple):
    """What the program reads."""

    content: str
    thought: str
    calls: tuple[ToolCall, ...]
    call_ids: tuple[str, ...]
    """Nine letters and digits each, which Mistral's templates demand."""
    finish: Literal["stop", "length", "tool_calls"]
    parsed: bool
    """Calls and thought are well formed."""


@dataclass(frozen=True, slots=True)
class Call:
    """One answered request with its exact tokens."""

    agent: str
    """Name of the agent whose key was used."""
    prompt: tuple[int, ...]
    """All that the engine read."""
    completion: Completion
    reply: Reply
    shown: str
    """Text of the messages that were new in the request."""
    forced: tuple[int, int] = (0, 0)
    """Tokens inserted to end a thought, as in ``Turn``."""
    thought_tokens: int = 0
    seconds: float = math.nan
    """Wall-clock time until the completion was there."""

    @property
    def context(self) -> tuple[int, ...]:
        """Prompt and completion."""
        return self.prompt + self.completion.tokens


class Access(NamedTuple):
    """What a program is given for one episode."""

    base_url: str
    """Address of the model for OpenAI's clients, with ``/v1``."""
    keys: Mapping[str, str]
    """API key of every agent, by its name; the first is that of the program's only agent."""
    world_url: str
    """Address of the episode's world; GET shows how it starts."""
    task: str
    sample: int
    seed: int
    goal: str
    observation: str
    """What the environment shows first."""
    manual: str
    """How to act in the environment."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """Schemas of the environment's tools; none where its actions are texts."""

    @property
    def api_key(self) -> str:
        """Key of the first agent."""
        return next(iter(self.keys.values()))

    @property
    def mcp_url(self) -> str:
        """Address of the environment for MCP clients (streamable HTTP)."""
        return f"{self.world_url}/mcp"
