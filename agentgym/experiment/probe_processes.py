"""The tasks of a probe, shared among processes, each with an engine of its own.

A small model on a CPU spends more time between its operations than in them, so that further cores
help in further processes only. Every continuation has a seed of its own, and a row's numbers depend
on the batch around it by rounding only: the values are the same for any number of processes, save
where rounding decides between two tokens.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from agentgym.errors import AgentGymError, EngineError
from agentgym.evaluation.records import EpisodeRecord
from agentgym.experiment.assemble import engines_of, executor_of
from agentgym.experiment.job import Job
from agentgym.experiment.run_folder import RunFolder
from agentgym.probe.continuations import Effort, Valued, turn_values
from agentgym.settings import Experiment
from agentgym.utils.concurrency import run_sync
from agentgym.utils.progress import Display

MOST = 8
"""Processes, at most, unless a number is given."""

Take = Callable[[], int | None]
Give = Callable[[int, Valued], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Episodes to value."""

    experiment: Experiment
    """Environment, and limits of the continuations."""
    policy: str
    """The model that continues."""
    effort: Effort
    own: bool
    """It sampled the episodes."""
    groups: Sequence[Sequence[EpisodeRecord]]
    """The episodes of each task."""

    @property
    def order(self) -> list[int]:
        """The tasks, those with most turns first: what takes long must not begin last."""
        turns = [sum(len(record.turns) for record in group) for group in self.groups]
        return sorted(range(len(turns)), key=lambda number: -turns[number])


def default_processes(experiment: Experiment, tasks: int) -> int:
    """One per core where the own engine computes on the CPU; else one."""
    device = experiment.engine_device or ("cuda" if torch.cuda.is_available() else "cpu")
    if experiment.engine != "local" or device != "cpu":
        return 1
    return max(1, min(len(os.sched_getaffinity(0)), tasks, MOST))


def values_of_tasks(work: Work, processes: int) -> Iterator[tuple[int, Valued]]:
    """The number of each task and its values, as they are found.

    Raises:
        AgentGymError: What went wrong in a process, or that a process was killed.
    """
    context = multiprocessing.get_context("spawn")
    processes = min(processes, len(work.groups))
    following = context.Value("i", 0)
    threads = max(1, torch.get_num_threads() // processes)
    with _running(context, processes, (following, threads)) as pipes:
        for ours in list(pipes):
            # Not as an argument: one that its process does not live to read would block for ever.
            try:
                ours.send(work)
            except OSError:
                _expect_success(pipes.pop(ours))
        while pipes:
            for pipe in wait(list(pipes)):
                assert isinstance(pipe, Connection)
                try:
                    found = pipe.recv()
                except (EOFError, ConnectionError):
                    _expect_success(pipes.pop(pipe))
                    continue
                if isinstance(found, Exception):
                    raise found
                yield found


@contextmanager
def _running(
    context: Any, count: int, given: tuple[Any, ...]
) -> Iterator[dict[Connection, BaseProcess]]:
    """Processes by the pipes that bring their results; they are ended on exit."""
    pipes: dict[Connection, BaseProcess] = {}
    try:
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, *given), daemon=True)
            process.start()
            theirs.close()
            pipes[ours] = process
        yield pipes
    finally:
        for process in pipes.values():
            process.terminate()
        for process in pipes.values():
            process.join()


def _expect_success(process: BaseProcess) -> None:
    process.join()
    if process.exitcode:
        raise EngineError(
            f"a process of the probe ended with exit code {process.exitcode}, perhaps for want of "
            f"memory: run it again with fewer, such as `--processes 1`"
        )


def _serve(pipe: Connection, following: Any, threads: int) -> None:
    """Value tasks until none is left; runs in a process of its own."""
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    work: Work = pipe.recv()

    order = work.order

    def take() -> int | None:
        with following.get_lock():
            place = int(following.value)
            following.value += 1
        return order[place] if place < len(order) else None

    def give(number: int, found: Valued) -> None:
        pipe.send((number, found))

    try:
        run_sync(lambda: _value_tasks(work, take, give))
    except AgentGymError as problem:
        pipe.send(problem)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "runs in a process of its own"
    wait([parent.sentinel])
    os._exit(1)


async def _value_tasks(work: Work, take: Take, give: Give) -> None:
    experiment = work.experiment
    engines = engines_of(experiment)
    async with executor_of(experiment.rollout) as executor, engines:
        job = Job(experiment, RunFolder(Path()), Display(), executor, engines)
        tokenizer, model = job.loaded(work.policy)
        player = job.player(tokenizer, model, "probe", job.panel_temperature)

        # One after another: the states of a task keep an engine busy, and several tasks would
        # displace one another's prefixes from its cache, from which continuations are copied.
        while (number := take()) is not None:
            records = work.groups[number]
            give(number, await turn_values(player, records, work.effort, own=work.own))
