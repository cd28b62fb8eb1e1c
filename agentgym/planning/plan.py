"""Placements of a model on a number of GPUs, compared by simulation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from agentgym.errors import ConfigError
from agentgym.planning.laws import Laws, gpu_named, model_size
from agentgym.planning.simulate import Placement, Simulated, Training, simulate
from agentgym.planning.workload import Workload
from agentgym.settings import ScheduleSettings
from agentgym.utils.bounds import at_least

TASKS_PER_GPU = 8
"""Tasks of a training step by default, but no fewer than ``FEWEST_TASKS``."""
FEWEST_TASKS = 16
BUSY = 0.9
"""Share of the time from which the trainer is what limits a run."""

Limit = Literal["trainer", "publishing", "engines", "environments"]


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is to be trained, on what."""

    section: ClassVar[str] = ""

    model: str
    """Size, such as 7B."""
    gpus: int
    gpu: str
    """Kind of GPU, such as H100."""
    lora: bool
    steps: int
    """Training steps of the run."""
    group_size: int
    tasks_per_step: int | None
    workload: Workload

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        at_least(1, self, "gpus", "steps", "tasks_per_step")
        at_least(2, self, "group_size")

    @property
    def laws(self) -> Laws:
        """Of the model on this GPU."""
        return Laws(model_size(self.model), gpu_named(self.gpu), self.lora)

    @property
    def tasks(self) -> int:
        """Per training step."""
        return self.tasks_per_step or max(FEWEST_TASKS, TASKS_PER_GPU * self.gpus)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One placement, and what it gives."""

    name: str
    placement: Placement
    concurrency: int
    """Episodes in flight for which the caches of the engines have room."""
    found: Simulated

    @property
    def limit(self) -> Limit:
        """What saturates first."""
        found = self.found
        sampling = 1 - found.learning - found.publishing
        waits = self.placement.schedule.kind == "sync"
        if sampling > (max(found.learning, found.publishing) if waits else 1 - BUSY):
            return "environments" if found.env_share > 0.5 else "engines"
        return "publishing" if found.publishing > found.learning else "trainer"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All placements, and the one with the most episodes an hour."""

    wish: Wish
    rows: tuple[Row, ...]

    @property
    def best(self) -> Row:
        """The recommended one."""
        return max(self.rows, key=lambda row: row.found.episodes_per_hour)


def make_plan(wish: Wish, report: Callable[[str], None] = lambda line: None) -> Plan:
    """Simulate the placements that fit.

    Args:
        wish: What is to be trained.
        report: Called with a line before each simulation.

    Raises:
        ConfigError: The model or the GPU is not known, or the model does not fit.
    """
    laws = wish.laws
    _check_memory(wish, laws)
    rows = []
    for name, placement in _placements(wish, laws):
        report(f"simulating {name}, {_split(placement)}")
        concurrency = _concurrency(wish, laws, placement)
        training = Training(
            laws=laws,
            workload=wish.workload,
            tasks_per_step=wish.tasks,
            group_size=wish.group_size,
            concurrency=concurrency,
        )
        found = simulate(training, placement)
        rows.append(Row(name=name, placement=placement, concurrency=concurrency, found=found))
    return Plan(wish=wish, rows=tuple(rows))


def _split(placement: Placement) -> str:
    return f"{placement.engines} engines and {placement.trainers} trainers"


def _check_memory(wish: Wish, laws: Laws) -> None:
    needed = laws.fewest_trainers()
    if laws.cached_tokens() < wish.workload.tokens:
        raise ConfigError(
            f"an engine for {wish.model} needs more memory than one {wish.gpu} has: choose a "
            f"smaller model or a GPU with more memory (`--gpu`)"
        )
    if needed > wish.gpus:
        advice = "" if wish.lora else ", or train adapters (`--lora`)"
        raise ConfigError(
            f"gpus is {wish.gpus}, expected at least {needed} {wish.gpu} to train "
            f"{wish.model}{advice}"
        )


def _placements(wish: Wish, laws: Laws) -> Iterator[tuple[str, Placement]]:
    """All GPUs in turn; then separate ones, with enough engines for balance, and with more.

    On average balance is enough, but a group ends with its longest episode.
    """
    one = ScheduleSettings(kind="async", max_staleness=1)
    yield (
        "sync",
        Placement(schedule=ScheduleSettings(), engines=wish.gpus, trainers=wish.gpus, shared=True),
    )
    most = wish.gpus - laws.fewest_trainers()
    if most < 1:
        return
    balanced, step = _balanced(wish, laws), max(1, wish.gpus // 16)
    tried = sorted({min(most, balanced + k * step) for k in range(3)})
    for engines in tried:
        split = Placement(schedule=one, engines=engines, trainers=wish.gpus - engines)
        yield "async(1)", split
    engines = tried[len(tried) // 2]
    middle = Placement(schedule=one, engines=engines, trainers=wish.gpus - engines)
    yield "async(2)", replace(middle, schedule=replace(one, max_staleness=2))
    yield "one-step-off", replace(middle, schedule=ScheduleSettings(kind="one-step-off"))


def _balanced(wish: Wish, laws: Laws) -> int:
    """Engines that sample about as many episodes as the other GPUs learn from."""
    load = wish.workload
    learning = laws.training(load.tokens, 1)
    engines = wish.gpus / 2
    for _ in range(20):
        together = min(2 * wish.tasks * wish.group_size / engines, _room(load, laws))
        decoding = laws.decoding_step(together * load.half_played) / together
        reading = laws.prefill(load.opening_tokens + load.turns * load.read_tokens)
        sampling = load.turns * load.written_tokens * decoding + reading
        engines = wish.gpus * sampling / (sampling + learning)
    return max(1, round(engines))


def _room(load: Workload, laws: Laws) -> float:
    """Episodes for which the cache of one engine has room."""
    return laws.cached_tokens() / load.half_played


def _concurrency(wish: Wish, laws: Laws, placement: Placement) -> int:
    """Episodes in flight at once: what is asked for, and what the caches hold."""
    settings = placement.schedule
    groups = wish.tasks * (settings.max_staleness + 1 if settings.kind == "async" else 1)
    return min(groups * wish.group_size, int(placement.engines * _room(wish.workload, laws)))
