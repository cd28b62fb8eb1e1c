"""A simulated user: a second policy that the agent talks to, as a tool or as the other speaker.

The user is played by a model that is not trained, behind a ``Speaker``: an endpoint
(``agentgym.tools.speakers``), or an engine in this process (``agentgym.rollout.speaker``). What it
says reaches the agent as an observation, so none of its tokens is trained on. A speaker that fails
is not the agent's fault: its episode counts as broken.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Self

import numpy as np

from agentgym.env.base import Opening, Outcome, TextEnv
from agentgym.env.wrapper import EnvWrapper
from agentgym.errors import ConfigError, EnvError
from agentgym.tools.env import ToolEnv, WithTools
from agentgym.tools.speakers import Message, Speaker
from agentgym.tools.tool import Tool, tool
from agentgym.utils.bounds import at_least

END = "###STOP###"
"""What a user writes at the end of a conversation."""
GREETING = "Hello! What can I do for you?"
"""What the agent says before the user's first message."""
INSTRUCTIONS = """\
You are a person who talks to an assistant. You want this:

{brief}

Say one thing at a time, in a sentence or two. Do not give away more than you are asked for, and \
invent nothing. When you have what you want, or when you see that you cannot get it, write {end}."""
"""System prompt of a user."""


class SimulatedUser:
    """One conversation with a user; also the callable of the tool ``ask_user``.

    Args:
        speaker: Plays the user.
        instructions: System prompt, with ``{brief}`` and ``{end}``.
        max_turns: Messages of the user, after which the conversation is over.
        end: Mark by which the user ends it; the agent does not read it.
    """

    def __init__(
        self,
        speaker: Speaker,
        *,
        instructions: str = INSTRUCTIONS,
        max_turns: int = 16,
        end: str = END,
    ) -> None:
        self.speaker, self.instructions = speaker, instructions
        self.max_turns, self.end = max_turns, end
        at_least(1, self, "max_turns")
        if not end:
            raise ConfigError("the mark by which a user ends a conversation is empty")
        self.begin("", 0)

    def begin(self, brief: str, seed: int) -> None:
        """Start a conversation.

        Args:
            brief: What the user wants.
            seed: Of all its messages.
        """
        text = self.instructions.replace("{brief}", brief).replace("{end}", self.end)
        self.messages: list[Message] = [{"role": "system", "content": text}]
        self.seed, self.turns, self.over = seed, 0, False
        self.tokens = 0
        """Read and written by the user's model in this conversation."""

    def __call__(self, message: str) -> str:
        """Say something to the user, and read the reply.

        Args:
            message: What to say or to ask.

        Raises:
            EnvError: The speaker failed, or its reply was empty.
        """
        if self.over:
            return "The user has left."
        asked = {"role": "user", "content": message}
        try:
            reply = self.speaker([*self.messages, asked], self.seed + self.turns)
        except EnvError:
            raise
        except Exception as problem:  # A tool that raises other errors blames the agent.
            words = " ".join(f"{type(problem).__name__}: {problem}".split())
            raise EnvError(f"the simulated user failed: {words}") from problem
        text, mark, _ = reply.text.partition(self.end)
        if not text.strip() and not mark:
            raise EnvError("the reply of the simulated user is empty")
        self.messages += [asked, {"role": "assistant", "content": reply.text}]
        self.turns += 1
        self.tokens += reply.prompt_tokens + reply.completion_tokens
        self.over = bool(mark) or self.turns >= self.max_turns
        return text.strip() or "The user has left."

    def fork(self) -> Self:
        """An independent conversation in the same state."""
        other = copy.copy(self)
        other.messages = list(self.messages)
        return other

    def tool(self) -> Tool:
        """The tool ``ask_user``."""
        return tool(self, name="ask_user")


class WithUser(EnvWrapper):
    """Any environment with a simulated user.

    As a tool, the agent asks by calling ``ask_user``. As the partner, the agent talks to the user
    whenever it calls no tool, the user opens the conversation, and its end is the end of the
    episode, with the score that the environment has given by then. ``info`` holds ``user_turns``
    and ``user_tokens``, which the user's model has read and written in the episode.

    Args:
        world: The environment; with a partner, an environment of tool calls.
        user: The user.
        partner: The user is the other speaker instead of a tool.
        brief: From the opening of a task to what the user wants; its goal unless given.
        goal: What the agent is shown as the goal with a partner.
    """

    stochastic = True

    def __init__(
        self,
        world: TextEnv,
        user: SimulatedUser,
        *,
        partner: bool = False,
        brief: Callable[[Opening], str] | None = None,
        goal: str = "Talk to the user, and do what they want.",
    ) -> None:
        super().__init__(
            split=world.split, admissible=world.with_admissible, render_mode=world.render_mode
        )
        if partner and not isinstance(world, ToolEnv):
            raise ConfigError(
                f"{type(world).__name__} takes actions as text, which a partner would take for "
                f"the conversation: give a ToolEnv, or use the user as a tool (partner=False)"
            )
        self.user, self.partner, self.goal = user, partner, goal
        self.brief = brief or (lambda opening: opening.goal)
        self.world: ToolEnv = world if partner else _asking(world, user)  # type: ignore[assignment]

    def start(self, task: str, rng: np.random.Generator) -> Opening:
        """Start a task; with a partner, the user speaks first."""
        seed = int(rng.spawn(1)[0].integers(2**31))
        self.world.task_id = task
        opening = self.world.start(task, rng)
        self.world._opening, self.world._last = opening, Outcome(opening.observation)
        tools = self.world.instructions
        goal = opening.goal.removesuffix(tools).strip()
        self.user.begin(self.brief(opening._replace(goal=goal)), seed)
        if not self.partner:
            return opening
        return opening._replace(observation=self.user(GREETING), goal=f"{self.goal}\n\n{tools}")

    def act(self, action: str) -> Outcome:
        """Act in the environment, or say something to a partner."""
        if self.partner and not self._calls(action):
            reply = self.user(action)
            return self.world._last._replace(
                observation=reply, reward=0.0, valid=True, done=self.user.over
            )
        self.world._last = self.world.act(action)
        return self.world._last

    def _calls(self, action: str) -> bool:
        """The action calls a tool."""
        return bool(self.world._notation_of(action).parse(action, self.world.tools))

    def manual(self) -> str:
        """That of the environment, which lists ``ask_user`` where it is a tool."""
        return self.world.manual()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Start a task; ``info`` describes the tools as that of a ``ToolEnv``."""
        observation, info = super().reset(seed=seed, options=options)
        return observation, info | self.world.tool_info()

    def fork(self) -> Self:
        """An environment in the same state, with a conversation of its own."""
        other = self.shallow_copy()
        other.world = self.world.fork()
        asked = [each.call for each in other.world.tools if isinstance(each.call, SimulatedUser)]
        other.user = self.user.fork() if self.partner else asked[0]
        return other

    def _info(self) -> dict[str, Any]:
        mine = {"user_turns": self.user.turns, "user_tokens": self.user.tokens}
        return {**self.world._info(), **super()._info(), **mine}


def _asking(world: TextEnv, user: SimulatedUser) -> ToolEnv:
    """The environment with the tool ``ask_user``."""
    if isinstance(world, ToolEnv):
        world.add_tools([user.tool()])
        return world
    return WithTools(world, [user.tool()])
