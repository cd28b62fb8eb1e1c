"""Environments in worker processes: same outputs, no blocking, isolated crashes."""

import asyncio
import os
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from agentgym import make
from agentgym.env.executor import ThreadExecutor
from agentgym.env.process_pool import ProcessPool
from agentgym.env.registry import EnvFactory
from agentgym.errors import ConfigError, EnvError, EnvLost, EnvTimeout, UnknownTask
from agentgym.types import Task

HOTTER = "agentgym/Hotter-v0"


@pytest.fixture(autouse=True, scope="module")
def importable():
    """Worker processes have the import path of this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        yield


def odd(number=0):
    """Factory and task of an environment that misbehaves on request."""
    import pool_worlds

    return pool_worlds.odd, pool_worlds.task(number)


async def opened(executor, number=0):
    maker, task = odd(number)
    world = await executor.open(maker, task)
    await world.reset(task)
    return world


def alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


async def transcript(executor, number):
    task = Task(HOTTER, f"hotter-{number}", number)
    world = await executor.open(EnvFactory(max_turns=9), task)
    seen = [await world.reset(task)]
    for guess in range(0, 90, 10):
        seen.append(await world.step(str(guess)))
        if seen[-1].terminated or seen[-1].truncated:
            break
    await world.close()
    return seen


def test_every_executor_gives_the_same_answers():
    async def play():
        async def everything(executor):
            return await asyncio.gather(*(transcript(executor, n) for n in range(12)))

        here = await everything(ThreadExecutor())
        for workers in (1, 3):
            async with ProcessPool(workers=workers) as pool:
                assert await everything(pool) == here
                assert len(pool.processes) == workers
        env = make(HOTTER, max_episode_steps=9)
        assert env.reset(seed=5, options={"task": "hotter-5"}) == here[5][0]
        assert env.step("0") == here[5][1]
        assert any(answer[-1].truncated for answer in here)

    asyncio.run(play())


def test_the_seed_of_the_task_is_used():
    async def play():
        async with ProcessPool(workers=2) as pool:
            worlds = [await opened(pool) for _ in range(2)]
            openings = [[(await w.reset(odd(n)[1])).observation for n in (1, 2)] for w in worlds]
        assert openings[0] == openings[1]
        assert openings[0][0] != openings[0][1]

    asyncio.run(play())


def test_a_slow_step_blocks_no_other_environment_of_its_process():
    async def play():
        async with ProcessPool(workers=1) as pool:
            worlds = [await opened(pool) for _ in range(9)]
            slow = [asyncio.create_task(world.step("sleep 2")) for world in worlds[:8]]
            began = time.monotonic()
            for _ in range(5):
                await worlds[8].step("x")
            assert not any(task.done() for task in slow)
            await asyncio.gather(*slow)
            assert time.monotonic() - began < 8  # in sequence they would take 16
            assert (await worlds[8].step("y")).observation == "x x x x x y"

    asyncio.run(play())


def test_an_exception_is_raised_by_the_call_and_the_environment_continues():
    async def play():
        async with ProcessPool(workers=1) as pool:
            world = await opened(pool)
            with pytest.raises(EnvError, match="OSError: the pipe burst"):
                await world.step("raise")
            with pytest.raises(EnvError, match="pickle"):
                await world.step("secret")
            assert (await world.step("go on")).observation == "go on"
            with pytest.raises(UnknownTask, match="hotter-"):
                await (await pool.open(EnvFactory(), Task(HOTTER, ""))).reset(Task(HOTTER, "hoter"))
            with pytest.raises(ConfigError, match="hihg"):
                await pool.open(EnvFactory(kwargs={"hihg": 3}), Task(HOTTER, "hotter-1"))

    asyncio.run(play())


@pytest.mark.parametrize("executor", [ThreadExecutor, ProcessPool])
@pytest.mark.parametrize(("action", "kind"), [("exit", "SystemExit"), ("interrupt", "KeyboardInt")])
def test_an_environment_that_exits_raises_an_error_and_continues(executor, action, kind):
    async def play():
        async with AsyncExitStack() as stack:
            chosen = executor()
            if executor is ProcessPool:
                await stack.enter_async_context(chosen)
            env = await opened(chosen)
            with pytest.raises(EnvError, match=kind):
                await asyncio.wait_for(env.step(action), 30)
            assert (await env.step("x")).observation == "x"

    asyncio.run(play())


def test_a_process_opens_exactly_the_allowed_number_of_environments():
    async def play():
        async with ProcessPool(workers=1, envs_per_worker=3) as pool:
            pids, started = [], []
            for _ in range(7):
                env = await opened(pool)
                pids.append((await env.step("process")).observation)
                started.append(pool.started)
                await env.close()
        return pids, started

    pids, started = asyncio.run(play())
    assert started == [1, 1, 1, 2, 2, 2, 3]
    assert len(set(pids[:3])) == len(set(pids[3:6])) == 1 and len(set(pids)) == 3


def test_a_dead_process_loses_its_own_environments_and_is_replaced():
    async def play():
        async with ProcessPool(workers=2) as pool:
            worlds = [await opened(pool) for _ in range(4)]
            homes = [(await world.step("process")).observation for world in worlds]
            assert homes[0] == homes[2] != homes[1] == homes[3]
            with pytest.raises(EnvError, match="the worker died") as died:
                await worlds[0].step("die")
            assert not isinstance(died.value, EnvLost)
            with pytest.raises(EnvLost, match="the worker died while this environment was idle"):
                await worlds[2].step("x")
            await worlds[0].close()
            assert (await worlds[1].step("x")).observation == "x"
            assert len(pool.processes) == 1
            fresh = await opened(pool)
            assert (await fresh.step("process")).observation not in homes
            assert (len(pool.processes), pool.started) == (2, 3)

    asyncio.run(play())


def test_a_hanging_environment_is_abandoned_and_its_process_ends_after_the_others():
    async def play():
        async with ProcessPool(workers=1, step_timeout=1.0) as pool:
            stuck, neighbour = await opened(pool), await opened(pool)
            home = int((await neighbour.step("process")).observation)
            with pytest.raises(EnvTimeout, match="no reply within 1 seconds"):
                await stuck.step("hang")
            with pytest.raises(EnvTimeout, match="given up"):
                await stuck.step("x")
            await stuck.close()
            assert (await neighbour.step("x")).observation == "x"
            fresh = await opened(pool)
            assert (await fresh.step("process")).observation != str(home)
            await neighbour.close()
            for _ in range(100):
                if not alive(home):
                    break
                await asyncio.sleep(0.1)
            assert not alive(home)
            assert (await fresh.step("x")).observation == "x"

    asyncio.run(play())


def test_a_hanging_environment_in_this_process_raises_a_warning_with_its_name():
    async def main():
        world = await opened(ThreadExecutor(warn_after=0.05))
        with pytest.warns(
            RuntimeWarning, match="Odd, task 'odd', .*answered step 'sleep 0.3'.*workers 1"
        ):
            return await world.step("sleep 0.3")

    assert asyncio.run(main()).observation == "sleep 0.3"


def test_an_environment_that_blocks_all_threads_is_killed_with_its_process():
    async def play():
        async with ProcessPool(workers=1, step_timeout=1.0) as pool:
            world, neighbour = await opened(pool), await opened(pool)
            home = int((await world.step("process")).observation)
            for one, action in ((world, "seize"), (neighbour, "x")):
                with pytest.raises(EnvTimeout):
                    await one.step(action)
            assert (await (await opened(pool)).step("x")).observation == "x"
        assert not alive(home)

    asyncio.run(play())


def test_a_cancelled_call_leaves_the_others_intact():
    async def play():
        async with ProcessPool(workers=1) as pool:
            world, neighbour = await opened(pool), await opened(pool)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(world.step("sleep 0.5"), 0.1)
            with pytest.raises(RuntimeError, match="one call at a time"):
                await world.step("x")
            await world.close()
            await neighbour.step("sleep 1")
            assert len(pool._connections[0].envs) == 1
            assert (await neighbour.step("x")).observation == "sleep 1 x"

    asyncio.run(play())


def test_a_fork_is_equal_and_independent():
    async def play():
        async with ProcessPool(workers=2) as pool:
            world = await opened(pool)
            await world.step("a")
            twin = await world.fork()
            assert (await world.step("b")).observation == "a b"
            assert (await twin.step("c")).observation == "a c"
            await world.close()
            assert (await twin.step("d")).observation == "a c d"

    asyncio.run(play())


def resident(process):
    """Memory of a process in MB."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_memory_is_bounded_over_ten_thousand_resets_of_a_leaking_environment():
    """It leaks 0.1 MB per reset, 1,000 MB in all; a process is replaced after 500 environments."""
    maker, hoard = odd()[0], Task("tests/Odd-v0", "hoard")

    async def play():
        peaks = []
        async with ProcessPool(workers=2, envs_per_worker=500) as pool:

            async def some(count):
                for _ in range(count):
                    world = await pool.open(maker, hoard)
                    await world.reset(hoard)
                    await world.close()

            await some(1)
            fresh = max(map(resident, pool.processes))
            for _ in range(10):
                await asyncio.gather(*(some(125) for _ in range(8)))
                peaks.append(sum(map(resident, pool.processes)))
            assert pool.started > 18
        assert max(peaks) < 2 * fresh + 4 * 500 * 0.1

    asyncio.run(play())


def test_a_closed_pool_leaves_no_process():
    async def play():
        async with ProcessPool(workers=2) as pool:
            worlds = [await opened(pool) for _ in range(2)]
            asyncio.get_running_loop().create_task(ignore(worlds[0].step("hang")))
            await worlds[1].step("x")
            there = pool.processes
            assert all(map(alive, there)) and len(there) == 2
        assert not any(map(alive, there))

    async def ignore(call):
        with pytest.raises(EnvError):
            await call

    asyncio.run(play())


def test_a_factory_that_cannot_be_pickled_gives_a_one_line_error():
    async def play():
        async with ProcessPool(workers=1) as pool:
            with pytest.raises(
                ConfigError, match="EnvFactory or a function of a module"
            ) as refused:
                await pool.open(lambda task: make(HOTTER), Task(HOTTER, "hotter-1"))
            assert "\n" not in str(refused.value)
            assert pool.started == 0

    asyncio.run(play())


@pytest.mark.parametrize("name", ["workers", "step_timeout", "reset_timeout", "envs_per_worker"])
def test_a_value_of_zero_is_rejected(name):
    with pytest.raises(ConfigError, match=f"ProcessPool.{name} is 0, expected more than 0"):
        ProcessPool(**{name: 0})
