"""`agentgym plan`."""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.console import Console

from agentgym.cli.parsing import parse
from agentgym.errors import ConfigError
from agentgym.planning.workload import Workload
from agentgym.utils.progress import Display


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """Show how fast training would be on a number of GPUs, and how to divide them.

    Ways to call it:
        agentgym plan --model 7B --gpus 8
        agentgym plan --model 7B --gpus 64 --price 2.5 --steps 300
        agentgym plan --model 7B --gpus 1 --lora
        agentgym plan --gpus 8 --workload.turns 50 --workload.env-seconds 2

    The schedules of training run in virtual time, with laws for how long decoding, reading prompts,
    learning and publishing take; no model is loaded and no GPU is needed.
    """

    model: str = "7B"
    """Size of the model: 0.5B, 1.5B, 3B, 7B, 8B, 14B, 32B or 72B."""
    gpus: int = 8
    """GPUs in all, for sampling and training."""
    gpu: str = "H100"
    """Kind of GPU: A100, B200, H100, H200, L40S or RTX4090."""
    lora: bool = False
    """Train adapters instead of all weights."""
    steps: int = 200
    """Training steps of the run."""
    tasks_per_step: int | None = None
    """Tasks of a training step; unset: 8 per GPU, at least 16."""
    group_size: int = 8
    """Episodes of a task."""
    price: float | None = None
    """Price of a GPU for an hour; adds the cost."""
    workload: Workload = field(default_factory=Workload)
    """What episodes are like."""


def plan(arguments: list[str]) -> int:
    """``plan [options]``."""
    options = parse(PlanOptions, arguments, prog="agentgym plan")
    from agentgym.planning.plan import Wish, make_plan
    from agentgym.planning.table import plan_table

    if options.price is not None and not 0 <= options.price < float("inf"):
        raise ConfigError(f"price is {options.price}, expected at least 0")
    wish = Wish(
        model=options.model,
        gpus=options.gpus,
        gpu=options.gpu,
        lora=options.lora,
        steps=options.steps,
        group_size=options.group_size,
        tasks_per_step=options.tasks_per_step,
        workload=options.workload,
    )
    errors = Display(Console(stderr=True))
    found = make_plan(wish, errors.say)
    Display(Console()).say(plan_table(found, options.price).text(width=100))
    return 0
