"""An episode as chat messages: what the template is given to render."""

from __future__ import annotations

from collections.abc import Sequence

from agentgym.env.act import ACT
from agentgym.rollout.action_formats import NativeCalls
from agentgym.rollout.completions import Completions
from agentgym.rollout.prompts import AgentInput, Example, PromptLayout
from agentgym.rollout.rendering import Message
from agentgym.rollout.sanitize import Sanitizer, without_tool_instructions
from agentgym.rollout.tool_calls import ToolCall, results_of
from agentgym.types import Turn


class Conversation:
    """Writes episodes as messages of one model's chat template; holds no episode state.

    Args:
        completions: Reads the model's completions; has its template and action format.
        layout: Layout of the prompts.
        system_prompt: System prompt; manual and instructions of the format unless given, none if
            empty.
        window: Exchanges shown in a fresh prompt each turn; None: all, in one conversation.
    """

    def __init__(
        self,
        completions: Completions,
        layout: PromptLayout,
        *,
        system_prompt: str | None,
        window: int | None,
    ) -> None:
        self._layout, self.window = layout, window
        self._sanitizer = Sanitizer(completions.tokenizer.all_special_tokens)
        self.examples: tuple[Example, ...] = ()
        """Solved episodes to show in the prompt."""
        self._completions, self._system_prompt = completions, system_prompt
        self._template = completions.template
        self._format = completions.action_format

    def messages(self, shown: AgentInput, turns: Sequence[Turn]) -> list[Message]:
        """The whole conversation so far."""
        shown = self._sanitized(shown)
        first = shown._replace(observation=shown.opening) if turns else shown
        found = [*self._head(shown), _user(self._layout.first(first))]
        for number, turn in enumerate(turns):
            now = shown if number == len(turns) - 1 else shown._replace(admissible_actions=())
            now = now._replace(observation=self._sanitizer.text(turn.observation))
            calls = self._calls(turn, shown)
            ids = _call_ids(number, len(calls))
            found.append(self._answer(turn, calls, ids))
            found += self._results(self._layout.next(now), calls, ids)
        return found

    def windowed(self, shown: AgentInput, turns: Sequence[Turn]) -> list[Message]:
        """The goal and the exchanges of the window, in one message."""
        assert self.window is not None, "there is one conversation, without a window"
        shown = self._sanitized(shown)
        first = max(0, len(turns) - self.window - 1)
        recent = [*turns[:first], *map(self._sanitizer.turn, turns[first:])]
        user = self._layout.windowed(shown, recent, self.window)
        if self._layout.instructions_in_turn:
            user = f"{user}\n\n{self._instructions(shown)}"
        return [*self._head(shown), _user(user)]

    def following(self, shown: AgentInput, last: Turn) -> tuple[Message, list[Message]]:
        """A stand-in for the last answer, and the messages that follow it."""
        shown = self._sanitized(shown)
        calls = self._calls(last, shown)
        ids = _call_ids(0, len(calls))
        if calls:
            answer = self._template.call_answer(calls[0].name, ids[0])
        else:
            answer = self._template.text_answer()
        return answer, self._results(self._layout.next(shown), calls, ids)

    def schemas(self, shown: AgentInput) -> Sequence[Message]:
        """Tools that the template lists; none where calls are not native."""
        if not isinstance(self._format, NativeCalls) or not self._template.has_tools:
            return ()
        return shown.tools or (ACT,)

    def _answer(self, turn: Turn, calls: Sequence[ToolCall], ids: Sequence[str]) -> Message:
        """A completion as an assistant message."""
        markers = self._template.thoughts
        text = self._completions.decode(turn.completion.tokens)
        thought, answer, closed = markers.split(text, opened=self._completions.opened(turn.prompt))
        if not closed:
            thought, answer = None, text
        answer = self._completions.without_header(answer)
        if calls:
            content = self._format.notation.read(answer).content  # type: ignore[attr-defined]
            message = self._template.calls_message(calls, content, ids)
            if thought is not None and self._template.has_thought_field:
                fields = self._template.thought_message(thought.strip(), "")
                message |= {key: fields[key] for key in fields if key not in ("role", "content")}
            return message
        if thought is None:
            return {"role": "assistant", "content": answer}
        return self._template.thought_message(thought.strip(), answer.lstrip("\n"))

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
        if not (isinstance(self._format, NativeCalls) and turn.parsed):
            return ()
        if not self._template.has_tools:
            return ()
        text = self._completions.normalized(turn.completion, turn.prompt)
        return self._format.parse_calls(text, shown.tools or (ACT,))[1]

    def _head(self, shown: AgentInput) -> list[Message]:
        """The messages before the first observation."""
        if self._system_prompt is not None:
            system = self._system_prompt
        else:
            chosen = self._layout.chosen(shown, self.examples)
            examples = list(map(self._sanitizer.example, chosen))
            in_turn = self._layout.instructions_in_turn and self.window is not None
            instructions = "" if in_turn else self._instructions(shown)
            system = self._layout.system(shown, instructions, examples)
        if not system:
            return []
        if self._layout.acknowledgement:
            return [
                _user(system),
                {"role": "assistant", "content": self._layout.acknowledgement},
            ]
        return [{"role": "system", "content": system}]

    def _instructions(self, shown: AgentInput) -> str:
        """Description of the action format."""
        if isinstance(self._format, NativeCalls):
            return self._format.describe(shown.tools or (ACT,))
        return self._format.instructions

    def _sanitized(self, shown: AgentInput) -> AgentInput:
        native = isinstance(self._format, NativeCalls)
        return self._sanitizer.input(
            without_tool_instructions(shown, native=native and bool(shown.tools))
        )


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _call_ids(turn: int, count: int) -> list[str]:
    """Nine letters and digits, which Mistral's templates demand."""
    return [f"call{turn:03d}{number:02d}" for number in range(count)]
