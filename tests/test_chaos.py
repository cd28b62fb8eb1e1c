"""Environments that break: no episode is lost or counted twice, and the mean reward is unbiased.

A seed determines which attempts fail and how. Processes are killed after a number of completions,
not after seconds, so a busy machine runs the same test more slowly.
"""

import asyncio
import os
import random
import re
import signal
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from agentgym.engines.scripted import ScriptedEngine
from agentgym.env.executor import ThreadExecutor
from agentgym.env.process_pool import ProcessPool
from agentgym.rollout.branching import fixed_roots, grow_tree
from agentgym.rollout.player import Player
from agentgym.rollout.setup import EpisodeLimits
from agentgym.training.metrics import episode_metrics
from agentgym.types import Stop, Task

TASKS = [Task("agentgym/Hotter-v0", f"hotter-{number}") for number in range(60)]


TIMEOUT = 4.0
"""Seconds after which an environment counts as hanging; a healthy one answers in milliseconds."""
KILL_EVERY = 120
"""Completions between two kills of a process."""


@pytest.fixture
def worlds(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import pool_worlds

    return pool_worlds


@pytest.fixture
def doomed(worlds, tmp_path):
    return partial(worlds.doomed, str(tmp_path))


def clumsy(agent):
    """Bisects, with a random guess in 30 % of turns: it wins some of the time."""

    def say(prompt, sampling):
        low, high = 1, 100
        text = agent.tokenizer.decode(prompt)
        for guess, hint in re.findall(r"<action>(\d+)</action>.*?(Higher|Lower)\.", text):
            bounds = (int(guess) + 1, high) if hint == "Higher" else (low, int(guess) - 1)
            low, high = max(low, bounds[0]), min(high, bounds[1])
        rng = np.random.default_rng(sampling.seed)
        wild = rng.random() < 0.3
        return agent.encode_action(str(rng.integers(1, 101) if wild else (low + high) // 2))

    return say


class SlowEngine(ScriptedEngine):
    """Answers with a delay, so that environments are sometimes idle, as with a model."""

    def __init__(self, respond, killed=None):
        super().__init__(respond)
        self.killed = killed
        """A pool that sometimes loses a process, as when the kernel runs out of memory."""
        self.completions = 0
        self.choice = random.Random(0)

    async def generate(self, prompt, sampling):
        await asyncio.sleep(0.01)
        self.completions += 1
        if self.killed and self.completions % KILL_EVERY == 0 and self.killed.processes:
            os.kill(self.choice.choice(self.killed.processes), signal.SIGKILL)
        return await super().generate(prompt, sampling)


def player(agent, make_env, executor, killed=None, **options):
    return Player(
        agent=agent,
        engine=SlowEngine(clumsy(agent), killed),
        make_env=make_env,
        executor=executor,
        limits=EpisodeLimits(turns=7),
        concurrency=24,
        **options,
    )


async def groups(someone, size):
    async def group(task):
        return await asyncio.gather(*(someone(task, sample) for sample in range(size)))

    return await asyncio.gather(*map(group, TASKS))


def test_no_episode_is_lost_and_rewards_are_unbiased_when_environments_break(agent, worlds, doomed):
    """One attempt in five raises, hangs or kills its process; others are killed from outside."""

    async def broken():
        async with ProcessPool(workers=4, step_timeout=TIMEOUT) as pool:
            return await groups(player(agent, doomed, pool, killed=pool, retries=30), 4)

    calm = asyncio.run(groups(player(agent, worlds.hotter, ThreadExecutor()), 4))
    wild = asyncio.run(broken())
    metrics = episode_metrics(wild)
    kinds = {
        kind: metrics[f"attempts/{kind}"] for kind in ("world_error", "tool_timeout", "aborted")
    }
    assert [[t.sample for t in group] for group in wild] == [list(range(4))] * len(TASKS)
    assert all(t.stop.scored for group in wild for t in group)
    assert metrics["episode/lost"] == 0
    assert kinds["world_error"] > 10 and kinds["tool_timeout"] > 0 and kinds["aborted"] > 0
    assert sum(kinds.values()) > 40
    assert Counter(kinds) == Counter(s.value for g in wild for t in g for s in t.failed_attempts)

    before = np.array([t.reward for group in calm for t in group])
    after = np.array([t.reward for group in wild for t in group])
    error = before.std(ddof=1) / len(before) ** 0.5
    assert 0.2 < before.mean() < 0.9
    assert abs(after.mean() - before.mean()) < error
    # A new attempt has the same seeds, so every single episode is equal, not only the mean.
    assert (after == before).all()
    assert [t.turns for g in wild for t in g] == [t.turns for g in calm for t in g]


def test_without_further_attempts_episodes_are_lost(agent, doomed):
    """The control experiment of the previous test."""

    async def broken():
        async with ProcessPool(workers=4, step_timeout=TIMEOUT) as pool:
            return await groups(player(agent, doomed, pool, retries=0), 2)

    played = asyncio.run(broken())
    assert episode_metrics(played)["episode/lost"] > 10
    assert {t.stop.scored for group in played for t in group} == {True, False}


def test_a_tree_keeps_its_size_when_its_environments_break(agent, doomed):
    async def broken():
        async with ProcessPool(workers=4, step_timeout=TIMEOUT) as pool:
            someone = player(agent, doomed, pool, retries=30)
            collect = grow_tree(6, fixed_roots(2), lambda decision, rng: bool(rng.random() < 0.3))
            return await asyncio.gather(*(collect(task, someone) for task in TASKS[:16]))

    played = asyncio.run(broken())
    assert [[t.sample for t in group] for group in played] == [list(range(6))] * 16
    assert all(t.stop.scored for group in played for t in group)
    assert any(t.shared_turns for group in played for t in group)
    assert any(Stop.ENV_ERROR in t.failed_attempts for group in played for t in group)
