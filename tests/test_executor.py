"""Environments in threads of this process: a slow one blocks no other."""

import asyncio
import threading

import pytest

from agentgym import TextEnv
from agentgym.env.base import Opening, Outcome
from agentgym.env.executor import ThreadExecutor
from agentgym.types import Task

SLOW = 40
"""More calls at once than asyncio's own threads would take on a machine of 32 cores."""


class Waits(TextEnv):
    """Blocks until it is released, except on the action `hurry`."""

    release = threading.Event()

    def tasks(self, split):
        return ("a",)

    def start(self, task, rng):
        return Opening("Well?", "Wait.")

    def act(self, action):
        if action != "hurry":
            assert self.release.wait(60)
        return Outcome("Done.", done=True)


def test_a_slow_environment_does_not_block_others():
    async def play():
        executor, task = ThreadExecutor(max_threads=64), Task("tests/Waits", "a")
        worlds = [await executor.open(lambda task: Waits(), task) for _ in range(SLOW + 1)]
        for world in worlds:
            await world.reset(task)
        slow = [asyncio.create_task(world.step("wait")) for world in worlds[1:]]
        await asyncio.sleep(0)
        try:
            quick = await asyncio.wait_for(worlds[0].step("hurry"), 30)
            assert not any(one.done() for one in slow)
        finally:
            Waits.release.set()
        return quick, await asyncio.gather(*slow)

    quick, others = asyncio.run(play())
    assert {answer.observation for answer in (quick, *others)} == {"Done."}


class Unclosable(Waits):
    def close(self):
        raise SystemExit("cannot close")


def test_an_environment_that_fails_to_close_gives_a_warning():
    async def play():
        env = await ThreadExecutor().open(lambda task: Unclosable(), Task("tests/Waits", "a"))
        with pytest.warns(RuntimeWarning, match="Unclosable was not closed: .*SystemExit"):
            await env.close()

    asyncio.run(play())
