"""Starting, resuming and extending a run: what `agentgym train` and ``agentgym.train`` share."""

from __future__ import annotations

import json
import time
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

from agentgym.algorithm import Algorithm
from agentgym.distributed.process_group import join
from agentgym.errors import CannotWrite, ConfigError
from agentgym.experiment.cluster import ClusterRun, check_cluster, run_on_cluster
from agentgym.experiment.job import Result, run_blocking, run_info
from agentgym.experiment.parts import RunParts
from agentgym.experiment.plan import Plan, load_plan
from agentgym.experiment.preflight import check
from agentgym.experiment.presets import advice
from agentgym.experiment.ranks import follow, lead
from agentgym.experiment.result import TrainResult
from agentgym.experiment.run_folder import RunFolder
from agentgym.experiment.sources import Objects, check_objects, source_of, with_turn_limit
from agentgym.settings import Experiment
from agentgym.utils.jsonl import write_atomic
from agentgym.utils.progress import Display
from agentgym.utils.versions import versions

CHANGEABLE = ("steps", "max_env_steps", "save_every", "save_async", "track", "cluster")
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

    Under torchrun every rank calls this with the same plan; rank 0 runs the stages.

    Raises:
        ConfigError: The folder is taken or in use, or the plan does not fit; nothing is written.
    """
    check_objects(plan.experiment, objects or Objects())
    experiment = with_turn_limit(plan.experiment, source_of(plan.experiment, objects))
    plan = replace(plan, experiment=experiment)
    root = resume or out or _new_folder(plan)
    begin = partial(_begin, plan, root, resumed=resume is not None, previous=previous)
    if experiment.cluster.address is None:
        return begin(display=display, objects=objects)
    check_cluster(experiment, objects)
    return run_on_cluster(experiment.cluster, RunFolder(root), begin, _continue, display)


def _begin(
    plan: Plan,
    root: Path,
    *,
    resumed: bool,
    previous: Plan | None,
    display: Display,
    objects: Objects | None = None,
) -> TrainResult:
    """Run a plan in this process, as one rank of it where there are several."""
    experiment = plan.experiment
    algorithm = plan.algo.build(run_info(experiment))
    ranks = join()
    folder = RunFolder(root if ranks is None else ranks.broadcast(root))
    if ranks is not None and not ranks.lead:
        parts = RunParts(experiment, folder, Display(), objects=objects or Objects())
        result = follow(ranks, parts, algorithm)
    else:

        def stages() -> Result:
            _refuse_taken(folder, resumed=resumed)
            check(experiment, trains=True, objects=objects, algorithm=algorithm)
            _write_settings(folder, plan, previous, resumed=resumed)
            display.say(f"run folder: {folder.root}")
            for line in advice(experiment):
                display.say(f"warning: {line}")
            placed = experiment.cluster.address is not None
            cluster = ClusterRun(plan, folder, display.say) if placed else None
            return _run(experiment, algorithm, folder, display, objects, cluster)

        result = lead(ranks, stages)
    return TrainResult(result.before, result.after, folder.root)


def _continue(root: Path, *, display: Display) -> TrainResult:
    """Continue a run in this process, with the settings of its folder."""
    plan = load_plan(RunFolder(root).config)
    return _begin(plan, root, resumed=True, previous=plan, display=display)


def _refuse_taken(folder: RunFolder, *, resumed: bool) -> None:
    if not resumed and folder.config.exists():
        raise ConfigError(
            f"{folder.root} holds a run: `agentgym train --resume {folder.root}` continues it"
        )


def _write_settings(folder: RunFolder, plan: Plan, previous: Plan | None, *, resumed: bool) -> None:
    with folder.locked():
        if not resumed or _extended(folder, plan, previous):
            write_atomic(folder.config, plan.dump())
        write_atomic(folder.versions, json.dumps(versions(), indent=1))


def _run(
    experiment: Experiment,
    algorithm: Algorithm,
    folder: RunFolder,
    display: Display,
    objects: Objects | None,
    cluster: ClusterRun | None,
) -> Result:
    try:
        return run_blocking(experiment, algorithm, folder, display, objects, cluster)
    except (KeyboardInterrupt, OSError, CannotWrite):
        display.say(
            f"stopped: {folder.saved()}; continue with: agentgym train --resume {folder.root}"
        )
        raise


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
