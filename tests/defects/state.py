"""Defects of state: data of one episode that leaks from or into another place."""

from __future__ import annotations

import copy
import random
import threading
import time

import numpy as np

from defects.worlds import Corridor, defect


@defect("disturbed the original", "harbor PR#1868: snapshots per call")
class SharesStateWithItsFork(Corridor):
    def fork(self):
        return copy.copy(self)


@defect("generator included", "ROLL#140: return to a state")
class ForgetsTheGeneratorInAFork(Corridor):
    def fork(self):
        other = copy.deepcopy(self)
        other.rng = np.random.default_rng(0)
        return other


@defect("not a copy")
class ForksIntoItself(Corridor):
    def fork(self):
        return self


@defect("the fork went another way", "stable-baselines#46: no return to an exact state")
class ForksFromTheStart(Corridor):
    def fork(self):
        other = copy.deepcopy(self)
        other.way = []
        return other


@defect("a fork of the fork went another way")
class ForksOnlyOnce(Corridor):
    copied = False

    def fork(self):
        other = copy.copy(self) if self.copied else copy.deepcopy(self)
        other.copied = True
        return other


@defect("the process is gone", "ScienceWorld PR#30: one process for several worlds")
class ClosesItsForks(Corridor):
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


@defect("close\\(\\) be called at any time", "ScienceWorld PR#74: closing fails")
class ClosesOnlyOnce(Corridor):
    closed = False

    def close(self):
        if self.closed:
            raise OSError("already closed")
        self.closed = True

    def fork(self):
        other = super().fork()
        other.closed = False
        return other


@defect("global generators", "GEM: seeds the process")
class DrawsFromRandom(Corridor):
    def start(self, task, rng):
        self.luck = random.random()
        return super().start(task, rng)


@defect("global generators")
class DrawsFromNumpy(Corridor):
    def act(self, action):
        self.luck = np.random.rand()
        return super().act(action)


@defect("global generators", "GEM: seeds the process")
class SeedsTheProcess(Corridor):
    def start(self, task, rng):
        random.seed(0)
        return super().start(task, rng)


@defect("global generators")
class SeedsTheProcessWhenMade(Corridor):
    def __init__(self, **kwargs):
        np.random.seed(0)
        super().__init__(**kwargs)


@defect("in a second environment: draw everything from the generator", "OpenEnv#1102: seed dropped")
class DrawsFromTheClock(Corridor):
    def start(self, task, rng):
        opening = super().start(task, rng)
        return opening._replace(observation=f"Omen {np.random.default_rng().integers(2**60)}.")


@defect("in a second environment|by another environment", "verl-agent#149: runs differ")
class NamesItsAddressInMemory(Corridor):
    def start(self, task, rng):
        return super().start(task, rng)._replace(observation=f"<room at {id(self):#x}>")


@defect("keep no state across episodes", "lerobot PR#4315: state depends on the resets so far")
class CountsItsEpisodes(Corridor):
    count = 0

    def start(self, task, rng):
        self.count += 1
        return super().start(task, rng)._replace(observation=f"Day {self.count}.")


@defect("won before the first action|went differently", "AgentGym#35: task and state disagree")
class KeepsTheLastEpisode(Corridor):
    def start(self, task, rng):
        way = self.way
        opening = super().start(task, rng)
        self.way = way
        return opening


@defect("another environment beside it", "WebAgent-R1#6: a group shares one back end")
class SharesStateAcrossWorlds(Corridor):
    log: list = []  # noqa: RUF012

    def start(self, task, rng):
        self.log.clear()
        return super().start(task, rng)

    def act(self, action):
        self.log.append(action)
        return super().act(action)._replace(observation=f"{len(self.log)} steps.")


@defect("while 4 threads played it", "alfworld#71: not thread-safe")
class RacesWithOtherThreads(Corridor):
    def act(self, action):
        Corridor.typed = action  # type: ignore[attr-defined]
        time.sleep(0.001)
        return super().act(Corridor.typed)  # type: ignore[attr-defined]


@defect("made in another thread", "SkyRL PR#53: steps run in a pool of threads")
class BelongsToOneThread(Corridor):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.thread = threading.get_ident()

    def act(self, action):
        if self.thread != threading.get_ident():
            raise RuntimeError("objects made in another thread cannot be used here")
        return super().act(action)


@defect("start in different states", "verl-agent#133: unequal groups")
class StartsWhereOthersAreNot(Corridor):
    open_worlds: list = []  # noqa: RUF012

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.open_worlds.append(self)

    def close(self):
        if self in self.open_worlds:
            self.open_worlds.remove(self)

    def start(self, task, rng):
        opening = super().start(task, rng)
        peers = [peer for peer in self.open_worlds if peer is not self and peer.task_id == task]
        crowded = len(peers) > 1
        return opening._replace(observation="A crowd is here.") if crowded else opening


@defect("went differently in a second process", "common: seeds from hash()")
class SeedsFromAHash(Corridor):
    def start(self, task, rng):
        opening = super().start(task, rng)
        luck = np.random.default_rng(abs(hash(task))).integers(2**60)
        return opening._replace(observation=f"Omen {luck}.")


@defect("went differently in a second process", "common: order of a set")
class ShowsASet(Corridor):
    def start(self, task, rng):
        things = {f"{what} {n}" for what in ("cup", "lamp", "book") for n in range(8)}
        opening = super().start(task, rng)
        return opening._replace(observation=f"You see {', '.join(things)}.")
