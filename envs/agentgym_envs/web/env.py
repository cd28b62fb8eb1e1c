"""Web tasks on any site, in a real browser."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from agentgym.browser import BrowserEnv, Tab
from agentgym.browser.env import Verdict
from agentgym.env.base import Opening, unknown_split, unknown_task
from agentgym.env.by_class import load_object
from agentgym.errors import ConfigError, did_you_mean
from agentgym_envs.web.shop import Shop
from agentgym_envs.web.site import Server, Site
from agentgym_envs.web.tickets import Tickets

ENV = "agentgym/Web-v0"
SITES: dict[str, type[Site]] = {"tickets": Tickets, "shop": Shop}
"""Sites that come with it."""


class Web(BrowserEnv):
    """Solve tasks on a web site: a ticket desk, the pages of WebShop, or a site of your own.

    The site runs in this process, on a loopback port of its own, with data of its own; the agent
    works on its pages in a real browser, and the site's data decides whether the task is solved.
    """

    own_time = False

    def __init__(self, *, site: str = "tickets", **kwargs: Any) -> None:
        """Make the environment.

        Args:
            site: ``tickets``, ``shop``, or a class of your own as ``file.py:ClassName``.
            **kwargs: See ``BrowserEnv`` and ``TextEnv``.

        Raises:
            ConfigError: There is no such site.
        """
        super().__init__(**kwargs)
        self._kind = _site(site)
        self.site = self._kind()
        self._server: Server | None = None

    def tasks(self, split: str) -> Sequence[str]:
        """Those of the site."""
        try:
            return tuple(self.site.tasks(split))
        except LookupError:
            raise unknown_split(ENV, split, ("train", "valid", "test")) from None

    def open(self, task: str, tab: Tab, rng: np.random.Generator) -> Opening:
        """Reset the site and show its first page."""
        if self._server is None:
            self._server = Server(self.site.app)
            weakref.finalize(self, self._server.close)
        try:
            goal = self.site.begin(task, rng)
        except LookupError:
            raise unknown_task(ENV, task, self.tasks("train")[:8]) from None
        tab.goto(self._server.url + "/")
        return Opening("", goal.text, goal.task_type)

    def judge(self, tab: Tab) -> Verdict:
        """The verdict of the site."""
        return self.site.check(tab)

    def plan(self) -> tuple[str, ...] | None:
        """The site's."""
        return self.site.oracle()

    def shallow_copy(self) -> Self:
        """A copy with a site of its own."""
        other = super().shallow_copy()
        other.site, other._server = self._kind(), None
        return other


def _site(name: str) -> type[Site]:
    if name in SITES:
        return SITES[name]
    if ":" not in name:
        raise ConfigError(
            f"site: there is no site {name!r}.{did_you_mean(name, SITES)} Sites: "
            f"{', '.join(SITES)}, or a class of your own as `file.py:ClassName`"
        )
    found = load_object(name)
    if not (isinstance(found, type) and issubclass(found, Site)):
        raise ConfigError(f"site: {name} is not a subclass of agentgym_envs.web.site.Site")
    return found
