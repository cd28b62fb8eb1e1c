"""Find a hidden number from hints: the smallest environment, with an adjustable horizon."""

from __future__ import annotations

from typing import Any

import numpy as np

from agentgym.env.base import Opening, Outcome, TextEnv, unknown_split, unknown_task

SPLITS = {"train": range(800), "valid": range(800, 900), "test": range(900, 1000)}


class Hotter(TextEnv):
    """Guess a number; every answer gives the direction. A perfect player needs log2(high)."""

    def __init__(self, high: int = 100, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.high = high
        self.bounds = (1, high)
        self.secret = 0

    def tasks(self, split: str) -> tuple[str, ...]:
        """A task is a seed."""
        if split not in SPLITS:
            raise unknown_split("agentgym/Hotter-v0", split, tuple(SPLITS))
        return tuple(f"hotter-{n}" for n in SPLITS[split])

    def start(self, task: str, rng: np.random.Generator) -> Opening:
        """Hide a number; the task alone decides which."""
        number = task.removeprefix("hotter-")
        if not (number.isdecimal() and number.isascii() and int(number) < 1000):
            raise unknown_task("agentgym/Hotter-v0", task, self.tasks("train"))
        self.secret = int(np.random.default_rng(int(number)).integers(1, self.high + 1))
        self.bounds = (1, self.high)
        return Opening(f"I hide a number from 1 to {self.high}. Guess.", "Find the number.")

    def act(self, action: str) -> Outcome:
        """Answer a guess."""
        word = action.strip()
        if not (word.isdecimal() and word.isascii() and len(word) < 10):
            return Outcome(f"Say a number from 1 to {self.high}.", valid=False)
        guess, (low, high) = int(word), self.bounds
        if guess == self.secret:
            return Outcome("Found.", reward=1.0, score=1.0, won=True, done=True)
        if guess < self.secret:
            self.bounds = (max(low, guess + 1), high)
            return Outcome("Higher.")
        self.bounds = (low, min(high, guess - 1))
        return Outcome("Lower.")

    def manual(self) -> str:
        """The rules."""
        return (
            f"You look for a hidden whole number from 1 to {self.high}.\n"
            f"Each action is one guess: a number, such as `{(1 + self.high) // 2}`.\n"
            f"Each turn answers `Higher.` when the hidden number is higher than your guess and "
            f"`Lower.` when it is lower. Anything that is not such a number only costs a turn.\n"
            f"The episode ends when you find the number, which is the only thing rewarded, or at "
            f"the turn limit."
        )

    def admissible(self) -> tuple[str, ...]:
        """Every number."""
        return tuple(map(str, range(1, self.high + 1)))

    def oracle(self) -> tuple[str, ...]:
        """Halve what the hints leave open."""
        (low, high) = self.bounds
        guesses: list[int] = []
        while not guesses or guesses[-1] != self.secret:
            guess = (low + high) // 2
            guesses.append(guess)
            low, high = (guess + 1, high) if guess < self.secret else (low, guess - 1)
        return tuple(map(str, guesses))
