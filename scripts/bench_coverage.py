"""How often nominal 95 % intervals hold, by simulation, and the bias of pass@k.

    scripts/bench coverage [--panels 2000] [--own-panels 10000] [--draws 500]

Chances of success are drawn per task from beta distributions: uniform, U-shaped, hard, middling,
very hard, easy. A panel of M tasks is played n times each, and each method gives its interval for
the mean over all tasks of the kind. The tables are those of docs/how-to/intervals.md.

The interval of reports is also measured kind by kind, once with one truth for all panels of a kind,
and once with a truth of its own for every panel, near that of the kind. With one truth the coverage
of a count, which is a step function of the truth, is measured at one point of a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import exp, lgamma, sqrt
from typing import NamedTuple

import numpy as np
import tyro

from agentgym.evaluation.stats.bootstrap import bootstrap_mean
from agentgym.evaluation.stats.intervals import Floats, Interval, difference_interval, mean_interval
from agentgym.evaluation.stats.passes import pass_at_k
from agentgym.evaluation.stats.seeds import difference_over_seeds
from agentgym.evaluation.stats.student import student_t

SHAPES = ((1.0, 1.0), (0.5, 0.5), (0.3, 1.2), (2.0, 6.0), (0.2, 3.0), (4.0, 1.0))
SIZES = (32, 64, 128, 512)
PLAYS = ((1, 1), (4, 1), (4, 4), (8, 4), (16, 1), (16, 16))
UNIT = (0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Size of the simulation."""

    panels: int = 2000
    """Panels of each kind for the comparison of methods."""
    own_panels: int = 10_000
    """Panels of each kind for the interval of reports; 95 % then lie within 0.43 % of the truth."""
    draws: int = 500
    """Bootstrap resamples of each panel."""
    seed: int = 0


class Cell(NamedTuple):
    """One kind of panel, and how often each method held."""

    tasks: int
    truth: float
    held: dict[str, float]


class Kind(NamedTuple):
    """How often the interval of reports held on one kind of panel."""

    tasks: int
    shape: tuple[float, float]
    plays: tuple[int, int]
    truth: float
    held: float

    @property
    def usual(self) -> bool:
        """The truth is not at an end."""
        return 0.05 <= self.truth <= 0.95

    @property
    def inside(self) -> bool:
        """It holds in 94 to 96 %."""
        return 0.94 <= self.held <= 0.96


VARIED = 0.2
"""Half the range of the logarithms of a panel's own shape around those of its kind."""

Method = Callable[[Floats], Interval]


def t_interval(values: Floats) -> Interval:
    """Mean and t times its error over tasks."""
    return mean_interval(values)


def methods(draws: int, rng: np.random.Generator) -> dict[str, Method]:
    """The methods that are compared, ours first."""
    return {
        "score (analytic)": lambda values: mean_interval(values, UNIT),
        "t": t_interval,
        "percentile (bootstrap)": lambda v: bootstrap_mean(v, rng, support=UNIT, draws=draws),
        "BCa": lambda values: bca(values, rng, draws),
        "studentised": lambda values: studentised(values, rng, draws),
    }


def bca(values: Floats, rng: np.random.Generator, draws: int) -> Interval:
    """Bias-corrected and accelerated percentiles (Efron 1987)."""
    from statistics import NormalDist

    normal, mean, count = NormalDist(), float(values.mean()), len(values)
    means = values[rng.integers(count, size=(draws, count))].mean(axis=1)
    below = float(np.clip(((means < mean).mean() + (means <= mean).mean()) / 2, 1e-3, 1 - 1e-3))
    gaps = mean - (values.sum() - values) / (count - 1)
    spread = float((gaps**2).sum())
    skew = float((gaps**3).sum()) / (6 * spread**1.5) if spread else 0.0
    ends = []
    for tail in (0.025, 0.975):
        shift = normal.inv_cdf(below) + normal.inv_cdf(tail)
        ends.append(normal.cdf(normal.inv_cdf(below) + shift / (1 - skew * shift)))
    low, high = np.quantile(means, ends)
    return Interval(mean, float(low), float(high))


def studentised(values: Floats, rng: np.random.Generator, draws: int) -> Interval:
    """Quantiles of resampled t statistics (Efron and Tibshirani 1993, section 12.5)."""
    mean, count = float(values.mean()), len(values)
    drawn = values[rng.integers(count, size=(draws, count))]
    errors = drawn.std(axis=1, ddof=1) / sqrt(count)
    kept = errors > 0
    if not kept.any():
        return Interval(mean, mean, mean)
    low, high = np.quantile((drawn.mean(axis=1)[kept] - mean) / errors[kept], [0.025, 0.975])
    error = float(values.std(ddof=1)) / sqrt(count)
    return Interval(mean, mean - float(high) * error, mean - float(low) * error)


def truth_of(shape: tuple[float, float], k: int) -> float:
    """``E[1 - (1 - p)**k]`` for p from a beta distribution."""
    a, b = shape
    return 1 - exp(lgamma(b + k) + lgamma(a + b) - lgamma(b) - lgamma(a + b + k))


def cells(options: Options) -> Iterator[Cell]:
    """Every kind of panel."""
    rng = np.random.default_rng(options.seed)
    known = methods(options.draws, rng)
    for tasks in SIZES:
        for shape in SHAPES:
            for n, k in PLAYS:
                truth = truth_of(shape, k)
                by_wins = np.array([pass_at_k(n, c, k) for c in range(n + 1)])
                held = dict.fromkeys(known, 0)
                for _ in range(options.panels):
                    values = by_wins[rng.binomial(n, rng.beta(*shape, tasks))]
                    for name, method in known.items():
                        found = method(values)
                        held[name] += found.low <= truth <= found.high
                yield Cell(tasks, truth, {m: c / options.panels for m, c in held.items()})


def kinds(options: Options, varied: float) -> Iterator[Kind]:
    """Every kind of panel with the interval of reports.

    Args:
        options: How many panels.
        varied: 0: all panels of a kind have one truth; otherwise each has its own.
    """
    rng = np.random.default_rng(options.seed + 3)
    for tasks in SIZES:
        for a, b in SHAPES:
            for n, k in PLAYS:
                by_wins = np.array([pass_at_k(n, c, k) for c in range(n + 1)])
                held, truths = 0, 0.0
                for _ in range(options.own_panels):
                    one, other = np.exp(rng.uniform(-varied, varied, 2)) * (a, b)
                    truth = truth_of((one, other), k)
                    found = mean_interval(
                        by_wins[rng.binomial(n, rng.beta(one, other, tasks))], UNIT
                    )
                    held += found.low <= truth <= found.high
                    truths += truth
                panels = options.own_panels
                yield Kind(tasks, (a, b), (n, k), truths / panels, held / panels)


def kinds_table(one: Sequence[Kind], own: Sequence[Kind]) -> Iterator[str]:
    """By tasks: mean, least and greatest coverage, and how many kinds lie in 94 to 96 %."""
    yield "| tasks | one truth | in 94 to 96 % | a truth of its own | in 94 to 96 % |"
    yield "|---|---|---|---|---|"
    for tasks in SIZES:
        row = []
        for found in (one, own):
            usual = [kind for kind in found if kind.tasks == tasks and kind.usual]
            held = [kind.held for kind in usual]
            row.append(f"{np.mean(held):.3f} ({min(held):.3f} to {max(held):.3f})")
            row.append(f"{sum(kind.inside for kind in usual)} of {len(usual)}")
        yield f"| {tasks} | " + " | ".join(row) + " |"


def outside(found: Sequence[Kind]) -> Iterator[str]:
    """Kinds that hold less or more often, and all with a truth at an end."""
    yield "| tasks | beta | (n, k) | truth | held |"
    yield "|---|---|---|---|---|"
    for kind in found:
        if not (kind.usual and kind.inside):
            yield (
                f"| {kind.tasks} | {kind.shape} | {kind.plays} | {kind.truth:.3f} "
                f"| {kind.held:.3f} |"
            )


def table(found: Sequence[Cell], names: Sequence[str]) -> Iterator[str]:
    """Mean, least and greatest coverage by tasks, where the truth is from 0.05 to 0.95."""
    yield "| tasks | " + " | ".join(names) + " |"
    yield "|---|" + "---|" * len(names)
    for tasks in SIZES:
        row = []
        for name in names:
            held = [c.held[name] for c in found if c.tasks == tasks and 0.05 <= c.truth <= 0.95]
            row.append(f"{np.mean(held):.3f} ({min(held):.2f} to {max(held):.2f})")
        yield f"| {tasks} | " + " | ".join(row) + " |"
    row = []
    for name in names:
        held = [c.held[name] for c in found if not 0.05 <= c.truth <= 0.95]
        row.append(f"{np.mean(held):.3f} ({min(held):.2f} to {max(held):.2f})")
    yield "| truth above 0.95 | " + " | ".join(row) + " |"


def bias(options: Options) -> tuple[float, float]:
    """Largest bias of pass@k, and of ``1 - (1 - c / n)**k``, over all kinds of tasks."""
    rng = np.random.default_rng(options.seed)
    worst = [0.0, 0.0]
    for shape in SHAPES:
        for n, k in (*PLAYS, (2, 2), (8, 8)):
            wins = rng.binomial(n, rng.beta(*shape, 2_000_000))
            by_wins = np.array([pass_at_k(n, c, k) for c in range(n + 1)])
            naive = 1 - (1 - np.arange(n + 1) / n) ** k
            for place, values in enumerate((by_wins, naive)):
                gap = abs(float(values[wins].mean()) - truth_of(shape, k))
                worst[place] = max(worst[place], gap)
    return worst[0], worst[1]


def paired_table(options: Options) -> Iterator[str]:
    """Differences of two on one panel: t, and percentiles of resampled tasks."""
    rng = np.random.default_rng(options.seed + 1)
    yield "| tasks | t (analytic) | percentile (bootstrap) |"
    yield "|---|---|---|"
    for tasks in SIZES:
        held: dict[str, list[float]] = {"t": [], "percentile": []}
        for shape in SHAPES[:5]:
            for n, k in ((1, 1), (4, 1), (4, 4), (16, 1)):
                counts = [0, 0]
                by_wins = np.array([pass_at_k(n, c, k) for c in range(n + 1)])
                truth = (1 - 0.8**k) * (1 - truth_of(shape, k))
                for _ in range(options.panels):
                    before, after = pair_of(shape, tasks, rng)
                    one, two = (by_wins[rng.binomial(n, p)] for p in (before, after))
                    found = difference_interval(one, two, UNIT)
                    resampled = bootstrap_mean(two - one, rng, draws=options.draws)
                    counts[0] += found.low <= truth <= found.high
                    counts[1] += resampled.low <= truth <= resampled.high
                for name, count in zip(held, counts, strict=True):
                    held[name].append(count / options.panels)
        row = (f"{np.mean(v):.3f} ({min(v):.2f} to {max(v):.2f})" for v in held.values())
        yield f"| {tasks} | " + " | ".join(row) + " |"


def pair_of(
    shape: tuple[float, float], tasks: int, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Chances of two: the second shares those of 7 in 10 tasks, and fails a fifth less often."""
    before = rng.beta(*shape, tasks)
    after = np.where(rng.random(tasks) < 0.7, before, rng.beta(*shape, tasks))
    return before, after + 0.2 * (1 - after)


def seeds_table(options: Options) -> Iterator[str]:
    """Differences over training seeds and tasks."""
    rng = np.random.default_rng(options.seed + 2)
    yield "| seeds a side | tasks and seeds (analytic) | tasks alone, seeds averaged |"
    yield "|---|---|---|"
    for seeds in (2, 3, 5, 8):
        held = [0, 0]
        total = 0
        for luck in (0.02, 0.05, 0.1):
            for tasks in (32, 128):
                for _ in range(options.panels // 2):
                    hard = rng.normal(0, 0.2, tasks)
                    arms = [
                        mean + hard + rng.normal(0, luck, (seeds, 1)) + rng.normal(0, 0.1, tasks)
                        + rng.normal(0, 0.15, (seeds, tasks))
                        for mean in (0.4, 0.5)
                    ]  # fmt: skip
                    found = difference_over_seeds(*arms).interval
                    change = arms[1].mean(axis=0) - arms[0].mean(axis=0)
                    half = student_t(tasks - 1) * float(change.std(ddof=1)) / sqrt(tasks)
                    held[0] += found.low <= 0.1 <= found.high
                    held[1] += abs(float(change.mean()) - 0.1) <= half
                    total += 1
        yield f"| {seeds} | {held[0] / total:.3f} | {held[1] / total:.3f} |"


def main(options: Options) -> None:
    """Print the tables."""
    exact, naive = bias(options)
    print(f"largest bias: pass@k {exact:.5f}, 1 - (1 - c/n)^k {naive:.5f}\n", flush=True)
    for line in seeds_table(options):
        print(line, flush=True)
    print()
    for line in paired_table(options):
        print(line, flush=True)
    print()
    one, own = list(kinds(options, 0.0)), list(kinds(options, VARIED))
    for line in kinds_table(one, own):
        print(line)
    for title, each in (("one truth", one), ("a truth of its own", own)):
        print(f"\noutside of 94 to 96 %, or at an end; {title}:")
        print("\n".join(outside(each)), flush=True)
    print()
    found = list(cells(options))
    names = list(found[0].held)
    for line in table(found, names):
        print(line)


if __name__ == "__main__":
    main(tyro.cli(Options))
