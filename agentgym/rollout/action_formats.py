"""How a completion states its action: tags, a JSON tool call, native tool calls, ReAct, text.

A format reads completions in which thoughts stand between ``<think>`` and ``</think>``; the agent
rewrites the marks of other families, and adds an opening mark that stands in the prompt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from agentgym.env.act import ACT
from agentgym.errors import MalformedAction, did_you_mean
from agentgym.rollout.thoughts import CLOSING, OPENING, answer_of
from agentgym.rollout.tool_calls import (
    HERMES,
    Notation,
    hermes_text,
    read_calls,
    typed,
)
from agentgym.types import ToolCall
from agentgym.utils.spans import spans

_ACTION = re.compile(r"<action>(.*?)</action>", re.DOTALL)


class ActionFormat(Protocol):
    """Parses the action of a completion, and formats an action as a completion."""

    @property
    def instructions(self) -> str:
        """Description of the format, for the system prompt."""

    def parse(self, text: str) -> str:
        """The action in a completion.

        Raises:
            MalformedAction: There is none; the message states what was expected.
        """

    def format(self, action: str) -> str:
        """The completion for ``action``; ``parse`` is the inverse."""


@dataclass(frozen=True, slots=True)
class Tags:
    """``<think>...</think><action>...</action>``, after the verl-agent family.

    Exactly one action is accepted and nothing is guessed: a completion without it, with two, or
    with tags inside the action is malformed.
    """

    think: bool = False
    """A thought before the action is required."""

    @property
    def instructions(self) -> str:
        """One sentence."""
        think = "Reason inside <think> </think>, then give" if self.think else "Give"
        return f"{think} exactly one action inside <action> </action>."

    def parse(self, text: str) -> str:
        """The text between the action tags, stripped."""
        thought, outside = answer_of(text)
        actions = _ACTION.findall(outside)
        if len(actions) != 1 or outside.count("<action>") != 1 or outside.count("</action>") != 1:
            raise MalformedAction(f"Expected one <action>...</action>, got {len(actions)}.")
        if self.think and not thought:
            raise MalformedAction("Expected <think>...</think> before the action.")
        action: str = actions[0].strip()
        if not action:
            raise MalformedAction("The action between <action> and </action> is empty.")
        return action

    def format(self, action: str) -> str:
        """With an empty thought where one is required."""
        thought = f"{OPENING}{CLOSING}" if self.think else ""
        return f"{thought}<action>{action}</action>"


@dataclass(frozen=True, slots=True)
class JsonCall:
    """``<tool_call>{"name": "act", "arguments": {"action": "..."}}</tool_call>``, Hermes style.

    ``arguments`` may be a JSON string, OpenAI's form.
    """

    @property
    def instructions(self) -> str:
        """One sentence with the literal form."""
        return (
            "Act by one tool call: "
            '<tool_call>{"name": "act", "arguments": {"action": "..."}}</tool_call>'
        )

    def parse(self, text: str) -> str:
        """The ``action`` argument of the one call."""
        answer = answer_of(text)[1]
        found = [span for span in spans(answer, "<tool_call>", "</tool_call>") if span.end >= 0]
        calls = [answer[span.start : span.end] for span in found]
        if len(calls) != 1:
            raise MalformedAction(f"Expected one <tool_call>...</tool_call>, got {len(calls)}.")
        return act_argument(HERMES.read(f"<tool_call>{calls[0]}</tool_call>").calls)

    def format(self, action: str) -> str:
        """The one call."""
        call = {"name": "act", "arguments": {"action": action}}
        return f"<tool_call>{json.dumps(call, ensure_ascii=False)}</tool_call>"


def act_argument(calls: Sequence[ToolCall]) -> str:
    """The action that one call of ``act`` carries.

    Raises:
        MalformedAction: It is no single call of ``act`` with a non-empty text.
    """
    if len(calls) != 1:
        raise MalformedAction(f"Expected one call of act, got {len(calls)} calls.")
    if calls[0].name != "act":
        raise MalformedAction('The tool call must be an object with "name": "act".')
    action = calls[0].arguments.get("action")
    if not isinstance(action, str) or not action.strip():
        raise MalformedAction('"arguments" must be {"action": "..."} with a non-empty string.')
    return action.strip()


@dataclass(frozen=True, slots=True)
class Plain:
    """Everything after the thoughts is the action: for environments that read tool calls."""

    @property
    def instructions(self) -> str:
        """One sentence."""
        return "Everything you write after </think>, or without thoughts, is carried out."

    def parse(self, text: str) -> str:
        """What follows the last ``</think>``, stripped."""
        answer = text.rpartition(CLOSING)[2].strip()
        if OPENING in answer:
            raise MalformedAction(f"The thought is not closed: write {CLOSING} after it.")
        if not answer:
            raise MalformedAction("Expected an action, got nothing.")
        return answer

    def format(self, action: str) -> str:
        """The action as it is."""
        return action


_REACT = re.compile(r"^[ \t>]*Action:[ \t]*\n?[ \t]*(.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ReAct:
    """``Thought: ...`` and ``Action: ...`` lines, after ReAct (arXiv:2210.03629) and AgentGym.

    AgentGym writes thought and action on lines of their own below these words.
    """

    @property
    def instructions(self) -> str:
        """One sentence with the literal form."""
        return 'Write a line "Thought: ..." with your reasoning, then a line "Action: ...".'

    def parse(self, text: str) -> str:
        """The text after the one ``Action:``, on its line or on the next."""
        actions: list[str] = [found.strip() for found in _REACT.findall(answer_of(text)[1])]
        if len(actions) != 1:
            raise MalformedAction(f"Expected one line 'Action: ...', got {len(actions)}.")
        if not actions[0]:
            raise MalformedAction("The action after 'Action:' is empty.")
        return actions[0]

    def format(self, action: str) -> str:
        """The line of the action alone."""
        return f"Action: {' '.join(action.split())}"


@dataclass(frozen=True, slots=True)
class NativeCalls:
    """Tool calls in the notation of the model; the chat template describes the tools.

    An environment with text actions is one tool, ``act(action)``. An environment that lists tools
    in ``info["tools"]`` receives its calls as Hermes JSON, whatever the model wrote; where ``act``
    is one of them, a call of it alone is a text action.
    """

    notation: Notation = HERMES
    described: bool = True
    """The chat template describes tools to the model; else the instructions do."""

    @property
    def instructions(self) -> str:
        """For an environment with text actions."""
        return self.describe((ACT,))

    def describe(self, tools: Sequence[Mapping[str, Any]]) -> str:
        """One sentence, with schemas and the form of a call where the template shows none."""
        if self.described:
            return "Act by calling a tool."
        schemas = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
        return f"Act by calling a tool. Tools:\n{schemas}\nA call: {self.notation.example}"

    def parse(self, text: str) -> str:
        """The action of an environment with text actions."""
        return self.parse_calls(text, (ACT,))[0]

    def parse_calls(
        self, text: str, tools: Sequence[Mapping[str, Any]]
    ) -> tuple[str, tuple[ToolCall, ...]]:
        """The action that the environment receives, and the calls.

        Args:
            text: A completion.
            tools: Schemas of the tools that the model was shown.

        Raises:
            MalformedAction: There is no call, or not one of these tools.
        """
        calls = read_calls(answer_of(text)[1], self.notation).calls
        names = [str(tool.get("function", tool).get("name")) for tool in tools]
        for call in calls:
            if call.name not in names:
                hint = did_you_mean(call.name[:80], names)
                raise MalformedAction(
                    f"There is no tool {call.name[:80]!r}.{hint} Tools: {', '.join(names)}."
                )
        if [call.name for call in calls] == ["act"] or names == ["act"]:
            return act_argument(calls), calls
        calls = tuple(typed(call, tools) for call in calls)
        return hermes_text(calls), calls

    def format(self, action: str) -> str:
        """Hermes text; the agent prefers the writing of the chat template."""
        return hermes_text([ToolCall("act", {"action": action})])
