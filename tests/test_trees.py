"""Branching episodes: shared prefixes are played once, and a task yields exactly n episodes."""

import asyncio
import random

import pytest
from counting import Counter

from agentgym import Stop, Task, make
from agentgym.algorithm import RunInfo
from agentgym.batch.collate import collate
from agentgym.engines.scripted import ScriptedEngine
from agentgym.env.base import Opening, Outcome, TextEnv
from agentgym.env.executor import fork_env
from agentgym.errors import ConfigError
from agentgym.rollout.branching import (
    BranchPoint,
    above_threshold,
    branch_after_acting,
    branch_before_acting,
    fixed_roots,
    grow_tree,
    streak_per_path,
    with_probability,
)
from agentgym.rollout.player import Player
from agentgym.rollout.setup import EpisodeLimits
from agentgym.training.metrics import episode_metrics
from agentgym.types import Completion
from agentgym_trainers.aepo import AEPO
from agentgym_trainers.arpo import ARPO
from agentgym_trainers.forking import by_task, monitored, summed_entropy
from agentgym_trainers.grpo import GRPO

TASK = Task("agentgym/Hotter-v0", "hotter-3")


def guess(agent, seen=None):
    """A policy that guesses from the seed alone and records its prompts."""

    def say(prompt, sampling):
        if seen is not None:
            seen.append((tuple(prompt), sampling.seed))
        return agent.encode_action(str(random.Random(sampling.seed).randrange(100)))

    return say


def player(agent, seen=None, world=None, **kwargs):
    made = (lambda task: world()) if world else (lambda task: make(task.env))
    options = {"limits": EpisodeLimits(turns=5), **kwargs}
    return Player(agent=agent, engine=ScriptedEngine(guess(agent, seen)), make_env=made, **options)


def collect(how, someone, task=TASK):
    return asyncio.run(how(task, someone))


def always(decision, rng):
    return True


def never(decision, rng):
    return False


@pytest.mark.parametrize("spot", [branch_before_acting, branch_after_acting])
@pytest.mark.parametrize("rule", [always, never, with_probability(lambda decision: 0.3)])
@pytest.mark.parametrize("roots", [1, 3, 8])
def test_a_task_gives_exactly_n_episodes(agent, spot, rule, roots):
    group = collect(grow_tree(8, fixed_roots(roots), rule, order=spot), player(agent))
    assert [t.sample for t in group] == list(range(8))
    assert sum(t.shared_turns == 0 for t in group) >= roots or rule is always
    if rule is never:
        assert all(t.shared_turns == 0 for t in group)


@pytest.mark.parametrize("spot", [branch_before_acting, branch_after_acting])
def test_no_step_and_no_completion_is_repeated(agent, spot):
    Counter.steps = Counter.opened = 0
    seen = []
    how = grow_tree(8, fixed_roots(2), with_probability(lambda decision: 0.4), order=spot)
    group = collect(how, player(agent, seen, Counter))
    own = sum(len(t.turns) - t.shared_turns for t in group)
    assert len(seen) == Counter.steps == own < 8 * 4
    assert len(set(seen)) == len(seen)
    assert Counter.opened == sum(t.shared_turns == 0 for t in group) or spot is branch_before_acting
    assert {t.stop for t in group} == {Stop.TERMINATED}


@pytest.mark.parametrize("spot", [branch_before_acting, branch_after_acting])
def test_a_fork_continues_from_the_state_of_its_parent(agent, spot):
    """The observation lists all actions so far, which reveals a lost or foreign step."""
    group = collect(grow_tree(8, fixed_roots(1), always, order=spot), player(agent, None, Counter))
    for episode in group:
        actions = [turn.action for turn in episode.turns]
        for number, turn in enumerate(episode.turns):
            assert turn.observation == " ".join(actions[: number + 1])
        assert episode.reward == 4.0
    forked = [t for t in group if t.shared_turns]
    assert forked
    for episode in forked:
        twins = [
            t
            for t in group
            if t.turns[: episode.shared_turns] == episode.turns[: episode.shared_turns]
        ]
        assert len(twins) > 1
        assert twins[0].turns[0] is episode.turns[0]
        parent = next(t for t in group if t.sample == episode.parent)
        shared = zip(parent.turns, episode.turns[: episode.shared_turns], strict=False)
        assert parent in twins and all(mine is theirs for mine, theirs in shared)
    assert next(t.parent for t in group if not t.shared_turns) is None
    assert len({tuple(turn.action for turn in t.turns) for t in group}) == 8


def test_a_fork_before_acting_samples_again_and_one_after_acting_shares_the_action(agent):
    before = collect(
        grow_tree(2, fixed_roots(1), always, order=branch_before_acting),
        player(agent, None, Counter),
    )
    after = collect(
        grow_tree(2, fixed_roots(1), always, order=branch_after_acting),
        player(agent, None, Counter),
    )
    assert [t.shared_turns for t in before] == [0, 0]
    assert [t.parent for t in before] == [t.parent for t in after] == [None, 0]
    assert before[0].turns[0].action != before[1].turns[0].action
    assert [t.shared_turns for t in after] == [0, 1]
    assert after[0].turns[0] is after[1].turns[0]


def test_the_turn_limit_of_the_environment_counts_shared_turns(agent):
    group = collect(
        grow_tree(4, fixed_roots(1), always), player(agent, limits=EpisodeLimits(turns=50))
    )
    assert all(len(t.turns) <= 12 for t in group)
    assert {t.stop for t in group} <= {Stop.MAX_TURNS, Stop.TERMINATED}


@pytest.mark.parametrize("concurrency", [1, 3, 64])
def test_trees_do_not_depend_on_concurrency(agent, concurrency):
    how = AEPO(base=GRPO(group_size=6)).build().collect
    someone = player(agent, concurrency=concurrency)
    tasks = [Task(TASK.env, f"hotter-{k}") for k in range(5)]

    async def all_of_them():
        groups = await asyncio.gather(*(how(task, someone) for task in tasks))
        assert someone._slots._value == concurrency
        return groups

    groups = asyncio.run(all_of_them())
    alone = [collect(how, player(agent), task) for task in tasks]
    assert groups == alone


class Fragile(Counter):
    """Raises when it is copied."""

    def fork(self):
        raise RuntimeError("no copy")


def test_a_branch_that_cannot_be_copied_is_replayed_from_the_start(agent):
    group = collect(
        grow_tree(3, fixed_roots(2), always, order=branch_after_acting),
        player(agent, None, Fragile),
    )
    stops = [t.stop for t in group]
    assert stops == [Stop.TERMINATED] * 3
    assert [t.failed_attempts for t in group] == [(), (), (Stop.ENV_ERROR,)]
    assert [t.shared_turns for t in group] == [0, 0, 0]


def test_only_a_text_env_can_be_forked():
    import gymnasium

    with pytest.raises(ConfigError, match=r"expected an agentgym\.TextEnv"):
        fork_env(gymnasium.make("CartPole-v1"))


def test_a_wrapped_fork_has_its_own_counter(agent):
    env = make(TASK.env)
    env.reset(seed=0, options={"task": "hotter-3"})
    env.step("1")
    twin = fork_env(env)
    for _ in range(10):
        twin.step("1")
    assert twin.step("1")[3] is True
    assert env.step("1")[3] is False


def test_shared_tokens_are_marked_in_the_batch_and_counted(agent):
    group = collect(
        grow_tree(4, fixed_roots(1), always, order=branch_after_acting),
        player(agent, None, Counter),
    )
    batch = collate([group])
    shared = [int(batch.shared[batch.episode_of_token == e].sum()) for e in range(4)]
    expected = [
        sum(len(turn.completion.tokens) for turn in t.turns[: t.shared_turns]) for t in group
    ]
    assert shared == expected and sum(shared) > 0
    assert episode_metrics([group])["group/forks"] == 3


# ---- rules ---------------------------------------------------------------------------------------


def completion(*entropies):
    return Completion((1,) * len(entropies), (0.0,) * len(entropies), entropies)


def test_a_streak_belongs_to_a_path_or_to_the_task():
    assert streak_per_path([2, 0, 1], [1, 0, 0]) == [3, 0, 0]
    assert by_task([2, 2], [0, 1]) == [3, 3]
    assert by_task([2, 2], [0, 0]) == [0, 0]


def test_a_threshold_comparison_is_strict():
    at = BranchPoint(completion(1.0), completion(0.5), 0)
    assert not above_threshold(0.5, lambda decision: 0.5)(at, None)
    assert above_threshold(0.5, lambda decision: 0.51)(at, None)


def test_a_kept_scout_counts_as_one_of_the_n_episodes(agent):
    for keep, episodes in [(True, 6), (False, 7)]:
        seen = []
        roots = monitored(6, 2.0, summed_entropy, keep=keep)
        group = collect(grow_tree(6, roots, never), player(agent, seen, Counter))
        assert [t.sample for t in group] == list(range(6))
        assert len(seen) == 4 * episodes


def test_paths_fork_only_where_entropy_has_risen(agent):
    """The entropy of the scripted engine is constant: a threshold above it is never passed."""
    arpo = ARPO(base=GRPO(group_size=6), initial_rollouts=2, branch_rule="threshold").build()
    assert all(t.shared_turns == 0 for t in collect(arpo.collect, player(agent, None, Counter)))


def test_an_uncertain_turn_forks_its_path(agent):
    class Unsure(ScriptedEngine):
        first = None

        async def generate(self, prompt, sampling):
            self.first = self.first or tuple(prompt)
            self.entropy = 0.1 if tuple(prompt) == self.first else 3.0
            return await super().generate(prompt, sampling)

    arpo = ARPO(base=GRPO(group_size=6), initial_rollouts=2, branch_rule="threshold").build()
    someone = player(agent, None, Counter)
    someone.engine = Unsure(guess(agent))
    group = collect(arpo.collect, someone)
    assert sum(t.shared_turns > 0 for t in group) == 4


class Errand(TextEnv):
    """Half of the tries run into the limit of 20 turns, the others end after 6 to 12."""

    def tasks(self, split):
        return tuple(f"errand-{k}" for k in range(8))

    def start(self, task, rng):
        self.number = 0
        return Opening("say a number", "say numbers")

    def act(self, action):
        self.number += 1
        luck = random.Random(f"{action} {self.number}").random()
        return Outcome("go on", done=self.number > 5 and luck < 0.05)


@pytest.mark.parametrize("kind", [AEPO, ARPO])
def test_forks_reuse_a_good_share_of_the_turns_of_long_episodes(agent, kind):
    """At the papers' probability of 0.5 forks are spent in the first turns and share no others."""
    tasks = [Task("tests/Errand", f"errand-{k}") for k in range(64)]

    def reused(config):
        collector = config.build(RunInfo(max_turns=20)).collect
        someone = player(agent, None, Errand, limits=EpisodeLimits(turns=20))
        groups = [collect(collector, someone, task) for task in tasks]
        return episode_metrics(groups)["group/reused_turns"]

    assert reused(kind()) >= 0.15
    assert reused(kind(branch_probability=0.5)) < 0.08


@pytest.mark.parametrize("inherit", [True, False])
def test_the_first_completion_of_a_fork_is_its_roots_or_its_own(agent, inherit):
    seen = []

    def rule(point, rng):
        seen.append(point.first is point.completion)
        return len(seen) == 2

    collect(grow_tree(2, fixed_roots(1), rule, inherit_first=inherit), player(agent, None, Counter))
    # The root's first turn, and the fork's first turn where it is its own.
    assert sum(seen) == (1 if inherit else 2)
