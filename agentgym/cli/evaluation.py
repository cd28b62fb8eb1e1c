"""`agentgym eval`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from agentgym.cli.parsing import parse
from agentgym.cli.training import plan_for
from agentgym.experiment.presets import pretrained_rollout
from agentgym.settings import (
    WORLD,
    AgentSettings,
    EndpointSettings,
    EngineKind,
    Experiment,
    PanelSettings,
    RolloutSettings,
    Value,
)
from agentgym.utils.progress import Display


@dataclass(frozen=True, kw_only=True)
class EvalArguments:
    """Play a frozen panel of tasks with a model and report pass@k with 95 % intervals.

    The checkpoint of a run plays what its run was evaluated on, unless options say otherwise.
    Stopping it and calling it again plays only the episodes that are missing.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Hugging Face folder, hub id or GGUF file, such as RUN/checkpoints/final."""
    env: str = WORLD
    """Registered environment id."""
    env_args: dict[str, Value] = field(default_factory=dict)
    """Keyword arguments of the world, such as `family cooking difficulty easy`."""
    out: Path = Path("panel.jsonl")
    """One JSON line per episode."""
    against: Path | None = None
    """Such a file of another model on the same panel, or RUN/eval/before.jsonl: shows the paired
    difference too."""
    engine: EngineKind = "local"
    """What samples: this process, vLLM in it, a vLLM server, or a chat endpoint."""
    server: str | None = None
    """Address of a running server, without /v1; unless given, vllm-server starts one."""
    engine_device: str | None = None
    """Where the local engine samples, such as cuda:1; a GPU where there is one, unless given."""
    seed: int = 0
    panel: PanelSettings = field(default_factory=PanelSettings)
    """Which tasks, how often."""
    rollout: RolloutSettings = field(default_factory=pretrained_rollout)
    """How episodes are played."""
    agent: AgentSettings = field(default_factory=AgentSettings)
    """How the agent reads and writes."""
    endpoint: EndpointSettings = field(default_factory=EndpointSettings)
    """How a chat endpoint is used."""


def _of_run(words: Sequence[str]) -> EvalArguments | None:
    """How the run was evaluated of which a checkpoint is named; None where none is."""
    from agentgym.experiment.run_folder import RunFolder

    for word in words:
        if (folder := RunFolder.of_checkpoint(Path(word))) is not None:
            run = plan_for(None, folder.config)
            # The arguments of one world mean nothing to another.
            other = any(flag.partition("=")[0] == "--env" for flag in words)
            return EvalArguments(
                model=word,
                env=run.env,
                env_args={} if other else run.env_args,
                seed=run.seed,
                panel=run.panel,
                rollout=run.rollout,
                agent=run.agent,
            )
    return None


def evaluate(arguments: list[str]) -> int:
    """``eval MODEL [options]``."""
    options = parse(EvalArguments, arguments, prog="agentgym eval", default=_of_run(arguments))
    from agentgym.evaluation.evaluate import read_report
    from agentgym.evaluation.report import render
    from agentgym.experiment.job import evaluate_blocking
    from agentgym.experiment.preflight import check

    experiment = Experiment(
        env=options.env,
        env_args=options.env_args,
        model=options.model,
        engine=options.engine,
        server=options.server,
        engine_device=options.engine_device,
        seed=options.seed,
        rollout=options.rollout,
        agent=options.agent,
        panel=options.panel,
        endpoint=options.endpoint,
    )
    check(experiment)
    before = None if options.against is None else read_report(options.against)
    display = Display(Console())
    try:
        report = evaluate_blocking(experiment, options.out, display, before)
    except KeyboardInterrupt:
        display.say("stopped; the same command plays what is missing")
        return 130
    display.say(render(report, before))
    display.say(f"episodes: {options.out}")
    return 0
