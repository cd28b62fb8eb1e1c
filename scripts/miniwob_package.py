"""The environment of the package `miniwob`, driven by the commands of the world."""

from __future__ import annotations

import os
import shutil
from typing import Any

import gymnasium

from agentgym_envs.miniwob.oracle import ELEMENT

TAGS = {
    "button": ("button", "input_button", "input_submit"),
    "textbox": ("input_text", "input_password", "textarea"),
}
"""What the package calls the elements of a role."""


def registered(page: str) -> bool:
    """Whether the package has an environment of a page.

    Raises:
        ImportError: The package, or Selenium, is not installed.
    """
    import miniwob

    gymnasium.register_envs(miniwob)
    return f"miniwob/{page}-v1" in gymnasium.registry


class PackageTask:
    """A task of the world in the package's environment: a browser of its own, through Selenium.

    Raises:
        ImportError: The package, or Selenium, is not installed.
        LookupError: The package has no environment of the page.
    """

    def __init__(self, task: str) -> None:
        page, _, self._seed = task.rpartition("-")
        if not registered(page):
            raise LookupError(f"the package does not register {page}")
        os.environ.setdefault("MINIWOB_CHROME_BINARY", shutil.which("chromium") or "")
        os.environ.setdefault("MINIWOB_CHROMEDRIVER", shutil.which("chromedriver") or "")
        made = gymnasium.make(f"miniwob/{page}-v1", disable_env_checker=True)
        self._env: Any = made.unwrapped
        self._shown: dict[str, Any] = {}
        self._places: dict[str, tuple[str, int]] = {}

    def begin(self) -> None:
        """Begin the task."""
        self._shown = self._env.reset(seed=int(self._seed))[0]

    @property
    def goal(self) -> str:
        """The task in words."""
        said = self._shown["utterance"]
        return str(said["utterance"] if isinstance(said, dict) else said)

    @property
    def texts(self) -> list[str]:
        """Those of all elements, with single spaces."""
        return [" ".join(each["text"].split()) for each in self._shown["dom_elements"]]

    def match(self, observation: str) -> None:
        """Note what the numbers in an observation of the world stand for: role and place in it."""
        counts = dict.fromkeys(TAGS, 0)
        for match in ELEMENT.finditer(observation):
            if (role := match["role"]) in counts:
                self._places[match["number"]] = role, counts[role]
                counts[role] += 1

    def step(self, line: str) -> tuple[float, bool]:
        """Click or type into the element of the same role and place: raw reward, and the end."""
        from miniwob.action import ActionTypes

        name, number, *text = line.split(" ", 2)
        role, place = self._places[number]
        known = [each["ref"] for each in self._shown["dom_elements"] if each["tag"] in TAGS[role]]
        if name == "click":
            action = self._env.create_action(ActionTypes.CLICK_ELEMENT, ref=known[place])
        else:
            typed = ActionTypes.FOCUS_ELEMENT_AND_TYPE_TEXT
            action = self._env.create_action(typed, ref=known[place], text=text[0])
        self._shown, _, done, _, info = self._env.step(action)
        return (info["raw_reward"] if done else 0.0), done

    def close(self) -> None:
        """Close its browser."""
        self._env.close()
