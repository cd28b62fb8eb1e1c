"""Worlds in this process: a slow one holds up nobody."""

import asyncio
import threading

from agentgym import TextEnv
from agentgym.env.base import Opening, Outcome
from agentgym.env.executor import ThreadExecutor
from agentgym.types import Task

SLOW = 40
"""More calls at once than asyncio's own threads would take on a machine of 32 cores."""


class Waits(TextEnv):
    """Answers when it is allowed to; told to hurry, at once."""

    let = threading.Event()

    def tasks(self, split):
        return ("a",)

    def start(self, task, rng):
        return Opening("Well?", "Wait.")

    def act(self, action):
        if action != "hurry":
            assert self.let.wait(60)
        return Outcome("Done.", done=True)


def test_slow_worlds_hold_up_no_other():
    async def play():
        host, task = ThreadExecutor(max_threads=64), Task("tests/Waits", "a")
        worlds = [await host.open(lambda task: Waits(), task) for _ in range(SLOW + 1)]
        for world in worlds:
            await world.reset(task)
        slow = [asyncio.create_task(world.step("wait")) for world in worlds[1:]]
        await asyncio.sleep(0)
        try:
            quick = await asyncio.wait_for(worlds[0].step("hurry"), 30)
            assert not any(one.done() for one in slow)
        finally:
            Waits.let.set()
        return quick, await asyncio.gather(*slow)

    quick, others = asyncio.run(play())
    assert {answer.observation for answer in (quick, *others)} == {"Done."}
