"""Concurrent work of asyncio that ends together: a failure leaves no task behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
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
