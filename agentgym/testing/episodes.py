"""Made-up episodes: mixed and tied groups, and those that hold no information."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from agentgym.types import Completion, Stop, Task, Trajectory, Turn

TOKENS = 60
"""Token ids that made-up episodes use."""


def made_up(
    seed: int, rewards: list[list[float]], *, windowed: bool = False, length: int = 5
) -> list[list[Trajectory]]:
    """Groups of episodes with these returns; the same tokens whether windowed or not."""
    rng = np.random.default_rng(seed)
    return [
        [_episode(rng, reward, windowed, length, task, k) for k, reward in enumerate(group)]
        for task, group in enumerate(rewards)
    ]


def _episode(
    rng: np.random.Generator, reward: float, windowed: bool, length: int, task: int, sample: int
) -> Trajectory:
    turns = []
    count = int(rng.integers(1, 5))
    for number in range(count):
        read, written = rng.integers(1, TOKENS, 3), rng.integers(1, TOKENS, rng.integers(1, length))
        tokens = tuple(int(token) for token in written)
        turns.append(
            Turn(
                tuple(int(token) for token in read),
                Completion(tokens, (-1.0,) * len(tokens), (0.5,) * len(tokens)),
                "a",
                f"room {rng.integers(3)}",
                reward if number == count - 1 else 0.0,
                fresh=windowed or number == 0,
                parsed=bool(rng.random() < 0.8),
                thought_tokens=len(tokens) // 2,
            )
        )
    stop = Stop.TERMINATED if reward else Stop.MAX_TURNS
    won = reward > 0
    return Trajectory(Task("e", str(task)), sample, "g", "o", tuple(turns), stop, won=won)


MIXED = [[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0], [1.0, 1.0, 0.0, 1.0]]
TIED = [0.0, 0.0, 0.0, 0.0]
STEPS = (MIXED, MIXED, [*MIXED, TIED])


def degenerate() -> Iterator[tuple[str, list[list[Trajectory]]]]:
    """Groups from which there is little or nothing to learn, and what they lack."""
    yield "one episode", made_up(0, [[1.0]])
    yield "equal rewards", made_up(1, [[1.0, 1.0, 1.0], [0.0, 0.0]])
    yield "one token each", made_up(2, [[1.0, 0.0]], length=2)
    group = made_up(3, [[1.0, 0.0]])
    silent = [[_unlearned(trajectory) for trajectory in trajectories] for trajectories in group]
    yield "no token to learn from", silent
    broken = replace(group[0][0], stop=Stop.ENV_ERROR)
    yield "a broken environment", [[broken, group[0][1]]]


def _unlearned(trajectory: Trajectory) -> Trajectory:
    return replace(trajectory, turns=tuple(replace(t, learn=False) for t in trajectory.turns))
