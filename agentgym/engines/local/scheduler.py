"""Continuous batching: requests join and leave the batch between any two tokens."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

from agentgym.engines.local import sampling as sampler
from agentgym.engines.local.decoder import Decoder
from agentgym.engines.local.slot_pool import Slot, SlotPool
from agentgym.engines.requests import finish_reason, make_completion
from agentgym.engines.stats import EngineStats, regroup_delay
from agentgym.engines.weight_stream import BrokenStream, WeightStream
from agentgym.errors import ConfigError
from agentgym.models.out_of_memory import explain_out_of_memory
from agentgym.types import Completion, Sampling

_PREFILL_TOKENS = 16384
"""Prefill budget of a model call, in tokens; bounds its memory."""
_LOOK = 1.0
"""Seconds between two looks for whole weights."""
_REMEDY = "lower `--rollout.concurrency` or `--rollout.max-context-tokens`"


@dataclass(slots=True, eq=False)
class _Job:
    """One request in flight."""

    prompt: list[int]
    sampling: Sampling
    future: asyncio.Future[Completion]
    uniforms: list[float]
    slot: Slot = field(default_factory=lambda: Slot(-1))
    start: int = 0
    """Cached tokens in the slot."""
    feed: list[int] = field(default_factory=list)
    """Tokens of the next model call."""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)

    def begin(self, slot: Slot, start: int) -> None:
        """Prepare the prefill of the whole context, of which ``start`` tokens are cached."""
        held = self.prompt + self.tokens
        self.slot, self.start, self.feed = slot, start, held[start:]
        # Set before the KV entries exist, so that prompts sharing the prefix wait.
        slot.tokens, slot.cached = held, start

    def release(self) -> None:
        """Release the slot with the tokens whose KV entries are valid."""
        self.slot.cached = 0 if self.slot.pending else self.start
        self.slot.tokens = (self.prompt + self.tokens)[: self.slot.cached]
        self.slot.busy = False

    def append(self, token: int, logprob: float, entropy: float, version: int) -> bool:
        """Record the result of a model call; returns whether the completion continues."""
        self.slot.cached = len(self.slot.tokens)
        self.start += len(self.feed)
        self.feed = [token]
        self.tokens.append(token)
        self.logprobs.append(logprob)
        self.entropies.append(entropy)
        self.versions.append(version)
        return token not in self.sampling.stop and len(self.tokens) < self.sampling.max_tokens

    def completion(self) -> Completion:
        """The completion so far."""
        columns = self.tokens, self.logprobs, self.entropies, self.versions
        return make_completion(*columns, finish_reason(self.tokens, self.sampling))


class _Copy(NamedTuple):
    source: int
    target: int
    length: int


class _Plan(NamedTuple):
    """One model call, decided on the event loop and run in the engine's thread."""

    jobs: list[_Job]
    copies: list[_Copy]
    loads: int
    """Number of cache invalidations when the plan was made."""


class _Sampled(NamedTuple):
    """The result of a plan."""

    tokens: list[int]
    logprobs: list[float]
    entropies: list[float]
    version: int
    seconds: float


class Scheduler:
    """The queue, the running batch and the task that moves jobs from one to the other.

    Used by one event loop at a time. Bookkeeping happens on the loop; model calls run in the
    scheduler's own thread, so that the loop stays responsive.
    """

    def __init__(self, decoder: Decoder, slots: int) -> None:
        self.version = 0
        self.stats = EngineStats()
        self.pool = SlotPool(slots)
        self._decoder = decoder
        self._waiting: deque[_Job] = deque()
        self._running: list[_Job] = []
        self._arrived = asyncio.Event()
        """Set by every new request."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="agentgym-engine")
        self._lock = threading.Lock()
        """Held while weights or caches are read or written."""
        self._loads = 0
        self._known = 0
        """Value of ``_loads`` for which the slot pool is valid."""
        self._whole = threading.Event()
        """Unset while the weights are partly of one version and partly of another."""
        self._whole.set()

    def submit(self, prompt: list[int], sampling: Sampling) -> asyncio.Future[Completion]:
        """Queue a checked request; cancelling the future withdraws it."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._move_to(loop)
        drawn = sampler.uniforms(sampling.seed, sampling.max_tokens)
        job = _Job(prompt, sampling, loop.create_future(), drawn)
        self._waiting.append(job)
        self._arrived.set()
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._serve(loop))
        return job.future

    def load(self, weights: WeightStream, version: int) -> None:
        """New weights, from any thread; waits for the model call in progress.

        Where they stop arriving, there are no model calls until a later load.
        """
        with self._lock:
            try:
                self._decoder.load(weights)
            except BrokenStream:
                self._whole.clear()
                raise
            self._loads += 1
            self.version = version
            self._whole.set()

    def sleep(self) -> None:
        """Free the caches, from any thread."""
        with self._lock:
            self._decoder.release()
            self._loads += 1

    def _move_to(self, loop: asyncio.AbstractEventLoop) -> None:
        """Switch to a new event loop; drop the requests of the stopped one."""
        if self._loop is not None and self._loop.is_running():
            raise ConfigError("the engine serves another running event loop; build one for each")
        self._loop, self._task, self._arrived = loop, None, asyncio.Event()
        self._abandon()

    def _abandon(self) -> list[_Job]:
        """Empty the queue and the batch; returns the jobs whose futures are pending."""
        jobs = [*self._running, *self._waiting]
        for job in self._running:
            job.release()
        self._running, self._waiting = [], deque()
        return [job for job in jobs if not job.future.done()]

    # ---- the loop ----------------------------------------------------------------------------

    async def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        """Make model calls while requests wait or run."""
        try:
            while self._waiting or self._running:
                self._drop_withdrawn()
                self._apply_load()
                plan = _Plan(self._running, self._admit(), self._known)
                if not plan.jobs:
                    continue
                drawn = await loop.run_in_executor(self._executor, self._step, plan)
                # After a weight update during the call its tokens are sampled again.
                if drawn is not None and plan.loads == self._loads:
                    answered = self._record(plan, drawn)
                    await self._await_more(
                        answered, regroup_delay(answered, len(plan.jobs), drawn.seconds)
                    )
        except Exception as error:
            for job in self._abandon():
                job.future.set_exception(error)
        except asyncio.CancelledError:
            for job in self._abandon():
                job.future.cancel()
            raise

    async def _await_more(self, answered: int, pause: float) -> None:
        """Wait for as many requests as have just ended, at most ``pause`` seconds for each."""
        enough = len(self._waiting) + answered
        while len(self._waiting) < enough:
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), pause)
            except TimeoutError:
                return

    def _drop_withdrawn(self) -> None:
        for job in self._running:
            if job.future.done():
                job.release()
        self._running = [job for job in self._running if not job.future.done()]

    def _apply_load(self) -> None:
        """After a weight update the cache is empty: prefill every running context again."""
        if self._known == self._loads:
            return
        self._known = self._loads
        self.pool.forget()
        for job in self._running:
            job.begin(job.slot, 0)

    def _admit(self) -> list[_Copy]:
        """Move waiting jobs into the batch in order of arrival; returns the prefixes to copy."""
        copies: list[_Copy] = []
        later: list[_Job] = []
        budget, displace = _PREFILL_TOKENS, not self._running
        while self._waiting and budget > 0 and len(self._running) < len(self.pool):
            job = self._waiting.popleft()
            if job.future.done():
                continue
            place = self.pool.place(job.prompt, displace=displace)
            if place is None:
                later.append(job)
                continue
            job.begin(place.slot, place.start)
            if place.source is not None:
                copies.append(_Copy(place.source.index, place.slot.index, place.start))
            budget -= len(job.feed)
            self._running.append(job)
        self._waiting.extendleft(reversed(later))
        return copies

    def _step(self, plan: _Plan) -> _Sampled | None:
        """One model call, one token per job; None if the weights changed since the plan."""
        self._whole.wait(_LOOK)  # Not for ever: the thread must end with its process.
        with self._lock:
            if plan.loads != self._loads or not self._whole.is_set():
                return None
            started = time.perf_counter()
            with explain_out_of_memory(f"{len(plan.jobs)} contexts at once", _REMEDY):
                for copy in plan.copies:
                    self._decoder.copy(*copy)
                logits = self._decoder.extend(
                    [job.slot.index for job in plan.jobs],
                    [job.start for job in plan.jobs],
                    [job.feed for job in plan.jobs],
                    [job.slot.prefix for job in plan.jobs],
                )
            tokens, logprobs, entropies = sampler.draw(
                logits,
                [job.sampling for job in plan.jobs],
                [job.uniforms[len(job.tokens)] for job in plan.jobs],
            )
            columns = tokens.tolist(), logprobs.tolist(), entropies.tolist()
            return _Sampled(*columns, self.version, time.perf_counter() - started)

    def _record(self, plan: _Plan, drawn: _Sampled) -> int:
        """Append the tokens to their jobs; returns how many completions ended."""
        self._count(plan, drawn.seconds)
        self._running = []
        columns = drawn.tokens, drawn.logprobs, drawn.entropies
        for job, token, logprob, entropy in zip(plan.jobs, *columns, strict=True):
            if job.append(token, logprob, entropy, drawn.version):
                self._running.append(job)
                continue
            job.release()
            if not job.future.done():
                job.future.set_result(job.completion())
        return len(plan.jobs) - len(self._running)

    def _count(self, plan: _Plan, seconds: float) -> None:
        new = [job for job in plan.jobs if job.slot.pending]
        then = self.stats
        self.stats = EngineStats(
            prefill_tokens=then.prefill_tokens + sum(len(job.feed) for job in new),
            cached_tokens=then.cached_tokens + sum(job.start for job in new),
            generated=then.generated + len(plan.jobs),
            steps=then.steps + 1,
            rows=then.rows + len(plan.jobs),
            seconds=then.seconds + seconds,
        )
