"""The base of environments in a browser: pages in, commands out, forks by replay."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple, Self

import numpy as np

from agentgym.browser.actions import MANUAL, Refused, perform
from agentgym.browser.chromium import find_chromium, shared_browser
from agentgym.browser.tab import Tab
from agentgym.env.base import AnyText, Opening, Outcome, Promises, TextEnv
from agentgym.errors import EnvError, MissingExtra

LONGEST = 6000
"""Characters of a page that are shown; the rest is left out, and a line states it."""


class Verdict(NamedTuple):
    """How an episode stands after an action."""

    reward: float = 0.0
    score: float = 0.0
    won: bool = False
    done: bool = False


class BrowserEnv(TextEnv):
    """Tasks that are solved in a real browser: write ``tasks``, ``open`` and ``judge``.

    An observation is a text of the page, a line per element; ``actions.MANUAL`` lists the
    commands. Where ``own_time`` holds, every action lets ``step_milliseconds`` of the page's time
    pass, however slow the machine is. A fork opens a window of its own and repeats the actions; it
    refuses where the page then shows something else.
    """

    promises = Promises(fork="replay")
    hosts: tuple[str, ...] = ()
    """Hosts that pages may reach besides loopback."""
    own_time = True
    """Time passes with actions alone, see ``Tab``; False where clicks lead to other pages."""
    hidden = ""
    """CSS selector of elements that are not shown."""
    boxes = False
    """Empty elements that have a colour, a frame or a picture are shown, as things to click on."""

    def __init__(self, *, step_milliseconds: int = 500, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.step_milliseconds = step_milliseconds
        self.action_space = AnyText(("click 1", "click 2", "wait"))
        self._tab: Tab | None = None
        self._actions: tuple[str, ...] = ()
        self._plan: tuple[str, ...] | None = None
        self._seed_state: dict[str, Any] = {}
        self._elements: tuple[int, ...] = ()

    # ---- what an author writes -------------------------------------------------------------

    @abstractmethod
    def open(self, task: str, tab: Tab, rng: np.random.Generator) -> Opening:
        """Load the page of a task; the observation of the opening is filled in."""

    @abstractmethod
    def judge(self, tab: Tab) -> Verdict:
        """Reward and end after an action."""

    def plan(self) -> tuple[str, ...] | None:
        """Commands that win, asked for once, when a task has opened; None where none are known."""
        return None

    # ---- what the contract asks ------------------------------------------------------------

    def start(self, task: str, rng: np.random.Generator) -> Opening:
        """Open the task in a window of this environment."""
        self._seed_state = dict(rng.bit_generator.state)
        self._actions = ()
        browser = shared_browser(self.hosts)
        if self._tab is None or self._tab.broken or self._tab.browser is not browser:
            self._tab = Tab(browser, own_time=self.own_time)
        try:
            opening = self.open(task, self._tab, rng)
            self._opening = opening._replace(observation=self._seen(self._tab))
            self._plan = self.plan()
            return self._opening
        except EnvError:
            self._tab = None
            raise

    def act(self, action: str) -> Outcome:
        """Carry out a command, let time pass, and judge."""
        tab = self._playing()
        if self._last.done:
            return self._last._replace(observation="The episode is over.", reward=0.0, valid=False)
        self._actions = (*self._actions, action)
        tab.dialogs.clear()
        note = ""
        try:
            perform(tab, action)
        except Refused as problem:
            note = f"{problem}\n"
        tab.pass_time(self.step_milliseconds)
        verdict = self.judge(tab)
        note += "".join(f"The page opened a dialog: {text}\n" for text in tab.dialogs)
        valid = not note or bool(tab.dialogs)
        if verdict.done:
            return Outcome("The episode is over.", *verdict, valid)
        return Outcome(note + self._seen(tab), *verdict, valid)

    def manual(self) -> str:
        """Commands and answers."""
        return (
            "You work in a web browser.\n"
            f"{MANUAL}\n"
            "Each turn answers with the page: a line for every element, such as "
            '`[3] button "Submit"`, and for every text.'
        )

    def admissible(self) -> tuple[str, ...]:
        """A click on every element, and waiting; there are more commands."""
        if self._tab is None or self._last.done:
            return ()
        return tuple(sorted([*(f"click {number}" for number in self._elements), "wait"]))

    def oracle(self) -> tuple[str, ...] | None:
        """What is left of the plan, as long as it was followed."""
        done = len(self._actions)
        if self._plan is None or self._last.done or self._actions != self._plan[:done]:
            return None
        return self._plan[done:]

    def missing(self) -> str:
        """How to install the browser."""
        try:
            find_chromium()
        except MissingExtra as problem:
            return str(problem)
        return ""

    def fork(self) -> Self:
        """An environment with a window of its own, where the actions are repeated.

        Raises:
            EnvError: The page then shows something else.
        """
        other = self.shallow_copy()
        other._tab, tab = None, self._tab
        if tab is None:
            return other
        rng = np.random.default_rng(0)
        rng.bit_generator.state = self._seed_state
        other._opening = other.start(self.task_id, rng)
        other._last = Outcome(other._opening.observation)
        for action in self._actions:
            other._last = other.act(action)
        if other._last.observation != self._last.observation:
            raise EnvError(
                f"the page of {self.task_id} did not come to the same state when its "
                f"{len(self._actions)} actions were repeated, so it cannot be forked"
            )
        return other

    def close(self) -> None:
        """Close the window."""
        if self._tab is not None:
            self._tab.close()
            self._tab = None

    def _playing(self) -> Tab:
        if self._tab is None:
            raise EnvError("no page is open; call reset() first")
        return self._tab

    def _seen(self, tab: Tab) -> str:
        shown = tab.snapshot(self.hidden, boxes=self.boxes)
        self._elements = shown.elements
        if len(shown.text) <= LONGEST:
            return shown.text
        return f"{shown.text[:LONGEST]}\n(The page continues; {len(shown.text)} characters in all.)"
