"""How a scene becomes tokens and tokens become an action; nothing is ever re-tokenised."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple, Protocol

from agentgym.errors import ConfigError
from agentgym.rollout.action_formats import THOUGHT_END, ActionFormat, Tags
from agentgym.types import Completion, Turn


class AgentInput(NamedTuple):
    """What the agent is shown this turn."""

    goal: str
    opening: str
    """First observation of the episode."""
    observation: str
    admissible_actions: tuple[str, ...] = ()
    """Admissible actions, where the world is asked to list them."""


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

    def prompt(self, scene: AgentInput, turns: Sequence[Turn]) -> Prompt:
        """Tokens for this turn, given the turns before it."""

    def parse(self, completion: Completion) -> str:
        """The action in a completion.

        Raises:
            MalformedAction: The text holds no action; the message is shown to the agent.
        """

    def count_thought_tokens(self, completion: Completion) -> int:
        """Leading tokens of a completion that are thought, before the action; 0 for none."""

    def encode_action(self, action: str) -> tuple[int, ...]:
        """The completion that says ``action``: how a demonstration is written."""

    def decode(self, tokens: Sequence[int]) -> str:
        """Tokens as text, for records."""


class ChatAgent:
    """Speaks through a Hugging Face tokenizer's chat template.

    With ``window=None`` the conversation grows: each turn appends the end of the last answer, the
    new observation and the mark that opens the next answer, so an episode is one training row.
    With ``window=h`` every turn shows the goal and the last ``h`` exchanges in a fresh prompt, so
    every turn is a row of its own. The trainer does not know which.

    Args:
        tokenizer: With a chat template.
        action_format: How actions are written; in tags unless given.
        system_prompt: System prompt; the form's instructions unless given, none if empty.
        window: Exchanges shown in a fresh prompt each turn; None: the conversation grows.

    Raises:
        ConfigError: The tokenizer has no chat template, or its template rewrites earlier turns
            in a way that cannot be appended to.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        action_format: ActionFormat | None = None,
        system_prompt: str | None = None,
        window: int | None = None,
    ) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise ConfigError(
                "the tokenizer has no chat template; expected an instruct model's tokenizer, "
                "or set `tokenizer.chat_template`"
            )
        self.tokenizer = tokenizer
        self.action_format: ActionFormat = action_format or Tags()
        self.system_prompt = (
            self.action_format.instructions if system_prompt is None else system_prompt
        )
        self.window = window
        self._special = sorted(tokenizer.all_special_tokens, key=len, reverse=True)

    # ---- reading -----------------------------------------------------------------------------

    def prompt(self, scene: AgentInput, turns: Sequence[Turn]) -> Prompt:
        """The next piece of a growing conversation, or a fresh prompt."""
        if self.window is not None:
            return Prompt(self._render(self._windowed(scene, turns, self.window)), True)
        if not turns:
            return Prompt(self._render(self._describe(scene, scene.observation)), True)
        closing, before, after = self._seams
        if turns[-1].completion.tokens[-1:] == self.stop[:1]:
            closing = closing.removeprefix(self.tokenizer.decode([self.stop[0]]))
        text = closing + before + self._describe(scene, scene.observation, first=False) + after
        return Prompt(self._encode(text), False)

    def _describe(self, scene: AgentInput, observation: str, *, first: bool = True) -> str:
        parts = [observation]
        if first and scene.goal not in observation:
            parts.insert(0, scene.goal)
        if scene.admissible_actions:
            parts.append("Actions: " + ", ".join(scene.admissible_actions))
        return self._plain("\n".join(parts))

    def _windowed(self, scene: AgentInput, turns: Sequence[Turn], window: int) -> str:
        if not turns:
            return self._describe(scene, scene.observation)
        shown = [scene.opening, *(turn.observation for turn in turns)]
        first = max(0, len(turns) - window)
        past = [
            f"[{n + 1}] {shown[n]}\n> {turns[n].action or '(no action)'}"
            for n in range(first, len(turns))
        ]
        current = f"[{len(turns) + 1}] {self._describe(scene, scene.observation, first=False)}"
        return self._plain("\n".join([scene.goal, *past])) + "\n" + current

    def _plain(self, text: str) -> str:
        """Text of the world, unable to speak in the template's control tokens."""
        text = text.encode(errors="replace").decode()  # Halves of characters have no tokens.
        for token in self._special:
            if token in text:
                text = text.replace(token, f"{token[:1]} {token[1:]}")
        return text

    def _messages(self, user: str) -> list[dict[str, str]]:
        system = [{"role": "system", "content": self.system_prompt}] if self.system_prompt else []
        return [*system, {"role": "user", "content": user}]

    def _render(self, user: str) -> tuple[int, ...]:
        text = self.tokenizer.apply_chat_template(
            self._messages(user), tokenize=False, add_generation_prompt=True
        )
        return self._encode(text)

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))

    @cached_property
    def _seams(self) -> tuple[str, str, str]:
        """What the template puts after an answer, before and after the next observation.

        Found by rendering a conversation of markers once, so any template that only appends works.
        """
        one, two, three = "\u2400one", "\u2400two", "\u2400three"
        past = [*self._messages(one), {"role": "assistant", "content": two}]
        whole = self.tokenizer.apply_chat_template(
            [*past, {"role": "user", "content": three}], tokenize=False, add_generation_prompt=True
        )
        short = self.tokenizer.apply_chat_template(past, tokenize=False)
        closing = short.rpartition(two)[2]
        between = whole.partition(two)[2]
        if not (between.startswith(closing) and between.count(three) == 1):
            raise ConfigError(
                "the tokenizer's chat template rewrites earlier turns, so a growing conversation "
                "cannot be appended to; use a window (`--agent.window 2`)"
            )
        before, _, after = between[len(closing) :].partition(three)
        return closing, before, after

    # ---- writing -----------------------------------------------------------------------------

    @cached_property
    def stop(self) -> tuple[int, ...]:
        """The token that the template puts after an answer, then the end-of-text token."""
        end = self.tokenizer.eos_token_id
        first = self._encode(self._seams[0])[:1] if self.window is None else ()
        return tuple(dict.fromkeys([*first, *([end] if end is not None else [])]))

    def parse(self, completion: Completion) -> str:
        """Decode without the stop token and read the action."""
        return self.action_format.parse(self.decode(completion.tokens))

    def count_thought_tokens(self, completion: Completion) -> int:
        """Tokens up to the one that completes the mark at the end of a thought; 0 without one."""
        tokens = completion.tokens
        if THOUGHT_END not in self.decode(tokens):
            return 0
        counts = range(len(tokens) + 1)
        return bisect_left(counts, True, key=lambda n: THOUGHT_END in self.decode(tokens[:n]))

    def encode_action(self, action: str) -> tuple[int, ...]:
        """The action in the format, and the stop token."""
        return (*self._encode(self.action_format.format(action)), self.stop[0])

    def decode(self, tokens: Sequence[int]) -> str:
        """Decoded, without a trailing stop token."""
        kept = list(tokens)
        while kept and kept[-1] in self.stop:
            kept.pop()
        return str(self.tokenizer.decode(kept, skip_special_tokens=False))
