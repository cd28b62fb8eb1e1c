"""The contract of a world, as checks that each name the likely cause of a violation."""

from __future__ import annotations

import random
import warnings
from functools import partial
from typing import Any

import numpy as np
from gymnasium.utils.env_checker import check_env

from agentgym.env import SPLITS, TextEnv
from agentgym.errors import ConfigError, UnknownTask
from agentgym.panel import panel_of
from agentgym.registry import make, world
from agentgym.testing.lab import NONSENSE, Lab


def check_world(env_id: str, **kwargs: Any) -> None:
    """Check everything that training and evaluation rely on in a world.

    Args:
        env_id: Registered environment id.
        **kwargs: Passed to the world; small settings make the check quick.

    Raises:
        AssertionError: The world breaks its contract; the message names the likely cause.
        ConfigError: There is no such world, or it takes no such keyword.
        MissingExtra: The world's own package is not installed.

    Examples:
        >>> check_world("agentgym/Hotter-v0", high=20)
    """
    world(env_id, **kwargs).close()
    lab = Lab(env_id, kwargs)
    for check in (
        _check_splits,
        _check_task_ids,
        _check_repeatable,
        _check_nonsense,
        _check_fork,
        _check_oracle,
        _check_limit,
        _check_generators,
        _check_gymnasium,
    ):
        try:
            check(lab)
        finally:
            lab.close()


def _check_splits(lab: Lab) -> None:
    """Splits are lists that share no task and are the same in every construction."""
    first, second = lab.world(), lab.world()
    seen: dict[str, str] = {}
    for split in SPLITS:
        with lab.must(f"list the tasks of split {split!r}"):
            ids = list(first.tasks(split))
        lab.require(bool(ids), f"split {split!r} is empty")
        for id_ in ids:
            lab.require(isinstance(id_, str) and id_ != "", f"a task id of {split!r} is {id_!r}")
            where = seen.get(id_)
            lab.require(where is None, f"task {id_!r} is listed in {where!r} and in {split!r}")
            seen[id_] = split
        lab.require(
            panel_of(lab.id, first, split).digest == panel_of(lab.id, second, split).digest,
            f"two worlds list {split!r} differently: fix the order, do not list a set or a folder",
        )
    lab.refuses(lambda: first.tasks("no-such-split"), ConfigError, "an unknown split")


def _check_task_ids(lab: Lab) -> None:
    """The id decides the task, and nothing else is taken for one."""
    env = lab.world()
    tasks = lab.few(env, 3)
    actions, _ = lab.walk(env, tasks[0], np.random.default_rng(0))
    prints = [_fingerprint(lab, env, task, actions) for task in tasks]
    lab.require(
        any(other != prints[0] for other in prints),
        f"goal, oracle and answers are equal for the tasks {', '.join(tasks)}: most likely "
        f"`start` ignores the task id (or the examples of the action space tell tasks not apart)",
    )
    for name in ("", "no such task", tasks[0] + "x", tasks[0] + "\x00"):
        options = {"task": name}
        what = f"the unknown task {name!r}"
        lab.refuses(partial(env.reset, seed=0, options=options), UnknownTask, what)
    lab.begin(env, tasks[0])


def _fingerprint(lab: Lab, env: TextEnv, task: str, actions: list[str]) -> tuple[object, ...]:
    """Everything a task shows under one seed and one list of actions, except its id."""
    start = lab.begin(env, task)
    plan = lab.oracle(env)
    steps = [start, *lab.follow(env, actions)]
    return plan, [step._replace(info={**step.info, "task_id": ""}) for step in steps]


def _check_repeatable(lab: Lab) -> None:
    """Task, seed and actions decide the episode, whatever was played before or is beside it."""
    env, used, beside = lab.world(), lab.world(), lab.world()
    tasks = lab.few(env, 2)
    cause = "draw everything from the generator given to `start`, keep no state across episodes"
    for number, task in enumerate(tasks):
        actions, steps = lab.walk(env, task, np.random.default_rng(number))
        again = lab.replay(used, task, actions)
        lab.same(again, steps, f"task {task!r} went differently in a second world: {cause}")
        other = lab.begin(beside, tasks[number - 1])
        mixed = [lab.begin(used, task)]
        for action in actions:
            if not other.terminated:
                other = lab.act(beside, action)
            mixed.append(lab.act(used, action))
            if mixed[-1].terminated:
                break
        lab.same(mixed, steps, f"task {task!r} was disturbed by another world beside it: {cause}")


def _check_nonsense(lab: Lab) -> None:
    """A language model may say anything at any time."""
    env = lab.world()
    for task in lab.few(env, 1):
        lab.begin(env, task)
        for action in NONSENSE:
            if lab.act(env, action).terminated:
                lab.begin(env, task)


def _check_fork(lab: Lab) -> None:
    """A fork goes on exactly like the original, and neither notices the other."""
    for number, task in enumerate(lab.few(lab.world(), 2)):
        rng = np.random.default_rng(number)
        actions, steps = lab.walk(lab.world(), task, rng)
        cut = int(rng.integers(len(actions)))
        original = lab.world()
        lab.replay(original, task, actions[:cut])
        early, late = lab.fork(original), lab.fork(original)
        where = f"task {task!r}, forked after {cut} actions"
        lab.same(
            lab.follow(early, actions[cut:]),
            steps[cut + 1 :],
            f"{where}: the fork went another way: copy all of the state, the generator included",
        )
        early.close()
        lab.same(
            lab.follow(original, actions[cut:]),
            steps[cut + 1 :],
            f"{where}: its fork disturbed the original: share no mutable state and no process",
        )
        other, answers = lab.wander(late, rng)
        lab.same(
            answers,
            lab.replay(lab.world(), task, [*actions[:cut], *other])[cut + 1 :],
            f"{where}: the original disturbed its fork: share no mutable state and no process",
        )


def _check_oracle(lab: Lab) -> None:
    """Where a world claims to know how to win, it wins, also from the middle of an episode."""
    wrapped = make(lab.id, **lab.kwargs)
    limit = wrapped.spec.max_episode_steps if wrapped.spec else None
    env = lab.world()
    for number, task in enumerate(lab.few(env, 2)):
        lab.begin(env, task)
        plan = lab.oracle(env)
        if plan is None:
            continue
        lab.require(
            limit is None or len(plan) <= limit,
            f"task {task!r}: the oracle takes {len(plan)} actions, max_episode_steps is {limit}",
        )
        _wins(lab, env, plan, f"task {task!r}: the oracle")
        _, steps = lab.walk(env, task, np.random.default_rng(number))
        if not steps[-1].terminated and (plan := lab.oracle(env)) is not None:
            _wins(lab, env, plan, f"task {task!r}: the oracle, asked in the middle,")


def _wins(lab: Lab, env: TextEnv, plan: tuple[str, ...], who: str) -> None:
    steps = lab.follow(env, plan)
    lab.require(
        bool(steps) and bool(steps[-1].info["won"]),
        f"{who} loses with {plan!r}: return None where it does not know a way to win",
    )


def _check_limit(lab: Lab) -> None:
    """The turn limit truncates, exactly at max_episode_steps."""
    env = make(lab.id, **lab.kwargs)
    limit = env.spec.max_episode_steps if env.spec else None
    task = lab.few(lab.world(), 1)[0]
    env.reset(seed=0, options={"task": task})
    for turn in range(1, 1 + (limit or 0)):
        _, _, terminated, truncated, _ = env.step(NONSENSE[0])
        if terminated:
            break
        lab.require(
            truncated == (turn == limit),
            f"truncated={truncated} after {turn} of {limit} steps: leave limits to Gymnasium",
        )
    env.close()


def _check_generators(lab: Lab) -> None:
    """A world that draws from process-wide generators disturbs every other episode."""
    env, before = lab.world(), (random.getstate(), np.random.get_state())
    task = lab.few(env, 1)[0]
    actions, _ = lab.walk(env, task, np.random.default_rng(0))
    try:
        # A known state, because a world that seeds always leaves the same one behind.
        random.seed(20_240_229)
        np.random.seed(20_240_229)
        start = _global_generators()
        # Only the world is called here: type checkers that tests switch on draw numbers, too.
        env.reset(seed=0, options={"task": task})
        for action in actions:
            env.admissible()
            env.oracle()
            env.step(action)
        env.fork().close()
        lab.require(
            _global_generators() == start,
            "uses the global generators of `random` or `numpy.random`: draw from the generator "
            "given to `start`",
        )
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


def _global_generators() -> tuple[object, ...]:
    state = np.random.get_state(legacy=False)
    return random.getstate(), repr(state["state"]["pos"]), state["state"]["key"].tobytes()


def _check_gymnasium(lab: Lab) -> None:
    """Gymnasium's own checker; its warnings are about arrays and say nothing about texts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            check_env(world(lab.id, **lab.kwargs))
        except Exception as problem:
            raise AssertionError(
                f"{lab.id} fails gymnasium.utils.env_checker.check_env: {problem}"
            ) from problem
