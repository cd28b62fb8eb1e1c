"""Samples from a Hugging Face model in this process, batching whatever is in flight."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from agentgym.engines import sampling as sampler
from agentgym.engines import slotted
from agentgym.engines.decoding import Decoder
from agentgym.engines.generic import GenericDecoder
from agentgym.engines.slots import Slot, SlotPool
from agentgym.errors import ConfigError
from agentgym.types import Completion, Sampling

if TYPE_CHECKING:
    import torch

_PREFILL_TOKENS = 16384
"""Most prompt tokens computed in one model call, beyond the first prompt; bounds its memory."""


class EngineStats(NamedTuple):
    """Counters since the engine was built."""

    prompt_computed: int = 0
    """Prompt tokens that went through the model."""
    prompt_reused: int = 0
    """Prompt tokens found in a cache."""
    generated: int = 0
    """Tokens sampled."""
    steps: int = 0
    """Model calls."""
    rows: int = 0
    """Rows of all model calls; ``rows / steps`` is the mean batch size."""
    seconds: float = 0.0
    """Time spent in the model and in sampling."""

    def since(self, earlier: EngineStats) -> EngineStats:
        """What was added after ``earlier``."""
        then = earlier._asdict()
        return self._replace(**{name: now - then[name] for name, now in self._asdict().items()})


@dataclass(slots=True, eq=False)
class _Job:
    """One completion on its way."""

    prompt: list[int]
    sampling: Sampling
    future: asyncio.Future[Completion]
    uniforms: list[float]
    slot: Slot | None = None
    start: int = 0
    """Tokens in the slot's cache."""
    feed: list[int] = field(default_factory=list)
    """Tokens of the next model call."""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)


class _Copy(NamedTuple):
    source: int
    target: int
    length: int


class _Drawn(NamedTuple):
    tokens: list[int]
    logprobs: list[float]
    entropies: list[float]
    version: int
    seconds: float


class LocalEngine:
    """Continuous batching over a cache that outlives the turn.

    Requests join and leave the batch at every token. The cache of a context stays in its slot, so
    a longer prompt that begins with it costs only its new tokens; ``finish`` says that a slot may
    go. When more contexts are alive than there are slots, the least recently used one is
    computed again. The engine owns a copy of the weights: a trainer may change its model while
    the engine samples. ``load`` drops every cache, since old weights computed it, and starts
    completions in flight again, so a completion is of one version.

    One event loop at a time; the model runs in a thread of its own.

    Args:
        model: A Hugging Face causal language model. Llama, Qwen2 and Qwen3 run on fused weights
            and a shared cache, anything else through its own cache, one row at a time.
        slots: Contexts kept, and the largest batch.
        context: Longest prompt plus completion, in tokens; at most what the model can address.
        dtype: Of weights and cache; the model's own by default.
        device: Where to run; the model's own by default.
    """

    def __init__(
        self,
        model: Any,
        *,
        slots: int = 64,
        context: int = 4096,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        import torch

        if slots < 1:
            raise ConfigError(f"slots must be >= 1, got {slots}")
        parameter = next(model.parameters())
        dtype = dtype or parameter.dtype
        place = torch.device(device) if device is not None else parameter.device
        limit = getattr(model.config, "max_position_embeddings", None) or context
        self.context = min(context, limit)
        self.version = 0
        if slotted.supports(model):
            self._decoder: Decoder = slotted.SlottedDecoder(
                model.config, model.state_dict(), context=self.context, dtype=dtype, device=place
            )
        else:
            self._decoder = GenericDecoder(model, dtype=dtype, device=place)
        self._slots = slots
        self._pool = SlotPool(slots)
        self._waiting: deque[_Job] = deque()
        self._running: list[_Job] = []
        self._stats = EngineStats()
        self._pump: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="agentgym-engine")
        self._lock = threading.Lock()
        """Held while weights or caches are used or replaced."""
        self._loads = 0
        self._planned_for = 0
        """Value of ``_loads`` for which the pool's tokens are true."""

    @classmethod
    def from_pretrained(cls, path: str, **options: Any) -> LocalEngine:
        """An engine for the model saved at ``path``; options as in the constructor."""
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(path, dtype=options.get("dtype") or "auto")
        return cls(model, **options)

    # ---- the protocol ------------------------------------------------------------------------

    async def generate(self, prompt: Sequence[int], sampling: Sampling) -> Completion:
        """Sample one completion.

        Raises:
            ConfigError: The prompt is empty, does not leave room for ``max_tokens``, or holds an
                id outside the vocabulary; or a sampling parameter is out of range.
        """
        tokens = list(prompt)
        self._check(tokens, sampling)
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._move_to(loop)
        drawn = sampler.uniforms(sampling.seed, sampling.max_tokens)
        job = _Job(tokens, sampling, loop.create_future(), drawn)
        self._waiting.append(job)
        if self._pump is None or self._pump.done():
            self._pump = loop.create_task(self._serve(loop))
        return await job.future

    def finish(self, context: Sequence[int]) -> None:
        """The slot of this context is the next to be given away."""
        self._pool.finish(context)

    def load(self, weights: Mapping[str, torch.Tensor], version: int) -> None:
        """Copy new weights in, a state dict of the same architecture; drops every cache.

        Waits for the model call in progress. May be called from any thread.
        """
        with self._lock:
            self._decoder.load(weights)
            self._loads += 1
            self.version = version

    def stats(self) -> EngineStats:
        """Counters so far; subtract an earlier reading with ``since``."""
        return self._stats

    def _check(self, prompt: list[int], sampling: Sampling) -> None:
        sampler.check(sampling)
        room = self.context - sampling.max_tokens
        if not 0 < len(prompt) <= room:
            raise ConfigError(
                f"a prompt must have 1 to {room} tokens, got {len(prompt)}: the context is "
                f"{self.context} and max_tokens {sampling.max_tokens}"
            )
        if min(prompt) < 0 or max(prompt) >= self._decoder.vocabulary:
            raise ConfigError(
                f"token ids must be in [0, {self._decoder.vocabulary}), got "
                f"{min(prompt)} to {max(prompt)}; do tokenizer and model belong together?"
            )

    # ---- the pump ----------------------------------------------------------------------------

    def _move_to(self, loop: asyncio.AbstractEventLoop) -> None:
        """Serve a new event loop; what an old, stopped one left behind has no reader."""
        if self._loop is not None and self._loop.is_running():
            raise ConfigError("this engine already serves another running event loop; use one each")
        self._loop, self._pump = loop, None
        self._waiting.clear()
        for job in self._running:
            self._release(job)
        self._running = []

    async def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run model calls while anything waits or runs."""
        try:
            while self._waiting or self._running:
                self._drop_cancelled()
                self._adopt_load()
                copies = self._admit()
                if not self._running:
                    continue
                batch, loads = list(self._running), self._planned_for
                drawn = await loop.run_in_executor(self._executor, self._step, batch, copies, loads)
                if drawn is not None and loads == self._loads and self._record(batch, drawn):
                    # Callers that got their answer may ask again before the next call.
                    await asyncio.sleep(0)
        except Exception as error:
            for job in self._abandon():
                job.future.set_exception(error)
        except asyncio.CancelledError:
            for job in self._abandon():
                job.future.cancel()
            raise

    def _abandon(self) -> list[_Job]:
        """Empty the engine; the jobs somebody still waits for."""
        jobs = [*self._running, *self._waiting]
        for job in self._running:
            self._release(job)
        self._running = []
        self._waiting.clear()
        return [job for job in jobs if not job.future.done()]

    def _release(self, job: _Job) -> None:
        """Give the job's slot back with the tokens that are surely cached."""
        assert job.slot is not None
        job.slot.tokens = (job.prompt + job.tokens)[: job.start]
        job.slot.busy = job.slot.pending = False

    def _drop_cancelled(self) -> None:
        for job in self._running:
            if job.future.done():
                self._release(job)
        self._running = [job for job in self._running if not job.future.done()]

    def _adopt_load(self) -> None:
        """After ``load``: nothing is cached, and what was begun begins again."""
        if self._planned_for == self._loads:
            return
        self._planned_for = self._loads
        self._pool.forget()
        for job in self._running:
            assert job.slot is not None
            job.slot.tokens, job.slot.pending = job.prompt, True
            job.start, job.feed = 0, job.prompt
            job.tokens, job.logprobs, job.entropies = [], [], []

    def _admit(self) -> list[_Copy]:
        """Give waiting prompts to slots, first come first served; what must be copied for it."""
        copies, budget, kept = [], _PREFILL_TOKENS, list[_Job]()
        idle = not self._running
        while self._waiting and budget > 0 and len(self._running) < self._slots:
            job = self._waiting.popleft()
            if job.future.done():
                continue
            place = self._pool.place(job.prompt, displace=idle)
            if place is None:
                kept.append(job)
                continue
            job.slot, job.start, job.feed = place.slot, place.start, job.prompt[place.start :]
            if place.source is not None:
                copies.append(_Copy(place.source.index, place.slot.index, place.start))
            # Known at once, so that a prompt with the same beginning can wait for it.
            place.slot.tokens, place.slot.pending = job.prompt, True
            budget -= len(job.feed)
            self._running.append(job)
            self._count(prompt_computed=len(job.feed), prompt_reused=job.start)
        self._waiting.extendleft(reversed(kept))
        return copies

    def _step(self, batch: list[_Job], copies: list[_Copy], loads: int) -> _Drawn | None:
        """One model call and one token per job; None when the weights changed since planning."""
        with self._lock:
            if loads != self._loads:
                return None
            begun = time.perf_counter()
            for copy in copies:
                self._decoder.copy(*copy)
            logits = self._decoder.extend(
                [job.slot.index for job in batch if job.slot is not None],
                [job.start for job in batch],
                [job.feed for job in batch],
            )
            tokens, logprobs, entropies = sampler.draw(
                logits,
                [job.sampling for job in batch],
                [job.uniforms[len(job.tokens)] for job in batch],
            )
            lists = tokens.tolist(), logprobs.tolist(), entropies.tolist()
            return _Drawn(*lists, self.version, time.perf_counter() - begun)

    def _record(self, batch: list[_Job], drawn: _Drawn) -> bool:
        """Append what was drawn; whether a completion ended."""
        running = []
        columns = zip(batch, drawn.tokens, drawn.logprobs, drawn.entropies, strict=True)
        for job, token, logprob, entropy in columns:
            assert job.slot is not None
            job.slot.pending = False
            job.start += len(job.feed)
            job.feed = [token]
            job.tokens.append(token)
            job.logprobs.append(logprob)
            job.entropies.append(entropy)
            if token not in job.sampling.stop and len(job.tokens) < job.sampling.max_tokens:
                running.append(job)
                continue
            self._release(job)
            if not job.future.done():
                columns_of_job = tuple(job.tokens), tuple(job.logprobs), tuple(job.entropies)
                job.future.set_result(Completion(*columns_of_job, drawn.version))
        self._running = running
        self._count(generated=len(batch), steps=1, rows=len(batch), seconds=drawn.seconds)
        return len(running) < len(batch)

    def _count(self, **added: float) -> None:
        then = self._stats._asdict()
        self._stats = self._stats._replace(**{k: then[k] + v for k, v in added.items()})
