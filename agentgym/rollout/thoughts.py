"""Thoughts in completions: how model families mark them, and where they end."""

from __future__ import annotations

import re
from typing import NamedTuple

from agentgym.errors import MalformedAction

OPENING, CLOSING = "<think>", "</think>"
"""The marks that action formats read; those of other families are rewritten to them."""


class ThoughtMarkers(NamedTuple):
    """How a family of models marks a thought."""

    opening: str
    closing: str
    answer: str = ""
    """What a model writes between the end of a thought and its answer."""
    forced: str = ""
    """What closes a thought that runs too long; ``closing`` if empty."""

    def last_opening(self, text: str) -> int:
        """Position of the last opening mark; -1 for none."""
        return text.rfind(self.opening)

    def is_open(self, text: str) -> bool:
        """The text ends inside a thought."""
        return self.last_opening(text) > text.rfind(self.closing)

    def split(self, text: str, *, opened: bool) -> tuple[str | None, str, bool]:
        """Thought, answer, and whether the thought was closed.

        Args:
            text: A completion.
            opened: The prompt has opened the thought.

        Returns:
            The leading thought (None without one), the rest, and False for an unclosed thought.
        """
        start, end = text.find(self.opening), text.find(self.closing)
        if opened or 0 <= end < start or (start < 0 <= end):
            # The opening mark stands in the prompt; a model may repeat it.
            start = 0
            inside = len(self.opening) if text.startswith(self.opening) else 0
        elif start < 0:
            return None, text, True
        else:
            inside = start + len(self.opening)
        before, end = text[:start], text.find(self.closing, inside)
        if end < 0:
            return text[inside:], before, False
        return text[inside:end], before + text[end + len(self.closing) :], True

    def closed(self, thought: str) -> str:
        """A thought with its closing mark, after an opening mark, as models of the family write."""
        blank = "\n" if self.opening == OPENING else ""
        return f"{blank}{thought}{blank}{self.closing}{2 * blank}"

    @property
    def cut(self) -> str:
        """What is inserted to end a thought that runs too long."""
        return self.forced or f"\n{self.closing}\n\n"


THINK = ThoughtMarkers(OPENING, CLOSING)
_QWEN = (
    "\n\nConsidering the limited time by the user, I have to give the solution based on the "
    "thinking directly now.\n</think>\n\n"
)
"""The early-stopping prompt of Qwen3 (Qwen3 technical report, arXiv:2505.09388, section 4.3)."""

_FAMILIES = (
    ThoughtMarkers(
        "<|channel|>analysis<|message|>",
        "<|end|>",
        answer="<|start|>assistant<|channel|>final<|message|>",
        forced="<|end|><|start|>assistant<|channel|>final<|message|>",
    ),
    ThoughtMarkers("<|channel>thought\n", "<channel|>", forced="\n<channel|>"),
    ThoughtMarkers(
        " to=self<|message|>",
        "<|eom|>",
        answer="<|start|>assistant to=user<|message|>",
        forced="<|eom|><|start|>assistant to=user<|message|>",
    ),
    ThoughtMarkers("[THINK]", "[/THINK]"),
    ThoughtMarkers("<|START_THINKING|>", "<|END_THINKING|>"),
    ThoughtMarkers("<seed:think>", "</seed:think>"),
)


def thought_markers(template: str) -> ThoughtMarkers:
    """The markers that a chat template shows; ``<think>`` unless it shows others."""
    compact = template.replace("\\n", "\n")
    for markers in _FAMILIES:
        if markers.opening in compact or (
            markers.opening.startswith(" to=self") and "to=self<|message|>" in compact
        ):
            return markers
    if "<|im_start|>" in template and "enable_thinking" in template and CLOSING in template:
        return THINK._replace(forced=_QWEN)
    return THINK


_MARKS = re.compile(f"{OPENING}|{CLOSING}")


def answer_of(text: str) -> tuple[bool, str]:
    """Whether a completion holds a thought, and the text without thoughts.

    What a thought mentions is never part of the answer. A closing mark before any opening one ends
    a thought that the prompt has opened.

    Raises:
        MalformedAction: A thought is not closed.
    """
    marks = list(_MARKS.finditer(text))
    kept, at, opened, found = [], 0, False, False
    for number, mark in enumerate(marks):
        if mark[0] == OPENING and not opened:
            kept.append(text[at : mark.start()])
            opened = True
        elif mark[0] == CLOSING and (opened or number == 0):
            opened, found, at = False, True, mark.end()
    if opened:
        raise MalformedAction(
            f"The thought is not closed: write {CLOSING} after it, then the action."
        )
    return found, "".join([*kept, text[at:]])
