"""Concurrent work of asyncio that ends together: a failure leaves no task behind."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

T = TypeVar("T")


async def gather(jobs: Iterable[Awaitable[T]]) -> list[T]:
    """Run jobs concurrently and return their results in order.

    When one raises, or the wait is cancelled, each of the others is cancelled once, and all of
    them have ended before this returns. ``asyncio.gather`` would leave them running;
    ``asyncio.TaskGroup`` would wrap the exception.
    """
    tasks = [asyncio.ensure_future(job) for job in jobs]
    if not tasks:
        return []
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        return [task.result() for task in tasks if task.done()]
    finally:
        await cancel(tasks)


async def cancel(tasks: Sequence[asyncio.Future[Any]]) -> None:
    """Cancel tasks and wait until they have ended; finished ones keep their result."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def run_sync(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end from synchronous code, also inside a running event loop.

    Inside a running loop, such as that of a notebook, the coroutine runs in a thread with a loop of
    its own. An interrupt (Ctrl-C) cancels it, waits until it has ended, and is raised again.

    Args:
        main: Makes the coroutine.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(main())
    return _run_in_thread(main)


def _run_in_thread(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[T]]] = []

    async def tracked() -> T:
        task = asyncio.ensure_future(main())
        running.append((asyncio.get_running_loop(), task))
        return await task

    with ThreadPoolExecutor(1, "agentgym") as threads, _interruptible():
        result = threads.submit(lambda: asyncio.run(tracked()))
        try:
            return result.result()
        except KeyboardInterrupt:
            for loop, task in running:
                with suppress(RuntimeError):  # It has just ended.
                    loop.call_soon_threadsafe(task.cancel)
            raise


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C raise here; the handler of ``asyncio.run`` only marks its task as cancelled."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
