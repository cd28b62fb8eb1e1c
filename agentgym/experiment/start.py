"""Starting, resuming and extending a run: what `agentgym train` and ``agentgym.train`` share."""

from __future__ import annotations

import json
import time
from dataclasses import fields, replace
from pathlib import Path

from agentgym.errors import ConfigError
from agentgym.experiment.job import run_blocking, run_info
from agentgym.experiment.plan import Plan
from agentgym.experiment.preflight import check
from agentgym.experiment.presets import advice
from agentgym.experiment.result import TrainResult
from agentgym.experiment.run_folder import RunFolder
from agentgym.experiment.sources import Objects, check_objects, source_of, with_turn_limit
from agentgym.utils.jsonl import write_atomic
from agentgym.utils.progress import Display
from agentgym.utils.versions import versions

CHANGEABLE = ("steps", "max_env_steps", "save_every", "track")
"""Settings that a resumed run may change."""


def start(
    plan: Plan,
    *,
    out: Path | None,
    resume: Path | None,
    display: Display,
    previous: Plan | None = None,
    objects: Objects | None = None,
) -> TrainResult:
    """Run a plan in a new folder, or continue one.

    Args:
        plan: What to do; for a resumed run, with its changes.
        out: The new folder; unset: one in ``runs``.
        resume: The folder of the run to continue.
        display: Where progress is shown.
        previous: The resumed run as its folder holds it.
        objects: What the plan cannot name.

    Raises:
        ConfigError: The folder is taken or in use, or the plan does not fit; nothing is written.
    """
    check_objects(plan.experiment, objects or Objects())
    experiment = with_turn_limit(plan.experiment, source_of(plan.experiment, objects))
    plan = replace(plan, experiment=experiment)
    algorithm = plan.algo.build(run_info(plan.experiment))
    folder = RunFolder(resume or out or _new_folder(plan))
    if resume is None and folder.config.exists():
        raise ConfigError(
            f"{folder.root} holds a run: `agentgym train --resume {folder.root}` continues it"
        )
    check(experiment, trains=True, objects=objects)
    with folder.locked():
        if resume is None or _extended(folder, plan, previous):
            write_atomic(folder.config, plan.dump())
        write_atomic(folder.versions, json.dumps(versions(), indent=1))
    display.say(f"run folder: {folder.root}")
    for line in advice(experiment):
        display.say(f"warning: {line}")
    try:
        result = run_blocking(experiment, algorithm, folder, display, objects)
    except KeyboardInterrupt:
        display.say(
            f"stopped: {folder.saved()}; continue with: agentgym train --resume {folder.root}"
        )
        raise
    return TrainResult(result.before, result.after, folder.root)


def _new_folder(plan: Plan) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    name = plan.algorithm.replace(":", "-")
    return Path("runs") / f"{name}-seed{plan.experiment.seed}-{stamp}"


def _extended(folder: RunFolder, plan: Plan, previous: Plan | None) -> bool:
    """Whether a resumed run changes its settings; makes room for further steps.

    Raises:
        ConfigError: The change would make it another run.
    """
    if previous is None:
        return False
    wanted, now = plan.experiment, previous.experiment
    changed = [f.name for f in fields(wanted) if getattr(wanted, f.name) != getattr(now, f.name)]
    changed += ["algo"] if plan.algo != previous.algo else []
    other = [name for name in changed if name not in CHANGEABLE]
    if other:
        raise ConfigError(
            f"a resumed run keeps its settings, got another {', '.join(other)}: it may change "
            f"{', '.join(CHANGEABLE)}"
        )
    taken = folder.taken()
    if wanted.steps < taken:
        raise ConfigError(
            f"steps is {wanted.steps}, expected at least {taken}, which {folder.root} has taken"
        )
    if folder.final.exists() and wanted.steps > taken and changed:
        folder.archive(taken)
    return bool(changed)
