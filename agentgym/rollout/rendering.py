"""Calls the chat template of a tokenizer, which is a Jinja program that may fail or want parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agentgym.errors import ConfigError

if TYPE_CHECKING:
    from agentgym.models.protocols import Tokenizer

Message = dict[str, Any]
"""One chat message as ``apply_chat_template`` takes it: role, content, tool calls."""

_USER, _ANSWER = "QxUser0", "QxAnswer1"
_RESERVED = frozenset({"tokenize", "add_generation_prompt", "messages", "conversation", "tools"})


class Rendering:
    """Messages to text.

    Contents are texts; where a template wants lists of parts, as those with images may, they are
    converted.

    Args:
        tokenizer: With a chat template.
        args: Further variables of the template.

    Raises:
        ConfigError: There is no chat template, or it renders no user message.
    """

    def __init__(self, tokenizer: Tokenizer, args: Mapping[str, Any]) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise ConfigError(
                "the tokenizer has no chat template: use an instruct model, or set one such as "
                "agentgym.rollout.chat_template.PLAIN as `tokenizer.chat_template`"
            )
        if clash := sorted(_RESERVED & set(args)):
            raise ConfigError(f"template_args may not set {', '.join(clash)}")
        self.tokenizer = tokenizer
        # An undefined variable cannot be concatenated in Jinja; a missing token is an empty text.
        missing = {
            name: ""
            for name in ("bos_token", "eos_token")
            if getattr(tokenizer, name, None) is None
        }
        self.args = {**missing, **args}
        template = tokenizer.chat_template
        self.source = "\n".join(template.values()) if isinstance(template, dict) else str(template)
        """The Jinja text."""
        self._parts = False
        self._parts = self._needs_parts()

    def render(
        self, messages: Sequence[Message], generation_prompt: bool, tools: Sequence[Message]
    ) -> str:
        """The text of a conversation.

        Raises:
            ConfigError: The template failed; the message holds its reason.
        """
        try:
            return self._apply(messages, generation_prompt, tools)
        except Exception as problem:  # It is third-party code.
            reason = " ".join(str(problem).split())[:200]
            raise ConfigError(
                f"the chat template of the tokenizer failed ({type(problem).__name__}: {reason}); "
                "change `--agent.template-args`, or set another `tokenizer.chat_template`"
            ) from problem

    def attempt(
        self,
        messages: Sequence[Message],
        *,
        generation_prompt: bool = True,
        tools: Sequence[Message] = (),
    ) -> str | None:
        """The text, or None where the template fails."""
        try:
            return self._apply(messages, generation_prompt, tools)
        except Exception:
            return None

    def _needs_parts(self) -> bool:
        """Contents must be lists of parts."""
        messages = [
            {"role": "user", "content": _USER},
            {"role": "assistant", "content": _ANSWER},
        ]
        plain = self.attempt(messages, generation_prompt=False)
        if plain is not None and _USER in plain and _ANSWER in plain:
            return False
        self._parts = True
        parts = self.attempt(messages, generation_prompt=False)
        self._parts = False
        if parts is not None and _USER in parts:
            return True
        if plain is not None and _USER in plain:
            return False
        self.render(messages, True, ())
        raise ConfigError(
            "the chat template of the tokenizer renders no user message: expected the template of "
            "an instruct model"
        )

    def _apply(
        self, messages: Sequence[Message], generation_prompt: bool, tools: Sequence[Message]
    ) -> str:
        if self._parts:
            messages = [
                {**message, "content": [{"type": "text", "text": message["content"]}]}
                if isinstance(message["content"], str)
                else message
                for message in messages
            ]
        return str(
            self.tokenizer.apply_chat_template(
                list(messages),
                tools=list(tools) or None,
                tokenize=False,
                add_generation_prompt=generation_prompt,
                **self.args,
            )
        )
