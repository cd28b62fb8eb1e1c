"""Games of TextArena for one player: ``textarena:ID``, such as ``textarena:TowerOfHanoi-v0``."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from agentgym.env.base import AnyText, Opening
from agentgym.errors import ConfigError, MissingExtra
from agentgym.interop.foreign import ForeignEnv, Reply

_GLOBAL = threading.Lock()
"""Held during every call into a game: TextArena draws from the process's random numbers."""


class TextArenaWorld(ForeignEnv):
    """A game for one player; each has a state of random numbers of its own."""

    kind = "textarena"
    action_space = AnyText(("[1]", "[2]", "[7]", "[A]", "[A B]", "[up]", "[1 2]"))

    def __init__(self, target: str, **kwargs: Any) -> None:
        """Make the game; see ``ForeignEnv`` for arguments.

        Raises:
            ConfigError: There is no such game.
            MissingExtra: TextArena is not installed.
        """
        super().__init__(target, **kwargs)
        try:
            import textarena
        except ImportError:
            raise MissingExtra("pip install textarena") from None
        self._make = textarena.make
        self._random = random.Random(0).getstate()
        self._seen = ""
        """The last observation; games repeat their whole history in each."""
        self._game = self._new_game()

    def begin(self, task: str, seed: int) -> Opening:
        """Start the game of a seed."""
        self._random = random.Random(seed).getstate()
        self._game, self._seen = self._new_game(), ""
        with self._own_numbers():
            try:
                self._game.reset(num_players=1, seed=seed)
            except AssertionError as problem:
                raise ConfigError(f"{self.name} is no game for one player: {problem}") from problem
            _, observation = self._game.get_observation()
        return Opening(self._new_part(_text(observation)), f"Win {self.target}.", self.target)

    def respond(self, action: str) -> Reply:
        """Make a move; an invalid one is counted by the game, which may end it."""
        with self._own_numbers():
            done, _ = self._game.step(action)
            if done:
                rewards, reported = self._game.close()
                reason = reported.get(0, {}).get("reason", "") if isinstance(reported, dict) else ""
                return Reply(str(reason), float((rewards or {}).get(0, 0.0)), True)
            _, observation = self._game.get_observation()
        return Reply(self._new_part(_text(observation)), 0.0, False)

    def manual(self) -> str:
        """The rules are in the first observation."""
        return (
            f"You play {self.target}. The first observation holds its rules and the form of a move."
        )

    def _new_game(self) -> Any:
        """A new game for each episode: a wrapper keeps the history of those before."""
        with self._own_numbers():
            try:
                return self._make(env_id=self.target)
            except Exception as problem:
                raise ConfigError(f"{self.name} cannot be made: {problem}") from problem

    def _new_part(self, text: str) -> str:
        new, self._seen = text.removeprefix(self._seen), text
        return new.strip()

    @contextmanager
    def _own_numbers(self) -> Iterator[None]:
        with _GLOBAL:
            before = random.getstate()
            random.setstate(self._random)
            try:
                yield
            finally:
                self._random = random.getstate()
                random.setstate(before)


def _text(observation: Any) -> str:
    """An observation is a text, or a list of (sender, text, kind)."""
    if isinstance(observation, str):
        return observation
    return "\n".join(str(part[1]) for part in observation)
