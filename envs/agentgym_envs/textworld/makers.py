"""Making games in several processes, whatever script asks for them.

``multiprocessing`` runs the caller's script once more in every worker, so that a script without an
``if __name__ == "__main__"`` guard would not survive it. A worker here is a program of its own: a
task id per line goes in, a line of JSON comes out: empty, or what failed and why.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from threading import Thread

from agentgym.errors import AgentGymError, CacheError, EnvError
from agentgym_envs.textworld import games

Worker = subprocess.Popen[str]
Failure = list[str]
"""Name of the error and its text; empty where the game was made."""


def generate(
    ids: Sequence[str],
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Make every game that is missing, in parallel.

    Args:
        ids: Task ids.
        workers: Processes; the number of CPUs by default.
        progress: Called with the number of games that exist and the number asked for.

    Raises:
        CacheError: The folder of the games cannot be written.
        EnvError: A game cannot be made.
    """
    report = progress or (lambda done, total: None)
    missing = [task for task in dict.fromkeys(ids) if not games.is_made(games.game_file(task))]
    total = len(dict.fromkeys(ids))
    report(total - len(missing), total)
    size = min(workers or os.cpu_count() or 1, len(missing))
    if size <= 1:
        for done, task in enumerate(missing, start=total - len(missing) + 1):
            games.ensure(task)
            report(done, total)
        return
    for _ in range(3):
        try:
            for made in _make_all(missing, size):
                report(total - len(missing) + made, total)
        except _WorkerDied:  # What it was making is simply still missing.
            missing = [task for task in missing if not games.is_made(games.game_file(task))]
            size = min(size, len(missing))
            continue
        return
    raise EnvError(
        f"the processes that make games keep dying, {len(missing)} games are missing; "
        "try fewer workers, they may be running out of memory"
    )


class _WorkerDied(Exception):
    """A worker was killed."""


def _make_all(tasks: Sequence[str], workers: int) -> Iterator[int]:
    """Make missing games; yields how many there are after each."""
    waiting: SimpleQueue[str | None] = SimpleQueue()
    answers: SimpleQueue[Failure | None] = SimpleQueue()
    for task in [*tasks, *[None] * workers]:
        waiting.put(task)
    with _started(workers) as running:
        for worker in running:
            Thread(target=_feed, args=(worker, waiting, answers), daemon=True).start()
        for count in range(1, len(tasks) + 1):
            failure = answers.get()
            if failure is None:
                raise _WorkerDied
            if failure:
                kind, reason = failure
                raise (CacheError if kind == CacheError.__name__ else EnvError)(reason)
            yield count


@contextmanager
def _started(count: int) -> Iterator[list[Worker]]:
    """Workers that are gone afterwards, with what they had not finished."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-P", "-m", __name__]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    running: list[Worker] = []
    try:
        for _ in range(count):
            running.append(subprocess.Popen(command, env=environment, **pipes))  # type: ignore[call-overload]
        yield running
    finally:
        for worker in running:
            worker.terminate()
        for worker in running:
            worker.wait()
            with suppress(OSError, ValueError):
                worker.communicate()


def _feed(
    worker: Worker, waiting: SimpleQueue[str | None], answers: SimpleQueue[Failure | None]
) -> None:
    """Hand tasks to a worker until there are none; None in ``answers`` means that it died."""
    assert worker.stdin and worker.stdout
    while (task := waiting.get()) is not None:
        try:
            worker.stdin.write(task + "\n")
            worker.stdin.flush()
            answers.put(json.loads(worker.stdout.readline()))
        except (OSError, ValueError):  # its pipes are closed
            answers.put(None)
            return


def serve() -> None:
    """The worker's side: runs until its input ends, also because the parent was killed."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # Whatever a library prints is no answer.
    for line in sys.stdin:
        try:
            games.ensure(line.strip())
            failure: Failure = []
        except AgentGymError as problem:
            failure = [type(problem).__name__, str(problem)]
        print(json.dumps(failure), file=answers, flush=True)


if __name__ == "__main__":
    # On SIGTERM, remove half-made games before exiting. SIGINT would not do: a shell's background
    # jobs and their children ignore it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        serve()
