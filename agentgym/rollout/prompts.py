"""What the agent puts into its prompts: our own layout, and those of published baselines.

The layouts follow the structure that the sources publish; the wording is this project's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from agentgym.types import Turn


class AgentInput(NamedTuple):
    """What the agent is shown this turn."""

    goal: str
    opening: str
    """First observation of the episode."""
    observation: str
    admissible_actions: tuple[str, ...] = ()
    """Admissible actions, where the environment is asked to list them."""
    manual: str = ""
    """How to act in this environment: the same for every task."""
    tools: tuple[dict[str, Any], ...] = ()
    """Schemas of the tools that the environment takes calls of; none: actions are text."""
    tool_instructions: str = ""
    """The part of goal and manual that describes the tools and their notation."""


class Example(NamedTuple):
    """One solved episode to show in the prompt."""

    goal: str
    opening: str
    steps: tuple[tuple[str, str], ...]
    """Completion and the observation that followed it."""


def _actions(shown: AgentInput) -> list[str]:
    listed = ", ".join(shown.admissible_actions)
    return [f"Actions: {listed}"] if listed else []


def _examples(examples: Sequence[Example]) -> list[str]:
    found = []
    for number, example in enumerate(examples, 1):
        lines = [f"Example {number}", f"Task: {example.goal}", example.opening]
        for completion, observation in example.steps:
            lines += [completion, observation]
        found.append("\n".join(lines))
    return found


@dataclass(frozen=True)
class PromptLayout:
    """Manual and action format in the system prompt, goal and observation in the first turn."""

    window: int | None = None
    """Exchanges in a fresh prompt each turn; None: the conversation grows."""
    acknowledgement: str = ""
    """Reply of the assistant to an instruction turn; empty: instructions are a system prompt."""

    def system(self, manual: str, instructions: str, examples: Sequence[Example]) -> str:
        """Manual, examples, action format."""
        parts = [manual, *_examples(examples), instructions]
        return "\n\n".join(part for part in parts if part)

    def first(self, shown: AgentInput) -> str:
        """The goal, unless the observation contains it, and the observation."""
        goal = [] if shown.goal in shown.observation else [shown.goal]
        return "\n".join([*goal, shown.observation, *_actions(shown)])

    def next(self, shown: AgentInput) -> str:
        """The observation."""
        return "\n".join([shown.observation, *_actions(shown)])

    def windowed(self, shown: AgentInput, turns: Sequence[Turn], window: int) -> str:
        """The goal, the numbered exchanges, the current observation."""
        if not turns:
            return self.first(shown)
        lines = [shown.goal]
        for number, observation, action in history(shown, turns, window):
            lines += [f"[{number}] {observation}", f"> {action}"]
        return "\n".join([*lines, f"[{len(turns) + 1}] {self.next(shown)}"])


def history(shown: AgentInput, turns: Sequence[Turn], window: int) -> list[tuple[int, str, str]]:
    """Number, observation and action of the last ``window`` turns; numbers start at 1."""
    seen = [shown.opening, *(turn.observation for turn in turns)]
    first = max(0, len(turns) - window)
    return [(n + 1, seen[n], turns[n].action or "(no action)") for n in range(first, len(turns))]


@dataclass(frozen=True)
class ReActLayout(PromptLayout):
    """Few-shot ReAct: worked episodes of thoughts, actions and observations in one prompt.

    Differs from the original in one point: a thought and its action share a turn, where ReAct
    takes a turn for each thought and answers it with "OK.".

    Source:
        Yao et al., ReAct (arXiv:2210.03629), appendix C: one to two examples per task type.
    """

    def system(self, manual: str, instructions: str, examples: Sequence[Example]) -> str:
        """Manual, instruction, examples."""
        task = "Solve the task step by step: alternate reasoning and acting."
        return "\n\n".join(p for p in [manual, f"{task} {instructions}", *_examples(examples)] if p)

    def first(self, shown: AgentInput) -> str:
        """Observation, then the task, as in the ALFWorld prompt."""
        task = [] if shown.goal in shown.observation else [f"Your task: {shown.goal}"]
        return "\n".join([shown.observation, *task, *_actions(shown)])


@dataclass(frozen=True)
class VerlAgentLayout(PromptLayout):
    """One fresh prompt per turn: task, step count, last exchanges, admissible actions.

    Source:
        verl-agent (GiGPO, arXiv:2505.10978); SPEAR and EPO (arXiv:2509.22576) use the same. The
        history holds 2 exchanges (4 for search).
    """

    window: int | None = 2

    def windowed(self, shown: AgentInput, turns: Sequence[Turn], window: int) -> str:
        """Without history in the first turn."""
        parts = [f"Task: {shown.goal}"]
        if turns:
            recent = history(shown, turns, window)
            parts.append(
                f"Steps taken: {len(turns)}. The last {len(recent)} observations and actions:"
            )
            parts += [
                f"[Observation {n}: {observation!r}, Action {n}: {action!r}]"
                for n, observation, action in recent
            ]
        parts.append(f"Current step: {len(turns) + 1}. Observation: {shown.observation}")
        if shown.admissible_actions:
            listed = "\n".join(f"'{a}'" for a in shown.admissible_actions if a != "help")
            parts.append(f"Admissible actions: [\n{listed}\n]")
        return "\n".join(parts)


@dataclass(frozen=True)
class AgentGymLayout(PromptLayout):
    """An instruction turn, an acknowledging reply, then Thought and Action lines.

    Source:
        AgentGym (arXiv:2406.04151) and AgentGym-RL (arXiv:2509.08755).
    """

    acknowledgement: str = "OK. I will follow these instructions."


LAYOUTS: dict[str, PromptLayout] = {
    "default": PromptLayout(),
    "react": ReActLayout(),
    "verl-agent": VerlAgentLayout(),
    "agentgym": AgentGymLayout(),
}
"""The layouts by the names of ``AgentSettings.prompt``."""
