"""Methods that play more than n episodes side by side: second plays, and trees from peaks."""

import asyncio
import json
import random
from pathlib import Path

import pytest

from agentgym import Task, make
from agentgym.batch import collate
from agentgym.engines.scripted import ScriptedEngine
from agentgym.rollout import Limits, Player
from agentgym.testing.batches import batch_of
from agentgym.testing.episodes import made_up
from agentgym.types import Completion
from agentgym_trainers.aepo_arbitrary import (
    AEPOArbitrary,
    apart,
    entropy_of,
    inject,
    play_again,
    room,
    temperature,
)
from agentgym_trainers.grpo import GRPO

GOLDEN = json.loads((Path(__file__).parent / "golden" / "family.json").read_text())
TASK = Task("agentgym/Hotter-v0", "hotter-3")


def near(values, tolerance=1e-6):
    return pytest.approx(values, abs=tolerance)


class Noted(ScriptedEngine):
    """Guesses by the seed alone; says how unsure it is, and notes the temperature it was asked."""

    def __init__(self, agent, entropy=lambda prompt, sampling: 0.3):
        def say(prompt, sampling):
            return agent.write(str(random.Random(sampling.seed).randrange(100)))

        super().__init__(say)
        self.asked, self.entropy = [], entropy

    async def generate(self, prompt, sampling):
        self.asked.append((tuple(prompt), sampling.seed, sampling.temperature))
        said = await super().generate(prompt, sampling)
        unsure = (self.entropy(prompt, sampling),) * len(said.tokens)
        return Completion(said.tokens, said.logprobs, unsure, said.version)


def player(agent, engine, world=None, **kwargs):
    made = (lambda task: world()) if world else (lambda task: make(task.env))
    options = {"limits": Limits(turns=5), **kwargs}
    return Player(agent=agent, engine=engine, make=made, **options)


# ---- AEPO of the arbitrary entropy -------------------------------------------------------------


@pytest.mark.parametrize(("entropy", "expected"), GOLDEN["W6_ctrl"])
def test_w6_the_temperature(entropy, expected):
    assert temperature(float(entropy), 0.5, warm=1.2, cool=0.8) == expected


def test_w6_how_many_join():
    golden = GOLDEN["W6_nsel"]
    assert room(100, 60, 0.3, 0.5) == golden["low"] and room(7, 60, 0.3, 0.5) == golden["low_few"]
    assert room(100, 60, 0.7, 0.5) == golden["high"] and room(7, 60, 0.7, 0.5) == golden["high_few"]
    assert room(1, 60, 0.7, 0.5) == golden["one"] and room(0, 60, 0.3, 0.5) == 0
    assert AEPOArbitrary.paper().most == near(GOLDEN["W6_alpha"])


@pytest.mark.parametrize(("entropy", "factor"), [(0.3, 1.2), (0.7, 0.8)])
def test_a_second_play_is_warmer_or_cooler_and_numbered_on(agent, entropy, factor):
    engine = Noted(agent, lambda prompt, sampling: entropy)
    collect = play_again(3, 1.0, 0.5, warm=1.2, cool=0.8)
    group = asyncio.run(collect(TASK, player(agent, engine)))
    assert [t.sample for t in group] == list(range(6))
    assert entropy_of(group) == near(entropy)
    first = sum(len(t.turns) for t in group[:3])
    asked = [temperature for *_, temperature in engine.asked]
    assert asked == [1.0] * first + [near(factor)] * (len(asked) - first)
    assert len({seed for _, seed, _ in engine.asked}) == len(asked)


def test_without_a_second_play_episodes_are_the_same_and_a_share_of_tasks_has_one(agent):
    def play(share):
        collect = play_again(2, share, 0.5, warm=1.2, cool=0.8)
        someone = player(agent, Noted(agent))
        tasks = [Task("agentgym/Hotter-v0", f"hotter-{k}") for k in range(1, 21)]
        return [asyncio.run(collect(task, someone)) for task in tasks]

    none, some = play(0.0), play(0.25)
    assert [group[:2] for group in some] == none
    assert 0 < sum(len(group) == 4 for group in some) < 12


def second_plays(config, **about):
    """Two tasks of two episodes each, played twice: fourteen tokens in all."""
    batch = batch_of(
        [[1], [2], [1], [3], [1], [2], [2], [2]],
        reward=[1.0, 0, 1, 0, 1, 0, 1, 1],
        group=[0, 0, 0, 0, 1, 1, 1, 1],
    )
    batch = batch.with_(entropy=0.3 * batch.mask.double(), **about)
    credit = config.build().credit
    return batch, credit.apply(batch, credit.init(), 0)[0]


SMALL = GRPO(group_size=2)


def test_wins_of_a_second_play_replace_others_with_an_advantage_of_one():
    _, found = second_plays(AEPOArbitrary(host=SMALL, most=0.5))
    assert len(found.group) == 4 and int((found.sample >= 2).sum()) == 2
    late = found.sample[found.owner] >= 2
    assert (found.advantage[found.mask & late] == 1).all()
    fresh = found.mask & ~late
    assert found.advantage[fresh].abs().tolist() == near([1] * int(fresh.sum()), 1e-4)
    assert found.won[found.sample >= 2].all()
    assert float(found.weight.sum()) == near(1)


def test_without_room_it_is_grpo_on_the_first_plays():
    batch, found = second_plays(AEPOArbitrary(host=SMALL, most=0.0))
    credit = SMALL.build().credit
    plain, _ = credit.apply(batch.only(batch.sample < 2), credit.init(), 0)
    assert found.advantage.equal(plain.advantage) and found.weight.equal(plain.weight)


def test_half_as_many_join_above_the_target():
    low = second_plays(AEPOArbitrary(host=SMALL, most=0.5))[1]
    high = second_plays(AEPOArbitrary(host=SMALL, most=0.5, target=0.1))[1]
    assert int((low.sample >= 2).sum()) == 2 and int((high.sample >= 2).sum()) == 1
    assert len(high.group) == 4


def test_the_code_replaces_the_first_and_never_counts_a_task_that_was_always_solved():
    config = AEPOArbitrary(host=SMALL, most=0.5, good="better", replaced="first")
    _, found = second_plays(config)
    late = found.sample >= 2
    assert int(late.sum()) == 1  # the second play of the second task was won by both
    assert found.sample[~late].tolist() == [1, 0, 1]


def test_the_second_play_has_statistics_of_its_own():
    batch = collate(made_up(0, [[1.0, 0.0, 1.0, 0.0]]))
    found = apart(2).apply(batch, (), 0)[0]
    assert found.group.tolist() == [0, 0, 1, 1]
    alone = inject(9, 0.5, 0.5, good="won", first=False).apply(batch, (), 0)[0]
    assert alone.advantage.equal(batch.advantage) and len(alone) == len(batch)
