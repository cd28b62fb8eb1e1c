"""Demonstrations by a world's oracle, as ordinary trajectories to imitate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agentgym.agent import Agent, Scene
from agentgym.env import TextEnv
from agentgym.types import Completion, Stop, Task, Trajectory, Turn


def demonstrate(
    world: TextEnv,
    task: Task,
    agent: Agent,
    rng: np.random.Generator,
    *,
    slip: float = 0.0,
    learn_slips: bool = False,
    turns: int = 50,
    sample: int = 0,
) -> Trajectory:
    """One demonstration of a task, written the way the agent would have written it.

    With probability ``slip`` the demonstrator makes a random admissible move instead of the
    oracle's, and the oracle answers from wherever that leads: this shows how to recover, which
    perfect walkthroughs never do. A slip is context, not something to imitate (``Turn.learn``),
    unless a careless player is wanted.

    Args:
        world: The bare world, with an oracle.
        task: What to demonstrate.
        agent: Renders observations and writes actions.
        rng: Decides the slips.
        slip: Probability of a slip per turn, in [0, 1).
        learn_slips: Slips are to be imitated, too.
        turns: Longest demonstration.
        sample: Tells demonstrations of one task apart.
    """
    observation, info = world.reset(seed=task.seed, options={"task": task.id})
    opening = observation
    done: list[Turn] = []
    stop = Stop.MAX_TURNS
    plan: tuple[str, ...] = ()
    while len(done) < turns:
        # Planning is the slow part, and a plan stays good until somebody leaves it.
        plan = plan or world.oracle() or ()
        if not plan:
            break
        choices = world.admissible() if rng.random() < slip else ()
        slipped = bool(choices)
        action = choices[int(rng.integers(len(choices)))] if slipped else plan[0]
        plan = () if slipped else plan[1:]
        actions = tuple(info.get("admissible_commands", ()))
        prompt, fresh = agent.read(Scene(info["goal"], opening, observation, actions), done)
        tokens = agent.write(action)
        zeros = (0.0,) * len(tokens)
        observation, reward, ended, _, info = world.step(action)
        done.append(
            Turn(
                prompt,
                Completion(tokens, zeros, zeros),
                action,
                observation,
                reward,
                fresh,
                valid=bool(info["action_valid"]),
                learn=learn_slips or not slipped,
            )
        )
        if ended:
            stop = Stop.TERMINATED
            break
    return Trajectory(
        task=task,
        sample=sample,
        goal=info["goal"],
        opening=opening,
        turns=tuple(done),
        stop=stop,
        score=info["score"],
        won=info["won"],
        task_type=info["task_type"],
    )


def texts(trajectories: Sequence[Trajectory]) -> list[str]:
    """Everything that was read and done, as text: what a tokenizer is trained on."""
    found: list[str] = []
    for trajectory in trajectories:
        found.append(f"{trajectory.goal}\n{trajectory.opening}")
        for turn in trajectory.turns:
            found += [turn.action, turn.observation]
    return found
