"""BFCL's multi-turn tasks: serve a user by calling functions (Patil et al. 2025, ICML)."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from itertools import count
from typing import Any, Literal, Self

import numpy as np

from agentgym.env.base import AnyText, Opening, Outcome, one_of, unknown_split, unknown_task
from agentgym.errors import ConfigError, EnvError
from agentgym.tools import Call, Tool
from agentgym_envs.bfcl import apis, data
from agentgym_envs.bfcl.data import CATEGORIES, ENV, SCENARIOS, Task
from agentgym_envs.functions import Function, FunctionEnv, Result

STEPS = 20
"""Actions with calls in one turn of the conversation; with more the task is lost, as published."""
_MORE = "I have updated some more functions you can choose from. What about now?"
"""The leaderboard's message where functions are added."""
_GOAL = "Do what the user asks for, by calls of these functions."
_SCENARIOS = {"train": range(120), "valid": range(120, 136), "test": range(136, 200)}


class BFCL(FunctionEnv):
    """Serve a user over several turns, by functions of a file system, cars, trading and more.

    Tasks, functions and checks are those of ``bfcl-eval``. A message without a call ends the
    agent's turn. State and answers are then compared with those of the published solution; the
    conversation continues to the next message of the user, or ends with the first turn that
    fails, as no later turn could change the result. The task is won if all turns pass.

    The split ``multi_turn`` holds the published tasks, 200 of each category. ``train``, ``valid``
    and ``test`` divide them by scenario (120, 16 and 64), of which each category has a variant.
    """

    def __init__(
        self,
        *,
        categories: str = ",".join(CATEGORIES),
        reward: Literal["success", "turns"] = "success",
        **kwargs: Any,
    ) -> None:
        """Make the environment.

        Args:
            categories: ``base``, ``miss_func``, ``miss_param``, ``long_context``, joined by commas.
            reward: 1 when the last turn passes; or ``turns``, the share of each turn when it
                passes.
            **kwargs: See ``FunctionEnv`` and ``TextEnv``.

        Raises:
            ConfigError: A value is out of range.
            MissingExtra: The package is not installed.
        """
        data.require()
        super().__init__(**kwargs)
        one_of("reward", reward, ("success", "turns"))
        self.categories = tuple(filter(None, map(str.strip, categories.split(","))))
        if not self.categories:
            raise ConfigError(f"categories is empty, expected some of {', '.join(CATEGORIES)}")
        for each in self.categories:
            one_of("categories", each, CATEGORIES)
        self.reward = reward
        self._task: Task | None = None
        self._category = ""
        self._apis: dict[str, Any] = {}
        self._turn = self._steps = 0
        self._answers: tuple[str, ...] = ()
        """Of all calls."""
        self._before = 0
        """Calls before this turn of the conversation."""
        self._acted = False
        """The last action held a call that was run."""
        self.action_space = AnyText(
            (self.written("ls", {"a": True}), self.written("pwd", {}), "Done.")
        )

    def tasks(self, split: str) -> tuple[str, ...]:
        """Scenarios in order, each in all categories."""
        if split not in (*_SCENARIOS, "multi_turn"):
            raise unknown_split(ENV, split, (*_SCENARIOS, "multi_turn"))
        numbers = _SCENARIOS.get(split, range(SCENARIOS))
        return tuple(f"multi_turn_{each}_{n}" for n in numbers for each in self.categories)

    def open(self, task: str, rng: np.random.Generator) -> Opening:
        """The first message of the user."""
        self._category = task.removeprefix("multi_turn_").rpartition("_")[0]
        known = data.load(self._category) if self._category in CATEGORIES else {}
        if task not in known:
            raise unknown_task(ENV, task, self.tasks("test")[:4])
        self._task = one = known[task]
        self._apis, self._turn, self._answers = apis.begin(one), 0, ()
        self._steps = self._before = 0
        self.offer(self._functions(one, 0))
        return Opening(one.messages[0], _GOAL, self._category)

    def act(self, action: str) -> Outcome:
        """Calls, or a message; too many actions with calls in one turn lose."""
        self._acted = False
        outcome = super().act(action)
        self._steps += self._acted
        if self._steps > STEPS and not outcome.done:
            return outcome._replace(done=True)
        return outcome

    def call(self, name: str, arguments: Mapping[str, Any]) -> Result:
        """Run a function of an API."""
        found = apis.run(self._apis, name, arguments)
        self._answers, self._acted = (*self._answers, found.text), True
        return found

    def say(self, message: str) -> Outcome:
        """End the turn: check it; the user continues."""
        task, turn = self._playing(), self._turn
        truth = apis.solved(self._category, task.id, turn)
        last, of = self._last, len(task.solution)
        if not apis.passed(task, turn, truth, self._apis, self._steps > 0, self._answers):
            return Outcome("The conversation has ended.", score=last.score, done=True)
        self._turn, self._steps, self._before = turn + 1, 0, len(self._answers)
        won = self._turn == of
        worth = float(won) if self.reward == "success" else 1 / of
        if won:
            return Outcome("The conversation has ended.", worth, 1.0, won=True, done=True)
        text = task.messages[self._turn]
        if names := task.added.get(self._turn):
            added = [each for each in self._functions(task, self._turn) if each.name in names]
            self.offer(self._functions(task, self._turn))
            text = "\n".join([*(json.dumps(each.tool().schema) for each in added), _MORE])
        return Outcome(text, worth, self._turn / of)

    def about(self) -> str:
        """Whom to serve, and how the conversation ends."""
        return (
            "You serve a user, who sends one message after the other, by calling functions. What "
            "the functions change lasts over the whole conversation.\n"
            "Each action is calls, or a message to the user without a call. The message ends your "
            "turn: send it when what the user asks for is done, or when it cannot be done because "
            "a function or a detail is missing. The user does not answer it but sends the next "
            f"message. In one turn you have {STEPS} actions with calls.\n"
            "The conversation ends with the last message of the user. It is won if everything that "
            "the user asked for was done in the turn in which it was asked for, and no more."
        )

    def oracle(self) -> tuple[str, ...] | None:
        """The published solution from here; None once the agent's state differs from it."""
        task = self._playing()
        if self._last.done:
            return None
        fork, actions = self.fork(), []
        for turn in range(self._turn, len(task.solution)):
            calls = [self.written(c.name, data.by_name(task, c)) for c in task.solution[turn]]
            if turn == self._turn:
                calls = calls[self._done(task) :]
            several = 1 + len(calls) // STEPS
            for start in count(step=several):
                if start >= len(calls):
                    break
                actions.append("".join(calls[start : start + several]))
            actions.append("Done.")
        outcomes = [fork.step(action) for action in actions]
        return tuple(actions) if outcomes[-1][4]["won"] else None

    def fork(self) -> Self:
        """Copies of the APIs; the published solution is shared."""
        other = super().fork()
        other._apis = copy.deepcopy(self._apis)
        return other

    def _find_tool(self, call: Call) -> Tool:
        """As in the leaderboard's runner, a function runs before it is offered, too.

        The solution of ``multi_turn_miss_func_49`` needs it.
        """
        for each in () if call.problem else self._functions(self._playing(), SCENARIOS):
            if each.name == call.name:
                return each.tool()
        return super()._find_tool(call)

    def _done(self, task: Task) -> int:
        """Calls of the solution of this turn that were made, if they were made in order."""
        expected = apis.solved(self._category, task.id, self._turn).answers
        made = self._answers[self._before :]
        return len(made) if made == expected[: len(made)] else 0

    def _functions(self, task: Task, turn: int) -> list[Function]:
        """What is offered in a turn: all that the APIs have but what is added later."""
        later = {name for at, names in task.added.items() if at > turn for name in names}
        return [
            each for name in task.classes for each in data.functions(name) if each.name not in later
        ]

    def _playing(self) -> Task:
        if self._task is None:
            raise EnvError("no task of BFCL is under way; call reset() first")
        return self._task
