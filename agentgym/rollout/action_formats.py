"""How an action is written in a completion: tags, a JSON tool call, or all that is said."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Protocol

from agentgym.errors import MalformedAction

_ACTION = re.compile(r"<action>(.*?)</action>", re.DOTALL)
_THINK = re.compile(r"<think>.*?</think>", re.DOTALL)
THOUGHT_END = "</think>"
"""What closes the thought before an action, in every format."""

_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)


class ActionFormat(Protocol):
    """Reads the action out of a completion's text, and writes one into it."""

    @property
    def instructions(self) -> str:
        """What the agent is told about the format."""

    def parse(self, text: str) -> str:
        """The action in a completion.

        Raises:
            MalformedAction: There is none; the message tells the agent what was expected.
        """

    def format(self, action: str) -> str:
        """The completion that says ``action``; ``parse`` is the inverse."""


@dataclass(frozen=True, slots=True)
class Tags:
    """``<think>...</think><action>...</action>``, after the verl-agent family.

    Exactly one action is accepted and nothing is guessed: a completion without it, with two, or
    with tags inside the action is malformed.
    """

    think: bool = False
    """A ``<think>`` part before the action is required."""

    @property
    def instructions(self) -> str:
        """One sentence."""
        think = "Reason inside <think> </think>, then give" if self.think else "Give"
        return f"{think} exactly one action inside <action> </action>."

    def parse(self, text: str) -> str:
        """The text between the action tags, stripped."""
        thoughts = _THINK.search(text)
        outside = _THINK.sub("", text)
        actions = _ACTION.findall(outside)
        if len(actions) != 1 or outside.count("<action>") != 1 or outside.count("</action>") != 1:
            raise MalformedAction(f"Expected one <action>...</action>, got {len(actions)}.")
        if self.think and thoughts is None:
            raise MalformedAction("Expected <think>...</think> before the action.")
        action: str = actions[0].strip()
        if not action:
            raise MalformedAction("The action between <action> and </action> is empty.")
        return action

    def format(self, action: str) -> str:
        """With an empty thought where one is required."""
        return f"{'<think></think>' if self.think else ''}<action>{action}</action>"


@dataclass(frozen=True, slots=True)
class JsonCall:
    """``<tool_call>{"name": "act", "arguments": {"action": "..."}}</tool_call>``, Hermes style."""

    @property
    def instructions(self) -> str:
        """One sentence with the literal form."""
        return (
            "Act by one tool call: "
            '<tool_call>{"name": "act", "arguments": {"action": "..."}}</tool_call>'
        )

    def parse(self, text: str) -> str:
        """The ``action`` argument of the one call."""
        calls = _CALL.findall(_THINK.sub("", text))
        if len(calls) != 1:
            raise MalformedAction(f"Expected one <tool_call>...</tool_call>, got {len(calls)}.")
        try:
            call = json.loads(calls[0])
        except (ValueError, RecursionError) as problem:
            raise MalformedAction(f"The tool call is not JSON: {problem}.") from None
        if not isinstance(call, dict) or call.get("name") != "act":
            raise MalformedAction('The tool call must be an object with "name": "act".')
        arguments = call.get("arguments")
        action = arguments.get("action") if isinstance(arguments, dict) else None
        if not isinstance(action, str) or not action.strip():
            raise MalformedAction('"arguments" must be {"action": "..."} with a non-empty string.')
        if any("\ud800" <= letter <= "\udfff" for letter in action):
            # JSON can escape halves of characters, which no encoding can write down again.
            raise MalformedAction("The action holds half of a surrogate pair.")
        return action.strip()

    def format(self, action: str) -> str:
        """The one call."""
        call = {"name": "act", "arguments": {"action": action}}
        return f"<tool_call>{json.dumps(call, ensure_ascii=False)}</tool_call>"


@dataclass(frozen=True, slots=True)
class Plain:
    """Everything said after the thoughts is the action: for worlds of tools, which read calls."""

    @property
    def instructions(self) -> str:
        """One sentence."""
        return "Everything you write after </think>, or without thoughts, is carried out."

    def parse(self, text: str) -> str:
        """What follows the last ``</think>``, stripped."""
        said = text.rpartition("</think>")[2].strip()
        if "<think>" in said:
            raise MalformedAction("The thoughts after <think> are not closed by </think>.")
        if not said:
            raise MalformedAction("Expected an action, got nothing.")
        return said

    def format(self, action: str) -> str:
        """The action as it is."""
        return action
