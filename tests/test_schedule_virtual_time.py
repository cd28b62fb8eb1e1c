"""The schedules of training with thousands of episodes, in virtual time: what they promise."""

import asyncio
from collections import Counter

import pytest

from agentgym.planning.clock import run_virtually
from agentgym.planning.engines import SimulatedEngine
from agentgym.planning.episodes import SimulatedGroups
from agentgym.planning.laws import GPUS, MODELS, Laws
from agentgym.planning.simulate import Placement, SimulatedTrainer, Training, simulate
from agentgym.planning.workload import Workload
from agentgym.settings import ScheduleSettings
from agentgym.training.schedule import make_scheduler
from agentgym.types import Task

LAWS = Laws(MODELS["7B"], GPUS["H100"])
SHORT = Workload(turns=4, max_turns=8, written_tokens=40)
HEAVY_TAILED = Workload(turns=4, max_turns=8, written_tokens=40, slow_share=0.03, slow_seconds=90.0)


def async_placement(**settings):
    return Placement(schedule=ScheduleSettings(kind="async", **settings), engines=24, trainers=40)


@pytest.mark.parametrize(("staleness", "old"), [(1, "drop"), (2, "mask")])
def test_ten_thousand_episodes_are_no_staler_than_allowed(staleness, old):
    tasks = 10_000 // (8 * (staleness + 1))
    training = Training(laws=LAWS, workload=SHORT, tasks_per_step=tasks)
    placement = async_placement(max_staleness=staleness, stale=old)
    found = simulate(training, placement, steps=1)
    # Groups wait for their turn, so episodes are as old as allowed, and never older.
    assert found.oldest == staleness
    assert found.most_in_flight == tasks * (staleness + 1) * 8 > 9_900


def test_the_limit_on_episodes_in_flight_holds_back_the_others():
    training = Training(laws=LAWS, workload=SHORT, tasks_per_step=100, concurrency=700)
    found = simulate(training, async_placement(), steps=2)
    assert found.most_in_flight == 700
    unlimited = simulate(
        Training(laws=LAWS, workload=SHORT, tasks_per_step=100), async_placement(), steps=2
    )
    assert unlimited.most_in_flight == 1600


def run(settings, workload, steps, *, tasks=20, engines=2, trainers=2):
    """Learned task ids of every step, unlearned groups after it, and its virtual seconds."""

    async def play(events):
        replicas = [SimulatedEngine(events, LAWS) for _ in range(engines)]
        groups = SimulatedGroups(events, replicas, workload, 4, None)
        training = Training(laws=LAWS, workload=workload, tasks_per_step=tasks, group_size=4)
        trainer = SimulatedTrainer(training, groups, trainers)
        schedule = make_scheduler(
            settings, trainer, lambda n: [Task("w", f"{n}/{k}") for k in range(tasks)], {}
        )
        learned, waiting, seconds = [], [], []
        for _ in range(steps):
            start = events.now
            step = await schedule.step()
            seconds.append(events.now - start - trainer.last_update)
            learned.append([group[0].task.id for group in step.groups])
            waiting.append(len(schedule.state().get("unfinished", ())))
        await schedule.close()
        return learned, waiting, seconds

    return run_virtually(play)


def test_no_group_starves_behind_faster_ones_and_none_is_learned_twice():
    settings = ScheduleSettings(kind="async", max_staleness=2, group_timeout=20.0, stale="mask")
    learned, _, _ = run(settings, HEAVY_TAILED, 30)
    counts = Counter(task for step in learned for task in step)
    assert set(counts.values()) == {1}
    early = {f"{step}/{k}" for step in range(6) for k in range(20)}
    assert early <= counts.keys()
    # Slow groups were overtaken, or the timeout would not have been needed.
    order = [int(task.partition("/")[0]) for step in learned for task in step]
    assert order != sorted(order)


def test_a_slow_trainer_leaves_no_group_behind():
    """All groups are finished when it takes some; those left over are taken next."""
    settings = ScheduleSettings(kind="async", max_staleness=2, stale="mask")
    learned, _, _ = run(settings, SHORT, 10, trainers=0.02)
    late = [n - int(task.partition("/")[0]) for n, step in enumerate(learned) for task in step]
    assert max(late) <= 2
    found = {task for step in learned for task in step}
    assert {f"{step}/{k}" for step in range(8) for k in range(20)} <= found


def test_a_step_waits_no_longer_than_the_timeout_once_a_group_is_there():
    settings = ScheduleSettings(kind="async", max_staleness=2, group_timeout=20.0, stale="mask")
    _, waiting, seconds = run(settings, HEAVY_TAILED, 20)
    assert max(waiting) <= 20 * 3
    _, _, whole = run(ScheduleSettings(), HEAVY_TAILED, 3)
    assert max(seconds[1:]) <= 20.0 + 1e-6 < max(whole)


def test_what_is_too_old_is_dropped_and_not_learned_from():
    settings = ScheduleSettings(kind="async", max_staleness=1, group_timeout=5.0, stale="drop")
    learned, _, _ = run(settings, HEAVY_TAILED, 20)
    counts = Counter(task for step in learned for task in step)
    assert set(counts.values()) == {1}
    started = 1 + max(int(task.partition("/")[0]) for task in counts)
    assert len(counts) < 20 * started


@pytest.mark.parametrize("kind", ["sync", "one-step-off", "async"])
def test_simulations_repeat_exactly(kind):
    training = Training(laws=LAWS, workload=SHORT, tasks_per_step=8)
    placement = Placement(schedule=ScheduleSettings(kind=kind), engines=2, trainers=2)
    first, second = (simulate(training, placement, steps=2) for _ in range(2))
    assert first == second and first.oldest == (0 if kind == "sync" else 1)


def test_time_passes_without_waiting_and_a_deadlock_is_an_error():
    async def sleep(events):
        seen = []
        events.at(500.0, lambda: seen.append(events.now))
        await asyncio.sleep(1000)
        return seen, events.now

    assert run_virtually(sleep) == ([500.0], 1000.0)

    async def never(events):
        await asyncio.get_running_loop().create_future()

    with pytest.raises(RuntimeError, match="every task waits"):
        run_virtually(never)
