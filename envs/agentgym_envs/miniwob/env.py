"""MiniWoB++ in a real browser, after Liu et al. 2018 (arXiv:1802.08802) and Shi et al. 2017."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from agentgym.browser import BrowserEnv, Tab
from agentgym.browser.env import Verdict
from agentgym.env.base import Opening, one_of, unknown_split, unknown_task
from agentgym.errors import ConfigError, MissingExtra, did_you_mean
from agentgym_envs.miniwob.oracle import ORACLES, plan

ENV = "agentgym/MiniWoB-v0"
_SEEDS = {"train": 0, "valid": 1_000_000, "test": 2_000_000}
"""Split -> its first seed."""
NO_LIMIT = 10**9
"""Milliseconds of an episode where only turns count."""
READY = 20
"""Times 50 ms that a page may take to become ready, as in the package."""


class MiniWoB(BrowserEnv):
    """Click, type, select and drag on a small page, as its task says.

    Pages, tasks and rewards are those of the package ``miniwob``; the browser is a real one. A
    task id such as ``click-test-2000003`` names page and seed, and the seed fixes the instance: the
    same as the package's ``reset(seed=2000003)``.

    Rewards: ``success`` is 1 where the page's raw reward is 1; ``raw`` is the page's reward without
    its decay over time, from -1 to 1; ``published`` has the decay and the page's time limit, in the
    page's own time, of which every action takes ``step_milliseconds``.
    """

    hidden = "#reward-display, #sync-task-cover, #click-canvas"
    boxes = True

    def __init__(
        self,
        *,
        pages: str = "oracle",
        reward: Literal["success", "raw", "published"] = "success",
        train_tasks: int = 2048,
        valid_tasks: int = 128,
        test_tasks: int = 256,
        **kwargs: Any,
    ) -> None:
        """Make the environment.

        Args:
            pages: ``all``, ``oracle`` (those that an oracle solves), or names joined by commas.
            reward: See the class.
            train_tasks: Tasks in the split ``train``; pages take turns.
            valid_tasks: Tasks in the split ``valid``.
            test_tasks: Tasks in the split ``test``.
            **kwargs: See ``BrowserEnv`` and ``TextEnv``.

        Raises:
            ConfigError: A page or another value is unknown.
            MissingExtra: The package ``miniwob`` is not installed.
        """
        super().__init__(**kwargs)
        one_of("reward", reward, ("success", "raw", "published"))
        self.reward = reward
        self.pages = _chosen(pages)
        self._sizes = {"train": train_tasks, "valid": valid_tasks, "test": test_tasks}
        self._page = ""

    def tasks(self, split: str) -> tuple[str, ...]:
        """Pages take turns, seeds count up."""
        if split not in _SEEDS:
            raise unknown_split(ENV, split, tuple(_SEEDS))
        first, pages = _SEEDS[split], self.pages
        return tuple(f"{pages[n % len(pages)]}-{first + n}" for n in range(self._sizes[split]))

    def open(self, task: str, tab: Tab, rng: np.random.Generator) -> Opening:
        """Load the page and begin its task; the task alone decides the instance."""
        page, _, seed = task.rpartition("-")
        plain = seed.isascii() and seed.isdecimal() and len(seed) < 9 and str(int(seed)) == seed
        if not (plain and page in all_pages()):
            raise unknown_task(ENV, task, self.tasks("train")[:8])
        self._page = page
        tab.goto((folder() / f"{page}.html").as_uri())
        limit = "core.EPISODE_MAX_TIME" if self.reward == "published" else NO_LIMIT
        tab.evaluate(
            f"core.EPISODE_MAX_TIME = {limit}; Math.seedrandom({seed}); core.startEpisodeReal()"
        )
        for _ in range(READY):
            tab.pass_time(50)
            if tab.evaluate("WOB_TASK_READY"):
                break
        said = tab.evaluate("core.getUtterance()")
        # Some pages also name the fields of the task.
        return Opening("", said["utterance"] if isinstance(said, dict) else said, page)

    def judge(self, tab: Tab) -> Verdict:
        """The verdict of the page."""
        done, raw, decayed = tab.evaluate(
            "[WOB_DONE_GLOBAL, WOB_RAW_REWARD_GLOBAL, WOB_REWARD_GLOBAL]"
        )
        if not done:
            return Verdict()
        won = raw == 1
        worth = {"success": float(won), "raw": raw, "published": decayed}[self.reward]
        return Verdict(float(worth), max(0.0, min(1.0, float(raw))), won, done=True)

    def manual(self) -> str:
        """Commands, and how an episode ends."""
        return (
            f"{super().manual()}\n"
            "The episode ends when the page takes your answer, right or wrong: for most tasks with "
            "the click that submits it; or at the turn limit."
        )

    def plan(self) -> tuple[str, ...] | None:
        """Commands for the pages in ``ORACLES``."""
        return plan(self._page, self._opening.goal, self._opening.observation)


def folder() -> Path:
    """Where the pages are.

    Raises:
        MissingExtra: The package is not installed.
    """
    found = importlib.util.find_spec("miniwob")
    if found is None or not found.submodule_search_locations:
        raise MissingExtra(f'{ENV} needs its pages: pip install "agentic-gym[miniwob]"')
    return Path(found.submodule_search_locations[0]) / "html" / "miniwob"


@cache
def all_pages() -> tuple[str, ...]:
    """Names of all pages."""
    return tuple(sorted(path.stem for path in folder().glob("*.html")))


def _chosen(pages: str) -> tuple[str, ...]:
    known = all_pages()
    if pages == "all":
        return known
    if pages == "oracle":
        return tuple(page for page in known if page in ORACLES)
    names = tuple(name.strip() for name in pages.split(","))
    for name in names:
        if name not in known:
            raise ConfigError(
                f"pages: there is no page {name!r}.{did_you_mean(name, known)} "
                f"`all` and `oracle` are groups"
            )
    return names
