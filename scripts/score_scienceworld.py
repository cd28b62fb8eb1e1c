"""How the gold actions and a random player do on a sample of ScienceWorld's test tasks.

    .venv/bin/python scripts/score_scienceworld.py [TASKS] [SIMPLIFY]

TASKS (default 60) are the first of the default test panel, which takes turns with the 30 names;
SIMPLIFY is `easy` by default. The random player draws 50 times from the valid actions. Success
and score are given with 95 % bootstrap intervals over tasks.
"""

from __future__ import annotations

import sys

import numpy as np

from agentgym.env import TextEnv
from agentgym.registry import world
from agentgym.stats import bootstrap_mean

TURNS = 50


def gold(env: TextEnv) -> tuple[float, float, int]:
    """Success, score and number of actions of the gold list."""
    plan = env.oracle() or ()
    info = {"won": False, "score": 0.0}
    for line in plan:
        *_, info = env.step(line)
    return float(info["won"]), info["score"], len(plan)


def random_player(env: TextEnv, rng: np.random.Generator) -> tuple[float, float]:
    """Success and last score after up to TURNS valid actions drawn evenly."""
    for _ in range(TURNS):
        allowed = env.admissible()
        _, _, done, _, info = env.step(allowed[int(rng.integers(len(allowed)))])
        if done:
            break
    return float(info["won"]), info["score"]


def main(count: int, simplify: str) -> None:
    """Play and print."""
    env = world("agentgym/ScienceWorld-v0", simplify=simplify)
    golds, randoms = [], []
    rng = np.random.default_rng(0)
    for task in env.tasks("test")[:count]:
        env.reset(options={"task": task})
        golds.append(gold(env))
        env.reset(options={"task": task})
        randoms.append(random_player(env, rng))
        print(task, golds[-1], randoms[-1], flush=True)
    env.close()
    for who, rows in (("gold", golds), ("random", randoms)):
        for what, column in (("success", 0), ("score", 1)):
            values = [row[column] for row in rows]
            mean = bootstrap_mean(values, np.random.default_rng(0), support=(0.0, 1.0))
            print(f"{who} {what}: {mean.value:.3f} [{mean.low:.3f}, {mean.high:.3f}]")
    lengths = sorted(row[2] for row in golds)
    print(f"gold actions: median {lengths[len(lengths) // 2]}, longest {lengths[-1]}")


if __name__ == "__main__":
    chosen = sys.argv[1:]
    main(int(chosen[0]) if chosen else 60, chosen[1] if len(chosen) > 1 else "easy")
