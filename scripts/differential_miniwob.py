"""Every page of MiniWoB++ as the package's own environment begins it, and as the world does.

    .venv/bin/python scripts/differential_miniwob.py [--pages click-test login-user ...]

For one task of each page that the package registers: the goal must be the same, and every text of
the package's elements must be shown. Takes two minutes; needs the extra `miniwob`, Chromium and its
driver. The verdicts are compared by `tests/test_browser.py`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from typing import Any

import gymnasium
import miniwob

from agentgym_envs.miniwob.env import MiniWoB


def words(text: str) -> str:
    """Without differences in white space."""
    return " ".join(text.split())


def differences(world: MiniWoB, task: str) -> list[str]:
    """What the package says of a task, and the world does not."""
    page, _, seed = task.rpartition("-")
    package: Any = gymnasium.make(f"miniwob/{page}-v1", disable_env_checker=True).unwrapped
    try:
        shown, _ = package.reset(seed=int(seed))
    finally:
        package.close()
    observation, info = world.reset(seed=0, options={"task": task})
    goal = shown["utterance"]
    goal = goal["utterance"] if isinstance(goal, dict) else goal
    found = [] if goal == info["goal"] else [f"goal {goal!r}, here {info['goal']!r}"]
    texts = (words(each["text"]) for each in shown["dom_elements"])
    return found + [f"not shown: {text!r}" for text in texts if text not in words(observation)]


def main() -> int:
    """Compare, a line per page; 1 if any differs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pages", nargs="*", help="their names; all unless given")
    pages = parser.parse_args().pages
    os.environ.setdefault("MINIWOB_CHROME_BINARY", shutil.which("chromium") or "")
    os.environ.setdefault("MINIWOB_CHROMEDRIVER", shutil.which("chromedriver") or "")
    gymnasium.register_envs(miniwob)
    world = MiniWoB(pages=",".join(pages) if pages else "all")
    compared = differing = 0
    for task in world.tasks("test")[: len(world.pages)]:
        if f"miniwob/{task.rpartition('-')[0]}-v1" not in gymnasium.registry:
            print(f"{task}: the package does not register it")
            continue
        found = differences(world, task)
        compared, differing = compared + 1, differing + bool(found)
        print(f"{task}: {'; '.join(found) or 'the same'}", flush=True)
    world.close()
    print(f"{compared} pages, {differing} differ")
    return int(differing > 0)


if __name__ == "__main__":
    sys.exit(main())
