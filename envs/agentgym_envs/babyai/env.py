"""BabyAI: short missions in a grid of rooms, after Chevalier-Boisvert et al. (arXiv:1810.08272)."""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np

from agentgym.env.base import (
    AnyText,
    Opening,
    Outcome,
    TextEnv,
    one_of,
    unknown_split,
    unknown_task,
)
from agentgym.errors import EnvError
from agentgym_envs.babyai import bot
from agentgym_envs.babyai import levels as _levels
from agentgym_envs.babyai.levels import ENV, GROUPS
from agentgym_envs.babyai.view import describe

COMMANDS = ("turn left", "turn right", "go forward", "pick up", "drop", "toggle")
"""In the order of the package's actions."""
_SEEDS = {"train": 0, "valid": 1_000_000, "test": 2_000_000} | dict.fromkeys(GROUPS, 3000000)
"""Split -> its first seed."""


class BabyAI(TextEnv):
    """Go to, pick up, open and put things, as a mission of BabyAI asks.

    Levels, rules and missions are those of ``minigrid``; the agent sees 7 x 7 cells, described
    in words. Commands are those of GLAM (Carta et al. 2023, arXiv:2302.02662) and BALROG. A task id
    such as ``GoToLocal-2000003`` names level and seed. ``train``, ``valid`` and ``test`` hold the
    chosen levels with disjoint seeds; the further splits ``room``, ``maze`` and ``sequence`` hold
    the levels of one difficulty each, with seeds of their own.
    """

    def __init__(
        self,
        *,
        levels: str = "room",
        reward: Literal["success", "published"] = "success",
        train_tasks: int = 2048,
        valid_tasks: int = 128,
        test_tasks: int = 128,
        **kwargs: Any,
    ) -> None:
        """Make the environment.

        Args:
            levels: Groups (``room``, ``maze``, ``sequence``) or levels, such as ``BossLevel``,
                joined by commas.
            reward: Of a success: 1, or the package's ``1 - 0.9 * steps / max_steps``.
            train_tasks: Tasks in the split ``train``; levels take turns.
            valid_tasks: Tasks in the split ``valid``.
            test_tasks: Tasks in the split ``test``, and in those of one difficulty.
            **kwargs: See ``TextEnv``.

        Raises:
            ConfigError: A value is out of range.
            MissingExtra: Minigrid is not installed.
        """
        _levels.require()
        super().__init__(**kwargs)
        one_of("reward", reward, ("success", "published"))
        self.levels = _levels.chosen(levels)
        self.reward = reward
        self._sizes = {"train": train_tasks, "valid": valid_tasks, "test": test_tasks}
        self._level: Any = None
        self.action_space = AnyText(COMMANDS)

    def tasks(self, split: str) -> tuple[str, ...]:
        """Levels take turns, seeds count up."""
        if split not in _SEEDS:
            raise unknown_split(ENV, split, tuple(_SEEDS))
        names = GROUPS.get(split, self.levels)
        count = self._sizes.get(split, self._sizes["test"])
        return tuple(f"{names[n % len(names)]}-{_SEEDS[split] + n}" for n in range(count))

    def start(self, task: str, rng: np.random.Generator) -> Opening:
        """Lay out the rooms; the task alone decides how."""
        name, _, seed = task.rpartition("-")
        plain = seed.isascii() and seed.isdecimal() and len(seed) < 9 and str(int(seed)) == seed
        if not (name and plain and name in _levels.registered()):
            raise unknown_task(ENV, task, self.tasks("train")[:8])
        self._level = _levels.make(name, int(seed))
        return Opening(describe(self._level), f"Your mission: {self._level.mission}.", name)

    def act(self, action: str) -> Outcome:
        """Execute a command; one that is impossible here takes a step and changes nothing."""
        level, command = self._playing(), action.strip()
        if self._last.done:
            return self._last._replace(observation="The episode is over.", reward=0.0, valid=False)
        if command not in COMMANDS:
            return Outcome(f"Unknown command. Commands: {', '.join(COMMANDS)}.", valid=False)
        possible = command in self.admissible()
        _, paid, over, _, _ = level.step(COMMANDS.index(command))
        won = bool(over and paid > 0)
        worth = float(won) if self.reward == "success" else float(paid)
        if over:
            text = "The mission is accomplished." if won else "The mission has failed."
            return Outcome(text, worth, float(won), won, done=True, valid=possible)
        text = describe(level) if possible else f"Nothing happens. {describe(level)}"
        return Outcome(text, valid=possible)

    def manual(self) -> str:
        """Commands, view and end."""
        return (
            "You are in a grid of rooms, closed by walls and doors, with keys, balls and boxes of "
            "several colours. You have a mission, such as `put the red ball next to the box`.\n"
            "Each action is one of these commands:\n"
            "`turn left`, `turn right`: a quarter turn.\n"
            "`go forward`: one step ahead, where nothing is or an open door.\n"
            "`pick up`: take the key, ball or box 1 step ahead; you carry one thing at most.\n"
            "`drop`: put down what you carry, 1 step ahead, where nothing is.\n"
            "`toggle`: open or close the door 1 step ahead; a locked door needs that you carry the "
            "key of its colour. A box that is toggled is gone, and what was in it lies there.\n"
            "Each turn answers with what you see: 7 by 7 cells from where you stand, ahead of you "
            "and 3 steps to each side, but nothing behind walls and closed doors. Going to a thing "
            "means to have it 1 step ahead. `on your left`, `behind you` in a mission are meant "
            "from where you start, in the room where you start.\n"
            "The episode ends when the mission is accomplished, or at the turn limit."
        )

    def admissible(self) -> tuple[str, ...]:
        """Commands that change something now, sorted."""
        level = self._playing()
        if self._last.done:
            return ()
        ahead = level.grid.get(*map(int, level.front_pos))
        found = ["turn left", "turn right"]
        if ahead is None or ahead.can_overlap():
            found.append("go forward")
        if ahead is None and level.carrying:
            found.append("drop")
        if ahead is not None and ahead.can_pickup() and not level.carrying:
            found.append("pick up")
        if ahead is not None and _toggles(ahead, level.carrying):
            found.append("toggle")
        return tuple(sorted(found))

    def oracle(self) -> tuple[str, ...] | None:
        """The package's bot, which sees what the agent sees."""
        level = self._playing()
        plan = None if self._last.done else bot.plan(level)
        return tuple(COMMANDS[action] for action in plan) if plan else None

    def fork(self) -> Self:
        """A copy of the level that shares its walls."""
        other = self.shallow_copy()
        if self._level is not None:
            other._level = _levels.copied(self._level)
        return other

    def _playing(self) -> Any:
        if self._level is None:
            raise EnvError("no level of BabyAI is running; call reset() first")
        return self._level


def _toggles(thing: Any, carried: Any) -> bool:
    """Whether toggling does something to it."""
    if thing.type == "box":
        return True
    if thing.type != "door":
        return False
    fits = carried is not None and carried.type == "key" and carried.color == thing.color
    return fits or not thing.is_locked
