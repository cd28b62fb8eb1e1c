"""The ranks of a run as actors: what `torchrun` would start, on the machines that Ray chooses.

The process that starts them waits, prints their lines, and starts them again when one dies.
"""

from __future__ import annotations

import io
import os
import queue
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from agentgym.cluster.connect import Lost, bundle, end_all, lost, place, ray_library, start_in
from agentgym.errors import AgentGymError
from agentgym.settings import ClusterSettings
from agentgym.utils.progress import Display

LOOK = 0.3
"""Seconds between two looks for lines and deaths."""
AFTERMATH = 10.0
"""Seconds in which the death of a rank shows, after another one has failed because of it."""

Work = Callable[[Display], Any]
"""What every rank does; rank 0's result counts."""


class Failure(NamedTuple):
    """A deliberate error of a rank; its class may not survive pickling."""

    line: str


class RankActor:
    """The process of one rank.

    Args:
        folder: Where relative paths begin.
    """

    def __init__(self, folder: str) -> None:
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        if Path(folder).is_dir():
            os.chdir(folder)

    def address(self) -> tuple[str, int]:
        """Host and free port for the rendezvous of the ranks."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return ray_library().util.get_node_ip_address(), probe.getsockname()[1]

    def work(self, work: Work, variables: dict[str, str], quiet: bool) -> Any:
        """Work as a rank: the variables are those of ``torchrun``."""
        os.environ.update(variables)
        try:
            return work(_LineDisplay(self._lines, quiet=quiet))
        except AgentGymError as problem:
            return Failure(str(problem))

    def lines(self) -> list[str]:
        """What the rank has printed since the last call."""
        return [self._lines.get() for _ in range(self._lines.qsize())]


class _LineDisplay(Display):
    """Keeps lines for the process that prints them."""

    def __init__(self, lines: queue.SimpleQueue[str], *, quiet: bool) -> None:
        super().__init__(Console(file=io.StringIO(), width=100), quiet=quiet)
        self._lines = lines

    def say(self, text: object = "") -> None:
        """Keep a line, several lines or a table."""
        if self.console is None:
            return
        with self.console.capture() as capture:
            super().say(text)
        self._lines.put(capture.get().rstrip("\n"))


class Ranks:
    """One set of ranks, from their start to their end.

    Raises:
        ConfigError: The cluster has no room.
        Lost: One died while it started.
    """

    def __init__(self, settings: ClusterSettings) -> None:
        size, needs = settings.trainers, bundle()
        group = place("trainers", [needs] * size, "PACK", settings.placement_timeout)
        self._actors = [
            start_in(group, rank, needs, RankActor, os.getcwd(), calls=2) for rank in range(size)
        ]
        host, port = self._get(self._actors[0].address.remote())
        self._variables = {"MASTER_ADDR": host, "MASTER_PORT": str(port), "LOCAL_RANK": "0"}
        self._variables["WORLD_SIZE"] = str(size)

    def run(self, work: Work, display: Display) -> Any:
        """Work on all ranks; the result of rank 0.

        Raises:
            Lost: A rank died.
            AgentGymError: The work failed.
        """
        first, *others = (
            actor.work.remote(work, self._variables | {"RANK": str(rank)}, display.quiet)
            for rank, actor in enumerate(self._actors)
        )
        pending = [first, *others]
        while pending:
            done, pending = ray_library().wait(pending, num_returns=1, timeout=LOOK)
            self._print(display)
            for each in done:
                found = self._get(each, pending)
                if isinstance(found, Failure):
                    raise AgentGymError(self._line_of(first, found, pending))
        return self._get(first)

    def _line_of(self, first: Any, found: Failure, pending: Sequence[Any]) -> str:
        """Rank 0's line where it fails too; the other ranks fail of the same, or wait for it."""
        if first in pending and ray_library().wait([first], timeout=AFTERMATH)[0]:
            other = self._get(first)
            return other.line if isinstance(other, Failure) else found.line
        return found.line

    def _get(self, reference: Any, others: Sequence[Any] = ()) -> Any:
        """The answer of a rank; one that communicates with a rank that died fails itself."""
        ray = ray_library()
        from ray.exceptions import RayError, RayTaskError

        try:
            return ray.get(reference)
        except RayTaskError as problem:
            if others:
                for each in ray.wait(others, num_returns=len(others), timeout=AFTERMATH)[0]:
                    with suppress(RayTaskError):
                        self._get(each)
            raise problem.cause from problem
        except RayError as problem:
            raise lost(problem) from problem

    def _print(self, display: Display) -> None:
        for line in self._get(self._actors[0].lines.remote()):
            display.say(line)


def run_ranks(
    settings: ClusterSettings, work: Callable[[], Work], taken: Callable[[], int], display: Display
) -> Any:
    """Work on ranks, and again whenever one of them died; the result of rank 0.

    Args:
        settings: Of the cluster.
        work: What every rank does from now on: begin, or continue.
        taken: Training steps so far.
        display: Where lines of rank 0 are printed.

    Raises:
        AgentGymError: The work failed, or ranks died too often without taking a step.
    """
    deaths, died, steps = 0, 0.0, taken()
    while True:
        try:
            ranks = Ranks(settings)
            if died:
                display.say(f"the ranks are back after {time.monotonic() - died:.1f} s")
            return ranks.run(work(), display)
        except Lost as problem:
            died = time.monotonic()
            deaths = 1 if taken() > steps else deaths + 1
            steps = taken()
            if deaths > settings.restarts:
                raise
            display.say(f"a rank died, all start again from the last checkpoint ({problem})")
        finally:
            end_all()
