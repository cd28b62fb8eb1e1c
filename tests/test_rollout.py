import asyncio
import functools
import operator
import re
import time
from dataclasses import replace

import gymnasium
import numpy as np
import pytest

from agentgym import Opening, Outcome, Stop, Task, TextEnv, make
from agentgym.engines.scripted import ScriptedEngine
from agentgym.env.registry import world
from agentgym.errors import UnknownTask
from agentgym.rollout.agent import ChatAgent
from agentgym.rollout.demonstrations import demonstrate, demonstration_texts, to_trajectory
from agentgym.rollout.player import Player
from agentgym.rollout.setup import EpisodeLimits
from agentgym.training.metrics import episode_metrics
from agentgym.training.trainer import task_of
from agentgym.types import Ending, Sampling
from agentgym.utils.seeds import derive

TASK = Task("agentgym/Hotter-v0", "hotter-3")


def bisect(agent):
    """A perfect player that reads the context as text."""

    def say(prompt, sampling):
        low, high = 1, 100
        text = agent.tokenizer.decode(prompt)
        for guess, hint in re.findall(r"<action>(\d+)</action>.*?(Higher|Lower)\.", text):
            low, high = (int(guess) + 1, high) if hint == "Higher" else (low, int(guess) - 1)
        return agent.encode_action(str((low + high) // 2))

    return say


def player(agent, say, **kwargs):
    return Player(agent=agent, engine=ScriptedEngine(say), make_env=lambda t: make(t.env), **kwargs)


def play(agent, say, task=TASK, **kwargs):
    return asyncio.run(player(agent, say, **kwargs)(task, 0))


@pytest.mark.parametrize("number", range(20))
def test_a_perfect_player_wins_within_seven_turns(agent, number):
    episode = play(agent, bisect(agent), Task(TASK.env, f"hotter-{number}"))
    assert (episode.stop, episode.won, episode.score, episode.reward) == (
        Stop.TERMINATED,
        True,
        1.0,
        1.0,
    )
    assert len(episode.turns) <= 7


def test_a_turn_counts_its_thought_tokens(agent, tokenizer):
    def say(prompt, sampling):
        thought = "<think>Higher.</think>" if sampling.seed % 2 else ""
        return tuple(tokenizer.encode(f"{thought}<action>1</action>")) + agent.stop

    episode = play(agent, say, limits=EpisodeLimits(turns=12))
    thoughts = [agent.decode(t.completion.tokens[: t.thought_tokens]) for t in episode.turns]
    assert all(t.parsed for t in episode.turns) and set(map(bool, thoughts)) == {True, False}
    assert all("</think>" in text for text in thoughts if text)


def test_the_turn_limit_counts_malformed_turns(agent, tokenizer):
    babble = tuple(tokenizer.encode("eh")) + agent.stop
    episode = play(agent, lambda prompt, sampling: babble, limits=EpisodeLimits(turns=5))
    assert (episode.stop, len(episode.turns), episode.won) == (Stop.MAX_TURNS, 5, False)
    assert all(not t.parsed and not t.valid and t.action == "" for t in episode.turns)
    assert "Expected one <action>" in episode.turns[0].observation


def test_the_turn_limit_of_the_environment_truncates(agent):
    episode = play(agent, lambda prompt, sampling: agent.encode_action("0"))
    assert (episode.stop, len(episode.turns)) == (Stop.MAX_TURNS, 12)


def test_an_unknown_action_is_invalid(agent):
    episode = play(
        agent, lambda p, s: agent.encode_action("\x00" + "x" * 2000), limits=EpisodeLimits(turns=1)
    )
    assert (episode.turns[0].parsed, episode.turns[0].valid) == (True, False)


@pytest.mark.parametrize("limit", ["run", "model"])
def test_a_full_context_ends_the_episode(agent, limit, monkeypatch):
    limits, sampling = EpisodeLimits(tokens=60), Sampling(max_tokens=8)
    if limit == "model":
        limits = EpisodeLimits(tokens=4096)
        monkeypatch.setattr("agentgym.engines.scripted.UNBOUNDED", 60)
    episode = play(agent, bisect(agent), limits=limits, sampling=sampling)
    used = sum(len(t.prompt) + len(t.completion.tokens) for t in episode.turns)
    assert episode.stop is Stop.MAX_TOKENS
    assert 60 - 40 < used <= 60


def test_seeds_depend_only_on_run_task_sample_and_turn(agent):
    def seeds(concurrency, stream="a"):
        seen = {}

        def say(prompt, sampling):
            seen.setdefault(tuple(prompt), []).append(sampling.seed)
            return agent.encode_action("1")

        someone = player(
            agent, say, concurrency=concurrency, stream=stream, limits=EpisodeLimits(turns=3)
        )

        async def all_of_them():
            tasks = [Task(TASK.env, f"hotter-{n}") for n in range(3)]
            return await asyncio.gather(*(someone(t, k) for t in tasks for k in range(4)))

        asyncio.run(all_of_them())
        return sorted(functools.reduce(operator.iadd, seen.values(), []))

    assert seeds(1) == seeds(12)
    assert len(set(seeds(1))) == 3 * 4 * 3
    assert not set(seeds(1)) & set(seeds(1, stream="b"))


def test_a_derived_seed_depends_on_every_name():
    assert derive("a", 1) == derive("a", 1)
    assert (
        len({derive("a", 1), derive("a", 2), derive("b", 1), derive("a1"), derive("a", "1x")}) == 5
    )


def test_the_time_limit_is_checked_between_turns(agent):
    quick = play(agent, bisect(agent), limits=EpisodeLimits(seconds=60.0))
    assert quick.stop is Stop.TERMINATED

    def dawdle(prompt, sampling):
        time.sleep(0.2)
        return agent.encode_action("1")

    slow = play(agent, dawdle, limits=EpisodeLimits(seconds=0.1))
    assert (slow.stop, len(slow.turns), slow.ending) == (Stop.MAX_TIME, 1, Ending.TRUNCATED)


@pytest.mark.parametrize(
    ("stop", "won", "ending"),
    [
        (Stop.TERMINATED, True, "success"),
        (Stop.TERMINATED, False, "failure"),
        (Stop.MAX_TURNS, False, "truncated"),
        (Stop.MAX_TOKENS, False, "truncated"),
        (Stop.MAX_TIME, False, "truncated"),
        (Stop.ENV_ERROR, False, "world_error"),
        (Stop.TOOL_TIMEOUT, False, "tool_timeout"),
        (Stop.ABORTED, False, "aborted"),
    ],
)
def test_every_episode_has_exactly_one_ending(stop, won, ending):
    assert Ending.of(stop, won) == ending
    assert stop.scored is (ending in ("success", "failure", "truncated"))


class Moody(TextEnv):
    """Raises in its second turn."""

    def tasks(self, split):
        return ("moody",)

    def start(self, task, rng):
        self.count = 0
        return Opening("hello", "be nice")

    def act(self, action):
        self.count += 1
        if self.count == 2:
            raise OSError("the pipe burst")
        return Outcome("fine", score=0.25)


def test_an_environment_that_raises_ends_its_episode_with_the_reason(agent):
    if "agentgym/Moody-v0" not in gymnasium.registry:
        gymnasium.register("agentgym/Moody-v0", Moody)
    task = Task("agentgym/Moody-v0", "moody")
    episode = play(agent, lambda prompt, sampling: agent.encode_action("x"), task)
    assert (episode.stop, len(episode.turns)) == (Stop.ENV_ERROR, 1)
    assert "the pipe burst" in episode.error
    assert episode.failed_attempts == (Stop.ENV_ERROR,) * 5
    once = play(agent, lambda prompt, sampling: agent.encode_action("x"), task, retries=0)
    assert (once.failed_attempts, once.ending) == ((), Ending.ENV_ERROR)
    gymnasium.registry.pop("agentgym/Moody-v0")
    won = play(agent, bisect(agent))
    metrics = episode_metrics([[episode, won]])
    assert (metrics["episode/success"], metrics["episode/lost"]) == (1.0, 1.0)
    assert metrics["attempts/world_error"] == 6.0


class Unmakable(TextEnv):
    def __init__(self, **kwargs):
        raise OSError("no such file")


def test_an_environment_that_cannot_be_created_ends_its_episode_and_not_the_run(agent):
    someone = Player(
        agent=agent,
        engine=ScriptedEngine(bisect(agent)),
        make_env=lambda task: Unmakable(),  # type: ignore[abstract]
        retries=1,
    )
    episode = asyncio.run(someone(TASK, 0))
    assert (episode.stop, episode.failed_attempts) == (Stop.ENV_ERROR, (Stop.ENV_ERROR,))
    assert episode.error == "OSError: no such file"


class Leaves(Moody):
    """Exits on its first turn."""

    def act(self, action):
        raise SystemExit(3)


def test_an_environment_that_exits_ends_its_episode_and_not_the_run(agent):
    player = Player(
        agent=agent,
        engine=ScriptedEngine(bisect(agent)),
        make_env=lambda task: Leaves(),
        retries=1,
    )
    episode = asyncio.run(player(Task("agentgym/Moody-v0", "moody"), 0))
    assert (episode.stop, episode.failed_attempts) == (Stop.ENV_ERROR, (Stop.ENV_ERROR,))
    assert "SystemExit: 3" in episode.error


def test_an_unknown_task_raises(agent):
    with pytest.raises(UnknownTask, match="hotter-"):
        play(agent, bisect(agent), Task(TASK.env, "hoter-3"))


def test_a_demonstration_equals_the_trajectory_of_the_oracle_player(agent):
    shown = to_trajectory(demonstrate(world(TASK.env), TASK, np.random.default_rng(0)), agent)
    played = play(agent, bisect(agent))
    assert shown.won and len(shown.turns) == len(played.turns)
    for a, b in zip(shown.turns, played.turns, strict=True):
        assert (a.prompt, a.completion.tokens, a.fresh) == (b.prompt, b.completion.tokens, b.fresh)


def test_random_actions_are_marked_and_the_oracle_recovers(agent):
    bare = world(TASK.env)
    rng = np.random.default_rng(0)
    shown = [
        demonstrate(bare, Task(TASK.env, f"hotter-{n}"), rng, random_action_rate=0.4)
        for n in range(40)
    ]
    slips = [not t.learn for d in shown for t in to_trajectory(d, agent).turns]
    assert all(d.won for d in shown)
    assert 0.25 < sum(slips) / len(slips) < 0.5
    assert slips == [move.random for d in shown for move in d.steps]
    assert all(
        t.learn for d in shown for t in to_trajectory(d, agent, learn_random_actions=True).turns
    )


def test_demonstration_texts_are_all_observations_and_actions():
    shown = demonstrate(world(TASK.env), TASK, np.random.default_rng(0))
    texts = [text for move in shown.steps for text in (move.action, move.observation)]
    assert demonstration_texts([shown, shown]) == 2 * [f"{shown.goal}\n{shown.opening}", *texts]


def test_a_task_stream_is_determined_by_the_seed_and_each_pass_covers_all_tasks():
    tasks = [Task("e", str(n)) for n in range(7)]
    passes = [[task_of(tasks, 7 * p + i, 3) for i in range(7)] for p in range(3)]
    assert all(sorted(t.id for t in p) == sorted(t.id for t in tasks) for p in passes)
    assert passes[0] != passes[1]
    assert passes[0] == [task_of(tasks, i, 3) for i in range(7)]
    assert passes[0] != [task_of(tasks, i, 4) for i in range(7)]


def test_a_player_with_another_stream_keeps_its_stop_strings(agent):
    one = player(agent, bisect(agent))
    assert replace(one, stream="x").sampling.stop == agent.stop


@pytest.mark.parametrize("window", [None, 1])
def test_the_engine_is_asked_to_drop_exactly_the_last_context(tokenizer, window):
    agent = ChatAgent(tokenizer, window=window)
    engine = ScriptedEngine(lambda prompt, sampling: agent.encode_action("1"))
    forgotten = []
    engine.finish = lambda context: forgotten.append(tuple(context))
    asked = []
    generate = engine.generate

    async def recorded(prompt, sampling):
        asked.append(tuple(prompt))
        return await generate(prompt, sampling)

    engine.generate = recorded
    limits = EpisodeLimits(turns=3)
    one = Player(agent=agent, engine=engine, make_env=lambda t: make(t.env), limits=limits)
    asyncio.run(one(TASK, 0))
    assert forgotten == [(*asked[-1], *agent.encode_action("1"))]
