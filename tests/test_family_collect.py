"""Methods that play other than n independent episodes: second plays, and trees from peaks."""

import asyncio
import random

import pytest
import torch
from counting import Counter
from family_fixture import GOLDEN, near

from agentgym import Task, make
from agentgym.batch.collate import collate
from agentgym.engines.scripted import ScriptedEngine
from agentgym.rollout.player import Player
from agentgym.rollout.setup import EpisodeLimits
from agentgym.testing.batches import batch_of
from agentgym.testing.episodes import made_up
from agentgym.types import Completion, Stop, Trajectory
from agentgym_trainers.aepo_arbitrary import (
    AEPOArbitrary,
    apart,
    entropy_of,
    inject,
    play_again,
    room,
    temperature,
)
from agentgym_trainers.dapo import until_mixed
from agentgym_trainers.etmr import ETMR, TreeShape, from_peaks, reward_majority
from agentgym_trainers.grpo import GRPO

TASK = Task("agentgym/Hotter-v0", "hotter-3")


class Noted(ScriptedEngine):
    """Guesses from the seed alone; reports an entropy and records the temperature."""

    def __init__(self, agent, entropy=lambda prompt, sampling: 0.3):
        def say(prompt, sampling):
            return agent.encode_action(str(random.Random(sampling.seed).randrange(100)))

        super().__init__(say)
        self.asked, self.entropy = [], entropy

    async def generate(self, prompt, sampling):
        self.asked.append((tuple(prompt), sampling.seed, sampling.temperature))
        completion = await super().generate(prompt, sampling)
        unsure = (self.entropy(prompt, sampling),) * len(completion.tokens)
        return Completion(completion.tokens, completion.logprobs, unsure, completion.version)


def player(agent, engine, world=None, **kwargs):
    made = (lambda task: world()) if world else (lambda task: make(task.env))
    options = {"limits": EpisodeLimits(turns=5), **kwargs}
    return Player(agent=agent, engine=engine, make_env=made, **options)


# ---- AEPO of the arbitrary entropy -------------------------------------------------------------


@pytest.mark.parametrize(("entropy", "expected"), GOLDEN["W6_ctrl"])
def test_w6_the_temperature(entropy, expected):
    assert temperature(float(entropy), 0.5, warm=1.2, cool=0.8) == expected


def test_w6_number_of_replaced_episodes():
    golden = GOLDEN["W6_nsel"]
    assert room(100, 60, 0.3, 0.5) == golden["low"] and room(7, 60, 0.3, 0.5) == golden["low_few"]
    assert room(100, 60, 0.7, 0.5) == golden["high"] and room(7, 60, 0.7, 0.5) == golden["high_few"]
    assert room(1, 60, 0.7, 0.5) == golden["one"] and room(0, 60, 0.3, 0.5) == 0
    assert AEPOArbitrary.paper().max_replaced_ratio == near(GOLDEN["W6_alpha"])


@pytest.mark.parametrize(("entropy", "factor"), [(0.3, 1.2), (0.7, 0.8)])
def test_a_second_play_changes_the_temperature_and_continues_sample_numbers(agent, entropy, factor):
    engine = Noted(agent, lambda prompt, sampling: entropy)
    collect = play_again(3, 1.0, 0.5, warm=1.2, cool=0.8)
    group = asyncio.run(collect(TASK, player(agent, engine)))
    assert [t.sample for t in group] == list(range(6))
    assert entropy_of(group) == near(entropy)
    first = sum(len(t.turns) for t in group[:3])
    asked = [temperature for *_, temperature in engine.asked]
    assert asked == [1.0] * first + [near(factor)] * (len(asked) - first)
    assert len({seed for _, seed, _ in engine.asked}) == len(asked)


def test_only_a_share_of_tasks_is_played_twice_and_other_episodes_do_not_change(agent):
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


def test_wins_of_a_second_play_replace_first_plays_and_have_advantage_one():
    _, found = second_plays(AEPOArbitrary(base=SMALL, max_replaced_ratio=0.5))
    assert len(found.group) == 4 and int((found.sample >= 2).sum()) == 2
    late = found.sample[found.episode_of_token] >= 2
    assert (found.advantage[found.mask & late] == 1).all()
    fresh = found.mask & ~late
    assert found.advantage[fresh].abs().tolist() == near([1] * int(fresh.sum()), 1e-4)
    assert found.won[found.sample >= 2].all()
    assert float(found.weight.sum()) == near(1)


def test_with_a_replacement_ratio_of_zero_it_equals_grpo_on_the_first_plays():
    batch, found = second_plays(AEPOArbitrary(base=SMALL, max_replaced_ratio=0.0))
    credit = SMALL.build().credit
    plain, _ = credit.apply(batch.only(batch.sample < 2), credit.init(), 0)
    assert found.advantage.equal(plain.advantage) and found.weight.equal(plain.weight)


def test_half_as_many_episodes_are_replaced_above_the_target_entropy():
    low = second_plays(AEPOArbitrary(base=SMALL, max_replaced_ratio=0.5))[1]
    high = second_plays(AEPOArbitrary(base=SMALL, max_replaced_ratio=0.5, target_entropy=0.1))[1]
    assert int((low.sample >= 2).sum()) == 2 and int((high.sample >= 2).sum()) == 1
    assert len(high.group) == 4


def test_the_code_replaces_the_first_episodes_and_skips_tasks_that_were_always_solved():
    config = AEPOArbitrary(
        base=SMALL,
        max_replaced_ratio=0.5,
        replacement_criterion="better",
        replaced_episodes="first",
    )
    _, found = second_plays(config)
    late = found.sample >= 2
    assert int(late.sum()) == 1  # the second play of the second task was won by both
    assert found.sample[~late].tolist() == [1, 0, 1]


def test_the_second_play_has_its_own_group_statistics():
    batch = collate(made_up(0, [[1.0, 0.0, 1.0, 0.0]]))
    found = apart(2).apply(batch, (), 0)[0]
    assert found.group.tolist() == [0, 0, 1, 1]
    alone = inject(9, 0.5, 0.5, good="won", first=False).apply(batch, (), 0)[0]
    assert alone.advantage.equal(batch.advantage) and len(alone) == len(batch)


# ---- ETMR --------------------------------------------------------------------------------------


PEAKED = {0: 0.2, 1: 0.9, 2: 0.1, 3: 0.5}


def by_turn(agent):
    """Uncertainty by the number of answers that the prompt holds."""

    def entropy(prompt, sampling):
        return PEAKED[agent.tokenizer.decode(prompt).count("<action>")]

    return entropy


def tree(agent, shape, world=Counter, entropy=None):
    Counter.steps = Counter.opened = Counter.forked = Counter.closed = 0
    engine = Noted(agent, entropy or by_turn(agent))
    task = Task("count", "count") if world else TASK
    return asyncio.run(from_peaks(shape)(task, player(agent, engine, world))), engine


def test_w13_leaves_and_cost():
    golden = GOLDEN["W13_ettrl"]
    assert TreeShape(12, 2, 2).leaves == golden["leaves_12_2_2"] == ETMR.paper().base.group_size
    assert TreeShape(12, 2, 2).cost == near(golden["token_ratio_2_2"])
    assert TreeShape(12, 3, 2).cost == near(golden["token_ratio_3_2"])


@pytest.mark.parametrize(
    "shape", [TreeShape(2, 1, 2), TreeShape(1, 2, 3), TreeShape(3, 0, 2), TreeShape(1, 4, 1)]
)
def test_branches_begin_at_the_most_uncertain_turns(agent, shape):
    group, _ = tree(agent, shape)
    assert [t.sample for t in group] == list(range(shape.leaves))
    highest = sorted(PEAKED, key=PEAKED.get, reverse=True)[: shape.peaks]
    expected = sorted([0] * shape.roots + highest * shape.width * shape.roots)
    assert sorted(t.shared_turns for t in group) == expected
    for episode in group:
        actions = [turn.action for turn in episode.turns]
        for number, turn in enumerate(episode.turns):
            assert turn.observation == " ".join(actions[: number + 1])
        prefix = episode.turns[: episode.shared_turns]
        roots = [t for t in group[: shape.roots] if t.turns[: episode.shared_turns] == prefix]
        assert roots and all(a is b for a, b in zip(prefix, roots[0].turns, strict=False))


def test_no_turn_is_played_twice_and_every_environment_is_closed(agent):
    group, engine = tree(agent, TreeShape(2, 2, 2))
    own = sum(len(t.turns) - t.shared_turns for t in group)
    assert len(engine.asked) == Counter.steps == own < 10 * 4
    assert len(set(engine.asked)) == len(engine.asked)
    assert Counter.opened == 2 and Counter.closed == 2 + Counter.forked


def test_branches_of_an_episode_that_is_too_short_are_played_as_whole_episodes(agent):
    group, _ = tree(agent, TreeShape(1, 6, 1))
    assert len(group) == 7 and [t.sample for t in group] == list(range(7))
    assert sorted(t.shared_turns for t in group) == [0, 0, 0, 0, 1, 2, 3]
    turns = [turn.completion.tokens for t in group if not t.shared_turns for turn in t.turns[:1]]
    assert len(turns) == 4


def test_trees_do_not_depend_on_concurrency(agent):
    def play(concurrency):
        someone = player(agent, Noted(agent, by_turn(agent)), Counter, concurrency=concurrency)
        return asyncio.run(from_peaks(TreeShape(2, 1, 2))(Task("count", "count"), someone))

    assert play(1) == play(64)


class Fragile(Counter):
    """Raises when it is copied."""

    def fork(self):
        raise RuntimeError("no copy")


def test_a_branch_that_cannot_be_copied_is_played_from_the_start(agent):
    group, _ = tree(agent, TreeShape(1, 2, 2), Fragile)
    assert [t.stop for t in group] == [Stop.TERMINATED] * 5
    assert [t.failed_attempts for t in group] == [(), *[(Stop.ENV_ERROR,)] * 4]


def test_a_shared_prefix_counts_once_in_the_loss_except_in_the_paper_variant(agent):
    group, _ = tree(agent, TreeShape(3, 1, 2))
    batch = collate([group])
    batch = batch.with_(reward=torch.arange(9.0))
    config = ETMR()
    for made, once in [(config, True), (ETMR(prefix_loss="every"), False)]:
        credit = made.build().credit
        found, _ = credit.apply(batch, credit.init(), 0)
        assert bool((found.weight[found.shared] == 0).all()) is once
        assert float(found.weight.sum()) == near(1)


def test_the_most_frequent_answer_is_the_majority_and_a_tie_gives_no_majority():
    letters = "AAAB" + "AABB" + "ABCC"
    batch = batch_of(
        [[1]] * 12, ending_hash=list(map(ord, letters)), group=[k // 4 for k in range(12)]
    )
    late = torch.zeros(12, dtype=torch.bool)
    late[10:] = True
    found = reward_majority().apply(batch.with_(truncated=late), (), 0)[0]
    assert found.reward.tolist() == [1, 1, 1, 0] + [1] * 4 + [1, 1, 0, 0]
    assert found.turn_reward[found.mask].tolist() == found.reward.tolist()


# ---- DAPO's dynamic sampling -------------------------------------------------------------------


class Played:
    """Plays no episodes: returns and stops depend on the sample; records the calls."""

    def __init__(self, returns, broken=()):
        self.returns, self.broken, self.asked = returns, broken, []

    async def __call__(self, task, sample):
        self.asked.append(sample)
        stop = Stop.ENV_ERROR if sample in self.broken else Stop.TERMINATED
        turns = made_up(0, [[self.returns[sample]]])[0][0].turns
        return Trajectory(task, sample, "g", "o", turns, stop)


def sampled(attempts, returns, broken=()):
    """The results of two episodes at a time, and which were played."""
    play = Played(returns, broken)
    group = asyncio.run(until_mixed(2, attempts)(TASK, play))
    return [(t.sample, t.reward) for t in group], sorted(play.asked)


def test_a_task_is_played_again_only_until_its_returns_differ():
    returns = [1.0, 1.0, 0.0, 1.0, 0.0, 1.0]
    assert sampled(3, returns) == ([(2, 0.0), (3, 1.0)], [0, 1, 2, 3])
    assert sampled(1, returns) == ([(0, 1.0), (1, 1.0)], [0, 1])


def test_the_last_attempt_is_kept_when_returns_never_differ():
    returns = [1.0, 1.0, 0.0, 0.0]
    assert sampled(2, returns) == ([(2, 0.0), (3, 0.0)], [0, 1, 2, 3])


def test_a_failed_environment_does_not_count_as_a_different_return():
    returns = [1.0, 0.0, 0.0, 1.0]
    assert sampled(2, returns, broken=[1]) == ([(2, 0.0), (3, 1.0)], [0, 1, 2, 3])
