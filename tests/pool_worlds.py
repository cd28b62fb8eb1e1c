"""Environments that misbehave on request, in a module that worker processes can import."""

import contextlib
import itertools
import os
import random
import re
import signal
import threading
import time
from pathlib import Path

from agentgym import Opening, Outcome, Task, TextEnv
from agentgym_envs.hotter import Hotter

HOARD = []


class Odd(TextEnv):
    """Obeys actions such as ``sleep 0.5`` or ``die``; otherwise lists all actions so far."""

    def tasks(self, split):
        return ("odd",)

    def start(self, task, rng):
        self.heard = []
        self.mark = int(rng.integers(1000))
        if task == "hoard":
            HOARD.append(b"x" * 100_000)
        return Opening(f"hello {self.mark}", "be odd")

    def act(self, action):
        match action.split():
            case ["sleep", seconds]:
                time.sleep(float(seconds))
            case ["hang"]:
                threading.Event().wait()
            case ["seize"]:
                re.match("(a+)+$", "a" * 60 + "b")  # never ends, and no other thread can run
            case ["die"]:
                os.kill(os.getpid(), signal.SIGKILL)
            case ["raise"]:
                raise OSError("the pipe burst")
            case ["exit"]:
                raise SystemExit(3)
            case ["interrupt"]:
                raise KeyboardInterrupt
            case ["secret"]:
                return Outcome(threading.Lock())
            case ["process"]:
                return Outcome(str(os.getpid()))
        self.heard.append(action)
        return Outcome(" ".join(self.heard), score=0.5)


def odd(task):
    return Odd()


class Doomed(Hotter):
    """Fails in one attempt of five; task and attempt determine the step and kind of failure."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def start(self, task, rng):
        fate = random.Random(f"{task}/{attempt(self.folder, task)}")
        self.left = fate.randrange(6) if fate.random() < 0.2 else None
        # A dead process ends its other environments, so a hanging one never reaches its deadline.
        self.way = fate.choices(("die", "hang", "raise"), weights=(1, 5, 4))[0]
        return super().start(task, rng)

    def act(self, action):
        if self.left == 0:
            Odd().act(self.way)
        self.left = None if self.left is None else self.left - 1
        return super().act(action)


class Dawdling(Hotter):
    """Answers after up to 20 ms, more or less at random."""

    def act(self, action):
        time.sleep(random.SystemRandom().uniform(0, 0.02))
        return super().act(action)


def attempt(folder, task):
    """How often a task was started earlier, in any process."""
    for number in itertools.count():
        with contextlib.suppress(FileExistsError):
            os.close(os.open(Path(folder, f"{task}-{number}"), os.O_CREAT | os.O_EXCL))
            return number


def dawdling(task):
    return Dawdling()


def doomed(folder, task):
    return Doomed(folder)


def hotter(task):
    return Hotter()


def task(number=0):
    return Task("tests/Odd-v0", "odd", number)
