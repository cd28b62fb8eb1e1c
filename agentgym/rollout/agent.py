"""How observations become tokens and completions become actions; nothing is re-tokenised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from agentgym.rollout.action_formats import ActionFormat, NativeCalls, Tags
from agentgym.rollout.chat_template import ChatTemplate
from agentgym.rollout.completions import Completions, native_calls
from agentgym.rollout.conversation import Conversation
from agentgym.rollout.prompts import AgentInput, PromptLayout
from agentgym.rollout.rendering import Message
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
        self.window = self.layout.window if window is None else window
        self.history = history
        self.stop = self.template.stop_tokens(stop_tokens)
        self.action_format: ActionFormat = action_format or Tags()
        if isinstance(self.action_format, NativeCalls):
            self.action_format = native_calls(self.template, tool_notation)
        self.completions = Completions(self.template, self.action_format, self.stop)
        self.conversation = Conversation(
            self.completions, self.layout, system_prompt=system_prompt, window=self.window
        )
        self._special = frozenset(tokenizer.all_special_tokens)

    # ---- prompts -----------------------------------------------------------------------------

    def prompt(self, shown: AgentInput, turns: Sequence[Turn]) -> Prompt:
        """The next piece of a growing conversation, or a fresh prompt."""
        if self.window is not None:
            messages = self.conversation.windowed(shown, turns)
            return Prompt(self._encode(self._render(messages, shown)), True)
        if not turns:
            return Prompt(self._encode(self.rendered(shown, turns)), True)
        if self.history == "rerender":
            return self._rerendered(shown, turns)
        return Prompt(self._encode(self._continuation(shown, turns[-1])), False)

    def _continuation(self, shown: AgentInput, last: Turn) -> str:
        """What follows the last answer, without the stop token that was sampled."""
        text = self.template.continuation(*self.conversation.following(shown, last))
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
            if first and self.tokenizer.decode(list(first)) in self._special:
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
        return self._render(self.conversation.messages(shown, turns), shown)

    def _render(self, messages: Sequence[Message], shown: AgentInput) -> str:
        return self.template.render(messages, tools=self.conversation.schemas(shown))

    def _encode(self, text: str) -> tuple[int, ...]:
        return self.template.encode(text)

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


def _context(turns: Sequence[Turn]) -> Sequence[int]:
    """Tokens of the current row."""
    context: list[int] = []
    for turn in turns:
        if turn.fresh:
            context = []
        context += [*turn.prompt, *turn.completion.tokens]
    return context
