"""Between the messages of a program and the tokens of the engine.

A request holds a whole conversation. Where it extends one that its agent has had in this episode,
the prompt is that context with what is new appended, so that no sampled token is tokenised again.
Everything else (a first request, an edited history, other tools) is rendered whole.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from agentgym.errors import ConfigError, MalformedAction
from agentgym.programs.marks import Marks, tool_call
from agentgym.programs.values import Call, Message, Reply, Request, RequestRefused
from agentgym.rollout.action_formats import NativeCalls
from agentgym.rollout.agent import ChatAgent
from agentgym.rollout.sanitize import Sanitizer
from agentgym.rollout.tool_calls import ToolCall, hermes_text, typed
from agentgym.types import Completion


class Prompt(NamedTuple):
    """What the engine reads for a request."""

    tokens: tuple[int, ...]
    shown: str
    """Text of the messages that are new."""


class Dialogue:
    """Renders requests and reads completions; holds no state of an episode.

    Args:
        agent: Of the run, with native calls as its action format.
    """

    def __init__(self, agent: ChatAgent) -> None:
        assert isinstance(agent.action_format, NativeCalls), "programs call tools natively"
        self.agent, self.template, self.calls = agent, agent.template, agent.action_format
        self.completions = agent.completions
        self._sanitizer = Sanitizer(agent.tokenizer.all_special_tokens)

    # ---- requests ----------------------------------------------------------------------------

    def whole(self, request: Request) -> tuple[int, ...]:
        """The prompt of a conversation that is rendered whole.

        Raises:
            RequestRefused: The chat template does not take these messages.
        """
        return self.template.encode(self._rendered(request))

    def continued(self, before: Call, request: Request, known: int) -> tuple[int, ...] | None:
        """The prompt of a conversation that extends a call; None where it must be rendered whole.

        Args:
            before: The call.
            request: The conversation.
            known: Its leading messages that the call has seen or is the answer of.
        """
        if self.agent.history == "rerender":
            read = self.agent.tokenizer.decode(list(before.context), skip_special_tokens=False)
            text = self._rendered(request)
            extends = text.startswith(read) and len(text) > len(read)
            return before.context + self.template.encode(text[len(read) :]) if extends else None
        calls, ids = before.reply.calls, before.reply.call_ids
        native = calls and self.template.has_tools
        answer = (
            self.template.call_answer(calls[0].name, ids[0])
            if native
            else self.template.text_answer()
        )
        try:
            text = self.template.continuation(answer, self._templated(request, known))
        except ConfigError:
            return None
        text = self.agent.without_sampled_end(text, before.completion)
        return before.context + self.template.encode(text)

    def _rendered(self, request: Request) -> str:
        messages = self._templated(request)
        if messages[0]["role"] == "system" and len(messages) == 1:
            messages = [{**messages[0], "role": "user"}]
        tools = [dict(tool) for tool in request.tools] if self.template.has_tools else []
        try:
            return self.template.render(messages, tools=tools)
        except (ConfigError, LookupError) as problem:
            raise RequestRefused(str(problem)) from problem

    def _templated(self, request: Request, first: int = 0) -> list[Message]:
        """The messages from ``first`` on, in the form that the template takes."""
        names = {
            call["id"]: call["function"]["name"]
            for message in request.messages
            for call in message.get("tool_calls", ())
        }
        found: list[Message] = []
        for message in request.messages[first:]:
            one = self._one(message, names)
            if one.get("results") and found and found[-1].get("results"):
                found[-1]["content"] += f"\n{one['content']}"
            else:
                found.append(one)
        if not first and request.tools and not self.template.has_tools:
            found = self._with_tools(found, request.tools)
        return [{k: v for k, v in each.items() if k != "results"} for each in found]

    def _one(self, message: Message, names: Mapping[str, str]) -> Message:
        role, content = message["role"], message["content"]
        if role == "assistant":
            calls = [tool_call(call) for call in message.get("tool_calls", ())]
            if calls and self.template.has_tools:
                ids = [call["id"] for call in message["tool_calls"]]
                return self.template.calls_message(calls, content, ids)
            text = "\n".join(filter(None, (content, hermes_text(calls))))
            return {"role": "assistant", "content": text}
        content = self._sanitizer.text(content)
        if role != "tool":
            return {"role": role, "content": content}
        if not self.template.has_tools:
            text = f"<tool_response>\n{content}\n</tool_response>"
            return {"role": "user", "content": text, "results": True}
        call_id = message["tool_call_id"]
        return {
            "role": "tool",
            "name": names.get(call_id, "tool"),
            "tool_call_id": call_id,
            "content": content,
        }

    def _with_tools(
        self, messages: list[Message], tools: Sequence[Mapping[str, Any]]
    ) -> list[Message]:
        """With the description of the tools in the system prompt."""
        about = self.calls.describe(tools)
        if messages[0]["role"] != "system":
            return [{"role": "system", "content": about}, *messages]
        return [
            {"role": "system", "content": f"{messages[0]['content']}\n\n{about}"},
            *messages[1:],
        ]

    # ---- completions -------------------------------------------------------------------------

    def reply(self, completion: Completion, prompt: Sequence[int], request: Request) -> Reply:
        """What the program reads of a completion; the ids of its calls are still empty."""
        text = self.agent.decode(completion.tokens)
        at = min((at for stop in request.stop if (at := text.find(stop)) >= 0), default=len(text))
        markers = self.template.thoughts
        thought, answer, closed = markers.split(text[:at], opened=self.completions.opened(prompt))
        answer = self.completions.without_header(answer)
        calls: tuple[ToolCall, ...] = ()
        parsed = closed
        if request.tools and closed:
            try:
                found = self.calls.notation.read(answer)
                calls = tuple(typed(call, request.tools) for call in found.calls)
                answer = found.content if calls else answer
            except MalformedAction:
                parsed = False
        finish = "tool_calls" if calls else completion.finish
        return Reply(answer, thought or "", calls, (), finish, parsed)

    def cut(self, completion: Completion, stops: Sequence[str]) -> Completion:
        """The completion up to the token that completes the first of the stop texts.

        It is distributed as one that had been stopped there while it was sampled.
        """
        text = self.agent.decode(completion.tokens)
        ends = [at + len(stop) for stop in stops if (at := text.find(stop)) >= 0]
        if not ends:
            return completion
        tokens, end = completion.tokens, min(ends)
        counts = range(len(tokens) + 1)
        size = bisect_left(counts, True, key=lambda n: len(self.agent.decode(tokens[:n])) >= end)
        return replace(
            completion,
            tokens=tokens[:size],
            logprobs=completion.logprobs[:size],
            entropies=completion.entropies[:size],
            versions=completion.versions[:size],
            finish="stop",
        )


class Conversations:
    """The conversations that one agent has had in one episode."""

    def __init__(self, dialogue: Dialogue) -> None:
        self._dialogue, self._marks = dialogue, Marks()
        self._calls: dict[bytes, Call | None] = {}
        """The call that ends at a conversation; None where two with other tokens end alike."""

    def prompt(self, request: Request) -> Prompt:
        """The tokens that the engine reads.

        Raises:
            RequestRefused: The chat template does not take these messages.
        """
        marks = self._marks.of(request)
        for known in range(len(marks) - 2, 0, -1):
            before = self._calls.get(marks[known])
            if before is not None:
                tokens = self._dialogue.continued(before, request, known)
                if tokens is not None:
                    return Prompt(tokens, _text(request.messages[known:]))
        return Prompt(self._dialogue.whole(request), _text(request.messages[-1:]))

    def add(self, request: Request, call: Call) -> None:
        """Remember a call, which a later request may extend."""
        answer = answer_message(call.reply)
        mark = self._marks.of(request._replace(messages=(*request.messages, answer)))[-1]
        known = self._calls.get(mark, call)
        # The program sends texts back. Two calls with one text and other tokens: neither is taken.
        same = known is not None and known.context == call.context
        self._calls[mark] = call if same else None


def answer_message(reply: Reply) -> Message:
    """A reply as the message that a program sends back."""
    message: Message = {"role": "assistant", "content": reply.content}
    if reply.calls:
        message["tool_calls"] = [
            {
                "id": call_id,
                "type": "function",
                "function": {
                    "name": call.name,
                    "arguments": json.dumps(call.arguments, ensure_ascii=False),
                },
            }
            for call, call_id in zip(reply.calls, reply.call_ids, strict=True)
        ]
    return message


def _text(messages: Sequence[Message]) -> str:
    return "\n".join(message["content"] for message in messages)
