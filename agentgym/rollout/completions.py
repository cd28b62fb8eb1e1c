"""What a model wrote: its thought, its action; and how an action is written as a completion."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentgym.env.act import ACT
from agentgym.rollout.action_formats import ActionFormat, NativeCalls
from agentgym.rollout.chat_template import ChatTemplate
from agentgym.rollout.thoughts import CLOSING, OPENING, THINK
from agentgym.rollout.tool_calls import HERMES, ToolCall, detect, from_tokenizer, notation
from agentgym.types import Completion

if TYPE_CHECKING:
    from agentgym.models.protocols import CausalLM

_TAIL = 48
"""Tokens at the end of a prompt in which a generation prompt may open a thought."""


class Completions:
    """Reads the completions of one model, and writes actions as it would.

    Args:
        template: Chat template of the model.
        action_format: How actions are written.
        stop: Token ids that end a completion.
    """

    def __init__(
        self, template: ChatTemplate, action_format: ActionFormat, stop: Sequence[int]
    ) -> None:
        self.template = template
        self.tokenizer = template.tokenizer
        self.action_format = action_format
        self.stop = tuple(stop)
        self._decoded: tuple[tuple[int, ...] | None, str] = (None, "")

    @cached_property
    def thought_end(self) -> tuple[int, ...]:
        """Tokens that close a thought which has run too long, the documented way of the family."""
        return self.template.encode(self.template.thoughts.cut)

    def parse(
        self,
        completion: Completion,
        prompt: Sequence[int] = (),
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        """Decode without the stop token and parse the action."""
        text = self.normalized(completion, prompt)
        if isinstance(self.action_format, NativeCalls):
            return self.action_format.parse_calls(text, tools or (ACT,))[0]
        return self.action_format.parse(text)

    def normalized(self, completion: Completion, prompt: Sequence[int]) -> str:
        """The completion with its thought between ``<think>`` and ``</think>``."""
        text = self.decode(completion.tokens)
        markers, opened = self.template.thoughts, self.opened(prompt)
        if markers.opening == THINK.opening:
            return OPENING + text if opened and not text.startswith(OPENING) else text
        thought, answer, closed = markers.split(text, opened=opened)
        if not closed:
            return f"{OPENING}{thought}"
        answer = self.without_header(answer)
        return answer if thought is None else f"{OPENING}{thought}{CLOSING}{answer}"

    def without_header(self, answer: str) -> str:
        """The text of an answer without the header of its channel."""
        for header in (self.template.thoughts.answer, self.template.answer_header):
            if header and answer.startswith(header):
                return answer[len(header) :]
        return answer

    def opened(self, prompt: Sequence[int]) -> bool:
        """The prompt ends inside a thought; without a prompt, the generation prompt does."""
        opening = self.template.thought_opening
        if not prompt or not opening:
            return bool(opening)
        return str(self.tokenizer.decode(list(prompt[-_TAIL:]))).endswith(opening)

    def in_thought(self, completion: Completion, prompt: Sequence[int] = ()) -> bool:
        """The completion ends inside a thought."""
        text = self.decode(completion.tokens)
        return not self.template.thoughts.split(text, opened=self.opened(prompt))[2]

    def count_thought_tokens(self, completion: Completion, prompt: Sequence[int] = ()) -> int:
        """Tokens up to the one that completes the closing mark; all of an unclosed thought."""
        tokens, closing = completion.tokens, self.template.thoughts.closing
        text = self.decode(tokens)
        if closing not in text:
            unclosed = self.opened(prompt) or self.template.thoughts.opening in text
            return len(tokens) if unclosed else 0
        counts = range(len(tokens) + 1)
        return bisect_left(counts, True, key=lambda n: closing in self.decode(tokens[:n]))

    def encode_action(self, action: str) -> tuple[int, ...]:
        """The action in the format and in the form of the template, and the stop token."""
        end = self.stop[:1]
        if isinstance(self.action_format, NativeCalls) and self.template.call_end:
            end = (self.tokenizer.convert_tokens_to_ids(self.template.call_end),)
        return (*self.template.encode(self.written(action)), *end)

    def written(self, action: str) -> str:
        """The text of a completion for ``action``, without the stop token."""
        if isinstance(self.action_format, NativeCalls):
            return self._written_call(action, self.action_format)
        text, header = self.action_format.format(action), self.template.answer_header
        empty = f"{OPENING}{CLOSING}"
        if text.startswith(empty):
            markers = self.template.thoughts
            if markers.closing in header:
                return header + text.removeprefix(empty)
            if markers.opening != OPENING:
                thought = f"{markers.opening}{markers.closing}{markers.answer or header}"
                return thought + text.removeprefix(empty)
        return header + text

    def _written_call(self, action: str, form: NativeCalls) -> str:
        calls = [ToolCall("act", {"action": action})]
        if action.startswith("<tool_call>"):
            calls = list(HERMES.read(action).calls)
        if len(calls) == 1:
            text = self.template.call_text(calls[0].name, calls[0].arguments)
            if text is not None:
                return text
        return self.template.answer_header + form.format(action)

    def decode(self, tokens: Sequence[int]) -> str:
        """Decoded, without trailing stop tokens; the last text is kept for the next question."""
        last, text = self._decoded
        if tokens is last:
            return text
        kept = list(tokens)
        while kept and kept[-1] in self.stop:
            kept.pop()
        text = str(self.tokenizer.decode(kept, skip_special_tokens=False))
        if isinstance(tokens, tuple):
            self._decoded = tokens, text
        return text


def native_calls(template: ChatTemplate, name: str | None = None) -> NativeCalls:
    """Native calls in the notation that the template writes, or in the one named."""
    if name is not None:
        return NativeCalls(notation(name), template.has_tools)
    if getattr(template.tokenizer, "response_template", None):
        return NativeCalls(from_tokenizer(template.tokenizer), template.has_tools)
    call = ToolCall("qx_tool", {"value": "text"})
    written = template.call_text(call.name, call.arguments)
    found = None if written is None else detect(written, call)
    return NativeCalls(found or HERMES, template.has_tools)


def end_tokens(model: CausalLM | str | Path | None) -> tuple[int, ...]:
    """``eos_token_id`` of the generation config of a model or of a model folder."""
    if isinstance(model, str | Path):
        file = Path(model, "generation_config.json")
        found = json.loads(file.read_text("utf-8")).get("eos_token_id") if file.is_file() else None
    else:
        found = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    if found is None:
        return ()
    return (found,) if isinstance(found, int) else tuple(found)
