"""Checks of the listed tasks: which there are, and that the right one is played."""

from __future__ import annotations

from functools import partial

from agentgym.env.base import TextEnv
from agentgym.env.panel import panel_of
from agentgym.errors import ConfigError, UnknownTask
from agentgym.testing.findings import Skipped
from agentgym.testing.harness import Harness
from agentgym.testing.steps import Walk


def splits_are_disjoint(harness: Harness) -> str:
    """Splits are lists of task ids, none empty, that share no task."""
    env = harness.make()
    seen: dict[str, str] = {}
    for split in harness.splits(env):
        with harness.must(f"list the tasks of split {split!r}"):
            ids = list(env.tasks(split))
        harness.require(bool(ids), f"split {split!r} is empty: `tasks` must list at least one")
        for id_ in ids:
            harness.require(
                isinstance(id_, str) and id_ != "", f"a task id of {split!r} is {id_!r}"
            )
            where = seen.get(id_)
            harness.require(
                where is None,
                f"task {id_!r} is listed in {where!r} and in {split!r}: look at `tasks`",
            )
            seen[id_] = split
    harness.refuses(lambda: env.tasks("no-such-split"), ConfigError, "an unknown split")
    return f"{len(seen)} tasks"


def panels_are_stable(harness: Harness) -> str:
    """Every construction lists the same tasks in the same order, before and after play."""
    first, second = harness.make(), harness.make()
    splits = harness.splits(first)
    digests = [panel_of(harness.id, first, split).digest for split in splits]
    harness.walk(first, harness.few(first, 1)[0], 0)
    for split, digest in zip(splits, digests, strict=True):
        harness.require(
            panel_of(harness.id, second, split).digest == digest,
            f"two environments list {split!r} differently: fix the order, do not list a set or "
            f"a folder",
        )
        harness.require(
            panel_of(harness.id, first, split).digest == digest,
            f"{split!r} is listed differently after an episode: `tasks` must not use up or "
            f"reorder its list",
        )
    return f"train {digests[0][:12]}"


def task_ids_select_tasks(harness: Harness) -> str:
    """The id determines the task, and unknown ids are refused."""
    env = harness.make()
    tasks = harness.few(env, 3)
    walk = harness.walk(env, tasks[0], 0)
    first = _fingerprint(harness, env, walk)
    others = (_fingerprint(harness, env, walk._replace(task=task)) for task in tasks[1:])
    harness.require(
        any(other != first for other in others),
        f"goal, oracle and answers are equal for the tasks {', '.join(tasks)}: most likely "
        f"`start` ignores the task id (or the examples of the action space show no difference)",
    )
    for name in ("", "no such task", tasks[0] + "x", tasks[0] + "\x00"):
        options = {"task": name}
        what = f"the unknown task {name!r}"
        harness.refuses(partial(env.reset, seed=0, options=options), UnknownTask, what)
    harness.begin(env, tasks[0])
    return f"one of {len(tasks)} tasks differs from the first"


def _fingerprint(harness: Harness, env: TextEnv, walk: Walk) -> tuple[object, ...]:
    """Everything a task shows under one seed and one list of actions, except its id."""
    start = harness.begin(env, walk.task, walk.seed)
    plan = harness.oracle(env)
    steps = [start, *harness.follow(env, walk.actions)]
    return plan, [step._replace(info={**step.info, "task_id": ""}) for step in steps]


def seeds_draw_tasks(harness: Harness) -> str:
    """Without a task id, the seed draws one from the split the environment was made with."""
    splits, late, drawn_in = harness.splits(harness.make()), harness.hurry(), 0
    for number, split in enumerate(splits):
        env, twin = harness.make(split=split), harness.make(split=split)
        panel = env.tasks(split)
        drawn: set[str] = set()
        for seed in range(16):
            task = _drawn(harness, env, seed)
            harness.require(
                task in panel,
                f"made with split={split!r}, a reset played {task!r}, which is not in it: keep "
                f"the `split` that super().__init__ was given",
            )
            other = _drawn(harness, twin, seed)
            harness.require(
                task == other,
                f"seed {seed} drew task {task!r} in one environment and {other!r} in another: "
                f"super().reset(seed=seed) must come before the draw",
            )
            drawn.add(task)
            once = number > 0 and late()
            if len(drawn) > 1 or once:
                break
        drawn_in += len(drawn) > 1 or len(panel) == 1
        harness.require(
            len(drawn) > 1 or len(panel) == 1 or once,
            f"16 seeds all drew task {drawn} of {len(panel)} in {split!r}: the seed given to "
            f"`reset` is not used",
        )
    harness.tried(drawn_in, len(splits), "splits drawn from more than once")
    return f"in {', '.join(splits)}"


def _drawn(harness: Harness, env: TextEnv, seed: int) -> str:
    with harness.must("reset without options"):
        _, info = env.reset(seed=seed)
    return str(info["task_id"])


def seeds_change_episodes(harness: Harness) -> str:
    """In a ``stochastic`` environment the seed changes the episode of a task."""
    env = harness.make()
    if not env.stochastic:
        raise Skipped("the environment does not declare itself `stochastic`")
    for walk in harness.recorded()[:4]:
        for seed in range(walk.seed + 1, walk.seed + 9):
            if tuple(harness.replay(env, walk._replace(seed=seed))) != walk.steps:
                return f"task {walk.task!r} differs under seeds {walk.seed} and {seed}"
    raise AssertionError(
        f"{harness.id}: declared `stochastic`, yet 9 seeds gave the same answers: draw from the "
        f"generator given to `start`"
    )
