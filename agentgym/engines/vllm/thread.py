"""The thread that owns vLLM: it takes requests and new weights between model calls."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

from agentgym.engines.requests import join_completions, remaining_request
from agentgym.engines.stats import EngineStats, regroup_delay
from agentgym.engines.vllm.adapters import AdapterFolder
from agentgym.engines.vllm.answers import parse_completion
from agentgym.engines.vllm.arguments import TOP_LOGPROBS, sampling_params
from agentgym.engines.vllm.start import start_engine, unfinished_outputs
from agentgym.engines.weight_stream import BrokenStream, WeightStream
from agentgym.errors import ConfigError, EngineError, one_line
from agentgym.types import Completion, Sampling


@dataclass(slots=True, eq=False)
class Job:
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


class VLLMThread:
    """Runs vLLM, and what other threads queue for it.

    Args:
        arguments: Of vLLM's ``EngineArgs``.
        adapters: Served on top of the weights that vLLM was started with.
    """

    def __init__(self, arguments: Mapping[str, Any], adapters: AdapterFolder | None) -> None:
        self.version = 0
        self.exact_entropies = False
        self.stats = EngineStats()
        self.active = time.monotonic()
        """Time of the last progress of vLLM."""
        self.started: Future[None] = Future()
        """Done when vLLM runs, or could not start."""
        self._arguments, self._adapters = arguments, adapters
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._in_flight: dict[str, Job] = {}
        self._expected = 0
        """Follow-up requests that may still arrive before the next model call."""
        self._pause = 0.0
        """Seconds that the next model call waits for each of them."""
        self._numbers = count()
        self._failure: EngineError | None = None
        self._asleep = False
        self._held: list[Job] | None = None
        """Requests that wait for whole weights; None while the weights are whole."""
        self._engine: Any = None
        self._thread = threading.Thread(target=self._serve, name="agentgym-vllm", daemon=True)
        self._thread.start()

    # ---- called by other threads -------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether it still takes calls."""
        return self._thread.is_alive()

    def put(self, call: Callable[[], None]) -> None:
        """Queue a call; it runs between model calls."""
        self._calls.put(call)

    def ask(self, job: Job) -> None:
        """Queue a request."""
        self.put(partial(self._admit, job))

    def adopt(self, weights: WeightStream, version: int) -> Future[None]:
        """Queue new weights; done when they are in use."""
        adopted: Future[None] = Future()
        self.put(partial(self._adopt, weights, version, adopted))
        return adopted

    def sleep(self) -> None:
        """Queue sleep, until the next request or weights."""
        self.put(self._sleep)

    def stop(self, seconds: float) -> None:
        """Fail what is in flight, free the model, and wait for that."""
        if self.alive:
            self.put(self._stop)
            self._thread.join(seconds)

    # ---- the thread itself -------------------------------------------------------------------

    def _serve(self) -> None:
        try:
            self._engine, self.exact_entropies = start_engine(self._arguments)
        except BaseException as problem:
            self.started.set_exception(problem)
            return
        self.started.set_result(None)
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
        self.active = time.monotonic()

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

    def _admit(self, job: Job) -> None:
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

    def _ask(self, job: Job) -> None:
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

    def _part(self, job: Job, answer: Any) -> Completion:
        output = answer.outputs[0]
        rows = [[entry.logprob for entry in step.values()] for step in output.logprobs or ()]
        return parse_completion(output.token_ids, rows, job.sampling, self.version)

    def _count(self, rows: int, answers: Iterable[Any], seconds: float) -> None:
        reused = sum(answer.num_cached_tokens for answer in answers)
        prompts = sum(len(answer.prompt_token_ids) for answer in answers)
        then = self.stats
        self.stats = EngineStats(
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
