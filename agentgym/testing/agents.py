"""Checks with agents: the oracle wins, and agents without knowledge do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from agentgym.env.base import TextEnv
from agentgym.env.registry import make
from agentgym.testing.findings import Skipped
from agentgym.testing.harness import NONSENSE, Harness
from agentgym.testing.steps import Step

_TURNS = 50
"""Longest episode of an agent without knowledge, where there is no turn limit."""
_FEWEST_TURNS = 15
"""Turns of an episode that are played even in a slow environment."""
_FEWEST_TASKS = 2
"""Tasks, in a slow environment, of a check that plays each several times."""

Choose = Callable[[Step], str]
"""An agent: the last answer to an action."""


class Played(NamedTuple):
    """The result of an episode."""

    won: bool
    reward: float


def oracle_wins(harness: Harness) -> str:
    """Plans of the oracle win, from the start and from the middle of an episode."""
    env, limit, late, asked = harness.make(), harness.horizon, harness.hurry(), 0
    tasks = harness.few(env, 2)
    for number, task in enumerate(tasks):
        harness.begin(env, task)
        plan = harness.oracle(env)
        if plan is None:
            continue
        harness.require(
            limit is None or len(plan) <= limit,
            f"task {task!r}: the oracle takes {len(plan)} actions, max_episode_steps is {limit}",
        )
        _wins(harness, env, plan, f"task {task!r}: the oracle")
        walk = harness.walk(env, task, number)
        if not walk.steps[-1].terminated and (plan := harness.oracle(env)) is not None:
            _wins(harness, env, plan, f"task {task!r}: the oracle, asked in the middle,")
        asked += 1
        if late():
            harness.tried(number + 1, len(tasks), "tasks")
            break
    if not asked:
        raise Skipped("oracle() is None for every task tried")
    return f"{asked} tasks"


def _wins(harness: Harness, env: TextEnv, plan: tuple[str, ...], who: str) -> None:
    steps = harness.follow(env, plan)
    harness.require(
        bool(steps) and bool(steps[-1].info["won"]),
        f"{who} loses with {plan!r}: return None where it does not know a way to win",
    )


def turn_limit_truncates(harness: Harness) -> str:
    """The turn limit truncates, exactly at max_episode_steps, and reaching it is no win."""
    limit = harness.horizon
    if limit is None:
        raise Skipped("there is no turn limit")
    task = harness.few(harness.make(), 1)[0]
    env = make(harness.id, **harness.kwargs)
    try:
        env.reset(seed=0, options={"task": task})
        for turn in range(1, limit + 1):
            _, _, terminated, truncated, info = env.step(NONSENSE[0])
            harness.require(
                not (terminated and truncated) or turn == limit,
                f"terminated and truncated are both set after {turn} of {limit} steps",
            )
            if terminated:
                return f"the episode ended after {turn} of {limit} steps"
            harness.require(
                truncated == (turn == limit),
                f"truncated={truncated} after {turn} of {limit} steps: leave limits to Gymnasium",
            )
        harness.require(
            not info["won"], f"won by running into the limit of {limit} steps: look at `won`"
        )
    finally:
        env.close()
    return f"after {limit} steps"


def idle_agents_lose(harness: Harness) -> str:
    """An agent that acts by an empty text or `wait` until the limit does not win."""
    env, late, played = harness.make(admissible=False), harness.hurry(), 0
    tasks = harness.few(env, 2)
    for number, task in enumerate(tasks, 1):
        for name, action in (("writes nothing", ""), ("waits", "wait")):
            result = _play(harness, env, task, _always(action), late)
            harness.require(
                not result.won,
                f"task {task!r}: an agent that only {name} wins: success must need what the goal "
                f"asks for, and never follow from the number of turns",
            )
            played += 1
        if late():
            harness.tried(number, len(tasks), "tasks")
            break
    return f"{played} episodes to the limit"


def random_agents_lose(harness: Harness) -> str:
    """Random admissible actions win at most half of the episodes in twice the oracle's turns.

    With enough turns chance solves any small task, which shows how hard it is and not that it is
    broken.
    """
    env, late, wins, played = harness.make(), harness.hurry(), 0, 0
    tasks = harness.few(env, 6)
    for number, task in enumerate(tasks):
        plan = harness.opened(env, task).plan
        turns = 2 * len(plan) if plan else None
        agent = _at_random(env, np.random.default_rng(number))
        wins += _play(harness, env, task, agent, late, turns).won
        played += 1
        if late() and played >= harness.effort.episodes:
            harness.tried(played, len(tasks), "tasks")
            break
    harness.require(
        wins <= played / 2,
        f"an agent that acts at random wins {wins} of {played} episodes in at most twice the turns "
        f"the oracle needs: success is declared too easily, or the oracle takes detours",
    )
    return f"{wins} of {played} episodes won in at most twice the oracle's turns"


def order_of_actions_reveals_nothing(harness: Harness) -> str:
    """Always taking the first, or the last, of the admissible actions is no way to win."""
    env, late = harness.make(), harness.hurry()
    wins, played = {0: 0, -1: 0}, 0
    tasks = harness.few(env, 3)
    for number, task in enumerate(tasks, 1):
        opened = harness.opened(env, task)
        if len(set(opened.plan or ())) == 1 or not opened.admissible:
            continue
        for place in wins:
            wins[place] += _play(harness, env, task, _listed(place), late).won
        played += 1
        if late() and played >= _FEWEST_TASKS:
            harness.tried(number, len(tasks), "tasks")
            break
    if not played:
        raise Skipped("no list of admissible actions, or one action repeated is the whole task")
    for place, name in ((0, "first"), (-1, "last")):
        harness.require(
            wins[place] <= played / 2,
            f"taking the {name} admissible action every time wins {wins[place]} of {played} tasks: "
            f"the order gives the solution away; sort what `admissible` returns",
        )
    return f"{played} tasks"


def repeating_agents_lose(harness: Harness) -> str:
    """No single action, repeated, wins most tasks or pays more than winning does."""
    listing, env = harness.make(), harness.make(admissible=False)
    late, wins, played = harness.hurry(), dict[str, int](), 0
    tasks = harness.few(env, 3)
    for number, task in enumerate(tasks, 1):
        opened = harness.opened(listing, task)
        plan = opened.plan or ()
        paid = sum(step.reward for step in harness.solved(env, task))
        tempting = _once(_tempting(env, opened.step, plan))
        chosen = tempting[: 3 if late() else None]
        harness.tried(len(chosen), len(tempting), f"actions in task {task!r}")
        for action in chosen:
            result = _play(harness, env, task, _always(action), late)
            harness.require(
                not plan or result.won or result.reward <= max(paid, 0.0) + 1e-9,
                f"task {task!r}: repeating {action!r} to the limit pays {result.reward:g} without "
                f"winning, the oracle earns {paid:g}: pay for progress, not for the action",
            )
            if set(plan) != {action}:
                wins[action] = wins.get(action, 0) + result.won
        played += 1
        if late() and played >= _FEWEST_TASKS:
            harness.tried(number, len(tasks), "tasks")
            break
    for action, count in wins.items():
        harness.require(
            count <= played / 2,
            f"repeating {action!r} wins {count} of {played} tasks: success is declared without "
            f"what the goal asks for",
        )
    return f"{len(wins)} actions in {played} tasks"


def _tempting(env: TextEnv, opening: Step, plan: tuple[str, ...]) -> Iterator[str]:
    """Actions that a lazy agent may settle on."""
    listed = list(opening.info.get("admissible_commands", ()))
    yield from ("look", *plan[:1], *plan[-1:], *listed[:1], *listed[-1:])
    yield from getattr(env.action_space, "examples", ())[:2]


def _once(texts: Iterator[str]) -> list[str]:
    """Each text once, in order of appearance."""
    return list(dict.fromkeys(texts))


def _play(
    harness: Harness,
    env: TextEnv,
    task: str,
    choose: Choose,
    late: Callable[[], bool],
    turns: int | None = None,
) -> Played:
    """An episode to its end, to a limit on turns, or less far once it is late."""
    step, reward = harness.begin(env, task), 0.0
    limit, fewest = harness.horizon or _TURNS, min(_FEWEST_TURNS, harness.effort.steps)
    for turn in range(min(limit, turns or limit)):
        if step.terminated or (turn >= fewest and late()):
            break
        step = harness.act(env, choose(step))
        reward += step.reward
    return Played(bool(step.info["won"]), reward)


def _always(action: str) -> Choose:
    return lambda _: action


def _at_random(env: TextEnv, rng: np.random.Generator) -> Choose:
    def choose(step: Step) -> str:
        listed = step.info["admissible_commands"]
        if listed:
            return str(listed[int(rng.integers(len(listed)))])
        env.action_space.seed(int(rng.integers(2**31)))
        return env.action_space.sample()

    return choose


def _listed(place: int) -> Choose:
    def choose(step: Step) -> str:
        listed = step.info["admissible_commands"]
        return str(listed[place]) if listed else ""

    return choose
