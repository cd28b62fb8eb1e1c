"""Any Gymnasium environment that can be played in text: ``gym:ID`` or ``gym:file.py:Class``.

Actions are texts (``Text``), or numbers (``Discrete``). Observations are texts, or what the
environment draws with ``render_mode="ansi"``.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

import gymnasium
from gymnasium import spaces

from agentgym.env import by_class
from agentgym.env.base import AnyText, Opening
from agentgym.errors import ConfigError, EnvError
from agentgym.interop.foreign import ForeignEnv, Reply

_COLOURED = re.compile(r"\x1b\[[0-9;]*m(.*?)\x1b\[0m")
"""What a terminal shows in colour, such as the place of the player."""
_LISTED = 100
"""Largest number of actions that are listed."""
_LONGEST = 4000
"""Characters of an environment's own description that go into the manual."""


class GymnasiumWorld(ForeignEnv):
    """A Gymnasium environment; its seeds are the tasks."""

    kind = "gym"

    def __init__(self, target: str, *, env_kwargs: Any = None, **kwargs: Any) -> None:
        """Make the environment; see ``ForeignEnv`` for further arguments.

        Args:
            target: Id of a registered environment, ``module:ID``, or ``file.py:Class``.
            env_kwargs: Keyword arguments of the environment, as a dictionary.
            **kwargs: Those of ``ForeignEnv``.

        Raises:
            ConfigError: There is no such environment, or it cannot be played in text.
        """
        super().__init__(target, **kwargs)
        given = dict(env_kwargs or {})
        self._env = _made(target, given)
        self._drawn = not _is_text(self._env.observation_space)
        if self._drawn:
            modes = self._env.metadata.get("render_modes") or ()
            self._env.close()
            if "ansi" not in modes:
                raise ConfigError(
                    f"{self.name} observes {self._env.observation_space}, expected texts (Text) or "
                    f'a drawing in text (render_mode="ansi")'
                )
            self._env = _made(target, {"render_mode": "ansi", **given})
        if not isinstance(self._env.action_space, spaces.Discrete) and not _is_text(
            self._env.action_space
        ):
            raise ConfigError(
                f"{self.name} takes actions of {self._env.action_space}, expected texts (Text) or "
                f"numbers (Discrete)"
            )
        if isinstance(self._env.action_space, spaces.Discrete):
            self.action_space = AnyText(self.admissible())

    @classmethod
    def turn_limit(cls, target: str) -> int | None:
        """The limit that the environment was registered with."""
        found = gymnasium.registry.get(target)
        limit: int | None = found.max_episode_steps if found else cls.max_turns
        return limit

    def begin(self, task: str, seed: int) -> Opening:
        """Reset with the seed that the task names."""
        observation, _ = self._env.reset(seed=seed)
        return Opening(self._text(observation), f"Play {self.target}.", self.target)

    def respond(self, action: str) -> Reply:
        """Act; what is not in the action space is answered, and does not reach the environment."""
        space = self._env.action_space
        meant: Any = action
        if isinstance(space, spaces.Discrete):
            word = action.strip()
            meant = (
                int(word) if word.lstrip("-").isascii() and word.lstrip("-").isdecimal() else None
            )
        if meant is None or not space.contains(meant):
            return Reply(f"This is no action. {self._form()}", valid=False)
        observation, reward, terminated, truncated, _ = self._env.step(meant)
        return Reply(self._text(observation), float(reward), bool(terminated or truncated))

    def admissible(self) -> tuple[str, ...]:
        """The numbers of a discrete action space."""
        space = self._env.action_space
        if not isinstance(space, spaces.Discrete) or space.n > _LISTED:
            return ()
        return tuple(str(int(space.start) + number) for number in range(int(space.n)))

    def manual(self) -> str:
        """The environment's description and the form of actions."""
        about = inspect.getdoc(type(self._env.unwrapped)) or self.target
        return f"{about[:_LONGEST]}\n\n{self._form()}"

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def _form(self) -> str:
        space = self._env.action_space
        if isinstance(space, spaces.Discrete):
            first = int(space.start)
            last = first + int(space.n) - 1
            return f"An action is a number from {first} to {last}, such as {first}."
        return "An action is a text."

    def _text(self, observation: Any) -> str:
        shown = self._env.render() if self._drawn else observation
        if not isinstance(shown, str):
            raise EnvError(f"{self.name} shows {shown!r:.80}, expected a text")
        return _COLOURED.sub(r"[\1]", shown)


def _is_text(space: object) -> bool:
    return isinstance(space, spaces.Text | AnyText)


def _made(target: str, kwargs: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    """The environment without a turn limit of its own."""
    try:
        if by_class.names_class(target):
            kind = by_class.load_object(target)
            env = kind(**kwargs)
            if not isinstance(env, gymnasium.Env):
                raise ConfigError(
                    f"gym:{target} is a {type(env).__name__}, expected a gymnasium.Env"
                )
            return env
        return gymnasium.make(target, disable_env_checker=True, max_episode_steps=-1, **kwargs)
    except (gymnasium.error.Error, TypeError, ValueError, ImportError) as problem:
        raise ConfigError(f"gym:{target} cannot be made: {problem}") from problem
