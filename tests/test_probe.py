"""Turn values: the estimator against exact values, replayed states, files, and the command."""

import asyncio
import math
import multiprocessing
import os
import random
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import alive, below
from small_runs import SMALL_RUN

import agentgym
from agentgym.batch.collate import collate
from agentgym.cli import main
from agentgym.engines.scripted import ScriptedEngine
from agentgym.env.base import Opening, Outcome, TextEnv
from agentgym.errors import ConfigError, EngineError, NotReplayable
from agentgym.evaluation.files import read_header
from agentgym.evaluation.record_files import read_episodes
from agentgym.evaluation.records import EpisodeRecord
from agentgym.experiment.plan import load_plan
from agentgym.experiment.probe import _records
from agentgym.experiment.probe_processes import Work, default_processes, values_of_tasks
from agentgym.probe.continuations import Effort, turn_values
from agentgym.probe.credit import agreement, spearman, turn_credit
from agentgym.probe.files import ValuedEpisode, read_values, values_path, write_values
from agentgym.probe.replay import bookmarks
from agentgym.probe.strata import DEPTH, Continuation, First, Share, share_of
from agentgym.probe.summary import summary
from agentgym.probe.values import Estimate, Known, Value, decisive, missing
from agentgym.rollout.player import Player
from agentgym.rollout.setup import EpisodeLimits
from agentgym.settings import (
    PanelSettings,
)
from agentgym.types import Completion, Task
from agentgym.viewer.source import load

# ---- the estimator -------------------------------------------------------------------------------


def binomial(n, wins):
    return Share(wins / n if n else 0.5, n, n)


def test_a_state_mixes_the_next_state_with_what_else_happens():
    later, others = Estimate(0.8, 0.01), binomial(40, 10)
    found = Known.of([(0.75, later)]).with_others(others)
    assert found.mean == pytest.approx(0.75 * 0.8 + 0.25 * 0.25)
    spread = 12 / 44 - (12 / 44) ** 2
    assert found.variance == pytest.approx(0.75**2 * 0.01 + 0.25**2 * spread / 40)
    assert Known.of([(1.0, later)]).with_others(Share()) == later


def test_several_recorded_turns_leave_less_to_others():
    one, two, others = Estimate(0.8, 0.01), Estimate(0.2, 0.02), binomial(40, 10)
    found = Known.of([(0.5, one), (0.25, two)]).with_others(others)
    assert found.mean == pytest.approx(0.5 * 0.8 + 0.25 * 0.2 + 0.25 * 0.25)
    spread = 12 / 44 - (12 / 44) ** 2
    assert found.variance == pytest.approx(0.5**2 * 0.01 + 0.25**2 * 0.02 + 0.25**2 * spread / 40)


@pytest.mark.parametrize("repeat", [0.0, 0.4, 0.9])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.5])
def test_so_many_outcomes_as_are_missing_suffice(repeat, share):
    known = Known.of([(repeat, Estimate(0.5, (0.04 / 1.96) ** 2))])
    found = binomial(10, round(10 * share))
    while need := missing(known, found, 0.05):
        total = found.continuations + need
        found = binomial(total, round(total * share))
    assert known.with_others(found).interval().half <= 0.0501
    assert found.continuations <= 400


def test_intervals_cover_the_value():
    """A chain of three turns, each with its own chance to repeat and to win otherwise."""
    rng, chain = np.random.default_rng(0), [(0.5, 0.3), (0.8, 0.1), (0.2, 0.7)]
    exact, inside, draws = 1.0, 0, 2000
    for repeat, win in chain:
        exact = repeat * exact + (1 - repeat) * win
    for _ in range(draws):
        state = Estimate(1.0, 0.0)
        for repeat, win in chain:
            played = rng.binomial(60, 1 - repeat)
            others = binomial(played, rng.binomial(played, win))
            state = Known.of([(repeat, state)]).with_others(others)
        value = state.interval()
        inside += value.low <= exact <= value.high
    assert 0.93 <= inside / draws <= 0.98


@pytest.mark.parametrize("chance", [0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 0.9, 1.0])
def test_intervals_cover_the_value_although_rounds_end_when_they_are_narrow(chance):
    rng, effort, inside, played = np.random.default_rng(1), Effort(), 0, []
    for _ in range(600):
        found = Share()
        wins = 0
        while need := missing(Known(), found, effort.half_width):
            draws = effort.next_round(need, 1.0, found.continuations)
            wins += rng.binomial(draws, chance)
            found = binomial(found.continuations + draws, wins)
        value = Known().with_others(found).interval()
        inside += value.low <= chance <= value.high
        played.append(found.continuations)
    assert inside / 600 >= 0.91
    assert np.mean(played) < 70 + 1536 * chance * (1 - chance), "certain states take few"


# Of a state: its turns, their probabilities, and the share that wins after each pair of them.
TURNS = {1: 0.5, 2: 0.3, 3: 0.2}
WINS = np.array([[0.95, 0.9, 0.6], [0.5, 0.3, 0.1], [0.0, 0.05, 0.5]])


def drawn(rng, count, recorded=()):
    """Continuations of two turns that begin with none that is recorded."""
    tokens, chances = np.array(list(TURNS)), np.array(list(TURNS.values()))
    first = chances * ~np.isin(tokens, recorded)
    one = rng.choice(3, count, p=first / first.sum())
    two = rng.choice(3, count, p=chances)
    won = rng.random(count) < WINS[one, two]
    taken = (
        (First((int(tokens[k]),), chances[k], "") for k in pair)
        for pair in zip(one, two, strict=True)
    )
    return [Continuation(tuple(pair), bool(w)) for pair, w in zip(taken, won, strict=True)]


def exact(recorded=()):
    """The share that wins of those that begin with none that is recorded."""
    chances = np.array(list(TURNS.values()))
    first = chances * ~np.isin(list(TURNS), recorded)
    return float(first @ WINS @ chances / first.sum())


def test_turns_count_by_their_probability_and_not_by_how_often_they_were_drawn():
    often, seldom = First((1,), 0.5, ""), First((2,), 0.5, "")
    found = [Continuation((often,), True)] * 30 + [Continuation((seldom,), False)] * 10
    share = share_of(found, 1.0)
    assert share.mean == pytest.approx(0.5) and share.continuations == 40
    # Nothing is left inside strata but what 20 continuations are taken to have.
    assert share.trials == pytest.approx(40 * (38 + 20) / 20)
    # Half of the others, once the first turn is recorded: then the second is all there is.
    assert share_of(found[30:], 0.5).mean == 0
    # Strata that would hold too few stay together.
    assert share_of(found[:5] + found[30:32], 1.0) == Share(5 / 7, 7, 7)
    assert share_of([], 1.0) == Share()


def test_what_is_drawn_too_seldom_shares_the_probability_that_is_left():
    """Of 0.5 that no recorded turn takes, one turn takes 0.15, and others 0.05 each."""
    one, rare = First((1,), 0.15, ""), [First((k,), 0.05, "") for k in range(2, 9)]
    found = [Continuation((one,), True)] * 8
    found += [Continuation((rare[k % 7],), k < 3) for k in range(12)]
    assert share_of(found, 0.5).mean == pytest.approx(0.3 * 1 + 0.7 * 3 / 12)


def test_turns_that_are_answered_differently_are_not_followed():
    """The probability of an answer is not known."""
    one, other = (First((1,), 1.0, answer) for answer in ("heads", "tails"))
    won, lost = First((2,), 0.5, ""), First((3,), 0.5, "")
    found = [Continuation((one, won), True)] * 30 + [Continuation((other, lost), False)] * 10
    assert share_of(found, 1.0) == Share(0.75, 40, 40)
    alike = [each._replace(turns=(one, each.turns[1])) for each in found]
    assert share_of(alike, 1.0).mean == 0.5


@pytest.mark.parametrize("recorded", [(), (1,), (2, 3)])
def test_strata_narrow_the_interval_and_it_covers_the_value(recorded):
    rng, inside, errors, trials, plain = np.random.default_rng(2), 0, [], [], []
    rest = sum(chance for turn, chance in TURNS.items() if turn not in recorded)
    for _ in range(500):
        found = drawn(rng, 120, recorded)
        share = share_of(found, rest)
        value = Known().with_others(share).interval()
        inside += value.low <= exact(recorded) <= value.high
        errors.append(share.mean - exact(recorded))
        plain.append(np.mean([each.won for each in found]) - exact(recorded))
        trials.append(share.trials)
    assert 0.93 <= inside / 500 <= 0.99
    assert abs(np.mean(errors)) < 0.005, "no bias"
    less = np.var(plain) / np.var(errors)
    assert np.mean(trials) / 120 == pytest.approx(less, rel=0.25), "as sure as it says"
    assert recorded or less > 1.3


def test_only_the_first_turns_are_kept(player):
    played = asyncio.run(player(Task("test/Climb-v0", "hill"), 0))
    found = Continuation.of(replace(played, turns=played.turns * 3), 1)
    assert [turn.tokens for turn in found.turns] == [
        turn.completion.tokens for turn in (played.turns * 3)[1 : 1 + DEPTH]
    ]
    chances = [UP if t.tokens == player.engine.up else 1 - UP for t in found.turns]
    assert [t.probability for t in found.turns] == pytest.approx(chances)


def test_the_decisive_turn_is_the_largest_clear_change():
    values = [Value(0.5, 0.45, 0.55), Value(0.6, 0.5, 0.7), Value(0.1, 0.05, 0.15), Value(0, 0, 0)]
    assert decisive(values) == 1
    assert decisive(values[:2]) is None


# ---- states of an episode ------------------------------------------------------------------------


class Climb(TextEnv):
    """Three turns; two steps up win."""

    def tasks(self, split):
        return ("hill",)

    def start(self, task, rng):
        self.height, self.turn = 0, 0
        return Opening("A hill.", "Climb.")

    def act(self, action):
        self.turn += 1
        self.height += action == "up"
        won = self.height == 2
        return Outcome(f"Height {self.height}.", float(won), float(won), won, self.turn == 3 or won)


UP = 0.7


class Coin(ScriptedEngine):
    """Goes up with a known probability, which is that of its completion's first token."""

    def __init__(self, agent):
        def say(prompt, sampling):
            up = random.Random(sampling.seed).random() < UP
            return agent.encode_action("up" if up else "down")

        super().__init__(say)
        self.up = agent.encode_action("up")

    async def generate(self, prompt, sampling):
        drawn = await super().generate(prompt, sampling)
        chance = UP if drawn.tokens == self.up else 1 - UP
        logprobs = (math.log(chance), *[0.0] * (len(drawn.tokens) - 1))
        return Completion(drawn.tokens, logprobs, drawn.entropies)


@pytest.fixture
def player(agent):
    limits = EpisodeLimits(turns=5)
    return Player(agent=agent, engine=Coin(agent), make_env=lambda task: Climb(), limits=limits)


def recorded(player, wanted):
    """A recorded episode with these actions."""
    task = Task("test/Climb-v0", "hill")
    for sample in range(200):
        played = asyncio.run(replace(player)(task, sample))
        if [turn.action for turn in played.turns] == wanted:
            return EpisodeRecord.of(played, decode=player.agent.decode)
    raise AssertionError(wanted)


DOWN_UP_DOWN = [3 * UP**2 * (1 - UP) + UP**3, UP**2, UP, 0.0]
"""Exact values before each turn of this episode, and after it."""


@pytest.mark.parametrize("own", [True, False])
def test_values_of_an_episode_are_those_of_the_chain(player, own):
    record = recorded(player, ["down", "up", "down"])
    # Two ups in the first two turns, or in the three: UP**2 + 2 * UP**2 * (1 - UP).
    exact = [UP**2 * (3 - 2 * UP), UP**2, UP, 0.0]
    assert exact == pytest.approx(DOWN_UP_DOWN)
    effort = Effort(half_width=0.04, most=2000)
    [found], states, played = asyncio.run(turn_values(player, [record], effort, own=own))
    assert (states, played) == (3, sum(found.continuations))
    for value, wanted in zip(found.values, exact, strict=True):
        assert value.low - 0.02 <= wanted <= value.high + 0.02 and value.half <= 0.041
    assert found.actions == ("down", "up", "down")
    assert found.decisive == 2, "at the last step the chance of 0.7 is thrown away"
    assert not player.running, "every environment is closed"
    if own:
        assert found.continuations[0] < 400, "repeated turns are not played again"


def test_continuations_do_not_depend_on_the_number_of_the_episode(player):
    record = recorded(player, ["up", "up"])

    async def both():
        numbered = (replace(record, sample=sample) for sample in (0, 7))
        return [await turn_values(player, [each], Effort(), own=True) for each in numbered]

    ([one], *_), ([other], *_) = asyncio.run(both())
    assert one.values == other.values and {one.sample, other.sample} == {0, 7}


@pytest.mark.parametrize("own", [True, False])
def test_episodes_that_begin_alike_share_their_states(player, own):
    plans = ["down", "up", "down"], ["down", "up", "up"], ["up", "up"]
    records = [recorded(player, plan) for plan in plans]
    effort = Effort(half_width=0.04, most=2000)
    found = asyncio.run(turn_values(player, records, effort, own=own))
    one, two, three = found.episodes
    assert found.states == 4, "the root, after down, after down-up, after up"
    assert one.values[:3] == two.values[:3] and one.values[0] == three.values[0]
    exact = [UP**2 * (3 - 2 * UP), UP + (1 - UP) * UP, 1.0]
    for value, wanted in zip(three.values, exact, strict=True):
        assert value.low - 0.02 <= wanted <= value.high + 0.02 and value.half <= 0.041
    if own:  # Both turns are recorded in these states, so that nothing else can happen.
        assert one.continuations[0] == one.continuations[2] == 0
        assert one.values[2].value == pytest.approx(UP) and one.values[2].half < 1e-6
        assert found.continuations == one.continuations[1] + three.continuations[1]
    assert not player.running, "every environment is closed"


def test_another_answer_of_the_environment_is_refused(player):
    record = recorded(player, ["up", "up"])
    first = replace(record.turns[0], observation="A lake.")
    changed = replace(record, turns=(first, *record.turns[1:]))
    with pytest.raises(NotReplayable, match=r"turn 1: the record has 'up' and 'A lake\.'"):
        asyncio.run(bookmarks(player, changed))
    longer = replace(record, turns=(*record.turns, record.turns[0]))
    with pytest.raises(NotReplayable, match="ends after 2 turns"):
        asyncio.run(bookmarks(player, longer))
    assert not player.running


def test_actions_are_written_anew_for_a_policy_with_other_tokens(player):
    record = recorded(player, ["down", "up", "up"])
    foreign = tuple(replace(turn, tokens=(1, 2, 3)) for turn in record.turns)
    marks = asyncio.run(bookmarks(player, replace(record, turns=foreign)))
    assert [turn.action for turn in marks[2].turns] == ["down", "up"]


def test_impossible_effort_is_refused():
    with pytest.raises(ConfigError, match="half width inside"):
        Effort(half_width=0.5)


# ---- files and command ---------------------------------------------------------------------------

EPISODE = ValuedEpisode(
    task=Task("e", "t", 3),
    sample=1,
    version=4,
    won=True,
    actions=("a", "b"),
    values=(Value(0.1, 0.0, 0.2), Value(0.5, 0.4, 0.6), Value(1.0, 1.0, 1.0)),
    continuations=(9, 8),
)


def test_a_file_is_read_as_it_was_written(tmp_path):
    path = values_path(tmp_path / "before.jsonl")
    write_values(path, {"policy": "p"}, [EPISODE])
    assert read_values(path) == ({"schema": 1, "policy": "p"}, [EPISODE])
    assert EPISODE.advantages == pytest.approx((0.4, 0.5)) and EPISODE.decisive == 1
    path.write_text('{"header": {"schema": 1}}\n{"env": "x"}\n')
    with pytest.raises(ConfigError, match="damaged episode"):
        read_values(path)


def test_the_table_names_the_decisive_turn():
    text = summary([EPISODE], states=2, continuations=17, policy="p", note="copied.").text(120)
    assert "2: b" in text and "0.10 [0.00, 0.20]" in text and "17 continuations from 2" in text


def test_bad_input_gives_one_line(tmp_path, capsys):
    assert main(["probe", "oracle", "--env", "hotter"]) == 2
    assert main(["probe", str(tmp_path), "--episodes", str(tmp_path / "x.jsonl")]) == 2
    assert main(["probe", str(tmp_path), "--half-width", "0.7"]) == 2
    assert main(["probe", str(tmp_path), "--processes", "0"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4 and all(line.startswith("agentgym: ") for line in lines)


# ---- credit --------------------------------------------------------------------------------------


def test_rank_correlation_shares_ranks_among_ties():
    one, other = np.array([1.0, 2.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0, 4.0])
    # Ranks 0, 1.5, 1.5, 3 against 0, 1, 2, 3: 4.5 / sqrt(4.5 * 5).
    assert spearman(one, other) == pytest.approx(4.5 / math.sqrt(22.5))
    assert spearman(one, -other) == pytest.approx(-4.5 / math.sqrt(22.5))
    assert math.isnan(spearman(np.ones(4), other))
    assert spearman(np.array([1.0, math.nan, 3.0]), np.array([1.0, 9.0, 2.0])) == 1.0


def test_credit_of_a_turn_is_the_mean_of_its_tokens(player):
    played = [asyncio.run(player(Task("test/Climb-v0", "hill"), sample)) for sample in range(2)]
    batch = collate([played])
    marks = torch.where(batch.mask, batch.turn + 10.0 * batch.episode_of_token, 99.0)
    found = turn_credit(batch.with_(advantage=marks), [len(each.turns) for each in played])
    for number, episode in enumerate(found):
        assert list(episode) == [10 * number + turn for turn in range(len(episode))]


def test_credit_that_follows_the_advantages_agrees_with_them():
    steps = (0.1, 0.4, 0.3, 1.0)
    values = tuple(Value(value, value, value) for value in steps)
    episode = replace(EPISODE, values=values, actions=("a",) * 3, continuations=(1, 1, 1))
    same = np.array(episode.advantages)
    assert agreement([same, same * 2], [episode, episode]) == (pytest.approx(1.0, abs=0.1), 1.0, 2)
    flat = agreement([np.ones(3), np.zeros(3)], [episode, episode])
    assert flat.pooled == 0 and math.isnan(flat.within) and flat.episodes == 0


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with a real model made from scratch, which has only played its panel."""
    settings = replace(
        SMALL_RUN,
        steps=0,
        rollout=replace(SMALL_RUN.rollout, max_turns=2),
        panel=PanelSettings(tasks=2, episodes=1),
    )
    out = tmp_path_factory.mktemp("probe") / "run"
    agentgym.train("grpo", settings=settings, out=out, progress=False)
    return out


def test_the_command_probes_the_episodes_of_a_run(run, capsys):
    episodes = run / "eval" / "before.jsonl"
    words = [str(run / "checkpoints" / "warm"), "--episodes", str(episodes), "--quiet"]
    assert main(["probe", *words, "--half-width", "0.3", "--most", "32"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "the environment copies a state" in shown and "2 episodes, continued by" in shown
    header, found = read_values(values_path(episodes))
    assert header["own"] is True, "the model's recorded probabilities are used"
    assert [len(each.values) for each in found] == [3, 3]
    assert all(value.half <= 0.4 for each in found for value in each.values)
    assert all(len(each["values"]) == 3 for each in load([episodes]).episodes), "for the viewer"

    other = run / "other.values.jsonl"
    final = ["--with", str(run / "checkpoints" / "final"), "--first", "1", "--out", str(other)]
    assert main(["probe", *words, *final, "--half-width", "0.4", "--most", "16"]) == 0
    header, found = read_values(other)
    assert header["own"] is False and header["policy"].endswith("final") and len(found) == 1
    assert min(found[0].continuations) >= 8, "every continuation of another model is played"


def test_values_do_not_depend_on_the_number_of_processes(run):
    episodes = run / "eval" / "before.jsonl"
    words = [str(run / "checkpoints" / "warm"), "--episodes", str(episodes), "--quiet"]
    words += ["--half-width", "0.3", "--most", "32", "--out", str(run / "shared.values.jsonl")]
    assert main(["probe", *words, "--processes", "1"]) == 0
    alone = read_values(run / "shared.values.jsonl")
    assert main(["probe", *words, "--processes", "2"]) == 0
    assert read_values(run / "shared.values.jsonl") == alone


def test_the_first_episodes_are_those_of_the_first_tasks(run, tmp_path):
    file = run / "eval" / "before.jsonl"
    header, *lines = file.read_text().splitlines()
    again = [line.replace('"sample":0', '"sample":1') for line in lines]
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_text("\n".join([header, *again[::-1], *lines[::-1]]) + "\n")
    tasks = read_header(file)[0].tasks
    wanted = [(task, sample) for task in tasks for sample in range(2)]
    assert [record.key for record in _records(mixed, None)] == wanted
    assert [record.key for record in _records(mixed, 3)] == wanted[:3]


def test_a_process_that_is_killed_ends_the_probe(run):
    work = endless(run)
    killer = threading.Timer(2, lambda: multiprocessing.active_children()[0].kill())
    killer.start()
    with pytest.raises(EngineError, match="exit code -9"):
        list(values_of_tasks(work, 1))
    assert not multiprocessing.active_children()
    lost = replace(work, policy=str(run / "nothing"))
    with pytest.raises(ConfigError):
        list(values_of_tasks(lost, 2))
    assert not multiprocessing.active_children()


SHARED = """
import sys
from pathlib import Path
from test_probe import endless
from agentgym.experiment.probe_processes import values_of_tasks
if __name__ == "__main__":
    list(values_of_tasks(endless(Path(sys.argv[1])), 1))
"""


def test_tasks_with_most_turns_are_taken_first(run):
    record = read_episodes(run / "eval" / "before.jsonl")[0]
    one, two = replace(record, turns=record.turns[:1]), replace(record, turns=record.turns[:2])
    work = replace(endless(run), groups=[(one,), (two, two), (one, one, one), (one,)])
    assert work.order == [1, 2, 0, 3]


UNGUARDED = """
import sys
from dataclasses import replace
from pathlib import Path
from test_probe import endless
from agentgym.experiment.probe_processes import values_of_tasks
work = endless(Path(sys.argv[1]))
list(values_of_tasks(replace(work, groups=work.groups * 500), 1))
"""


def test_a_process_that_dies_before_it_reads_its_work_ends_the_probe(run, tmp_path):
    """As every process of a script does that runs whatever it is imported for."""
    script = tmp_path / "unguarded.py"
    script.write_text(UNGUARDED)
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    ended = subprocess.run(
        [sys.executable, str(script), str(run)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode and "a process of the probe ended with exit code 1" in ended.stderr


def endless(run):
    """Work that takes days."""
    return Work(
        experiment=load_plan(run / "config.yaml").experiment,
        policy=str(run / "checkpoints" / "warm"),
        effort=Effort(half_width=0.001, most=1_000_000),
        own=True,
        groups=[tuple(read_episodes(run / "eval" / "before.jsonl"))],
    )


def test_processes_end_with_a_probe_that_is_killed(run, tmp_path):
    script = tmp_path / "shared.py"
    script.write_text(SHARED)
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    words = [sys.executable, str(script), str(run)]
    with subprocess.Popen(words, env={**os.environ, "PYTHONPATH": paths}) as probe:
        while len(started := below(probe.pid)) < 2:  # It, and the tracker of resources.
            assert probe.poll() is None
            time.sleep(0.1)
        probe.kill()
    deadline = time.monotonic() + 60
    while any(alive(each) for each in started):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_one_process_per_core_only_where_the_cpu_computes(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(3))
    assert default_processes(SMALL_RUN, tasks=64) == 3
    assert default_processes(SMALL_RUN, tasks=2) == 2
    assert default_processes(replace(SMALL_RUN, engine_device="cuda:0"), tasks=64) == 1
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(64))
    assert default_processes(SMALL_RUN, tasks=64) == 8
