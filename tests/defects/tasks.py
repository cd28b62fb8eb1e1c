"""Defects of tasks: the list of tasks, and the choice of the one to play."""

from __future__ import annotations

import itertools

import numpy as np

from agentgym.env.base import Opening
from defects.worlds import Corridor, Drawers, defect


@defect("has no manual", "AgentBench: the prompt lists no commands")
class HasNoManual(Corridor):
    def manual(self):
        return ""


@defect("documents no form of 'east'")
class DocumentsOtherCommands(Corridor):
    def manual(self):
        return "Say `left` or `right`."


@defect("does not document the command 'open'")
class LeavesACommandOutOfItsManual(Drawers):
    def manual(self):
        return "Say `take key`, `unlock door` or `wait`."


@defect("another text")
class PutsTheTaskIntoItsManual(Corridor):
    def manual(self):
        return f"{super().manual()} The corridor has {self.length} steps."


@defect("ignores the task id", "verl-agent#37: tasks come from the reset, so none is enumerated")
class IgnoresTheTask(Corridor):
    def start(self, task, rng):
        super().start(task, rng)
        self.length = 3 + int(rng.integers(5))
        return Opening("You stand in a corridor.", "Reach its end.")


@defect("info\\['task_id'\\] is 'small-0'", "AgentGym#35: the text is of another task")
class NamesAnotherTask(Corridor):
    def _info(self):
        return {**super()._info(), "task_id": "small-0"}


@defect("the unknown task .* was accepted")
class TakesAnyTask(Corridor):
    def start(self, task, rng):
        known = task in self.tasks("train") + self.tasks("valid") + self.tasks("test")
        return super().start(task if known else "small-0", rng)


@defect("must raise UnknownTask, got KeyError")
class CallsAnUnknownTaskAKeyError(Corridor):
    def number(self, task):
        return {f"small-{n}": n for n in range(40)}[task]


@defect("an unknown split was accepted", "alfworld#92: a split that is left over")
class TakesAnySplit(Corridor):
    def tasks(self, split):
        return super().tasks(split if split in self.splits else "train")


@defect("is listed in 'train' and in 'test'", "verl-agent#262: goals of both splits")
class LeaksTestIntoTrain(Corridor):
    splits = Corridor.splits | {"test": range(19, 30)}


@defect("is listed in 'train' and in 'train'", "WebShop#44: repeats in an evaluation")
class ListsATaskTwice(Corridor):
    def tasks(self, split):
        ids = super().tasks(split)
        return [*ids, ids[0]]


@defect("'valid' is empty")
class HasNoValidTasks(Corridor):
    splits = Corridor.splits | {"valid": range(0)}


@defect("a task id of 'train' is 0", "AgentGym: index shifts between lists")
class NumbersItsTasks(Corridor):
    def tasks(self, split):
        return [self.number(id_) for id_ in super().tasks(split)]


@defect("fix the order", "verl-agent#243: another panel each time")
class ListsTasksInADifferentOrderEachTime(Corridor):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.shuffled = {}

    def tasks(self, split):
        ids = super().tasks(split)
        if split not in self.shuffled:
            self.shuffled[split] = [ids[i] for i in np.random.default_rng().permutation(len(ids))]
        return self.shuffled[split]


@defect("lists 'train' differently", "common: order of a set")
class ListsASet(Corridor):
    def tasks(self, split):
        return list(set(super().tasks(split)))


@defect("listed differently after an episode", "prime-rl#2912: tasks used up")
class UsesUpItsTasks(Corridor):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.played = set()

    def tasks(self, split):
        return [id_ for id_ in super().tasks(split) if id_ not in self.played]

    def start(self, task, rng):
        known = {f"small-{n}" for n in range(40)}
        opening = super().start(task, rng) if task in known else super().start("", rng)
        self.played.add(task)
        return opening

    def number(self, task):
        return int(task.removeprefix("small-"))


@defect("16 seeds all drew", "OpenEnv#1102: seed accepted and dropped")
class AlwaysPlaysTheFirst(Corridor):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed, options=options or {"task": self.tasks(self.split)[0]})


@defect("which is not in it", "RAGEN#134: is it the train or the validation figure")
class AlwaysPlaysTrain(Corridor):
    def __init__(self, split="train", **kwargs):
        super().__init__(**kwargs)


@defect("drew task .* in one environment and", "OpenEnv PR#1078: seed not passed on")
class PlaysTheNextTaskInLine(Corridor):
    line = itertools.count()

    def reset(self, *, seed=None, options=None):
        ids = self.tasks(self.split)
        following = {"task": ids[next(self.line) % len(ids)]}
        return super().reset(seed=seed, options=options or following)


@defect("declared `stochastic`", "OpenEnv#1127: seed accepted and dropped")
class UsesItsOwnSeed(Corridor):
    def start(self, task, rng):
        return super().start(task, np.random.default_rng(0))


@defect("16 seeds all drew", "OpenEnv#1102: seed accepted and dropped")
class DoesNotSeedItself(Corridor):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=0, options=options)


@defect("hand them to super")
class TakesNoOptionsOfTheBase(Corridor):
    def __init__(self, split="train", render_mode=None):
        super().__init__(split=split, render_mode=render_mode)
