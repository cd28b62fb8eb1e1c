"""How observations become tokens and completions become actions; nothing is re-tokenised."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from agentgym.rollout.action_formats import ACT, ActionFormat, NativeCalls, Tags
from agentgym.rollout.chat_template import ChatTemplate, Message
from agentgym.rollout.prompts import AgentInput, Example, PromptLayout
from agentgym.rollout.thoughts import CLOSING, OPENING, THINK
from agentgym.rollout.tool_calls import (
    HERMES,
    ToolCall,
    detect,
    from_tokenizer,
    notation,
    results_of,
)
from agentgym.types import Completion, Turn

if TYPE_CHECKING:
    from agentgym.models.protocols import CausalLM, Tokenizer

__all__ = ["Agent", "AgentInput", "ChatAgent", "History", "Prompt"]

History = Literal["append", "rerender"]
_TAIL = 48
"""Tokens at the end of a prompt in which a generation prompt may open a thought."""


class Prompt(NamedTuple):
    """Tokens to append to the context, or to replace it with."""

    tokens: tuple[int, ...]
    fresh: bool
    """The tokens are the whole context; a new training row starts here."""


class Agent(Protocol):
    """Renders what the policy reads and parses what it wrote; holds no episode state."""

    @property
    def stop(self) -> tuple[int, ...]:
        """Token ids that end a completion."""

    @property
    def thought_end(self) -> tuple[int, ...]:
        """Tokens that close a thought which has run too long."""

    def prompt(self, shown: AgentInput, turns: Sequence[Turn]) -> Prompt:
        """Tokens for this turn, given the turns before it."""

    def parse(
        self,
        completion: Completion,
        prompt: Sequence[int] = (),
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        """The action in a completion.

        Args:
            completion: What the policy wrote.
            prompt: What it read before; its end may open a thought.
            tools: Schemas of the tools of the environment, if it has any.

        Raises:
            MalformedAction: The text contains no action; the message is shown to the agent.
        """

    def count_thought_tokens(self, completion: Completion, prompt: Sequence[int] = ()) -> int:
        """Leading tokens of a completion that are thought, before the action; 0 for none."""

    def in_thought(self, completion: Completion, prompt: Sequence[int] = ()) -> bool:
        """The completion ends inside a thought."""

    def encode_action(self, action: str) -> tuple[int, ...]:
        """The completion for ``action``: how a demonstration is written."""

    def decode(self, tokens: Sequence[int]) -> str:
        """Tokens as text, for records."""


class ChatAgent:
    """Uses the chat template of a Hugging Face tokenizer.

    How a conversation grows:

    - ``history="append"``: each turn appends what the template puts between an answer and the next
      one. What was sampled stays as it is, so an episode is one training row. If the template
      renders the same messages in the same way, the context is token for token its rendering. A
      template that drops earlier thoughts or rewrites earlier turns is not followed in that.
    - ``history="rerender"``: each turn reads what the template renders for all messages. Where that
      begins with the context so far, the rest is appended; else the turn is a fresh row, and rows
      share their common prefix in training.
    - ``window=h``: each turn shows the goal and the last ``h`` exchanges in a fresh prompt, so each
      turn is a row.

    Args:
        tokenizer: With a chat template.
        action_format: How actions are written; in tags unless given.
        system_prompt: System prompt; manual and instructions of the format unless given, none if
            empty.
        window: Exchanges shown in a fresh prompt each turn; None: the layout decides.
        history: How a conversation grows.
        template_args: Further variables of the template, such as ``enable_thinking``.
        tool_notation: Notation of native calls; found from the template unless given.
        layout: Layout of the prompts.
        stop_tokens: Further token ids that end a completion, such as
            ``generation_config.eos_token_id``.

    Raises:
        ConfigError: The tokenizer has no chat template, or the template fails.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        action_format: ActionFormat | None = None,
        system_prompt: str | None = None,
        window: int | None = None,
        history: History = "append",
        template_args: Mapping[str, Any] | None = None,
        tool_notation: str | None = None,
        layout: PromptLayout | None = None,
        stop_tokens: Sequence[int] = (),
    ) -> None:
        self.tokenizer = tokenizer
        self.template = ChatTemplate(tokenizer, template_args)
        self.layout = layout or PromptLayout()
        self.system_prompt = system_prompt
        self.window = self.layout.window if window is None else window
        self.history = history
        self.stop = self.template.stop_tokens(stop_tokens)
        self._special = sorted(tokenizer.all_special_tokens, key=len, reverse=True)
        self.action_format: ActionFormat = action_format or Tags()
        if isinstance(self.action_format, NativeCalls):
            self.action_format = self._native(tool_notation)
        self.examples: tuple[Example, ...] = ()
        """Solved episodes to show in the prompt."""

    # ---- prompts -----------------------------------------------------------------------------

    def prompt(self, shown: AgentInput, turns: Sequence[Turn]) -> Prompt:
        """The next piece of a growing conversation, or a fresh prompt."""
        shown = self._sanitized(shown)
        tools = self._schemas(shown)
        if self.window is not None:
            first = max(0, len(turns) - self.window - 1)
            recent = [*turns[:first], *map(self._sanitized_turn, turns[first:])]
            user = self.layout.windowed(shown, recent, self.window)
            return Prompt(
                self._encode(self._render([*self._head(shown), _user(user)], tools)), True
            )
        if not turns:
            messages = [*self._head(shown), _user(self.layout.first(shown))]
            return Prompt(self._encode(self._render(messages, tools)), True)
        if self.history == "rerender":
            return self._rerendered(shown, turns, tools)
        return Prompt(self._encode(self._continuation(shown, turns[-1])), False)

    def _continuation(self, shown: AgentInput, last: Turn) -> str:
        """What follows the last answer, without the stop token that was sampled."""
        calls = self._calls(last, shown)
        if calls:
            ids = _call_ids(0, len(calls))
            answer = self.template.call_answer(calls[0].name, ids[0])
        else:
            ids, answer = [], self.template.text_answer()
        results = self._results(self.layout.next(shown), calls, ids)
        text = self.template.continuation(answer, results)
        return self._without_sampled_end(text, last.completion)

    def _without_sampled_end(self, text: str, completion: Completion) -> str:
        sampled = completion.tokens[-1:]
        if not sampled or sampled[0] not in self.stop:
            return text
        ends = [str(self.tokenizer.convert_ids_to_tokens(sampled[0])), *self.template.turn_ends]
        # The template may write another end in a history than a model samples (gpt-oss): the turn
        # is over all the same.
        for end in ends[:1] if sampled != self.stop[:1] else ends:
            before, found, after = text.partition(end)
            if found and not before.strip():
                return after
        if sampled == self.stop[:1]:
            first = self._encode(text)[:1]
            if first and self.tokenizer.decode(list(first)) in self._special:
                return text.removeprefix(self.tokenizer.decode(list(first)))
        return text

    def _rerendered(
        self, shown: AgentInput, turns: Sequence[Turn], tools: Sequence[Message]
    ) -> Prompt:
        text = self._render(self.messages(shown, turns), tools)
        context = list(_context(turns))
        read = self.tokenizer.decode(context, skip_special_tokens=False)
        if text.startswith(read) and len(text) > len(read):
            return Prompt(self._encode(text[len(read) :]), False)
        return Prompt(self._encode(text), True)

    def messages(self, shown: AgentInput, turns: Sequence[Turn]) -> list[Message]:
        """The conversation so far, as chat messages."""
        shown = self._sanitized(shown)
        first = shown._replace(observation=shown.opening) if turns else shown
        found = [*self._head(shown), _user(self.layout.first(first))]
        for number, turn in enumerate(turns):
            now = shown if number == len(turns) - 1 else shown._replace(admissible_actions=())
            now = now._replace(observation=self._plain(turn.observation))
            calls = self._calls(turn, shown)
            ids = _call_ids(number, len(calls))
            found.append(self._answer(turn, calls, ids))
            found += self._results(self.layout.next(now), calls, ids)
        return found

    def _answer(self, turn: Turn, calls: Sequence[ToolCall], ids: Sequence[str]) -> Message:
        """A completion as an assistant message."""
        markers = self.template.thoughts
        text = self.decode(turn.completion.tokens)
        thought, answer, closed = markers.split(text, opened=self._opened(turn.prompt))
        if not closed:
            thought, answer = None, text
        answer = self._without_header(answer)
        if calls:
            content = self.action_format.notation.read(answer).content  # type: ignore[attr-defined]
            message = self.template.calls_message(calls, content, ids)
            if thought is not None and self.template.has_thought_field:
                fields = self.template.thought_message(thought.strip(), "")
                message |= {key: fields[key] for key in fields if key not in ("role", "content")}
            return message
        if thought is None:
            return {"role": "assistant", "content": answer}
        return self.template.thought_message(thought.strip(), answer.lstrip("\n"))

    def _results(self, text: str, calls: Sequence[ToolCall], ids: Sequence[str]) -> list[Message]:
        """The observation as tool messages after calls, else as a user message."""
        if not calls:
            return [_user(text)]
        return [
            {"role": "tool", "name": call.name, "tool_call_id": call_id, "content": result}
            for call, call_id, result in zip(calls, ids, results_of(text, len(calls)), strict=False)
        ]

    def _calls(self, turn: Turn, shown: AgentInput) -> tuple[ToolCall, ...]:
        """The native calls of a turn that the environment has carried out."""
        if not (isinstance(self.action_format, NativeCalls) and turn.parsed):
            return ()
        if not self.template.has_tools:
            return ()
        text = self._normalized(turn.completion, turn.prompt)
        calls = self.action_format.parse_calls(text, shown.tools or (ACT,))[1]
        return calls

    def _head(self, shown: AgentInput) -> list[Message]:
        """The messages before the first observation."""
        if self.system_prompt is not None:
            system = self.system_prompt
        else:
            instructions = self.action_format.instructions
            if isinstance(self.action_format, NativeCalls):
                instructions = self.action_format.describe(shown.tools or (ACT,))
            examples = [replace_texts(example, self._plain) for example in self.examples]
            system = self.layout.system(shown.manual, instructions, examples)
        if not system:
            return []
        if self.layout.acknowledgement:
            return [_user(system), {"role": "assistant", "content": self.layout.acknowledgement}]
        return [{"role": "system", "content": system}]

    def _schemas(self, shown: AgentInput) -> Sequence[Message]:
        if not isinstance(self.action_format, NativeCalls) or not self.template.has_tools:
            return ()
        return shown.tools or (ACT,)

    def _render(self, messages: Sequence[Message], tools: Sequence[Message]) -> str:
        return self.template.render(messages, tools=tools)

    def _encode(self, text: str) -> tuple[int, ...]:
        return self.template.encode(text)

    def _sanitized(self, shown: AgentInput) -> AgentInput:
        native = isinstance(self.action_format, NativeCalls) and shown.tools
        if about := shown.tool_instructions:
            if native or about in shown.goal:
                shown = shown._replace(manual=shown.manual.replace(about, "").strip())
            if native:
                # They show another notation, and the template lists the tools.
                goal = shown.goal.replace(about, "").strip()
                shown = shown._replace(goal=goal, manual=_without_calls(shown.manual, shown.tools))
        return shown._replace(
            manual=self._plain(shown.manual),
            goal=self._plain(shown.goal),
            opening=self._plain(shown.opening),
            observation=self._plain(shown.observation),
            admissible_actions=tuple(map(self._plain, shown.admissible_actions)),
        )

    def _sanitized_turn(self, turn: Turn) -> Turn:
        return replace(
            turn, observation=self._plain(turn.observation), action=self._plain(turn.action)
        )

    def _plain(self, text: str) -> str:
        """Text of the environment, with control tokens of the template broken up."""
        text = text.encode(errors="replace").decode()  # Halves of characters have no tokens.
        for token in self._special:
            if token in text:
                text = text.replace(token, f"{token[:1]} {token[1:]}")
        return text

    def history_note(self) -> str:
        """One line if ``history="append"`` differs from the chat template; else empty.

        Compares whole renderings of three turns, without thoughts and with them.
        """
        if self.window is not None or self.history == "rerender":
            return ""
        rewritten = [kind for kind in ("answers", "thoughts") if self._rewrites(kind == "thoughts")]
        if not rewritten:
            return ""
        return (
            f"the chat template rewrites {' and '.join(rewritten)} of earlier turns; the "
            "conversation keeps what was sampled (`--agent.history rerender` follows the template)"
        )

    def _rewrites(self, thoughts: bool) -> bool:
        shown, markers = AgentInput("goal", "start", "start"), self.template.thoughts
        turns: list[Turn] = []
        context: tuple[int, ...] = ()
        for _ in range(2):
            prompt = self.prompt(shown, turns)
            written = self.encode_action("look")
            if thoughts:
                text = self._written("look").removeprefix(self.template.answer_header)
                closed = markers.closed("hm") + markers.answer
                opened = self.template.opens_thought
                thought = closed.lstrip("\n") if opened else markers.opening + closed
                written = (*self._encode(thought + text), *written[-1:])
            zeros = (0.0,) * len(written)
            context = (*context, *prompt.tokens, *written)
            completion = Completion(written, zeros, zeros)
            turns.append(Turn(prompt.tokens, completion, "look", "start", 0.0, prompt.fresh))
        prompt = self.prompt(shown, turns)
        read = self.tokenizer.decode([*context, *prompt.tokens])
        return bool(read != self._render(self.messages(shown, turns), self._schemas(shown)))

    # ---- completions -------------------------------------------------------------------------

    @cached_property
    def thought_end(self) -> tuple[int, ...]:
        """Tokens that close a thought which has run too long, the documented way of the family."""
        return self._encode(self.template.thoughts.cut)

    def parse(
        self,
        completion: Completion,
        prompt: Sequence[int] = (),
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        """Decode without the stop token and parse the action."""
        text = self._normalized(completion, prompt)
        if isinstance(self.action_format, NativeCalls):
            return self.action_format.parse_calls(text, tools or (ACT,))[0]
        return self.action_format.parse(text)

    def _normalized(self, completion: Completion, prompt: Sequence[int]) -> str:
        """The completion with its thought between ``<think>`` and ``</think>``."""
        text = self.decode(completion.tokens)
        markers, opened = self.template.thoughts, self._opened(prompt)
        if markers.opening == THINK.opening:
            return OPENING + text if opened and not text.startswith(OPENING) else text
        thought, answer, closed = markers.split(text, opened=opened)
        if not closed:
            return f"{OPENING}{thought}"
        answer = self._without_header(answer)
        return answer if thought is None else f"{OPENING}{thought}{CLOSING}{answer}"

    def _without_header(self, answer: str) -> str:
        """The text of an answer without the header of its channel."""
        for header in (self.template.thoughts.answer, self.template.answer_header):
            if header and answer.startswith(header):
                return answer[len(header) :]
        return answer

    def _opened(self, prompt: Sequence[int]) -> bool:
        """The prompt ends inside a thought; without a prompt, the generation prompt does."""
        opening = self.template.thought_opening
        if not prompt or not opening:
            return bool(opening)
        return str(self.tokenizer.decode(list(prompt[-_TAIL:]))).endswith(opening)

    def in_thought(self, completion: Completion, prompt: Sequence[int] = ()) -> bool:
        """The completion ends inside a thought."""
        text = self.decode(completion.tokens)
        return not self.template.thoughts.split(text, opened=self._opened(prompt))[2]

    def count_thought_tokens(self, completion: Completion, prompt: Sequence[int] = ()) -> int:
        """Tokens up to the one that completes the closing mark; all of an unclosed thought."""
        tokens, closing = completion.tokens, self.template.thoughts.closing
        text = self.decode(tokens)
        if closing not in text:
            unclosed = self._opened(prompt) or self.template.thoughts.opening in text
            return len(tokens) if unclosed else 0
        counts = range(len(tokens) + 1)
        return bisect_left(counts, True, key=lambda n: closing in self.decode(tokens[:n]))

    def encode_action(self, action: str) -> tuple[int, ...]:
        """The action in the format and in the form of the template, and the stop token."""
        end = self.stop[:1]
        if isinstance(self.action_format, NativeCalls) and self.template.call_end:
            end = (self.tokenizer.convert_tokens_to_ids(self.template.call_end),)
        return (*self._encode(self._written(action)), *end)

    def _written(self, action: str) -> str:
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
        """Decoded, without trailing stop tokens."""
        kept = list(tokens)
        while kept and kept[-1] in self.stop:
            kept.pop()
        return str(self.tokenizer.decode(kept, skip_special_tokens=False))

    def _native(self, name: str | None) -> NativeCalls:
        """Native calls in the notation that the template writes, or in the one named."""
        if name is not None:
            return NativeCalls(notation(name), self.template.has_tools)
        if getattr(self.tokenizer, "response_template", None):
            return NativeCalls(from_tokenizer(self.tokenizer), self.template.has_tools)
        call = ToolCall("qx_tool", {"value": "text"})
        written = self.template.call_text(call.name, call.arguments)
        found = None if written is None else detect(written, call)
        return NativeCalls(found or HERMES, self.template.has_tools)


def replace_texts(example: Example, plain: Any) -> Example:
    """An example with sanitized texts."""
    steps = tuple((completion, plain(observation)) for completion, observation in example.steps)
    return Example(plain(example.goal), plain(example.opening), steps)


def _without_calls(manual: str, tools: Sequence[Mapping[str, Any]]) -> str:
    """A manual without the lines that show a call in the notation of the environment."""
    marks = ["<tool_call>", *(f"<{tool.get('function', tool).get('name')}>" for tool in tools)]
    lines = [line for line in manual.splitlines() if not any(mark in line for mark in marks)]
    return "\n".join(lines).strip()


def end_tokens(model: CausalLM | str | Path | None) -> tuple[int, ...]:
    """``eos_token_id`` of the generation config of a model or of a model folder."""
    if isinstance(model, str | Path):
        file = Path(model, "generation_config.json")
        found = json.loads(file.read_text()).get("eos_token_id") if file.is_file() else None
    else:
        found = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    if found is None:
        return ()
    return (found,) if isinstance(found, int) else tuple(found)


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _call_ids(turn: int, count: int) -> list[str]:
    """Nine letters and digits, which Mistral's templates demand."""
    return [f"call{turn:03d}{number:02d}" for number in range(count)]


def _context(turns: Sequence[Turn]) -> Sequence[int]:
    """Tokens of the current row."""
    context: list[int] = []
    for turn in turns:
        if turn.fresh:
            context = []
        context += [*turn.prompt, *turn.completion.tokens]
    return context
