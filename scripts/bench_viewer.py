"""Size and first paint of the viewer's page: 1,000 episodes with tokens, in headless Chromium.

    scripts/bench viewer [EPISODES]

The episodes are random words, which compress worse than those of an agent. Needs Debian's packages
chromium and chromium-driver, and selenium of the extra dev.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
from pathlib import Path

from selenium import webdriver

from agentgym.evaluation.record_files import append
from agentgym.evaluation.records import EpisodeRecord
from agentgym.types import Completion, Stop, Task, Trajectory, Turn
from agentgym.viewer.page import bundle
from agentgym.viewer.source import load

TURNS, TOKENS, WORDS = 20, 12, 25
"""Per episode, per completion, per observation."""
VISITS = 5


def words(rng: random.Random, count: int) -> str:
    """Random words of a vocabulary of 2,000."""
    return " ".join(f"w{rng.randrange(2000)}" for _ in range(count))


def episode(number: int, rng: random.Random) -> EpisodeRecord:
    """One random episode."""
    turns = []
    for _ in range(TURNS):
        tokens = tuple(rng.randrange(2000) for _ in range(TOKENS))
        logprobs = tuple(-rng.expovariate(1) for _ in range(TOKENS))
        entropies = tuple(rng.expovariate(1) for _ in range(TOKENS))
        drawn = Completion(tokens, logprobs, entropies)
        turns.append(Turn((1,) * 30, drawn, words(rng, 4), words(rng, WORDS), 0.0))
    task = Task("bench/Words-v0", f"task-{number // 8}", 0)
    won = rng.random() < 0.4
    played = Trajectory(
        task, number % 8, words(rng, 10), words(rng, 40), tuple(turns), Stop.TERMINATED, won=won
    )
    return EpisodeRecord.of(played, decode=lambda ids: "".join(f"w{token} " for token in ids))


def first_paint(target: Path, profile: Path) -> list[float]:
    """Seconds until the first paint with content, of several visits."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={profile}")
    browser = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    code = "return performance.getEntriesByName('first-contentful-paint').map(e => e.startTime)[0]"
    found = []
    for _ in range(VISITS):
        browser.get("about:blank")
        browser.get(target.as_uri())
        assert browser.execute_script("return document.querySelectorAll('#rows tr').length") > 1
        found.append(float(browser.execute_script(code)) / 1000)
    browser.quit()
    return found


def main() -> None:
    """Write, measure, print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        records, target = Path(folder) / "episodes.jsonl", Path(folder) / "page.html"
        for number in range(count):
            append(records, episode(number, rng))
        size = bundle(load([records]), target, "bench")
        paints = sorted(first_paint(target, Path(folder) / "profile"))
    print(
        f"{count} episodes, {count * TURNS * TOKENS:,} tokens: {size / 2**20:.1f} MiB; first paint "
        f"{paints[len(paints) // 2]:.2f} s (median of {VISITS}), {paints[-1]:.2f} s (slowest)"
    )


if __name__ == "__main__":
    main()
