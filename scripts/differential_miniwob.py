"""Every page of MiniWoB++ as the package's own environment begins it, and as the world does.

    .venv/bin/python scripts/differential_miniwob.py [--pages click-test login-user ...]

For one task of each page that the package registers: the goal must be the same, and every text of
the package's elements must be shown. Takes two minutes; needs the extra `miniwob`, Chromium and its
driver. The verdicts are compared by `tests/test_browser.py`.
"""

from __future__ import annotations

import argparse
import sys

from miniwob_package import PackageTask, registered

from agentgym_envs.miniwob.env import MiniWoB


def differences(world: MiniWoB, task: str) -> list[str]:
    """What the package says of a task, and the world does not."""
    package = PackageTask(task)
    try:
        package.begin()
    finally:
        package.close()
    observation, info = world.reset(seed=0, options={"task": task})
    goal, shown = package.goal, " ".join(observation.split())
    found = [] if goal == info["goal"] else [f"goal {goal!r}, here {info['goal']!r}"]
    return found + [f"not shown: {text!r}" for text in package.texts if text not in shown]


def main() -> int:
    """Compare, a line per page; 1 if any differs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pages", nargs="*", help="their names; all unless given")
    pages = parser.parse_args().pages
    world = MiniWoB(pages=",".join(pages) if pages else "all")
    compared = differing = 0
    for task in world.tasks("test")[: len(world.pages)]:
        if not registered(task.rpartition("-")[0]):
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
