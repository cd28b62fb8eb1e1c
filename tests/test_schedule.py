"""Schedules of rollouts and updates: guarantees of each, with real weights and environments."""

import asyncio
import hashlib
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pool_worlds import dawdling, hotter
from test_resume import PLAN

from agentgym.engines.local.engine import LocalEngine
from agentgym.engines.scripted import ScriptedEngine
from agentgym.env.process_pool import ProcessPool
from agentgym.evaluation.record_files import read_episodes
from agentgym.experiment.job import run_blocking
from agentgym.experiment.metrics_file import read_metrics
from agentgym.experiment.run_folder import RunFolder
from agentgym.models import from_scratch
from agentgym.models.policy import Policy
from agentgym.rollout.player import Player
from agentgym.rollout.setup import EpisodeLimits
from agentgym.settings import ImitationSettings, PanelSettings, ScheduleSettings, ScratchSettings
from agentgym.training.learner import Learner
from agentgym.training.schedule import Asynchronous, make_scheduler
from agentgym.training.trainer import Trainer
from agentgym.types import Sampling, Task
from agentgym.utils.progress import Display
from agentgym_trainers.grpo import GRPO

SIZE = 3


def tasks(step):
    return [Task("tests/Hotter", f"hotter-{SIZE * step + i}", i) for i in range(SIZE)]


@pytest.fixture
def trainer(agent, tokenizer):
    def make(world=hotter, turns=4):
        shape = ScratchSettings(
            hidden_size=32, num_layers=1, num_heads=2, num_kv_heads=1, intermediate_size=32
        )
        model = from_scratch.make_model(tokenizer, shape, context=256, seed=0)
        player = Player(
            agent=agent,
            engine=LocalEngine(model, slots=8, context=256),
            make_env=world,
            limits=EpisodeLimits(turns=turns, tokens=256),
            sampling=Sampling(max_tokens=4),
            concurrency=8,
        )
        return Trainer(GRPO(group_size=2).build(), Learner(Policy(model)), player)

    return make


def run(how, trainer, steps, state=None):
    """Some steps, and what the schedule would save after them."""

    async def take():
        schedule = make_scheduler(how, trainer, tasks, state or {})
        try:
            return [await schedule.step() for _ in range(steps)], schedule.state()
        finally:
            await schedule.close()

    return asyncio.run(asyncio.wait_for(take(), 120))


def test_environments_and_requests_continue_while_weights_are_published(trainer, monkeypatch):
    """Publishing weights for seconds must not make environments miss their deadlines."""
    made, ticks = trainer(), 0
    load = made.player.engine.load

    def slow(weights, version):
        time.sleep(0.5)
        load(weights, version)

    monkeypatch.setattr(made.player.engine, "load", slow)

    async def play():
        nonlocal ticks
        publishing = asyncio.create_task(made.publish())
        while not publishing.done():
            await asyncio.sleep(0.01)
            ticks += 1

    asyncio.run(play())
    assert ticks >= 5


def digest(steps, trainer):
    found = hashlib.sha256(repr([step.groups for step in steps]).encode())
    for _, weight in sorted(trainer.learner.policy.model.state_dict().items()):
        found.update(weight.numpy().tobytes())
    return found.hexdigest()


def versions(step):
    """Weight version of every token, by episode."""
    return [
        [version for turn in episode.turns for version in turn.completion.token_versions]
        for group in step.groups
        for episode in group
    ]


def test_one_step_off_learns_from_episodes_of_the_previous_weights(trainer):
    learner = trainer()
    steps, _ = run(ScheduleSettings(kind="one-step-off"), learner, 4)
    for number, step in enumerate(steps):
        assert {v for episode in versions(step) for v in episode} == {max(0, number - 1)}
        assert step.metrics["policy/staleness"] == min(number, 1)
        assert [group[0].task for group in step.groups] == tasks(number)
    again = trainer()
    assert digest(run(ScheduleSettings(kind="one-step-off"), again, 4)[0], again) == digest(
        steps, learner
    )


@pytest.mark.parametrize("kind", ["sync", "one-step-off"])
def test_an_idle_engine_holds_no_cache_during_the_update(trainer, kind):
    learner, held = trainer(), []
    learn = learner._learn

    def watched(*args):
        keys, values = learner.player.engine._scheduler._decoder._cache[0]
        held.append(keys.numel() + values.numel())
        return learn(*args)

    learner._learn = watched
    run(ScheduleSettings(kind=kind), learner, 3)
    assert [count == 0 for count in held] == [kind == "sync"] * 3


def test_one_step_off_samples_during_the_update(trainer):
    learner, seen = trainer(), []
    learn = learner._learn

    def slow(*args):
        before = learner.player.usage.turns
        found = learn(*args)
        for _ in range(1000):
            if learner.player.usage.turns > before:  # only the next step's episodes take turns
                seen.append(True)
                break
            time.sleep(0.02)
        return found

    learner._learn = slow
    run(ScheduleSettings(kind="one-step-off"), learner, 1)
    assert seen


def test_async_without_staleness_and_timeout_is_bit_identical_to_sync(trainer):
    one, other = trainer(), trainer(dawdling)
    expected = digest(run(ScheduleSettings(), one, 3)[0], one)
    assert (
        digest(run(ScheduleSettings(kind="async", max_staleness=0), other, 3)[0], other) == expected
    )


@pytest.mark.parametrize("staleness", [1, 2])
def test_async_updates_weights_during_episodes_and_bounds_their_age(trainer, staleness):
    learner = trainer(dawdling, turns=12)
    steps, state = run(ScheduleSettings(kind="async", max_staleness=staleness), learner, 6)
    for number, step in enumerate(steps):
        assert len(step.groups) == SIZE
        ages = [number - v for episode in versions(step) for v in episode]
        assert min(ages) >= 0 and max(ages) <= staleness
        assert step.metrics["policy/staleness_max"] == max(ages)
        assert step.metrics["policy/staleness"] == pytest.approx(np.mean(ages))
        assert all(episode == sorted(episode) for episode in versions(step))
    assert any(len(set(episode)) > 1 for step in steps for episode in versions(step))
    learned = [group[0].task for step in steps for group in step.groups]
    dropped = sum(step.metrics["schedule/dropped"] for step in steps)
    assert len(set(learned)) == len(learned)
    assert state["started"] - len(state["unfinished"]) == len(learned) + dropped
    assert len(state["unfinished"]) <= SIZE * staleness


@pytest.mark.parametrize("old", ["drop", "mask"])
def test_unfinished_groups_carry_over_and_stale_groups_are_not_trained_on(trainer, old):
    """With a tiny deadline a step trains on the groups that are complete."""
    learner = trainer(dawdling, turns=12)
    how = ScheduleSettings(kind="async", max_staleness=1, group_timeout=0.001, stale=old)
    steps, _ = run(how, learner, 8)
    assert min(len(step.groups) for step in steps) < SIZE
    assert any(step.metrics["schedule/carried"] for step in steps)
    for number, step in enumerate(steps):
        turns = [t for group in step.groups for episode in group for t in episode.turns]
        assert all(number - t.completion.version <= 1 for t in turns if t.learn)
        masked = sum(not t.learn for t in turns)
        assert masked == step.metrics["schedule/masked"]
        assert old == "mask" or not masked
    gone = {"drop": "schedule/dropped", "mask": "schedule/masked"}[old]
    assert sum(step.metrics[gone] for step in steps) > 0


def test_a_resumed_async_run_samples_unfinished_groups_again(trainer):
    learner = trainer()
    how = ScheduleSettings(kind="async", max_staleness=1)
    first, state = run(how, learner, 2)
    before = learner.state()
    second = trainer()
    second.learner.policy.model.load_state_dict(learner.learner.policy.model.state_dict())
    second.restore(before)
    later, _ = run(how, second, 2, state)
    assert len(state["unfinished"]) == SIZE
    played = [group[0].task for step in (*first, *later) for group in step.groups]
    assert sorted(task.id for task in played) == sorted(t.id for n in range(4) for t in tasks(n))


class Stopping(Display):
    """Ends the run after some training steps, as Ctrl-C does."""

    def __init__(self, after):
        super().__init__()
        self.after = after

    @contextmanager
    def stage(self, title, total):
        def advance(done, *facts):
            if title == "train" and done == self.after:
                raise KeyboardInterrupt

        yield advance


@pytest.mark.parametrize("kind", ["one-step-off", "async"])
def test_an_interrupted_run_continues_and_records_every_episode_once(kind, tmp_path):
    folder = RunFolder(tmp_path)
    plan = replace(
        PLAN,
        steps=4,
        save_every=2,
        schedule=ScheduleSettings(kind=kind),
        imitation=ImitationSettings(max_steps=2, demos_per_task=1),
        panel=PanelSettings(tasks=2, episodes=1),
    )
    with pytest.raises(KeyboardInterrupt):
        run_blocking(plan, GRPO(group_size=2).build(), folder, Stopping(after=3))
    assert len(read_episodes(folder.episodes)) == 3 * 4 * 2
    run_blocking(plan, GRPO(group_size=2).build(), folder, Display())
    assert [row["step"] for row in read_metrics(folder.metrics)] == [1, 2, 3, 4]
    played = [
        (record.task, record.seed, record.sample) for record in read_episodes(folder.episodes)
    ]
    assert len(played) == 4 * 4 * 2
    assert len(set(played)) == len(played)


def test_an_error_in_an_episode_ends_the_run_and_leaves_no_task_behind(trainer):
    learner = trainer()

    async def take():
        schedule = Asynchronous(
            learner, lambda step: [Task("tests/Hotter", "nowhere")], ScheduleSettings(kind="async")
        )
        try:
            with pytest.raises(Exception, match="nowhere"):
                await schedule.step()
        finally:
            await schedule.close()
        return len(asyncio.all_tasks())

    assert asyncio.run(take()) == 1


def test_new_weights_do_not_block_the_event_loop(trainer):
    """Environments that wait for a blocked loop would miss their deadline."""
    learner, released, seen = trainer(), threading.Event(), []
    learner.player.engine.load = lambda weights, version: seen.append(released.wait(30))

    async def publish():
        publishing = asyncio.create_task(learner.publish())
        await asyncio.sleep(0.01)
        released.set()
        await publishing

    asyncio.run(publish())
    assert seen == [True]


class SlowToLoad(ScriptedEngine):
    """Takes three seconds for new weights."""

    def load(self, weights, version):
        time.sleep(3)
        super().load(weights, version)


def test_a_publication_of_three_seconds_spoils_no_episode(trainer, agent, monkeypatch):
    """Environments in worker processes have half that time to answer."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    learner = trainer(world=dawdling)
    engine = SlowToLoad(lambda prompt, sampling: agent.encode_action("1"))

    async def play():
        async with ProcessPool(workers=2, step_timeout=1.5) as pool:
            learner.player = replace(learner.player, engine=engine, executor=pool)
            await learner.player(tasks(0)[0], 0)  # The worker processes have started.
            found, published = [], asyncio.Event()

            async def play_on(sample):
                while not published.is_set():
                    found.append(await learner.player(tasks(0)[0], sample))

            playing = [asyncio.create_task(play_on(sample)) for sample in range(8)]
            await asyncio.sleep(0.1)
            await learner.publish()
            published.set()
            await asyncio.gather(*playing)
            return found

    episodes = asyncio.run(play())
    assert [episode.failed_attempts for episode in episodes] == [()] * len(episodes)
    assert len(episodes) >= 16
