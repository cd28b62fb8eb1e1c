"""Defects of single answers: to invalid actions, in type, score and reward, and as values."""

from __future__ import annotations

import threading

import numpy as np
from gymnasium import spaces

from defects.worlds import Corridor, defect

THING = object()
LOCK = threading.Lock()


@defect("embedded null", "TextWorld: a NUL byte ends the interpreter")
class RaisesOnNul(Corridor):
    def act(self, action):
        if "\x00" in action:
            raise ValueError("embedded null character")
        return super().act(action)


@defect("never raise; it raised IndexError", "AgentBench#19: stops at an empty answer")
class RaisesOnNothing(Corridor):
    def act(self, action):
        return super().act("east" if action[0] == "e" else action)


@defect("OverflowError", "trl#4751: unbounded text")
class RaisesOnLongText(Corridor):
    def act(self, action):
        if len(action) > 65_535:
            raise OverflowError("buffer")
        return super().act(action)


@defect("UnicodeEncodeError")
class RaisesOnUnicode(Corridor):
    def act(self, action):
        action.encode("latin-1")
        return super().act(action)


@defect("fills the agent's context", "trl#4751: unbounded text")
class EchoesWhatItHears(Corridor):
    def act(self, action):
        last = super().act(action)
        return last if last.valid else last._replace(observation=f"I do not know {action}.")


@defect("UTF-8", "common: bytes decoded with surrogateescape")
class ShowsBrokenText(Corridor):
    def act(self, action):
        last = super().act(action)
        return last._replace(
            observation=last.observation + b"\xff".decode(errors="surrogateescape")
        )


@defect("not a str")
class AnswersWithAList(Corridor):
    def step(self, action):
        observation, *rest = super().step(action)
        return [observation], *rest


@defect("fails gymnasium.utils.env_checker", "Gymnasium: the default charset of Text has no blanks")
class LeavesItsSpace(Corridor):
    observation_space = spaces.Text(1000)


@defect("info lacks 'won'", "verl-agent#64: which figure is success")
class LacksAnInfoKey(Corridor):
    def _info(self):
        return {name: value for name, value in super()._info().items() if name != "won"}


@defect("info\\['won'\\] is 0")
class SaysWonAsANumber(Corridor):
    def _info(self):
        return {**super()._info(), "won": int(self._last.won)}


@defect("1 exactly when", "miniwob-plusplus PR#109: a reward of 0.1 counts as success")
class WinsBelowFullScore(Corridor):
    def outcome(self, text, valid=True):
        last = super().outcome(text, valid)
        return last._replace(score=min(last.score, 0.9))


@defect("1 exactly when", "RAGEN#102: definition of success")
class ScoresFullWithoutWinning(Corridor):
    def outcome(self, text, valid=True):
        return super().outcome(text, valid)._replace(won=False)


@defect("outside \\[0, 1\\]", "ScienceWorld: points up to 100")
class ScoresInPoints(Corridor):
    def outcome(self, text, valid=True):
        last = super().outcome(text, valid)
        return last._replace(score=last.score * 5)


@defect("outside \\[0, 1\\]", "ScienceWorld: -100 for failure")
class ScoresBelowNothing(Corridor):
    def outcome(self, text, valid=True):
        last = super().outcome(text, valid)
        return last if valid else last._replace(score=-1.0)


@defect("finite number", "trl PR#3867: a value that explodes")
class PaysNotANumber(Corridor):
    def outcome(self, text, valid=True):
        return super().outcome(text, valid)._replace(reward=float("nan"))


@defect("finite number")
class PaysInfinity(Corridor):
    def outcome(self, text, valid=True):
        last = super().outcome(text, valid)
        return last._replace(reward=float("inf") if last.won else 0.0)


@defect("divide by the largest return", "trl PR#3867: a value that explodes")
class PaysAThousand(Corridor):
    def outcome(self, text, valid=True):
        last = super().outcome(text, valid)
        return last._replace(reward=1000.0 * last.won)


@defect("answers.py, line .*act\\(\\) returned None.*`return`")
class ForgetsToReturn(Corridor):
    def act(self, action):
        super().act(action)


@defect("answers.py, line .*start\\(\\) returned None.*`return`")
class ForgetsToReturnTheOpening(Corridor):
    def start(self, task, rng):
        super().start(task, rng)


@defect("SystemExit: 3", "common: a script that calls sys.exit")
class ExitsOnNonsense(Corridor):
    def act(self, action):
        if action not in ("east", "west"):
            raise SystemExit(3)
        return super().act(action)


@defect("SystemExit: 3 \\(answers.py, line", "common: a script that calls sys.exit")
class ExitsWhenAskedForActions(Corridor):
    def admissible(self):
        raise SystemExit(3)


@defect("info\\['score'\\] is False of type bool, expected float or int")
class SaysScoreAsABool(Corridor):
    def _info(self):
        info = super()._info()
        return {**info, "score": info["won"]}


@defect("of type ndarray.*put plain values into info")
class PutsAnArrayIntoInfo(Corridor):
    def _info(self):
        return {**super()._info(), "places": np.zeros(3)}


@defect("set `done`", "AgentBench#32: sticks on a solved sample")
class GoesOnAfterWinning(Corridor):
    def outcome(self, text, valid=True):
        return super().outcome(text, valid)._replace(done=False)


@defect("truncated=True from the bare environment", "ScienceWorld: a step limit of its own")
class TruncatesItself(Corridor):
    def step(self, action):
        observation, reward, terminated, _, info = super().step(action)
        return observation, reward, terminated, len(self.way) >= 4, info


@defect("truncated=True from the bare environment", "NeMo-Gym PR#768: timeout and end are one")
class TerminatesAndTruncates(Corridor):
    def step(self, action):
        observation, reward, terminated, _, info = super().step(action)
        return observation, reward, terminated, terminated, info


@defect("changed after it was given", "common: one dictionary for all steps")
class ReusesItsInfo(Corridor):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.shared = {}

    def _info(self):
        self.shared.update(super()._info(), walked=len(self.way))
        return self.shared


@defect("changed after it was given \\(way\\)", "common: state handed out")
class HandsOutItsState(Corridor):
    def _info(self):
        return {**super()._info(), "way": self.way}


@defect("a reader that emptied the lists", "common: state handed out")
class LetsReadersChangeIt(Corridor):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.bag = ["lamp", "rope"]

    def _info(self):
        return {**super()._info(), "bag": self.bag}


@defect("put plain values into info", "OpenEnv PR#1127: what crosses a process must be plain")
class PutsALockIntoInfo(Corridor):
    def _info(self):
        return {**super()._info(), "lock": LOCK}


@defect("put plain values into info")
class PutsAnObjectIntoInfo(Corridor):
    def _info(self):
        return {**super()._info(), "thing": THING}
