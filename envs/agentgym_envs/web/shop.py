"""The pages of WebShop as a site: reward and score are those of the text environment."""

from __future__ import annotations

from collections.abc import Sequence
from html import unescape

import numpy as np

from agentgym.browser import Tab
from agentgym.browser.env import Verdict
from agentgym_envs.web.site import Goal, Site, document
from agentgym_envs.webshop import pages
from agentgym_envs.webshop.env import WebShop


class Shop(Site):
    """A visit to the shop; every button does what the text environment's action does."""

    def __init__(self) -> None:
        self.visit = WebShop()
        self._verdict = Verdict()

    def tasks(self, split: str) -> Sequence[str]:
        """Those of WebShop."""
        return self.visit.tasks(split)

    def begin(self, task: str, rng: np.random.Generator) -> Goal:
        """A new visit."""
        self.visit = self.visit.fork()
        self.visit.reset(seed=0, options={"task": task})
        self._verdict = Verdict()
        info = self.visit._info()
        return Goal(info["goal"], info["task_type"])

    def page(self, path: str, form: dict[str, str] | None) -> str | None:
        """The visit's page; a form is an action."""
        if form is None:
            return document("WebShop", pages.html(self.visit.nodes()))
        action = form.get("action", f"search[{form.get('query', '')}]")
        _, reward, done, _, info = self.visit.step(unescape(action))
        self._verdict = Verdict(reward, info["score"], info["won"], done)
        return None

    def check(self, tab: Tab) -> Verdict:
        """What the last action earned; paid once."""
        now, self._verdict = self._verdict, self._verdict._replace(reward=0.0)
        return now

    def oracle(self) -> tuple[str, ...] | None:
        """The text environment's plan as clicks."""
        found = self.visit.oracle()
        if found is None:
            return None
        commands: list[str] = []
        for action in found:
            kind, _, argument = action.removesuffix("]").partition("[")
            if kind == "search":
                commands += [f'type "Search..." {argument}', 'click "Search"']
            else:
                commands.append(f'click "{argument}"')
        return tuple(commands)
