"""How episodes are played: the agent, limits, panels, chat endpoints."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from agentgym.errors import ImpossibleValue
from agentgym.utils.bounds import above, at_least

# Parsed in this order: everything is a valid string.
Value = int | float | bool | str


ActionFormatName = Literal["tags", "think", "json", "native", "react", "plain"]
"""Name of an action format."""


@dataclass(frozen=True, kw_only=True)
class AgentSettings:
    """How the agent reads observations and writes actions."""

    section: ClassVar[str] = "agent"

    action_format: ActionFormatName | None = None
    """How a completion states its action: in tags, in tags after a required thought, as a JSON
    call, as a tool call in the model's own notation (native), in ReAct lines, or as plain text.
    Unset: what `--agent.prompt` takes; else native in an environment of tools with a chat endpoint,
    or a chat template that describes tools; else tags."""
    tool_notation: str | None = None
    """Notation of native tool calls, such as hermes or qwen-xml; unset: that of the chat
    template."""
    prompt: Literal["default", "react", "verl-agent", "agentgym"] = "default"
    """Layout of the prompts: our own, or that of a published baseline with its window, action
    format, examples and list of admissible actions."""
    examples: int | None = None
    """Training tasks that the oracle solves in the prompt; unset: as many as `--agent.prompt`
    takes."""
    window: int | None = None
    """Past exchanges in the prompt of each turn, which is then a fresh one; unset: the conversation
    keeps growing, or what the layout of the prompts takes."""
    history: Literal["append", "rerender"] = "append"
    """How a conversation grows: append to what was sampled, or render all messages again, as the
    chat template wants; a turn that the template rewrites starts a new row."""
    chat_template: str | None = None
    """Jinja file of the chat template, or `plain` for a base model, which has none; unset: that of
    the tokenizer."""
    template_args: dict[str, Value] = field(default_factory=dict)
    """Variables of the chat template, such as `enable_thinking false`."""
    system_prompt: str | None = None
    """System prompt; unset: the manual of the environment and the instructions of the action
    format. The chat template of a model made from scratch leaves it out."""
    show_admissible: bool | None = None
    """Show the admissible actions in every turn; unset: what `--agent.prompt` takes."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        at_least(0, self, "window", "examples")


@dataclass(frozen=True, kw_only=True)
class RolloutSettings:
    """How episodes are played."""

    section: ClassVar[str] = "rollout"

    max_turns: int | None = None
    """Turns after which an episode is truncated; unset: the limit that the environment registers,
    or 50 where it registers none."""
    max_context_tokens: int = 4096
    """Longest context of an episode, prompts and completions together, in tokens."""
    max_completion_tokens: int = 32
    """Longest completion of one turn, in tokens."""
    max_thought_tokens: int | None = None
    """Longest thought of a completion, in tokens; a longer one is closed for the model, and the
    completion continues. Unset: no limit of its own."""
    temperature: float = 1.0
    """Sampling temperature; 0 is greedy, for evaluation only."""
    max_seconds: float | None = None
    """Wall-clock seconds after which an episode is truncated, waiting included; unset: no limit."""
    concurrency: int = 64
    """Episodes in flight."""
    workers: int = 0
    """Processes that run environments, each many of them; 0 runs them in this process."""
    env_timeout: float = 60.0
    """Seconds an environment has to answer. In a worker process a late one ends its episode as
    ``tool_timeout``, and the episode is played again. In this process it cannot be stopped, and a
    warning names it."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        at_least(1, self, "max_turns", "max_completion_tokens", "concurrency")
        at_least(1, self, "max_thought_tokens")
        at_least(0, self, "workers", "temperature")
        above(0, self, "max_seconds", "env_timeout")
        if self.max_context_tokens <= self.max_completion_tokens:
            raise ImpossibleValue(
                f"rollout.max_context_tokens is {self.max_context_tokens}, expected more than "
                f"rollout.max_completion_tokens, which is {self.max_completion_tokens}"
            )


@dataclass(frozen=True, kw_only=True)
class PanelSettings:
    """The frozen panel of tasks that an evaluation plays."""

    section: ClassVar[str] = "panel"

    split: str = "test"
    """Split that the tasks come from."""
    tasks: int = 64
    """Number of tasks: the first ones of the split."""
    episodes: int = 8
    """Episodes per task; the largest k of pass@k."""
    temperature: float | None = None
    """Sampling temperature of evaluation; 0 is greedy; unset: rollout.temperature."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        at_least(1, self, "tasks", "episodes")
        at_least(0, self, "temperature")


@dataclass(frozen=True, kw_only=True)
class EndpointSettings:
    """How a chat endpoint (`--engine openai`) is used."""

    section: ClassVar[str] = "endpoint"

    fields: dict[str, Value] = field(default_factory=dict)
    """Further fields of every request, such as `reasoning_effort low`."""
    deadline: float = 600.0
    """Seconds until a request must be answered, retries included."""
    prompt_price: float = 0.0
    """Dollars per million prompt tokens, for the reported cost."""
    completion_price: float = 0.0
    """Dollars per million completion tokens, for the reported cost."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        at_least(0, self, "prompt_price", "completion_price")
        above(0, self, "deadline")
