"""Samples with vLLM in this process: paged attention, prefix cache, its own scheduler.

One thread owns vLLM; other threads queue calls for it. Needs the extra ``vllm``.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from agentgym.engines.requests import (
    ModelLimits,
    check_request,
    check_shapes,
    join_completions,
    remaining_request,
)
from agentgym.engines.stats import EngineStats, regroup_delay
from agentgym.engines.vllm.adapters import AdapterFolder
from agentgym.engines.vllm.answers import parse_completion
from agentgym.engines.vllm.arguments import TOP_LOGPROBS, check_temperature, sampling_params
from agentgym.engines.vllm.model_info import ModelInfo
from agentgym.engines.vllm.start import start_engine, unfinished_outputs
from agentgym.engines.weight_stream import BrokenStream, WeightStream
from agentgym.errors import ConfigError, EngineError, one_line
from agentgym.types import Completion, Sampling

if TYPE_CHECKING:
    import torch

STALL_SECONDS = 1800.0
"""Seconds without progress after which vLLM counts as hung; large models start slowly."""


@dataclass(slots=True, eq=False)
class _Job:
    """One request in flight."""

    prompt: list[int]
    sampling: Sampling
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Completion]
    parts: list[Completion] = field(default_factory=list)
    """Parts sampled by older weights."""

    def resolve(self, deliver: Callable[[], None]) -> None:
        """Set the future in the thread of its event loop, unless the loop is closed."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(lambda: None if self.future.done() else deliver())


class VLLMEngine:
    """vLLM's scheduler batches the requests in flight; its prefix cache reuses past turns.

    ``load`` empties that cache; completions in flight continue under the new weights, and every
    token records its version. The engine owns its weights: a trainer may change its model while
    the engine samples. A seed fixes a completion up to rounding, which depends on the batch.

    Log-probabilities are those of the distribution sampled from, and entropies are exact. With a
    version of vLLM that has another sampler, entropies are lower bounds: ``entropy_at_least`` of
    the 20 most likely tokens; ``exact_entropies`` states which.

    Args:
        model: Hugging Face folder or hub id.
        slots: Largest batch.
        context: Longest prompt plus completion, in tokens; at most what the model supports.
        dtype: Of weights and cache; default: float32 on a CPU, bfloat16 on a GPU.
        adapters: PEFT's configuration of LoRA adapters, which ``load`` takes instead of weights.
        options: Further arguments of vLLM's ``EngineArgs``, such as ``gpu_memory_utilization``.

    Raises:
        MissingExtra: vLLM is not installed.
        ConfigError: There is no such model.
        EngineError: vLLM could not start; with its message.
    """

    def __init__(
        self,
        model: str,
        *,
        slots: int = 64,
        context: int = 4096,
        dtype: str | None = None,
        adapters: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        if slots < 1 or context < 2:
            raise ConfigError(f"slots must be >= 1 and context >= 2, got {slots} and {context}")
        self._info = ModelInfo.read(model)
        self.context = min(context, self._info.context or context)
        self.version = 0
        self.takes_adapters = adapters is not None
        self._adapters = None if adapters is None else AdapterFolder(adapters)
        if self._adapters is not None:
            options = {"enable_lora": True, "max_lora_rank": self._adapters.rank, **options}
        self.exact_entropies = False
        self.stats_ = EngineStats()
        self._arguments = {
            "model": model,
            "max_num_seqs": slots,
            "max_model_len": self.context,
            "dtype": dtype,
            **options,
        }
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._in_flight: dict[str, _Job] = {}
        self._expected = 0
        """Follow-up requests that may still arrive before the next model call."""
        self._pause = 0.0
        """Seconds that the next model call waits for each of them."""
        self._numbers = count()
        self._failure: EngineError | None = None
        self._asleep = False
        self._held: list[_Job] | None = None
        """Requests that wait for whole weights; None while the weights are whole."""
        self._active = time.monotonic()
        """Time of the last progress of vLLM."""
        self._engine: Any = None
        started: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._serve, args=(started,), name="agentgym-vllm", daemon=True
        )
        self._thread.start()
        _await(started, "to start")

    async def generate(self, prompt: Sequence[int], sampling: Sampling) -> Completion:
        """Sample one completion.

        Raises:
            ConfigError: The prompt is empty, leaves no room for ``max_tokens``, or holds an id
                outside the vocabulary; or a sampling parameter is out of range.
            EngineError: vLLM failed.
        """
        tokens = list(prompt)
        check_request(tokens, sampling, ModelLimits(self.context, self._info.vocabulary))
        check_temperature(sampling)
        if not self._thread.is_alive():
            raise EngineError("the engine was closed")
        loop = asyncio.get_running_loop()
        job = _Job(tokens, sampling, loop, loop.create_future())
        self._calls.put(partial(self._admit, job))
        try:
            while not (await asyncio.wait([job.future], timeout=STALL_SECONDS))[0]:
                if time.monotonic() - self._active > STALL_SECONDS:
                    raise EngineError(f"vLLM has done nothing for {STALL_SECONDS:g} s")
            return job.future.result()
        finally:
            job.future.cancel()

    def finish(self, context: Sequence[int]) -> None:
        """Nothing to do: vLLM evicts the least recently used blocks."""

    def sleep(self) -> None:
        """On a GPU vLLM drops its caches and moves its weights to the CPU."""
        self._calls.put(self._sleep)

    def load(self, weights: Mapping[str, torch.Tensor], version: int) -> None:
        """Copy new weights in, a state dict of the same architecture; drops every cache.

        Waits for the model call in progress. May be called from any thread but the engine's own.

        Raises:
            ConfigError: A weight is missing or has another shape; nothing was changed.
            EngineError: vLLM failed.
        """
        self.load_stream(WeightStream.of(weights), version)

    @property
    def stream_device(self) -> str:
        """Type of the device on which weights are read as they arrive."""
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"

    def load_stream(self, weights: WeightStream, version: int) -> None:
        """As ``load``, one weight after another; where they stop arriving, requests wait.

        Raises:
            ConfigError: A weight is missing or has another shape; nothing was changed.
            BrokenStream: They stopped arriving.
            EngineError: vLLM failed.
        """
        if not self.takes_adapters:
            check_shapes(self._info.shapes, weights.shapes)
        if not self._thread.is_alive():
            raise EngineError("the engine was closed")
        adopted: Future[None] = Future()
        self._calls.put(partial(self._adopt, weights, version, adopted))
        _await(adopted, "to take new weights")

    def stats(self) -> EngineStats:
        """Counters so far; ``now.since(before)`` gives the difference."""
        return self.stats_

    def close(self) -> None:
        """Free the memory of the model; completions in flight fail."""
        if self._thread.is_alive():
            self._calls.put(self._stop)
            self._thread.join(STALL_SECONDS)
        if self._adapters is not None:
            self._adapters.close()

    # ---- the engine's thread -----------------------------------------------------------------

    def _serve(self, started: Future[None]) -> None:
        try:
            self._engine, self.exact_entropies = start_engine(self._arguments)
        except BaseException as problem:
            started.set_exception(problem)
            return
        started.set_result(None)
        while self._engine is not None:
            pause = self._pause if self._expected > 0 else 0.0
            try:
                call = self._calls.get(timeout=pause if self._in_flight else None)
            except queue.Empty:
                call = self._step
            self._run_call(call)

    def _run_call(self, call: Callable[[], None]) -> None:
        """Run a queued call; on an exception fail the pending requests, keep the thread alive."""
        try:
            call()
        except Exception as problem:
            self._fail(problem)
        self._active = time.monotonic()

    def _sleep(self) -> None:
        """Unless requests are in flight. Without sleep mode, as on a CPU, vLLM stays awake."""
        config = self._engine.vllm_config.model_config
        self._asleep = config.enable_sleep_mode and not self._in_flight
        if self._asleep:
            self._engine.sleep(level=1)

    def _wake(self) -> None:
        if self._asleep:
            self._engine.wake_up()
            self._asleep = False

    def _admit(self, job: _Job) -> None:
        self._expected -= 1
        if job.future.done():
            return
        if self._held is not None:
            self._held.append(job)
            return
        if self._failure is None:
            try:
                self._wake()
                self._ask(job)
            except Exception as problem:
                self._fail(problem)
        if self._failure is not None:
            job.resolve(partial(job.future.set_exception, self._failure))

    def _ask(self, job: _Job) -> None:
        from vllm import TokensPrompt

        name = f"completion-{next(self._numbers)}"
        prompt, sampling = remaining_request(job.prompt, job.sampling, job.parts)
        asked = sampling_params(sampling, 1 if self.exact_entropies else TOP_LOGPROBS)
        try:
            self._engine.add_request(
                name,
                TokensPrompt(prompt_token_ids=prompt),
                asked,
                lora_request=self._lora_request(),
            )
        except ValueError as problem:
            refused = EngineError(f"vLLM refused a request: {one_line(problem)}")
            job.resolve(partial(job.future.set_exception, refused))
        else:
            self._in_flight[name] = job

    def _lora_request(self) -> Any:
        """The newest adapters; None without any."""
        if self._adapters is None or not self._adapters.number:
            return None
        from vllm.lora.request import LoRARequest

        # A name of its own for each version: vLLM caches adapters, and keys of the prefix cache.
        number = self._adapters.number
        return LoRARequest(f"policy-{number}", number, str(self._adapters.path))

    def _adopt(self, weights: WeightStream, version: int, adopted: Future[None]) -> None:
        """Abort the requests in flight and continue them under the new weights."""
        leaving, self._in_flight = self._in_flight, {}
        try:
            self._wake()
            for answer in unfinished_outputs(self._engine):
                # Not those that failed. Tokens of diverged weights are not continued either.
                if (job := leaving.get(answer.request_id)) is not None:
                    with suppress(ConfigError):
                        job.parts.append(self._part(job, answer))
            self._abort(leaving)
            if self._adapters is not None:
                self._adapters.write(dict(weights))
            else:
                self._engine.collective_rpc("agentgym_load", args=(weights,))
            if not self._engine.reset_prefix_cache():
                raise EngineError("vLLM kept a cache of the old weights; restart the engine")
            self.version = version
        except BrokenStream as problem:
            self._held = [*(self._held or ()), *leaving.values()]
            adopted.set_exception(problem)
            return
        except Exception as problem:
            self._in_flight = leaving
            self._fail(problem)
            adopted.set_exception(self._failure or problem)
            return
        held, self._held = self._held or [], None
        for job in [*held, *leaving.values()]:
            self._admit(job)
        adopted.set_result(None)

    def _step(self) -> None:
        """One model call."""
        started = time.perf_counter()
        cancelled = [name for name, job in self._in_flight.items() if job.future.done()]
        self._abort(cancelled)
        for name in cancelled:
            del self._in_flight[name]
        rows = len(self._in_flight)
        answers = self._engine.step() if rows else []
        seconds = time.perf_counter() - started
        self._expected = len(answers)
        self._pause = regroup_delay(len(answers), rows, seconds) if rows else 0.0
        # Counted first: a caller that gets its answer may read the counters at once.
        self._count(rows, answers, seconds)
        for answer in answers:
            self._deliver(answer)

    def _deliver(self, answer: Any) -> None:
        job = self._in_flight.pop(answer.request_id)
        try:
            completion = join_completions([*job.parts, self._part(job, answer)])
        except ConfigError as problem:
            job.resolve(partial(job.future.set_exception, problem))
        else:
            job.resolve(partial(job.future.set_result, completion))

    def _part(self, job: _Job, answer: Any) -> Completion:
        output = answer.outputs[0]
        rows = [[entry.logprob for entry in step.values()] for step in output.logprobs or ()]
        return parse_completion(output.token_ids, rows, job.sampling, self.version)

    def _count(self, rows: int, answers: Iterable[Any], seconds: float) -> None:
        reused = sum(answer.num_cached_tokens for answer in answers)
        prompts = sum(len(answer.prompt_token_ids) for answer in answers)
        then = self.stats_
        self.stats_ = EngineStats(
            prefill_tokens=then.prefill_tokens + prompts - reused,
            cached_tokens=then.cached_tokens + reused,
            generated=then.generated + sum(len(a.outputs[0].token_ids) for a in answers),
            steps=then.steps + 1,
            rows=then.rows + rows,
            seconds=then.seconds + seconds,
        )

    def _abort(self, names: Iterable[str]) -> None:
        self._engine.abort_request(list(names))

    def _fail(self, problem: Exception) -> None:
        """After an exception the state of vLLM is unknown: fail all requests until a reload."""
        self._failure = EngineError(f"vLLM failed: {one_line(problem)}")
        self._failure.__cause__ = problem
        leaving, self._in_flight = [*self._in_flight.values(), *(self._held or ())], {}
        self._held = None
        for job in leaving:
            job.resolve(partial(job.future.set_exception, self._failure))

    def _stop(self) -> None:
        self._fail(RuntimeError("the engine was closed"))
        self._engine.engine_core.shutdown()
        self._engine = None


def _await(done: Future[None], what: str) -> None:
    """Wait in a thread that is not the engine's."""
    try:
        done.result(STALL_SECONDS)
    except TimeoutError:
        raise EngineError(f"vLLM took more than {STALL_SECONDS:g} s {what}") from None
