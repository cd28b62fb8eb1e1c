"""An error in one episode of a group ends the others, and leaves no environment open."""

import asyncio
import random

import pytest
from counting import Counter
from test_trees import TASK

from agentgym import plugins
from agentgym.engines.scripted import ScriptedEngine
from agentgym.rollout.player import Player
from agentgym.rollout.setup import EpisodeLimits
from agentgym.utils.concurrency import gather


def test_results_are_in_the_order_of_the_jobs():
    async def job(k):
        await asyncio.sleep(0.001 * (3 - k))
        return k

    assert asyncio.run(gather(job(k) for k in range(4))) == [0, 1, 2, 3]


def test_a_failed_job_cancels_the_others_before_its_error_is_raised():
    ended = []

    async def fails():
        raise LookupError("lost")

    async def waits():
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    async def all_of_them():
        with pytest.raises(LookupError, match="lost"):
            await gather([waits(), fails(), waits()])
        return len(asyncio.all_tasks())

    assert asyncio.run(all_of_them()) == 1
    assert ended == [True, True]


class Failing(ScriptedEngine):
    """Random entropies, so that trees branch; fails or hangs at one of its completions."""

    def __init__(self, agent, last, hangs):
        super().__init__(lambda prompt, sampling: agent.encode_action(str(sampling.seed % 100)))
        self.last, self.hangs, self.calls = last, hangs, 0
        self.reached = asyncio.Event()

    async def generate(self, prompt, sampling):
        self.calls += 1
        self.entropy = random.Random(sampling.seed).uniform(0.0, 3.0)
        await asyncio.sleep(0)
        if self.calls >= self.last:
            self.reached.set()
            if not self.hangs:
                raise LookupError("no engine")
            await asyncio.sleep(60)
        return await super().generate(prompt, sampling)


@pytest.mark.parametrize("hangs", [False, True], ids=["fails", "is given up"])
@pytest.mark.parametrize("last", [1, 6, 13])
@pytest.mark.parametrize("name", sorted(plugins.algorithms()))
def test_a_failed_group_leaves_no_running_task(agent, name, last, hangs):
    Counter.opened = Counter.forked = Counter.closed = 0

    async def play():
        engine = Failing(agent, last, hangs)
        someone = Player(
            agent=agent,
            engine=engine,
            make_env=lambda task: Counter(),
            limits=EpisodeLimits(turns=5),
        )
        collect = plugins.algorithm(name)().build().collect  # type: ignore[call-arg]
        group = asyncio.ensure_future(collect(TASK, someone))
        if hangs:
            await engine.reached.wait()
            group.cancel()
        with pytest.raises(asyncio.CancelledError if hangs else LookupError):
            await group
        return len(asyncio.all_tasks()), someone._slots._value, someone.concurrency

    tasks, free, seats = asyncio.run(play())
    assert tasks == 1 and free == seats
    assert Counter.closed == Counter.opened + Counter.forked > 0
