"""Checks that task, seed and actions determine an episode: again, beside others, in a fork."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import numpy as np

from agentgym.env.base import TextEnv
from agentgym.env.registry import world
from agentgym.testing.harness import Harness
from agentgym.testing.steps import Step, Walk

_CAUSE = "draw everything from the generator given to `start`, keep no state across episodes"
_GROUP = 4
_PATIENCE = 5
"""Time for a group in threads, as a multiple of that for one call."""


def episodes_are_reproducible(harness: Harness) -> str:
    """An episode is the same in another environment, after other episodes."""
    used, walks = harness.make(), harness.recorded()
    # Backwards, so that no episode comes after the same ones as it did when it was recorded.
    for walk in reversed(walks):
        harness.same(
            harness.replay(used, walk),
            walk.steps,
            f"task {walk.task!r} went differently in a second environment: {_CAUSE}",
        )
    steps = sum(len(walk.actions) for walk in walks)
    return f"{steps} steps in {len(walks)} episodes"


def environments_do_not_interact(harness: Harness) -> str:
    """An episode is the same while another environment plays another task, turn by turn."""
    env, beside, number = harness.make(), harness.make(), 0
    for number, walk in enumerate(harness.some(4), 1):
        other = harness.begin(beside, harness.recorded()[-number].task)
        mixed = [harness.begin(env, walk.task, walk.seed)]
        for action in walk.actions:
            if not other.terminated:
                other = harness.act(beside, action)
            mixed.append(harness.act(env, action))
            if mixed[-1].terminated:
                break
        harness.same(
            mixed,
            walk.steps,
            f"task {walk.task!r} was disturbed by another environment beside it: {_CAUSE}",
        )
    return f"{number} episodes"


def groups_start_in_the_same_state(harness: Harness) -> str:
    """Members of a group, played in threads at the same time, start and continue alike."""
    groups = 0
    for walk in harness.some(3):
        groups += 1
        members = [harness.make() for _ in range(_GROUP)]
        for number, env in enumerate(members):
            # What a member played before must make no difference.
            for other in harness.recorded()[:number]:
                harness.replay(env, other, 3)
        starts = [harness.begin(env, walk.task, walk.seed) for env in members]
        for start in starts:
            harness.same(
                [start],
                starts[:1],
                f"members of a group (task {walk.task!r}, seed {walk.seed}) start in different "
                f"states: let `start` reset everything",
            )
        with _hasty_threads():
            for steps in _in_threads(harness, walk, members):
                harness.same(
                    steps,
                    walk.steps,
                    f"task {walk.task!r} went differently while {_GROUP} threads played it: "
                    f"share nothing that changes between environments",
                )
    return f"{groups} groups of {_GROUP}"


def _in_threads(harness: Harness, walk: Walk, members: list[TextEnv]) -> list[list[Step]]:
    """A replay by each member at the same time, in threads that outlive no process."""
    futures = [Future[list[Step]]() for _ in members]

    def play(env: TextEnv, future: Future[list[Step]]) -> None:
        try:
            future.set_result(harness.replay(env, walk))
        except BaseException as problem:
            future.set_exception(problem)

    for env, future in zip(members, futures, strict=True):
        threading.Thread(target=play, args=(env, future), daemon=True).start()
    limit = _PATIENCE * harness.effort.call_timeout
    try:
        return [future.result(limit) for future in futures]
    except TimeoutError:
        raise AssertionError(
            f"{harness.id}: {len(members)} threads did not finish an episode of task {walk.task!r} "
            f"within {limit:g} s: look for a lock that is not released"
        ) from None


@contextmanager
def _hasty_threads() -> Iterator[None]:
    """Threads switch as often as they can, so that a race shows."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def forks_are_exact_and_independent(harness: Harness) -> str:
    """A fork continues exactly like the original, and neither disturbs the other."""
    late, forks = harness.hurry(), 0
    first, *others = harness.recorded()[:4]
    # Once from the opening, where generators and buffers are still empty.
    for walk in (first, first, *others):
        rng = np.random.default_rng(forks)
        cut = int(rng.integers(1, len(walk.actions))) if forks and len(walk.actions) > 1 else 0
        original = harness.make()
        harness.replay(original, walk, cut)
        early, later = harness.fork(original), harness.fork(original)
        where = f"task {walk.task!r}, forked after {cut} actions"
        harness.same(
            harness.follow(early, walk.actions[cut:]),
            walk.steps[cut + 1 :],
            f"{where}: the fork went another way: copy all of the state, the generator included",
        )
        early.close()
        harness.same(
            harness.follow(original, walk.actions[cut:]),
            walk.steps[cut + 1 :],
            f"{where}: its fork disturbed the original: share no mutable state and no process",
        )
        if forks or not late():
            _goes_on(harness, later, walk, cut, where, rng)
        forks += 1
        if forks > 1 and late():
            harness.tried(forks, 2 + len(others), "forks")
            break
    return f"{forks} forks, each with two continuations"


def _goes_on(
    harness: Harness, later: TextEnv, walk: Walk, cut: int, where: str, rng: np.random.Generator
) -> None:
    """A fork keeps its state while its original moves on and is closed."""
    grandchild = harness.fork(later)
    actions, answers = harness.wander(later, rng)
    fresh = harness.replay(harness.make(), walk._replace(actions=(*walk.actions[:cut], *actions)))
    harness.same(
        answers,
        fresh[cut + 1 :],
        f"{where}: the original disturbed its fork: share no mutable state and no process",
    )
    harness.same(
        harness.follow(grandchild, actions),
        fresh[cut + 1 :],
        f"{where}: a fork of the fork went another way: a fork must be as whole as an original",
    )


def global_generators_are_not_used(harness: Harness) -> str:
    """Drawing from process-wide generators disturbs every other episode."""
    env, before = harness.make(), (random.getstate(), np.random.get_state())
    walk = harness.recorded()[0]
    try:
        # A known state, because an environment that seeds always leaves the same one behind.
        random.seed(20_240_229)
        np.random.seed(20_240_229)
        start = _global_generators()
        # Only the environment is called here: type checkers that tests switch on draw numbers, too.
        world(harness.id, **harness.kwargs).close()
        env.reset(seed=walk.seed, options={"task": walk.task})
        for action in walk.actions:
            env.admissible()
            env.oracle()
            env.step(action)
        env.fork().close()
        harness.require(
            _global_generators() == start,
            "uses the global generators of `random` or `numpy.random`: draw from the generator "
            "given to `start`",
        )
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
    return f"{len(walk.actions)} steps"


def _global_generators() -> tuple[object, ...]:
    state = np.random.get_state(legacy=False)
    return random.getstate(), repr(state["state"]["pos"]), state["state"]["key"].tobytes()
