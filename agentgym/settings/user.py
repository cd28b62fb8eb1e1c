"""Settings of a simulated user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from agentgym.errors import ImpossibleValue
from agentgym.utils.bounds import at_least


@dataclass(frozen=True, kw_only=True)
class UserSettings:
    """A simulated user, whom the agent asks or talks to: a second model, which is not trained."""

    section: ClassVar[str] = "user"

    model: str | None = None
    """Model that plays the user: a Hugging Face folder, hub id or GGUF file, or its name at
    `--user.endpoint`. Unset: there is no user."""
    endpoint: str | None = None
    """Address of an OpenAI-compatible service with that model, without /v1; unset: the model runs
    here. The key is read from AGENTGYM_USER_KEY."""
    partner: bool = False
    """The user is the other speaker, who opens and ends the conversation, instead of a tool,
    `ask_user`. For environments whose actions are tool calls."""
    max_turns: int = 16
    """Messages of the user, after which the conversation is over."""
    end: str = "###STOP###"
    """What the user writes to end the conversation."""
    temperature: float = 1.0
    """Temperature of sampling."""
    max_tokens: int = 256
    """Longest message of the user, in tokens."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        at_least(1, self, "max_turns", "max_tokens")
        at_least(0, self, "temperature")
        if not self.end.strip():
            raise ImpossibleValue("user.end is empty, expected a mark such as ###STOP###")
        if self.model is None and (self.endpoint is not None or self.partner):
            raise ImpossibleValue("a user is played by a model: name it with `--user.model`")

    @property
    def given(self) -> bool:
        """Whether there is a user at all."""
        return self.model is not None
