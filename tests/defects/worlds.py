"""Two correct small environments, and the registration of classes that break one of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from agentgym.env.base import Opening, Outcome, TextEnv, unknown_split, unknown_task


class Defect(NamedTuple):
    """An environment with one fault, and the message that the checker must give."""

    world: type[TextEnv]
    modelled_on: str
    """A public issue that reports such a fault, or the common practice that causes it."""
    sentence: str
    """Regular expression for the violation."""


DEFECTS: list[Defect] = []


def defect(sentence, modelled_on="common"):
    """List a class as a defect."""

    def listed(world):
        DEFECTS.append(Defect(world, modelled_on, sentence))
        return world

    return listed


class Small(TextEnv):
    """Forty numbered tasks in three splits."""

    splits: dict = {"train": range(20), "valid": range(20, 30), "test": range(30, 40)}  # noqa: RUF012

    def tasks(self, split):
        if split not in self.splits:
            raise unknown_split("Small", split, tuple(self.splits))
        return [f"small-{n}" for n in self.splits[split]]

    def number(self, task):
        if task not in {f"small-{n}" for ids in self.splits.values() for n in ids}:
            raise unknown_task("Small", task, self.tasks("train"))
        return int(task.removeprefix("small-"))


class Corridor(Small):
    """Walk east to the end; observations hold a random number, and the path is mutable state."""

    stochastic = True

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.way = []
        self.length = 0
        self.rng = np.random.default_rng(0)

    def start(self, task, rng):
        self.length = 3 + self.number(task) % 5
        self.rng = rng
        self.way = []
        return Opening(f"You stand in a corridor. A draught: {rng.integers(9)}.", "Reach its end.")

    def act(self, action):
        if action not in ("east", "west"):
            return self.outcome("Go east or west.", valid=False)
        self.way.append(action)
        return self.outcome(f"You walked {len(self.way)} steps. A draught: {self.rng.integers(9)}.")

    def outcome(self, text, valid=True):
        place = max(0, self.way.count("east") - self.way.count("west"))
        won = place >= self.length
        score = min(1.0, place / self.length)
        return Outcome(text, float(won), score, won, done=won, valid=valid)

    def manual(self):
        return "Walk to the end of a corridor: `east` or `west`. Reaching it ends the episode."

    def admissible(self):
        return ("east", "west")

    def oracle(self):
        place = self.way.count("east") - self.way.count("west")
        return ("east",) * (self.length - place)


class Drawers(Small):
    """Find the key in one of eight drawers, take it, unlock the door; nothing is random."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.drawer = 0
        self.stage = 0

    def start(self, task, rng):
        self.drawer = 1 + 3 * self.number(task) % 8
        self.stage = 0
        seen = ", ".join(f"drawer {n}" for n in range(1, 9))
        return Opening(f"A locked door. You see {seen}.", "Unlock the door.")

    def act(self, action):
        if action not in self.admissible():
            return self.outcome("Nothing happens.", valid=False)
        plan = self.plan()
        if action == plan[self.stage]:
            self.stage += 1
            return self.outcome(
                ("A key!", "You have the key.", "The door is open.")[self.stage - 1]
            )
        return self.outcome("Nothing in there." if action.startswith("open") else "Time passes.")

    def outcome(self, text, valid=True):
        won = self.stage == 3
        return Outcome(text, float(won), self.stage / 3, won, done=won, valid=valid)

    def plan(self):
        return f"open drawer {self.drawer}", "take key", "unlock door"

    def manual(self):
        return (
            "Find the key and unlock the door, which ends the episode. `open drawer 3`, "
            "`take key`, `unlock door`, `wait`."
        )

    def admissible(self):
        opened = tuple(f"open drawer {n}" for n in range(1, 9))
        more = {1: ("take key",), 2: ("unlock door",)}.get(self.stage, ())
        return tuple(sorted((*opened, *more, "wait")))

    def oracle(self):
        return self.plan()[self.stage :]
