"""What the agent puts into its prompts: our own layout, and those of published baselines.

A layout sets what its source fixes: the order of the parts, the window, the action format, whether
admissible actions are listed, and how many examples are shown. The wording is this project's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from agentgym.settings import ActionFormatName
from agentgym.types import Turn


class AgentInput(NamedTuple):
    """What the agent is shown this turn."""

    goal: str
    opening: str
    """First observation of the episode."""
    observation: str
    admissible_actions: tuple[str, ...] = ()
    """Admissible actions, where the environment is asked to list them."""
    manual: str = ""
    """How to act in this environment: the same for every task."""
    tools: tuple[dict[str, Any], ...] = ()
    """Schemas of the tools that the environment takes calls of; none: actions are text."""
    tool_instructions: str = ""
    """The part of goal and manual that describes the tools and their notation."""
    task_type: str = ""
    """Family of the task."""


class Example(NamedTuple):
    """One solved episode to show in the prompt."""

    goal: str
    opening: str
    steps: tuple[tuple[str, str], ...]
    """Completion and the observation that followed it."""
    task_type: str = ""
    """Family of the task."""


def _actions(shown: AgentInput) -> list[str]:
    listed = ", ".join(shown.admissible_actions)
    return [f"Actions: {listed}"] if listed else []


def _examples(examples: Sequence[Example]) -> list[str]:
    found = []
    for number, example in enumerate(examples, 1):
        lines = [f"Example {number}", f"Task: {example.goal}", example.opening]
        for completion, observation in example.steps:
            lines += [completion, observation]
        found.append("\n".join(lines))
    return found


@dataclass(frozen=True)
class PromptLayout:
    """Manual and action format in the system prompt, goal and observation in the first turn."""

    window: int | None = None
    """Exchanges in a fresh prompt each turn; None: the conversation grows."""
    acknowledgement: str = ""
    """Reply of the assistant to an instruction turn; empty: instructions are a system prompt."""
    action_format: ActionFormatName | None = None
    """Action format that the source uses; None: it leaves the format open."""
    show_admissible: bool = False
    """The source shows the admissible actions."""
    examples: int = 0
    """Examples that the source shows."""
    examples_by_type: bool = False
    """The examples are of the type of the task, where there are such."""
    instructions_in_turn: bool = False
    """The action format ends every turn, instead of the system prompt."""

    def chosen(self, shown: AgentInput, examples: Sequence[Example]) -> Sequence[Example]:
        """The examples for a task."""
        if not self.examples_by_type:
            return examples
        own = [example for example in examples if example.task_type == shown.task_type]
        return own or examples[: self.examples]

    def system(self, shown: AgentInput, instructions: str, examples: Sequence[Example]) -> str:
        """Manual, examples, action format."""
        parts = [shown.manual, *_examples(examples), instructions]
        return "\n\n".join(part for part in parts if part)

    def first(self, shown: AgentInput) -> str:
        """The goal, unless the observation contains it, and the observation."""
        goal = [] if shown.goal in shown.observation else [shown.goal]
        return "\n".join([*goal, shown.observation, *_actions(shown)])

    def next(self, shown: AgentInput) -> str:
        """The observation."""
        return "\n".join([shown.observation, *_actions(shown)])

    def windowed(self, shown: AgentInput, turns: Sequence[Turn], window: int) -> str:
        """The goal, the numbered exchanges, the current observation."""
        if not turns:
            return self.first(shown)
        lines = [shown.goal]
        for number, observation, action in history(shown, turns, window):
            lines += [f"[{number}] {observation}", f"> {action}"]
        return "\n".join([*lines, f"[{len(turns) + 1}] {self.next(shown)}"])


def history(shown: AgentInput, turns: Sequence[Turn], window: int) -> list[tuple[int, str, str]]:
    """Number, observation and action of the last ``window`` turns; numbers start at 1."""
    seen = [shown.opening, *(turn.observation for turn in turns)]
    first = max(0, len(turns) - window)
    return [(n + 1, seen[n], turns[n].action or "(no action)") for n in range(first, len(turns))]


@dataclass(frozen=True)
class ReActLayout(PromptLayout):
    """Few-shot ReAct: instruction and two worked episodes of the type of the task, then the task.

    Differs from the original: a thought and its action share a turn, where ReAct takes a turn for
    each thought and answers it with "OK."; the examples are the oracle's and hold no thoughts; the
    manual of the environment comes first.

    Source:
        Yao et al., ReAct (arXiv:2210.03629), appendix C; ysymyth/ReAct, ``alfworld.ipynb`` at
        19c6bae: ``prefixes`` (two examples per task type), ``alfworld_run`` (50 turns).
    """

    action_format: ActionFormatName | None = "react"
    examples: int = 2
    examples_by_type: bool = True

    def system(self, shown: AgentInput, instructions: str, examples: Sequence[Example]) -> str:
        """Manual, instruction, examples."""
        task = "Solve the task step by step: alternate reasoning and acting."
        parts = [shown.manual, f"{task} {instructions}", *_examples(examples)]
        return "\n\n".join(part for part in parts if part)

    def first(self, shown: AgentInput) -> str:
        """Observation, then the task, as in the ALFWorld prompt."""
        task = [] if shown.goal in shown.observation else [f"Your task: {shown.goal}"]
        return "\n".join([shown.observation, *task, *_actions(shown)])


@dataclass(frozen=True)
class VerlAgentLayout(PromptLayout):
    """One user prompt per turn: task, step count, last exchanges, admissible actions, format.

    There is no system prompt; an environment that lists no actions has its manual there, where the
    source describes the tools of its search environment in the prompt.

    Source:
        verl-agent (GiGPO, arXiv:2505.10978), ``agent_system/environments/prompts/alfworld.py`` and
        ``webshop.py``, ``env_manager.py``: ``build_text_obs`` (as in langfengQ/DrMAS at 1e66fe5);
        ``history_length`` is 2, and 4 for search (``run_search.sh``). SPEAR and EPO
        (arXiv:2509.22576) use the same.
    """

    window: int | None = 2
    action_format: ActionFormatName | None = "think"
    show_admissible: bool = True
    instructions_in_turn: bool = True

    def system(self, shown: AgentInput, instructions: str, examples: Sequence[Example]) -> str:
        """Examples, if any are asked for; the manual if no actions are listed."""
        manual = "" if shown.admissible_actions else shown.manual
        return "\n\n".join(part for part in [manual, *_examples(examples)] if part)

    def windowed(self, shown: AgentInput, turns: Sequence[Turn], window: int) -> str:
        """Without history in the first turn."""
        parts = [f"Task: {shown.goal}"]
        if turns:
            recent = history(shown, turns, window)
            parts.append(
                f"Steps taken: {len(turns)}. The last {len(recent)} observations and actions:"
            )
            parts += [
                f"[Observation {n}: {observation!r}, Action {n}: {action!r}]"
                for n, observation, action in recent
            ]
        parts.append(f"Current step: {len(turns) + 1}. Observation: {shown.observation}")
        if shown.admissible_actions:
            listed = "\n".join(f"'{a}'" for a in shown.admissible_actions if a != "help")
            parts.append(f"Admissible actions: [\n{listed}\n]")
        return "\n".join(parts)


@dataclass(frozen=True)
class AgentGymLayout(PromptLayout):
    """An instruction turn, an acknowledging reply, then Thought and Action lines.

    Source:
        AgentGym (arXiv:2406.04151) and AgentGym-RL (arXiv:2509.08755); WooooDyy/AgentGym at
        0412982, ``agentenv/envs/alfworld.py``: ``conversation_start_dict``, and
        ``AlfWorldEnvClient.observe``, which appends the available actions to every observation.
    """

    acknowledgement: str = "OK. I will follow these instructions."
    action_format: ActionFormatName | None = "react"
    show_admissible: bool = True


LAYOUTS: dict[str, PromptLayout] = {
    "default": PromptLayout(),
    "react": ReActLayout(),
    "verl-agent": VerlAgentLayout(),
    "agentgym": AgentGymLayout(),
}
"""The layouts by the names of ``AgentSettings.prompt``."""
