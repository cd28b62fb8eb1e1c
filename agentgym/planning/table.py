"""A plan as a table, with what it assumes."""

from __future__ import annotations

import math

from agentgym.evaluation.tables import Grid
from agentgym.planning.plan import Plan, Row

CONTROLLER_SECONDS = 1.6e-3
"""CPU time of a turn in the process that plays: agent, environments' pool, HTTP (see
``scripts/bench http``)."""


def plan_table(plan: Plan, price: float | None = None) -> Grid:
    """A row per placement.

    Args:
        plan: The plan.
        price: Of a GPU for an hour; None: costs are left out.
    """
    wish = plan.wish
    costs = ("cost",) if price is not None else ()
    adapters = ", adapters" if wish.lora else ""
    return Grid(
        title=f"{wish.model}{adapters} on {wish.gpus} {wish.gpu}, {wish.steps:,} steps of "
        f"{wish.tasks} tasks x {wish.group_size} episodes",
        columns=(
            "schedule",
            "engines + trainers",
            "episodes/h",
            "turns/s",
            "trainer busy",
            "hours",
            "GPU-hours",
            *costs,
            "limit",
        ),
        rows=tuple(_row(plan, row, price) for row in plan.rows),
        notes=(*_advice(plan), *_assumptions(plan)),
    )


def _row(plan: Plan, row: Row, price: float | None) -> tuple[str, ...]:
    found, placement = row.found, row.placement
    hours = found.step_seconds * plan.wish.steps / 3600
    spent = hours * placement.gpus
    split = (
        f"{placement.engines}, shared"
        if placement.shared
        else f"{placement.engines} + {placement.trainers}"
    )
    costs = (f"{spent * price:,.0f}",) if price is not None else ()
    return (
        row.name + (" *" if row is plan.best else ""),
        split,
        f"{found.episodes_per_hour:,.0f}",
        f"{found.turns_per_second:,.0f}",
        f"{found.learning:.0%}",
        f"{hours:,.1f}",
        f"{spent:,.0f}",
        *costs,
        row.limit,
    )


def _advice(plan: Plan) -> tuple[str, ...]:
    best = plan.best
    settings = best.placement.schedule
    words = ["--schedule.kind", settings.kind]
    if settings.kind == "async":
        words += ["--schedule.max-staleness", str(settings.max_staleness)]
    words += ["--tasks-per-step", str(plan.wish.tasks)]
    words += ["--algo.group-size", str(plan.wish.group_size)]
    words += ["--rollout.concurrency", str(best.concurrency)]
    words += ["--lora.rank", "16", "--lora.sync", "adapters"] if plan.wish.lora else []
    notes = [f"* the most episodes an hour: {' '.join(words)}"]
    cores = best.found.turns_per_second * CONTROLLER_SECONDS
    if cores > 0.7:
        notes.append(
            f"{best.found.turns_per_second:,.0f} turns/s take {cores:.1f} cores of the processes "
            f"that play, so at least {math.ceil(cores / 0.7)} of them."
        )
    return tuple(notes)


def _assumptions(plan: Plan) -> tuple[str, ...]:
    wish, load = plan.wish, plan.wish.workload
    return (
        f"Assumed: {load.turns} turns of {load.read_tokens} tokens read and "
        f"{load.written_tokens} written; environments answer in {load.env_seconds:g} s, "
        f"{load.slow_share:.0%} of them in {load.slow_seconds:g} s; weights are published in "
        f"{wish.laws.publish():.1f} s. docs/how-to/scaling.md has the laws; a run of yours may "
        f"take twice as long.",
    )
