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
from agentgym.testing.harness import Lab, Step, Walk

_CAUSE = "draw everything from the generator given to `start`, keep no state across episodes"
_GROUP = 4
_PATIENCE = 5
"""Time for a group in threads, as a multiple of that for one call."""


def episodes_are_reproducible(lab: Lab) -> str:
    """An episode is the same in another environment, after other episodes."""
    used, walks = lab.world(), lab.recorded()
    # Backwards, so that no episode comes after the same ones as it did when it was recorded.
    for walk in reversed(walks):
        lab.same(
            lab.replay(used, walk),
            walk.steps,
            f"task {walk.task!r} went differently in a second world: {_CAUSE}",
        )
    steps = sum(len(walk.actions) for walk in walks)
    return f"{steps} steps in {len(walks)} episodes"


def environments_do_not_interact(lab: Lab) -> str:
    """An episode is the same while another environment plays another task, turn by turn."""
    env, beside, number = lab.world(), lab.world(), 0
    for number, walk in enumerate(lab.some(4), 1):
        other = lab.begin(beside, lab.recorded()[-number].task)
        mixed = [lab.begin(env, walk.task, walk.seed)]
        for action in walk.actions:
            if not other.terminated:
                other = lab.act(beside, action)
            mixed.append(lab.act(env, action))
            if mixed[-1].terminated:
                break
        lab.same(
            mixed,
            walk.steps,
            f"task {walk.task!r} was disturbed by another world beside it: {_CAUSE}",
        )
    return f"{number} episodes"


def groups_start_in_the_same_state(lab: Lab) -> str:
    """Members of a group, played in threads at the same time, start and continue alike."""
    groups = 0
    for walk in lab.some(3):
        groups += 1
        members = [lab.world() for _ in range(_GROUP)]
        for number, env in enumerate(members):
            # What a member played before must make no difference.
            for other in lab.recorded()[:number]:
                lab.replay(env, other, 3)
        starts = [lab.begin(env, walk.task, walk.seed) for env in members]
        for start in starts:
            lab.same(
                [start],
                starts[:1],
                f"members of a group (task {walk.task!r}, seed {walk.seed}) start in different "
                f"states: let `start` set everything anew",
            )
        with _hasty_threads():
            for steps in _in_threads(lab, walk, members):
                lab.same(
                    steps,
                    walk.steps,
                    f"task {walk.task!r} went differently while {_GROUP} threads played it: "
                    f"share nothing that changes between worlds",
                )
    return f"{groups} groups of {_GROUP}"


def _in_threads(lab: Lab, walk: Walk, members: list[TextEnv]) -> list[list[Step]]:
    """A replay by each member at the same time, in threads that outlive no process."""
    futures = [Future[list[Step]]() for _ in members]

    def play(env: TextEnv, future: Future[list[Step]]) -> None:
        try:
            future.set_result(lab.replay(env, walk))
        except BaseException as problem:
            future.set_exception(problem)

    for env, future in zip(members, futures, strict=True):
        threading.Thread(target=play, args=(env, future), daemon=True).start()
    limit = _PATIENCE * lab.effort.call_timeout
    try:
        return [future.result(limit) for future in futures]
    except TimeoutError:
        raise AssertionError(
            f"{lab.id}: {len(members)} threads did not finish an episode of task {walk.task!r} "
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


def forks_are_exact_and_independent(lab: Lab) -> str:
    """A fork continues exactly like the original, and neither disturbs the other."""
    number = 0
    for number, walk in enumerate(lab.some(4), 1):
        rng = np.random.default_rng(number)
        # Once from the opening, where generators and buffers are still empty.
        cut = int(rng.integers(len(walk.actions))) if number > 1 else 0
        original = lab.world()
        lab.replay(original, walk, cut)
        early, late = lab.fork(original), lab.fork(original)
        where = f"task {walk.task!r}, forked after {cut} actions"
        lab.same(
            lab.follow(early, walk.actions[cut:]),
            walk.steps[cut + 1 :],
            f"{where}: the fork went another way: copy all of the state, the generator included",
        )
        early.close()
        lab.same(
            lab.follow(original, walk.actions[cut:]),
            walk.steps[cut + 1 :],
            f"{where}: its fork disturbed the original: share no mutable state and no process",
        )
        _goes_on(lab, late, walk, cut, where, rng)
    return f"{number} forks, each with two continuations"


def _goes_on(
    lab: Lab, late: TextEnv, walk: Walk, cut: int, where: str, rng: np.random.Generator
) -> None:
    """A fork keeps its state while its original moves on and is closed."""
    grandchild = lab.fork(late)
    actions, answers = lab.wander(late, rng)
    fresh = lab.replay(lab.world(), walk._replace(actions=(*walk.actions[:cut], *actions)))
    lab.same(
        answers,
        fresh[cut + 1 :],
        f"{where}: the original disturbed its fork: share no mutable state and no process",
    )
    lab.same(
        lab.follow(grandchild, actions),
        fresh[cut + 1 :],
        f"{where}: a fork of the fork went another way: a fork must be as whole as an original",
    )


def global_generators_are_not_used(lab: Lab) -> str:
    """Drawing from process-wide generators disturbs every other episode."""
    env, before = lab.world(), (random.getstate(), np.random.get_state())
    walk = lab.recorded()[0]
    try:
        # A known state, because a world that seeds always leaves the same one behind.
        random.seed(20_240_229)
        np.random.seed(20_240_229)
        start = _global_generators()
        # Only the world is called here: type checkers that tests switch on draw numbers, too.
        world(lab.id, **lab.kwargs).close()
        env.reset(seed=walk.seed, options={"task": walk.task})
        for action in walk.actions:
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
    return f"{len(walk.actions)} steps"


def _global_generators() -> tuple[object, ...]:
    state = np.random.get_state(legacy=False)
    return random.getstate(), repr(state["state"]["pos"]), state["state"]["key"].tobytes()
