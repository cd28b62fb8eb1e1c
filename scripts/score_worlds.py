"""How the oracle and a random player do in every world: the rows of the worlds' README.

    .venv/bin/python scripts/score_worlds.py [--tasks 64] [WORLD ...]

Plays the first tasks of each default test panel, once each, to the world's own limit on turns. The
random player draws evenly from the admissible actions, or calls tools at random. Success, with
95 % intervals, tasks resampled; a Markdown table goes to standard output.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import gymnasium
import numpy as np

import agentgym
from agentgym.env.base import SPLITS, TextEnv
from agentgym.env.panel import panel_of
from agentgym.env.registry import full_id, make
from agentgym.evaluation.stats.bootstrap import bootstrap_mean
from agentgym.rollout.policies import random_action

HEAD = ("world", "train / valid / test", "turns", "oracle", "oracle's moves", "random", "digest")


class Score(NamedTuple):
    """How one task went."""

    oracle: float
    moves: int
    random: float


def play(env: gymnasium.Env[str, str], task: str, rng: np.random.Generator) -> Score:
    """The oracle's episode, then the random player's."""
    world = env.unwrapped
    assert isinstance(world, TextEnv)
    _, info = env.reset(seed=0, options={"task": task})
    moves, over = 0, False
    for action in world.oracle() or ():
        if not over:
            *_, done, cut, info = env.step(action)
            moves, over = moves + 1, done or cut
    won = float(info["won"])
    observation, info = env.reset(seed=0, options={"task": task})
    goal, over = info["goal"], False
    while not over:
        action = random_action(world, observation, goal, rng)
        observation, _, done, cut, info = env.step(action)
        over = done or cut
    return Score(won, moves, float(info["won"]))


def row(name: str, count: int) -> tuple[str, ...]:
    """One line of the table."""
    env = make(name)
    world = env.unwrapped
    assert isinstance(world, TextEnv)
    panel = panel_of(name, world, "test")
    chosen = panel.tasks[:count]
    rng = np.random.default_rng(0)
    scores = [play(env, task.id, rng) for task in chosen]
    oracle, random = (
        str(bootstrap_mean(values, np.random.default_rng(0), support=(0.0, 1.0)))
        for values in ([s.oracle for s in scores], [s.random for s in scores])
    )
    moves = sorted(score.moves for score in scores)
    sizes = " / ".join(str(len(world.tasks(split))) for split in SPLITS)
    limit = str(env.spec.max_episode_steps if env.spec else "")
    env.close()
    span = f"{moves[len(moves) // 2]} (to {moves[-1]})"
    return f"`{name}`", sizes, limit, oracle, span, random, f"`{panel.digest[:12]}`"


def main() -> None:
    """Play and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("worlds", nargs="*", help="ids or short names; every world unless given")
    parser.add_argument("--tasks", type=int, default=64, help="tasks per world (default: 64)")
    wanted = parser.parse_args()
    print("| " + " | ".join(HEAD) + " |\n" + "|---" * len(HEAD) + "|")
    for name in wanted.worlds or agentgym.environments():
        print("| " + " | ".join(row(full_id(name), wanted.tasks)) + " |", flush=True)


if __name__ == "__main__":
    main()
