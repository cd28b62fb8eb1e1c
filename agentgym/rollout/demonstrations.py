"""Demonstrations by a world's oracle, and how an agent would have written them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from agentgym.env.base import TextEnv
from agentgym.rollout.agent import Agent, Scene
from agentgym.types import Completion, Stop, Task, Trajectory, Turn


class Move(NamedTuple):
    """One move of a demonstrator: what was shown, what was done, what came back."""

    scene: Scene
    action: str
    observation: str
    reward: float
    valid: bool
    """The world accepted the action."""
    slipped: bool
    """The action was drawn, not the oracle's."""


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One episode of a demonstrator, in words: no agent has written it yet."""

    task: Task
    sample: int
    """Which of the demonstrations of this task, from 0."""
    goal: str
    opening: str
    """First observation."""
    moves: tuple[Move, ...]
    stop: Stop
    score: float
    won: bool
    task_type: str


def demonstrate(
    world: TextEnv,
    task: Task,
    rng: np.random.Generator,
    *,
    slip: float = 0.0,
    turns: int = 50,
    sample: int = 0,
) -> Demonstration:
    """One demonstration of a task.

    With probability ``slip`` the demonstrator makes a random admissible move instead of the
    oracle's, and the oracle answers from wherever that leads: this shows how to recover, which
    perfect walkthroughs never do.

    Args:
        world: The bare world, with an oracle.
        task: What to demonstrate.
        rng: Decides the slips.
        slip: Probability of a slip per turn, in [0, 1).
        turns: Longest demonstration.
        sample: Tells demonstrations of one task apart.
    """
    observation, info = world.reset(seed=task.seed, options={"task": task.id})
    opening = observation
    moves: list[Move] = []
    stop = Stop.MAX_TURNS
    plan: tuple[str, ...] = ()
    while len(moves) < turns:
        # Planning is the slow part, and a plan stays good until somebody leaves it.
        plan = plan or world.oracle() or ()
        if not plan:
            break
        choices = world.admissible() if rng.random() < slip else ()
        slipped = bool(choices)
        action = choices[int(rng.integers(len(choices)))] if slipped else plan[0]
        plan = () if slipped else plan[1:]
        actions = tuple(info.get("admissible_commands", ()))
        scene = Scene(info["goal"], opening, observation, actions)
        observation, reward, ended, _, info = world.step(action)
        valid = bool(info["action_valid"])
        moves.append(Move(scene, action, observation, reward, valid, slipped))
        if ended:
            stop = Stop.TERMINATED
            break
    return Demonstration(
        task=task,
        sample=sample,
        goal=info["goal"],
        opening=opening,
        moves=tuple(moves),
        stop=stop,
        score=info["score"],
        won=info["won"],
        task_type=info["task_type"],
    )


def written(shown: Demonstration, agent: Agent, *, learn_slips: bool = False) -> Trajectory:
    """A demonstration, read and written the way the agent would have.

    A slip is context, not something to imitate (``Turn.learn``), unless a careless player is
    wanted (``learn_slips``).
    """
    done: list[Turn] = []
    for move in shown.moves:
        prompt, fresh = agent.read(move.scene, done)
        tokens = agent.write(move.action)
        zeros = (0.0,) * len(tokens)
        done.append(
            Turn(
                prompt,
                Completion(tokens, zeros, zeros),
                move.action,
                move.observation,
                move.reward,
                fresh,
                valid=move.valid,
                learn=learn_slips or not move.slipped,
            )
        )
    return Trajectory(
        task=shown.task,
        sample=shown.sample,
        goal=shown.goal,
        opening=shown.opening,
        turns=tuple(done),
        stop=shown.stop,
        score=shown.score,
        won=shown.won,
        task_type=shown.task_type,
    )


def texts(demonstrations: Iterable[Demonstration]) -> list[str]:
    """Everything that was read and done: what a tokenizer is trained on."""
    found: list[str] = []
    for shown in demonstrations:
        found.append(f"{shown.goal}\n{shown.opening}")
        for move in shown.moves:
            found += [move.action, move.observation]
    return found
