"""From a task id to a game that can be played: generated now, or read from an official folder."""

from __future__ import annotations

from functools import cache, lru_cache

from agentgym.errors import EnvError
from agentgym_envs.alfworld import wording
from agentgym_envs.alfworld.game import Game, build
from agentgym_envs.alfworld.generate import NoRoom, generate
from agentgym_envs.alfworld.goals import progress
from agentgym_envs.alfworld.oracle import winning_commands
from agentgym_envs.alfworld.problem import Problem
from agentgym_envs.alfworld.tasks import Spec, parse

LONGEST_SEARCH = 45
"""A game is drawn again if the searching oracle needs more commands; an episode has 50."""
_ATTEMPTS = 50


@cache
def wording_named(name: wording.Name) -> wording.Wording:
    """One of the two wordings of generated games."""
    return wording.read(wording.grammar(wording.UNKNOWN_GOAL, name))[0]


@lru_cache(maxsize=512)
def generated(task: str, name: wording.Name = "new") -> Game:
    """The generated game of a task id.

    Raises:
        UnknownTask: There is no such task.
        MissingExtra: ALFWorld is not installed.
    """
    return make(parse(task), name)[1]


def make(spec: Spec, name: wording.Name = "new") -> tuple[Problem, Game]:
    """The facts and the game of a task: the first draw that a searching player wins in time."""
    for attempt in range(_ATTEMPTS):
        try:
            problem, task = generate(spec, attempt)
        except NoRoom:
            continue
        game = build(problem, task, wording_named(name))
        done, wanted = progress(game, game.start)
        plan = winning_commands(game, game.start, searching=True)
        if done < wanted and plan is not None and len(plan) <= LONGEST_SEARCH:
            return problem, game
    raise EnvError(f"{spec.id}: {_ATTEMPTS} draws gave no game that can be won in time")
