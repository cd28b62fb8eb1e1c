"""A chat template as the agent needs it: whole prompts, continuations, stop tokens.

Nothing about a template is assumed: what it supports (a system role, tools, thoughts) is found by
rendering short conversations of markers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from agentgym.errors import ConfigError
from agentgym.rollout.rendering import Message, Rendering
from agentgym.rollout.thoughts import ThoughtMarkers, thought_markers
from agentgym.rollout.tool_calls import ToolCall, detect
from agentgym.rollout.tool_style import ToolStyle, find_tool_style, lists_tools

if TYPE_CHECKING:
    from agentgym.models.protocols import Tokenizer

_USER, _ANSWER, _SYSTEM, _THOUGHT = "QxUser0", "QxAnswer1", "QxSystem2", "QxThought3"


class ChatTemplate:
    """Renders conversations through the chat template of a tokenizer.

    Args:
        tokenizer: A Hugging Face tokenizer with a chat template.
        args: Further variables of the template, such as ``enable_thinking``.

    Raises:
        ConfigError: There is no chat template, or it renders no user message.
    """

    def __init__(self, tokenizer: Tokenizer, args: Mapping[str, Any] | None = None) -> None:
        self.rendering = Rendering(tokenizer, args or {})
        self.tokenizer = tokenizer
        self.source = self.rendering.source

    # ---- rendering ---------------------------------------------------------------------------

    def render(
        self,
        messages: Sequence[Message],
        *,
        generation_prompt: bool = True,
        tools: Sequence[Message] = (),
    ) -> str:
        """The text of a conversation.

        A system prompt that the template does not take is put before the first user message.

        Raises:
            ConfigError: The template failed; the message holds its reason.
        """
        first = messages[0]
        if first["role"] == "system" and not self.has_system_role:
            user = {**messages[1], "content": f"{first['content']}\n\n{messages[1]['content']}"}
            messages = [user, *messages[2:]]
        return self.rendering.render(messages, generation_prompt, tools)

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of rendered text; the template writes special tokens itself."""
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))

    def continuation(self, answer: Message, results: Sequence[Message]) -> str:
        """What the template puts after an answer: its end, ``results``, the generation prompt.

        Args:
            answer: ``text_answer()`` or ``call_answer(...)``, holding the marker.
            results: User or tool messages that follow it.
        """
        text = self.render([{"role": "user", "content": _USER}, answer, *results])
        _, found, after = text.partition(_ANSWER)
        if not found:
            raise ConfigError(
                "the chat template leaves answers out, so a conversation cannot grow: "
                "use `--agent.history rerender` or a window (`--agent.window 2`)"
            )
        if "tool_calls" not in answer:
            return after
        # The rest of the call was sampled; the continuation starts at the end of the turn.
        starts = [at for end in self.turn_ends if (at := after.find(end)) >= 0]
        return after[min(starts) :] if starts else after

    def text_answer(self) -> Message:
        """An assistant message of text, for ``continuation``."""
        return {"role": "assistant", "content": _ANSWER}

    def call_answer(self, name: str, call_id: str) -> Message:
        """An assistant message that calls a tool, for ``continuation``."""
        return self.calls_message([(name, {"value": _ANSWER})], "", [call_id])

    def calls_message(
        self,
        calls: Sequence[tuple[str, Mapping[str, object]]],
        content: str,
        call_ids: Sequence[str],
    ) -> Message:
        """An assistant message with tool calls, in the form that the template takes."""
        return (self.tool_style or ToolStyle("", "object")).message(calls, content, call_ids)

    def thought_message(self, thought: str, content: str) -> Message:
        """An assistant message with a thought, in the fields or tags that the template reads."""
        if self.has_thought_field:
            return {"role": "assistant", "content": content, **_thought_fields(thought)}
        text = f"{self.thoughts.opening}{self.thoughts.closed(thought)}{content}"
        return {"role": "assistant", "content": text}

    # ---- what the template supports ----------------------------------------------------------

    @cached_property
    def has_system_role(self) -> bool:
        """It takes a system message, or leaves it out on purpose; else the first user turn does."""
        messages = [
            {"role": "system", "content": _SYSTEM},
            {"role": "user", "content": _USER},
        ]
        text = self.rendering.attempt(messages)
        return text is not None and (_SYSTEM in text or "system" in self.source)

    @cached_property
    def has_thought_field(self) -> bool:
        """It renders ``reasoning_content`` (or ``reasoning``, ``thinking``) of a message."""
        answer = {"role": "assistant", "content": _ANSWER, **_thought_fields(_THOUGHT)}
        text = self.rendering.attempt(
            [{"role": "user", "content": _USER}, answer], generation_prompt=False
        )
        return text is not None and _THOUGHT in text and _ANSWER in text

    @cached_property
    def has_tools(self) -> bool:
        """It describes tools to the model and renders calls and results."""
        return self.tool_style is not None and lists_tools(self.rendering)

    @cached_property
    def tool_style(self) -> ToolStyle | None:
        """How it takes tool calls; None where it does not."""
        return find_tool_style(self.rendering)

    @cached_property
    def thoughts(self) -> ThoughtMarkers:
        """How the family of the model marks thoughts."""
        return thought_markers(self.source)

    @cached_property
    def thought_opening(self) -> str:
        """End of the generation prompt from the mark that opens a thought; empty without one."""
        text = self.render([{"role": "user", "content": _USER}])
        after = text.rpartition(_USER)[2]
        opens = self.thoughts.is_open(after)
        return after[self.thoughts.last_opening(after) :] if opens else ""

    @property
    def opens_thought(self) -> bool:
        """The generation prompt opens a thought, so that a completion starts inside it."""
        return bool(self.thought_opening)

    @cached_property
    def answer_header(self) -> str:
        """What stands between the generation prompt and the text of an answer without thoughts.

        For example an empty thought, or the channel of gpt-oss: a demonstration needs it.
        """
        user = {"role": "user", "content": _USER}
        before = self.render([user])
        whole = self.render([user, self.text_answer()], generation_prompt=False)
        if whole.startswith(before) and _ANSWER in whole:
            return whole[len(before) :].partition(_ANSWER)[0]
        return f"\n{self.thoughts.closing}\n\n" if self.opens_thought else ""

    def call_text(self, name: str, arguments: Mapping[str, object]) -> str | None:
        """A call in the notation of the model, as the template writes it; None if it cannot."""
        if self.tool_style is None:
            return None
        user = {"role": "user", "content": _USER}
        answer = self.calls_message([(name, arguments)], "", ["call00000"])
        before = self.render([user])
        whole = self.rendering.attempt([user, answer], generation_prompt=False)
        if whole is None:
            return None
        if not whole.startswith(before):
            # The template drops the thought that its generation prompt opens.
            before = self.render([user], generation_prompt=False)
            text = whole.removeprefix(before)
            head = self.render([user])[len(before) :]
            head = head[: self.thoughts.last_opening(head)] if self.opens_thought else head
            text = text.removeprefix(head.rstrip("\n")).lstrip("\n")
            empty = re.escape(self.thoughts.opening) + r"\s*" + re.escape(self.thoughts.closing)
            text = self.answer_header + re.sub(rf"^\s*{empty}\s*", "", text)
        else:
            text = whole[len(before) :]
        text = text.rstrip()
        for end in self.turn_ends:
            text = text.removesuffix(end).rstrip()
        return text

    # ---- the end of a turn -------------------------------------------------------------------

    @cached_property
    def answer_end(self) -> str:
        """The special token after an answer of text; empty where the template writes none."""
        user, answer = {"role": "user", "content": _USER}, self.text_answer()
        plain = self.rendering.attempt([user, answer], generation_prompt=False) or ""
        tail = plain.rpartition(_ANSWER)[2].lstrip()
        if not tail:
            return self._next_role(answer, user)
        return self._special.get(next(iter(self.encode(tail)), None), "")

    @cached_property
    def call_end(self) -> str:
        """The special token after tool calls; empty where the template writes none."""
        if self.tool_style is None:
            return ""
        user = {"role": "user", "content": _USER}
        answer = self.calls_message([("qx_tool", {"value": _ANSWER})], "", ["call00000"])
        called = (self.rendering.attempt([user, answer], generation_prompt=False) or "").rstrip()
        called = called[len(self.rendering.attempt([user], generation_prompt=False) or "") :]
        end = self._special.get(next(iter(self.encode(called)[-1:]), None), "")
        # The mark after a call may also be a part of it.
        call = ToolCall("qx_tool", {"value": _ANSWER})
        if end and detect(called.removesuffix(end), call) is not None:
            return end
        result = {"role": "tool", "name": "qx_tool", "tool_call_id": "call00000"}
        return "" if end else self._next_role(answer, {**result, "content": _THOUGHT})

    @cached_property
    def turn_ends(self) -> tuple[str, ...]:
        """Special tokens that end an answer, as text: of the template, then of the tokenizer."""
        found = self.answer_end, self.call_end, self.tokenizer.eos_token
        return tuple(dict.fromkeys(end for end in found if end))

    def _next_role(self, answer: Message, following: Message) -> str:
        """The special token of the next role, which ends a turn where no other does (GLM)."""
        before = [{"role": "user", "content": _USER}, answer]
        alone = self.rendering.attempt(before, generation_prompt=False) or ""
        text = self.rendering.attempt([*before, following]) or ""
        first = next(iter(self.encode(text.removeprefix(alone).lstrip())), None)
        return self._special.get(first, "") if text.startswith(alone) else ""

    def stop_tokens(self, further: Sequence[int] = ()) -> tuple[int, ...]:
        """Token ids that end a completion: those of ``turn_ends``, then ``further``.

        Args:
            further: Such as ``generation_config.eos_token_id`` of the model.
        """
        own = [self.tokenizer.convert_tokens_to_ids(end) for end in self.turn_ends]
        return tuple(dict.fromkeys([*own, *further]))

    # ---- inside ------------------------------------------------------------------------------

    @cached_property
    def _special(self) -> dict[int | None, str]:
        added = getattr(self.tokenizer, "added_tokens_decoder", {})
        found: dict[int | None, str] = {
            token: str(entry.content) for token, entry in added.items() if entry.special
        }
        for text in self.tokenizer.all_special_tokens:
            found[self.tokenizer.convert_tokens_to_ids(text)] = text
        return found


def _thought_fields(thought: str) -> Message:
    return {"reasoning_content": thought, "reasoning": thought, "thinking": thought}


PLAIN = (
    "{% for message in messages %}"
    "{% if message.role == 'user' %}### Input\n{{ message.content }}\n\n"
    "{% elif message.role == 'assistant' %}### Output\n{{ message.content }}{{ eos_token }}\n\n"
    "{% else %}{{ message.content }}\n\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}### Output\n{% endif %}"
)
"""A template for base models, which have none: headed sections that end with end-of-text."""
