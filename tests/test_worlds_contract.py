"""Every registered world keeps the contract, and the checker notices every way to break it."""

import copy
import random
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import agentgym
from agentgym.env import Opening, Outcome, TextEnv, unknown_task
from agentgym.errors import ConfigError, MissingExtra
from agentgym.panel import unknown_split
from agentgym.testing import check_world

SMALL = {
    "agentgym/ALFWorld-v0": [{"train_games": 8, "valid_games": 4, "test_games": 4}],
    "agentgym/ScienceWorld-v0": [{"tasks": "find-non-living-thing,lifespan-longest-lived"}],
    "agentgym/TextWorld-v0": [
        {
            "family": family,
            "difficulty": "easy",
            "train_games": 2,
            "valid_games": 1,
            "test_games": 1,
        }
        for family in ("coin_collector", "cooking")
    ],
}
"""Settings with which a world is checked where its defaults would take long."""

CASES = [(id_, how) for id_ in agentgym.environments() for how in SMALL.get(id_, [{}])]


# TextWorld silences this one itself, once, at import; pytest takes such filters back after a test.
@pytest.mark.filterwarnings("ignore:.*is not fully supported")
@pytest.mark.parametrize(("env_id", "settings"), CASES)
def test_every_registered_world_keeps_the_contract(env_id, settings):
    try:
        check_world(env_id, **settings)
    except MissingExtra as missing:
        pytest.skip(str(missing))


def test_a_world_that_does_not_exist_is_no_broken_contract():
    with pytest.raises(ConfigError, match="Did you mean 'agentgym/Hotter-v0'"):
        check_world("agentgym/Hoter-v0")
    with pytest.raises(ConfigError, match="hihg"):
        check_world("agentgym/Hotter-v0", hihg=3)


def test_panels_do_not_depend_on_the_hash_seed_of_the_process():
    """Two processes of a job must mean the same tasks; a set of texts has another order in each."""
    code = "from agentgym import panel; print(panel('agentgym/Hotter-v0').digest)"
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parent,
        ).stdout
        for seed in ("1", "2")
    }
    assert digests == {agentgym.panel("agentgym/Hotter-v0").digest + "\n"}


class Corridor(TextEnv):
    """A correct small world: walk east, with a random wind, to the end; the way is mutable state.

    Defects below override one method each, so that what is caught is that defect alone.
    """

    splits: dict = {"train": range(20), "valid": range(20, 30), "test": range(30, 40)}  # noqa: RUF012

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.way = []
        self.length = 0
        self.rng = np.random.default_rng(0)

    def tasks(self, split):
        if split not in self.splits:
            raise unknown_split("Corridor", split, tuple(self.splits))
        return [f"corridor-{n}" for n in self.splits[split]]

    def start(self, task, rng):
        if task not in {id_ for split in self.splits for id_ in self.tasks(split)}:
            raise unknown_task("Corridor", task, self.tasks("train"))
        self.rng = rng
        self.way = []
        self.length = 3 + int(task.removeprefix("corridor-")) % 5
        return Opening(f"You stand in a corridor. A draught: {rng.integers(9)}.", "Reach its end.")

    def act(self, action):
        if action not in ("east", "west"):
            return self.outcome("Go east or west.", valid=False)
        self.way.append(action)
        return self.outcome(f"You walked {len(self.way)} steps. A draught: {self.rng.integers(9)}.")

    def outcome(self, text, valid=True):
        place = max(0, self.way.count("east") - self.way.count("west"))
        won = place >= self.length
        score = min(1.0, place / self.length)
        return Outcome(text, float(won), score, won, done=won, valid=valid)

    def admissible(self):
        return ("east", "west")

    def oracle(self):
        place = self.way.count("east") - self.way.count("west")
        return ("east",) * (self.length - place)


class SharesStateWithItsFork(Corridor):
    def fork(self):
        return copy.copy(self)


class ForgetsTheGeneratorInAFork(Corridor):
    def fork(self):
        other = copy.deepcopy(self)
        other.rng = np.random.default_rng(0)
        return other


class ForksIntoItself(Corridor):
    def fork(self):
        return self


class ClosesItsForks(Corridor):
    """All forks hang on one process, so closing one ends the others."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.alive = [True]

    def fork(self):
        other = copy.deepcopy(self)
        other.alive = self.alive
        return other

    def close(self):
        self.alive[0] = False

    def act(self, action):
        if not self.alive[0]:
            raise OSError("the process is gone")
        return super().act(action)


class DrawsFromRandom(Corridor):
    def start(self, task, rng):
        self.luck = random.random()
        return super().start(task, rng)


class DrawsFromNumpy(Corridor):
    def act(self, action):
        self.luck = np.random.rand()
        return super().act(action)


class SeedsTheProcess(Corridor):
    def start(self, task, rng):
        random.seed(0)
        return super().start(task, rng)


class DrawsFromTheClock(Corridor):
    def start(self, task, rng):
        opening = super().start(task, rng)
        return opening._replace(observation=f"Omen {np.random.default_rng().integers(2**60)}.")


class CountsItsEpisodes(Corridor):
    count = 0

    def start(self, task, rng):
        self.count += 1
        return super().start(task, rng)._replace(observation=f"Day {self.count}.")


class SharesStateAcrossWorlds(Corridor):
    log: list = []  # noqa: RUF012

    def start(self, task, rng):
        self.log.clear()
        return super().start(task, rng)

    def act(self, action):
        self.log.append(action)
        return super().act(action)._replace(observation=f"{len(self.log)} steps.")


class IgnoresTheTask(Corridor):
    def start(self, task, rng):
        super().start(task, rng)
        self.length = 3 + int(rng.integers(5))
        return Opening("You stand in a corridor.", "Reach its end.")


class NamesAnotherTask(Corridor):
    def _info(self):
        return {**super()._info(), "task_id": "corridor-0"}


class TakesAnyTask(Corridor):
    def start(self, task, rng):
        known = task in self.tasks("train") + self.tasks("valid") + self.tasks("test")
        return super().start(task if known else "corridor-0", rng)


class CallsAnUnknownTaskAKeyError(Corridor):
    def start(self, task, rng):
        if not task.startswith("corridor-"):
            raise KeyError(task)
        return super().start(task, rng)


class TakesAnySplit(Corridor):
    def tasks(self, split):
        return super().tasks(split if split in self.splits else "train")


class LeaksTestIntoTrain(Corridor):
    splits = Corridor.splits | {"test": range(19, 30)}


class HasNoValidTasks(Corridor):
    splits = Corridor.splits | {"valid": range(0)}


class ListsTasksInADifferentOrderEachTime(Corridor):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.shuffled = {}

    def tasks(self, split):
        ids = super().tasks(split)
        if split not in self.shuffled:
            self.shuffled[split] = [ids[i] for i in np.random.default_rng().permutation(len(ids))]
        return self.shuffled[split]


class RaisesOnNul(Corridor):
    def act(self, action):
        if "\x00" in action:
            raise ValueError("embedded null character")
        return super().act(action)


class RaisesOnNothing(Corridor):
    def act(self, action):
        return super().act("east" if action[0] == "e" else action)


class RaisesOnLongText(Corridor):
    def act(self, action):
        if len(action) > 65_535:
            raise OverflowError("buffer")
        return super().act(action)


class RaisesOnUnicode(Corridor):
    def act(self, action):
        action.encode("latin-1")
        return super().act(action)


class LacksAnInfoKey(Corridor):
    def _info(self):
        return {name: value for name, value in super()._info().items() if name != "won"}


class SaysWonAsANumber(Corridor):
    def _info(self):
        return {**super()._info(), "won": int(self._last.won)}


class WinsBelowFullScore(Corridor):
    def outcome(self, text, valid=True):
        last = super().outcome(text, valid)
        return last._replace(score=min(last.score, 0.9))


class ScoresFullWithoutWinning(Corridor):
    def outcome(self, text, valid=True):
        return super().outcome(text, valid)._replace(won=False)


class ScoresInPoints(Corridor):
    def outcome(self, text, valid=True):
        last = super().outcome(text, valid)
        return last._replace(score=last.score * 5)


class PaysNotANumber(Corridor):
    def outcome(self, text, valid=True):
        return super().outcome(text, valid)._replace(reward=float("nan"))


class GoesOnAfterWinning(Corridor):
    def outcome(self, text, valid=True):
        return super().outcome(text, valid)._replace(done=False)


class TruncatesItself(Corridor):
    def step(self, action):
        observation, reward, terminated, _, info = super().step(action)
        return observation, reward, terminated, len(self.way) >= 4, info


class TerminatesAndTruncates(Corridor):
    def step(self, action):
        observation, reward, terminated, _, info = super().step(action)
        return observation, reward, terminated, terminated, info


class AnswersWithAList(Corridor):
    def step(self, action):
        observation, *rest = super().step(action)
        return [observation], *rest


class HasALosingOracle(Corridor):
    def oracle(self):
        return super().oracle()[:-1] or ("west",)


class HasAnOracleThatForgetsWhereItIs(Corridor):
    def oracle(self):
        return ("east",) * self.length


class HasATediousOracle(Corridor):
    def oracle(self):
        return ("west", "east") * 10 + super().oracle()


class HasAnOracleThatActs(Corridor):
    def oracle(self):
        self.rng.integers(9)
        return super().oracle()


class PromisesInadmissibleActions(Corridor):
    def admissible(self):
        return ("east", "fly", "west")


class DoesNotSeedItself(Corridor):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=0, options=options)


class TakesNoOptionsOfTheBase(Corridor):
    def __init__(self, split="train", render_mode=None):
        super().__init__(split=split, render_mode=render_mode)


DEFECTS = {
    SharesStateWithItsFork: "disturbed the original",
    ForgetsTheGeneratorInAFork: "generator included",
    ForksIntoItself: "not a copy",
    ClosesItsForks: "the process is gone",
    DrawsFromRandom: "global generators",
    DrawsFromNumpy: "global generators",
    SeedsTheProcess: "global generators",
    DrawsFromTheClock: "in a second world: draw everything from the generator",
    CountsItsEpisodes: "keep no state across episodes",
    SharesStateAcrossWorlds: "another world beside it",
    IgnoresTheTask: "ignores the task id",
    NamesAnotherTask: "info\\['task_id'\\] is 'corridor-0'",
    TakesAnyTask: "the unknown task .* was accepted",
    CallsAnUnknownTaskAKeyError: "must raise UnknownTask, got KeyError",
    TakesAnySplit: "an unknown split was accepted",
    LeaksTestIntoTrain: "is listed in 'train' and in 'test'",
    HasNoValidTasks: "'valid' is empty",
    ListsTasksInADifferentOrderEachTime: "fix the order",
    RaisesOnNul: "embedded null",
    RaisesOnNothing: "never raise; it raised IndexError",
    RaisesOnLongText: "OverflowError",
    RaisesOnUnicode: "UnicodeEncodeError",
    LacksAnInfoKey: "info lacks 'won'",
    SaysWonAsANumber: "info\\['won'\\] is 0",
    WinsBelowFullScore: "1 exactly when",
    ScoresFullWithoutWinning: "1 exactly when",
    ScoresInPoints: "outside \\[0, 1\\]",
    PaysNotANumber: "finite number",
    GoesOnAfterWinning: "set `done`",
    TruncatesItself: "truncated=True from the bare world",
    TerminatesAndTruncates: "truncated=True from the bare world",
    AnswersWithAList: "not a str",
    HasALosingOracle: "the oracle loses",
    HasAnOracleThatForgetsWhereItIs: "asked in the middle, loses|goes on",
    HasATediousOracle: "takes 2. actions, max_episode_steps is 12",
    HasAnOracleThatActs: "went differently",
    PromisesInadmissibleActions: "'fly' is among admissible",
    DoesNotSeedItself: "gymnasium.utils.env_checker",
    TakesNoOptionsOfTheBase: "hand them to super",
}


@pytest.fixture
def registered():
    made = []

    def register(world, turns=12):
        id_ = f"broken/{world.__name__}-v0"
        gymnasium.register(id_, world, max_episode_steps=turns)
        made.append(id_)
        return id_

    yield register
    for id_ in made:
        del gymnasium.registry[id_]


def test_a_correct_world_passes(registered):
    check_world(registered(Corridor))


@pytest.mark.parametrize("world", DEFECTS, ids=lambda world: world.__name__)
def test_a_world_with_one_defect_is_caught_and_the_cause_named(registered, world):
    with pytest.raises(AssertionError, match=DEFECTS[world]) as problem:
        check_world(registered(world))
    assert world.__name__ in str(problem.value)


def test_a_limit_that_is_not_the_registered_one_is_caught(registered):
    class Impatient(gymnasium.Wrapper):
        """Counts turns by itself, above the world, where the registered limit should."""

        def step(self, action):
            observation, reward, terminated, _, info = self.env.step(action)
            return observation, reward, terminated, True, info

    def impatient(**kwargs):
        return Impatient(Corridor(**kwargs))

    with pytest.raises(AssertionError, match="leave limits to Gymnasium"):
        check_world(registered(impatient))


def test_checking_a_world_leaves_the_global_generator_as_it_was(registered):
    np.random.seed(5)
    check_world(registered(Corridor))
    drawn = np.random.rand()
    np.random.seed(5)
    assert drawn == np.random.rand()
