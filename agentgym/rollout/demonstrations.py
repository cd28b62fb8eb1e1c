"""Demonstrations by the oracle of an environment, and their trajectories for an agent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from agentgym.env.base import TextEnv
from agentgym.rollout.agent import Agent, AgentInput
from agentgym.rollout.prompts import Example
from agentgym.types import Completion, Stop, Task, Trajectory, Turn


class DemonstrationStep(NamedTuple):
    """One step of the demonstrator: input, action, observation."""

    input: AgentInput
    action: str
    observation: str
    reward: float
    valid: bool
    """The environment accepted the action."""
    random: bool
    """The action was drawn at random; the oracle did not choose it."""


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One episode of the demonstrator as text; ``to_trajectory`` tokenises it for an agent."""

    task: Task
    sample: int
    """Which of the demonstrations of this task, from 0."""
    goal: str
    opening: str
    """First observation."""
    steps: tuple[DemonstrationStep, ...]
    stop: Stop
    score: float
    won: bool
    task_type: str


def demonstrate(
    world: TextEnv,
    task: Task,
    rng: np.random.Generator,
    *,
    random_action_rate: float = 0.0,
    max_turns: int = 50,
    sample: int = 0,
) -> Demonstration:
    """One demonstration of a task.

    With probability ``random_action_rate`` the demonstrator takes a random admissible action, and
    the oracle plans again from the resulting state. Such demonstrations show how to recover, which
    perfect walkthroughs never do.

    Args:
        world: The unwrapped environment; it needs an oracle.
        task: What to demonstrate.
        rng: Draws the random actions.
        random_action_rate: Probability of a random action per turn, in [0, 1).
        max_turns: Turns after which the demonstration is truncated.
        sample: Number of the demonstration among those of the task.
    """
    observation, info = world.reset(seed=task.seed, options={"task": task.id})
    opening = observation
    fixed = (
        info.get("manual", ""),
        tuple(info.get("tools", ())),
        info.get("tool_instructions", ""),
        info["task_type"],
    )
    steps: list[DemonstrationStep] = []
    stop = Stop.MAX_TURNS
    plan: tuple[str, ...] = ()
    while len(steps) < max_turns:
        # Planning is slow, and a plan stays valid until a random action departs from it.
        plan = plan or world.oracle() or ()
        if not plan:
            break
        choices = world.admissible() if rng.random() < random_action_rate else ()
        random = bool(choices)
        action = choices[int(rng.integers(len(choices)))] if random else plan[0]
        plan = () if random else plan[1:]
        actions = tuple(info.get("admissible_commands", ()))
        shown = AgentInput(info["goal"], opening, observation, actions, *fixed)
        observation, reward, ended, _, info = world.step(action)
        valid = bool(info["action_valid"])
        steps.append(DemonstrationStep(shown, action, observation, reward, valid, random))
        if ended:
            stop = Stop.TERMINATED
            break
    return Demonstration(
        task=task,
        sample=sample,
        goal=info["goal"],
        opening=opening,
        steps=tuple(steps),
        stop=stop,
        score=info["score"],
        won=info["won"],
        task_type=info["task_type"],
    )


def to_trajectory(
    shown: Demonstration, agent: Agent, *, learn_random_actions: bool = False
) -> Trajectory:
    """A demonstration with the prompts and completions of an agent.

    Random actions are context and not trained on (``Turn.learn``) unless
    ``learn_random_actions``.
    """
    done: list[Turn] = []
    for step in shown.steps:
        prompt, fresh = agent.prompt(step.input, done)
        tokens = agent.encode_action(step.action)
        zeros = (0.0,) * len(tokens)
        done.append(
            Turn(
                prompt,
                Completion(tokens, zeros, zeros),
                step.action,
                step.observation,
                step.reward,
                fresh,
                valid=step.valid,
                learn=learn_random_actions or not step.random,
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


def to_example(shown: Demonstration, agent: Agent) -> Example:
    """A demonstration as the text that prompts show."""
    steps = tuple(
        (agent.decode(agent.encode_action(step.action)), step.observation) for step in shown.steps
    )
    return Example(shown.goal, shown.opening, steps, shown.task_type)


def demonstration_texts(demonstrations: Iterable[Demonstration]) -> list[str]:
    """Goals, observations and actions: the text that a tokenizer is trained on."""
    found: list[str] = []
    for shown in demonstrations:
        found.append(f"{shown.goal}\n{shown.opening}")
        for step in shown.steps:
            found += [step.action, step.observation]
    return found
