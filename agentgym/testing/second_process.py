"""The check that a second process, with another hash seed, plays the same episodes."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
from gymnasium.envs.registration import EnvSpec

from agentgym.env.base import SPLITS
from agentgym.env.panel import panel_of
from agentgym.settings import CheckSettings
from agentgym.testing.findings import Skipped
from agentgym.testing.harness import Harness
from agentgym.testing.steps import Step, Walk

_START = "from agentgym.testing.second_process import main; main()"
_PATIENCE = 300
"""Seconds the second process may take."""
_UNKNOWN = 3
"""Exit status of a process that cannot find the environment's code."""


class Job(NamedTuple):
    """Work of the second process."""

    env: str
    spec: EnvSpec | None
    """How it was registered; None for ``file.py:ClassName``, which needs no registration."""
    kwargs: dict[str, Any]
    walks: tuple[Walk, ...]


class Result(NamedTuple):
    """Its results."""

    digests: tuple[str, ...]
    """Of the panels of the splits."""
    answers: tuple[tuple[Step, ...], ...]


def second_process_agrees(harness: Harness) -> str:
    """Panels and episodes are the same in a process of its own."""
    walks = harness.recorded()
    result = _play_there(harness, walks)
    env = harness.make()
    for split, digest in zip(harness.splits(env), result.digests, strict=True):
        harness.require(
            panel_of(harness.id, env, split).digest == digest,
            f"a second process lists {split!r} differently: the order of a set of texts, or of a "
            f"folder, is another in each process; sort it in `tasks`",
        )
    for walk, answers in zip(walks, result.answers, strict=True):
        harness.same(
            answers,
            walk.steps,
            f"task {walk.task!r} went differently in a second process: sort sets before they are "
            f"shown, and use neither hash() nor id()",
        )
    return f"{sum(len(walk.actions) for walk in walks)} steps, {len(SPLITS)} panels"


def _play_there(harness: Harness, walks: tuple[Walk, ...]) -> Result:
    known = gymnasium.registry.get(harness.id)
    try:
        job = pickle.dumps(Job(harness.id, known, harness.kwargs, walks))
    except Exception:
        raise Skipped(
            "a second process cannot import the environment: register it as 'module:Class'"
        ) from None
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    path = os.pathsep.join(filter(None, sys.path))
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder, "job"), Path(folder, "result")
        given.write_bytes(job)
        try:
            done = subprocess.run(
                [sys.executable, "-c", _START, str(given), str(made)],
                env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path},
                capture_output=True,
                text=True,
                timeout=_PATIENCE,
            )
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{harness.id}: a second process did not play {len(walks)} episodes "
                f"in {_PATIENCE} s"
            ) from None
        if done.returncode == _UNKNOWN:
            raise Skipped("a second process cannot import the environment: move it into a module")
        last = (done.stderr.strip() or "nothing on stderr").splitlines()[-1]
        harness.require(made.exists(), f"a second process could not play it: {last}")
        result = pickle.loads(made.read_bytes())
    assert isinstance(result, Result)
    return result


def main() -> None:
    """What the second process runs: read a job, play, write a result."""
    given, made = map(Path, sys.argv[1:])
    try:
        job = pickle.loads(given.read_bytes())
    except (ImportError, AttributeError):
        raise SystemExit(_UNKNOWN) from None
    if job.spec is not None:
        gymnasium.registry.setdefault(job.env, job.spec)
    harness = Harness(job.env, job.kwargs, CheckSettings())
    env = harness.make()
    harness.promises = env.promises
    digests = tuple(panel_of(harness.id, env, split).digest for split in harness.splits(env))
    # A walk may hold answers that this process is to be the first to give.
    answers = tuple(tuple(harness.replay(env, walk)) for walk in job.walks)
    harness.close()
    made.write_bytes(pickle.dumps(Result(digests, answers)))
