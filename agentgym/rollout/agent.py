"""How observations become tokens and completions become actions; nothing is re-tokenised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from agentgym.env.act import ACT
from agentgym.rollout.action_formats import ActionFormat, NativeCalls, Tags
from agentgym.rollout.chat_template import ChatTemplate
from agentgym.rollout.completions import Completions, native_calls
from agentgym.rollout.prompts import AgentInput, Example, PromptLayout
from agentgym.rollout.rendering import Message
from agentgym.rollout.sanitize import Sanitizer, without_tool_instructions
from agentgym.rollout.tool_calls import ToolCall, results_of
from agentgym.types import Completion, Turn

if TYPE_CHECKING:
    from agentgym.models.protocols import Tokenizer

__all__ = ["Agent", "AgentInput", "ChatAgent", "History", "Prompt"]

History = Literal["append", "rerender"]


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
        self._sanitizer = Sanitizer(tokenizer.all_special_tokens)
        self.action_format: ActionFormat = action_format or Tags()
        if isinstance(self.action_format, NativeCalls):
            self.action_format = native_calls(self.template, tool_notation)
        self.completions = Completions(self.template, self.action_format, self.stop)
        self.examples: tuple[Example, ...] = ()
        """Solved episodes to show in the prompt."""

    # ---- prompts -----------------------------------------------------------------------------

    def prompt(self, shown: AgentInput, turns: Sequence[Turn]) -> Prompt:
        """The next piece of a growing conversation, or a fresh prompt."""
        shown = self._sanitized(shown)
        tools = self._schemas(shown)
        if self.window is not None:
            first = max(0, len(turns) - self.window - 1)
            recent = [*turns[:first], *map(self._sanitizer.turn, turns[first:])]
            user = self.layout.windowed(shown, recent, self.window)
            if self.layout.instructions_in_turn:
                user = f"{user}\n\n{self._instructions(shown)}"
            return Prompt(
                self._encode(self._render([*self._head(shown), _user(user)], tools)), True
            )
        if not turns:
            messages = [*self._head(shown), _user(self.layout.first(shown))]
            return Prompt(self._encode(self._render(messages, tools)), True)
        if self.history == "rerender":
            return self._rerendered(shown, turns)
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
        return self.without_sampled_end(text, last.completion)

    def without_sampled_end(self, text: str, completion: Completion) -> str:
        """What follows an answer, without the end of the turn where that was sampled."""
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
            if first and self.tokenizer.decode(list(first)) in self._sanitizer.special:
                return text.removeprefix(self.tokenizer.decode(list(first)))
        return text

    def _rerendered(self, shown: AgentInput, turns: Sequence[Turn]) -> Prompt:
        text = self.rendered(shown, turns)
        context = list(_context(turns))
        read = self.tokenizer.decode(context, skip_special_tokens=False)
        if text.startswith(read) and len(text) > len(read):
            return Prompt(self._encode(text[len(read) :]), False)
        return Prompt(self._encode(text), True)

    def rendered(self, shown: AgentInput, turns: Sequence[Turn]) -> str:
        """The conversation so far, as the chat template writes it."""
        return self._render(self.messages(shown, turns), self._schemas(shown))

    def messages(self, shown: AgentInput, turns: Sequence[Turn]) -> list[Message]:
        """The conversation so far, as chat messages."""
        shown = self._sanitized(shown)
        first = shown._replace(observation=shown.opening) if turns else shown
        found = [*self._head(shown), _user(self.layout.first(first))]
        for number, turn in enumerate(turns):
            now = shown if number == len(turns) - 1 else shown._replace(admissible_actions=())
            now = now._replace(observation=self._sanitizer.text(turn.observation))
            calls = self._calls(turn, shown)
            ids = _call_ids(number, len(calls))
            found.append(self._answer(turn, calls, ids))
            found += self._results(self.layout.next(now), calls, ids)
        return found

    def _answer(self, turn: Turn, calls: Sequence[ToolCall], ids: Sequence[str]) -> Message:
        """A completion as an assistant message."""
        markers = self.template.thoughts
        text = self.decode(turn.completion.tokens)
        thought, answer, closed = markers.split(text, opened=self.completions.opened(turn.prompt))
        if not closed:
            thought, answer = None, text
        answer = self.completions.without_header(answer)
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
        text = self.completions.normalized(turn.completion, turn.prompt)
        calls = self.action_format.parse_calls(text, shown.tools or (ACT,))[1]
        return calls

    def _head(self, shown: AgentInput) -> list[Message]:
        """The messages before the first observation."""
        if self.system_prompt is not None:
            system = self.system_prompt
        else:
            chosen = self.layout.chosen(shown, self.examples)
            examples = list(map(self._sanitizer.example, chosen))
            in_turn = self.layout.instructions_in_turn and self.window is not None
            instructions = "" if in_turn else self._instructions(shown)
            system = self.layout.system(shown, instructions, examples)
        if not system:
            return []
        if self.layout.acknowledgement:
            return [_user(system), {"role": "assistant", "content": self.layout.acknowledgement}]
        return [{"role": "system", "content": system}]

    def _instructions(self, shown: AgentInput) -> str:
        """Description of the action format."""
        if isinstance(self.action_format, NativeCalls):
            return self.action_format.describe(shown.tools or (ACT,))
        return self.action_format.instructions

    def _schemas(self, shown: AgentInput) -> Sequence[Message]:
        if not isinstance(self.action_format, NativeCalls) or not self.template.has_tools:
            return ()
        return shown.tools or (ACT,)

    def _render(self, messages: Sequence[Message], tools: Sequence[Message]) -> str:
        return self.template.render(messages, tools=tools)

    def _encode(self, text: str) -> tuple[int, ...]:
        return self.template.encode(text)

    def _sanitized(self, shown: AgentInput) -> AgentInput:
        native = isinstance(self.action_format, NativeCalls)
        return self._sanitizer.input(
            without_tool_instructions(shown, native=native and bool(shown.tools))
        )

    # ---- completions -------------------------------------------------------------------------

    @property
    def thought_end(self) -> tuple[int, ...]:
        """Tokens that close a thought which has run too long, the documented way of the family."""
        return self.completions.thought_end

    def parse(
        self,
        completion: Completion,
        prompt: Sequence[int] = (),
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        """Decode without the stop token and parse the action."""
        return self.completions.parse(completion, prompt, tools)

    def in_thought(self, completion: Completion, prompt: Sequence[int] = ()) -> bool:
        """The completion ends inside a thought."""
        return self.completions.in_thought(completion, prompt)

    def count_thought_tokens(self, completion: Completion, prompt: Sequence[int] = ()) -> int:
        """Tokens up to the one that completes the closing mark; all of an unclosed thought."""
        return self.completions.count_thought_tokens(completion, prompt)

    def encode_action(self, action: str) -> tuple[int, ...]:
        """The action in the format and in the form of the template, and the stop token."""
        return self.completions.encode_action(action)

    def decode(self, tokens: Sequence[int]) -> str:
        """Decoded, without trailing stop tokens."""
        return self.completions.decode(tokens)


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
