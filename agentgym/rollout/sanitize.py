"""Text of an environment made fit for a prompt: control tokens of the model are broken up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from agentgym.rollout.prompts import AgentInput, Example
from agentgym.types import Turn


class Sanitizer:
    """Breaks up the special tokens of a tokenizer, which only the chat template may write."""

    def __init__(self, special_tokens: Iterable[str]) -> None:
        self.special = sorted(special_tokens, key=len, reverse=True)

    def text(self, text: str) -> str:
        """One text."""
        text = text.encode(errors="replace").decode()  # Halves of characters have no tokens.
        for token in self.special:
            if token in text:
                text = text.replace(token, f"{token[:1]} {token[1:]}")
        return text

    def input(self, shown: AgentInput) -> AgentInput:
        """All texts that the agent is shown."""
        return shown._replace(
            manual=self.text(shown.manual),
            goal=self.text(shown.goal),
            opening=self.text(shown.opening),
            observation=self.text(shown.observation),
            admissible_actions=tuple(map(self.text, shown.admissible_actions)),
        )

    def turn(self, turn: Turn) -> Turn:
        """Observation and action of a past turn."""
        return replace(turn, observation=self.text(turn.observation), action=self.text(turn.action))

    def example(self, example: Example) -> Example:
        """A solved episode; its completions are the model's own."""
        steps = tuple((done, self.text(observation)) for done, observation in example.steps)
        goal, opening = self.text(example.goal), self.text(example.opening)
        return example._replace(goal=goal, opening=opening, steps=steps)


def without_tool_instructions(shown: AgentInput, *, native: bool) -> AgentInput:
    """The input with instructions about tools once, or not at all for native calls.

    The instructions of the environment show another notation than the model's own, and the chat
    template lists the tools.
    """
    about = shown.tool_instructions
    if not about:
        return shown
    if native or about in shown.goal:
        shown = shown._replace(manual=shown.manual.replace(about, "").strip())
    if native:
        goal = shown.goal.replace(about, "").strip()
        shown = shown._replace(goal=goal, manual=_without_calls(shown.manual, shown.tools))
    return shown


def _without_calls(manual: str, tools: Sequence[Mapping[str, Any]]) -> str:
    """A manual without the lines that show a call in the notation of the environment."""
    marks = ["<tool_call>", *(f"<{tool.get('function', tool).get('name')}>" for tool in tools)]
    lines = [line for line in manual.splitlines() if not any(mark in line for mark in marks)]
    return "\n".join(lines).strip()
