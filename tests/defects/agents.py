"""Defects visible to agents: oracles that lose, unearned success, labels in the text, leaks."""

from __future__ import annotations

import ctypes
import os

from defects.worlds import Corridor, Drawers, defect


@defect("the oracle loses", "ScienceWorld: 24 gold paths fail")
class HasALosingOracle(Corridor):
    def oracle(self):
        return super().oracle()[:-1] or ("west",)


@defect("asked in the middle, loses|continues", "alfworld#83: replans at every step")
class HasAnOracleThatForgetsWhereItIs(Corridor):
    def oracle(self):
        return ("east",) * self.length


@defect("takes 2. actions, max_episode_steps is 12", "ScienceWorld: gold paths beyond the limit")
class HasATediousOracle(Corridor):
    def oracle(self):
        return ("west", "east") * 10 + super().oracle()


@defect("went differently", "BrowserGym#304: an evaluator that acts")
class HasAnOracleThatActs(Corridor):
    def oracle(self):
        self.rng.integers(9)
        return super().oracle()


@defect("'fly' is among admissible", "verl-agent: inadmissible commands listed")
class PromisesInadmissibleActions(Corridor):
    def admissible(self):
        return ("east", "fly", "west")


@defect("'' won", "WebShop: a score for nothing")
class WinsOnSilence(Drawers):
    def act(self, action):
        if not action:
            self.stage = 3
            return self.outcome("Well done.", valid=False)
        return super().act(action)


@defect("only writes nothing wins", "EPO#3: done counts as success")
class WinsByLasting(Drawers):
    turns = 0

    def start(self, task, rng):
        self.turns = 0
        return super().start(task, rng)

    def act(self, action):
        last = super().act(action)
        self.turns += 1
        if self.turns < 12 or last.won:
            return last
        self.stage = 3
        return self.outcome("Time is over.", last.valid)


@defect("acts at random wins", "SDAR#52: every method is near the ceiling")
class WinsWithAnyAction(Drawers):
    def act(self, action):
        valid = action in self.admissible()
        self.stage = 3 if valid and action != "wait" else self.stage
        return self.outcome("Fine.", valid)


@defect("the first admissible action every time wins", "common: the answer is option A")
class ListsTheSolutionFirst(Drawers):
    def admissible(self):
        rest = super().admissible()
        best = self.plan()[self.stage : self.stage + 1]
        return (*best, *(action for action in rest if action not in best))


@defect("repeating 'unlock door' wins", "digitalhuman#13: one action is enough")
class NeedsNoKey(Drawers):
    def act(self, action):
        if action == "unlock door":
            self.stage = 3
            return self.outcome("The door is open.")
        return super().act(action)


@defect("to the limit pays", "digitalhuman#13: collapses to one paying action")
class PaysForBeingBusy(Drawers):
    def outcome(self, text, valid=True):
        last = super().outcome(text, valid)
        return last._replace(reward=last.reward + float(valid))


@defect("spells out the oracle's plan", "common: a walkthrough left in the text")
class PrintsTheSolution(Drawers):
    def start(self, task, rng):
        opening = super().start(task, rng)
        return opening._replace(observation=f"{opening.observation}\n# {', '.join(self.plan())}")


@defect("singles out the oracle's first action", "BrowserGym#304: the label leaks")
class NamesTheHidingPlace(Drawers):
    def start(self, task, rng):
        opening = super().start(task, rng)
        text = f"{opening.observation} The key is in drawer {self.drawer}."
        return opening._replace(observation=text)


@defect("prints info\\['score'\\]", "WebShop: the last page prints the score")
class PrintsTheScore(Drawers):
    def outcome(self, text, valid=True):
        last = super().outcome(text, valid)
        return last._replace(observation=f"{text} (score {last.score:.2f})")


@defect("bytes per reset", "TextWorld#367: leak in reset()")
class KeepsEveryEpisode(Corridor):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.history = []

    def start(self, task, rng):
        opening = super().start(task, rng)
        self.history.append(f"{rng.integers(9)} {opening.observation * 8}")
        return opening


@defect("KiB per reset", "SkyRL#292: workers run out of memory")
class KeepsMemoryOutsideOfPython(Corridor):
    def start(self, task, rng):
        size = 1 << 16
        malloc = ctypes.CDLL(None).malloc
        malloc.restype = ctypes.c_void_p
        ctypes.memset(malloc(ctypes.c_size_t(size)), 1, size)
        return super().start(task, rng)


@defect("files or sockets open", "OpenEnv PR#1000: sockets leak until the server is full")
class LeavesFilesOpen(Corridor):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.file = os.open(os.devnull, os.O_RDONLY)
