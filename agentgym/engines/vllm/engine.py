"""Samples with vLLM in this process: paged attention, prefix cache, its own scheduler.

One thread owns vLLM; everybody else leaves it notes. Needs the extra ``vllm``.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from agentgym.engines.entropy import entropy_at_least
from agentgym.engines.requests import Room, check_request, check_weights, finish_of, joined, rest_of
from agentgym.engines.stats import EngineStats, patience
from agentgym.engines.vllm.model_info import Saved
from agentgym.errors import ConfigError, EngineError, MissingExtra
from agentgym.types import Completion, Sampling

if TYPE_CHECKING:
    import torch

SILENCE = 1800.0
"""Seconds in which vLLM must have done something; the longest is to start with a large model."""
TOP = 20
"""Likeliest tokens asked for where the worker cannot report entropies."""
EXTENSION = "agentgym.engines.vllm.worker.WorkerExtension"
ENVIRONMENT = {
    "VLLM_USE_V2_MODEL_RUNNER": "0",  # Our extension knows the sampler of the first.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # The trainer's threads run on the same cores.
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}
"""What vLLM reads from the environment, unless it is set already."""


@dataclass(slots=True, eq=False)
class _Job:
    """One completion on its way."""

    prompt: list[int]
    sampling: Sampling
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Completion]
    parts: list[Completion] = field(default_factory=list)
    """What older weights have written of it."""

    def tell(self, deliver: Callable[[], None]) -> None:
        """Settle the future in its own thread, unless its owner has left."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(lambda: None if self.future.done() else deliver())


class VLLMEngine:
    """vLLM's scheduler batches whatever is in flight; its prefix cache finds past turns again.

    ``load`` empties that cache, and completions in flight go on under the new weights; their tokens
    say which. The engine has weights of its own: a trainer may change its model while it samples.
    A seed fixes a completion up to rounding, which here depends on what else is in flight.

    Log-probabilities are those of the distribution sampled from, and entropies are exact. With a
    version of vLLM whose sampler we do not know they are lower bounds: ``entropy_at_least`` of the
    20 likeliest tokens; ``exact_entropies`` says which.

    Args:
        model: Hugging Face folder or hub id.
        slots: Largest batch.
        context: Longest prompt plus completion, in tokens; cut to what the model can address.
        dtype: Of weights and cache; float32 on a CPU, bfloat16 on a GPU unless given.
        options: Further arguments of vLLM's ``EngineArgs``, such as ``gpu_memory_utilization``.

    Raises:
        MissingExtra: vLLM is not installed.
        ConfigError: There is no such model.
        EngineError: vLLM could not start; the message is its own.
    """

    def __init__(
        self,
        model: str,
        *,
        slots: int = 64,
        context: int = 4096,
        dtype: str | None = None,
        **options: Any,
    ) -> None:
        if slots < 1 or context < 2:
            raise ConfigError(f"slots must be >= 1 and context >= 2, got {slots} and {context}")
        self._saved = Saved.read(model)
        self.context = min(context, self._saved.context or context)
        self.version = 0
        self.exact_entropies = False
        self.stats_ = EngineStats()
        self._arguments = {
            "model": model,
            "max_num_seqs": slots,
            "max_model_len": self.context,
            "dtype": dtype,
            **options,
        }
        self._notes: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._flying: dict[str, _Job] = {}
        self._expected = 0
        """How many of those answered last may ask again before the next model call."""
        self._pause = 0.0
        """Seconds that the next model call waits for the next of them."""
        self._numbers = count()
        self._failure: EngineError | None = None
        self._asleep = False
        self._active = time.monotonic()
        """When vLLM last did anything."""
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
        check_request(tokens, sampling, Room(self.context, self._saved.vocabulary))
        check_temperature(sampling)
        if not self._thread.is_alive():
            raise EngineError("the engine was closed")
        loop = asyncio.get_running_loop()
        job = _Job(tokens, sampling, loop, loop.create_future())
        self._notes.put(partial(self._admit, job))
        try:
            while not (await asyncio.wait([job.future], timeout=SILENCE))[0]:
                if time.monotonic() - self._active > SILENCE:
                    raise EngineError(f"vLLM has done nothing for {SILENCE:g} s")
            return job.future.result()
        finally:
            job.future.cancel()

    def finish(self, context: Sequence[int]) -> None:
        """Nothing to do: vLLM forgets what has not been used for longest."""

    def rest(self) -> None:
        """On a GPU vLLM sleeps: it drops its caches and takes its weights to the CPU."""
        self._notes.put(self._sleep)

    def load(self, weights: Mapping[str, torch.Tensor], version: int) -> None:
        """Copy new weights in, a state dict of the same architecture; drops every cache.

        Waits for the model call in progress. May be called from any thread but the engine's own.

        Raises:
            ConfigError: A weight is missing or has another shape; nothing was changed.
            EngineError: vLLM failed.
        """
        check_weights(self._saved.shapes, weights)
        if not self._thread.is_alive():
            raise EngineError("the engine was closed")
        adopted: Future[None] = Future()
        self._notes.put(partial(self._adopt, weights, version, adopted))
        _await(adopted, "to take new weights")

    def stats(self) -> EngineStats:
        """Counters so far; ``now.since(before)`` is what happened in between."""
        return self.stats_

    def close(self) -> None:
        """Give the model's memory back; completions in flight fail."""
        if self._thread.is_alive():
            self._notes.put(self._stop)
            self._thread.join(SILENCE)

    # ---- the engine's thread -----------------------------------------------------------------

    def _serve(self, started: Future[None]) -> None:
        try:
            self._engine, self.exact_entropies = start(self._arguments)
        except BaseException as problem:
            started.set_exception(problem)
            return
        started.set_result(None)
        while self._engine is not None:
            pause = self._pause if self._expected > 0 else 0.0
            try:
                note = self._notes.get(timeout=pause if self._flying else None)
            except queue.Empty:
                note = self._step
            self._heed(note)

    def _heed(self, note: Callable[[], None]) -> None:
        """Do as a note says; the thread outlives what it raises, and who waits is told."""
        try:
            note()
        except Exception as problem:
            self._fail(problem)
        self._active = time.monotonic()

    def _sleep(self) -> None:
        """Unless somebody asks. Where vLLM knows no sleep, on a CPU, it stays awake."""
        config = self._engine.vllm_config.model_config
        self._asleep = config.enable_sleep_mode and not self._flying
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
        if self._failure is None:
            try:
                self._wake()
                self._ask(job)
            except Exception as problem:
                self._fail(problem)
        if self._failure is not None:
            job.tell(partial(job.future.set_exception, self._failure))

    def _ask(self, job: _Job) -> None:
        from vllm import TokensPrompt

        name = f"completion-{next(self._numbers)}"
        prompt, sampling = rest_of(job.prompt, job.sampling, job.parts)
        asked = parameters(sampling, 1 if self.exact_entropies else TOP)
        try:
            self._engine.add_request(name, TokensPrompt(prompt_token_ids=prompt), asked)
        except ValueError as problem:
            refused = EngineError(f"vLLM refused a request: {one_line(problem)}")
            job.tell(partial(job.future.set_exception, refused))
        else:
            self._flying[name] = job

    def _adopt(
        self, weights: Mapping[str, torch.Tensor], version: int, adopted: Future[None]
    ) -> None:
        """Everything in flight leaves, and comes back under the new weights with what it has."""
        leaving, self._flying = self._flying, {}
        try:
            self._wake()
            for answer in unfinished(self._engine):
                # None of those that failed. What broken weights wrote is not gone on with either.
                if (job := leaving.get(answer.request_id)) is not None:
                    with suppress(ConfigError):
                        job.parts.append(self._part(job, answer))
            self._abort(leaving)
            self._engine.collective_rpc("agentgym_load", args=(list(weights.items()),))
            if not self._engine.reset_prefix_cache():
                raise EngineError("vLLM kept a cache of the old weights; start the engine anew")
            self.version = version
        except Exception as problem:
            self._flying = leaving
            self._fail(problem)
            adopted.set_exception(self._failure or problem)
            return
        for job in leaving.values():
            self._admit(job)
        adopted.set_result(None)

    def _step(self) -> None:
        """One model call."""
        begun = time.perf_counter()
        gone = [name for name, job in self._flying.items() if job.future.done()]
        self._abort(gone)
        for name in gone:
            del self._flying[name]
        rows = len(self._flying)
        answers = self._engine.step() if rows else []
        seconds = time.perf_counter() - begun
        self._expected = len(answers)
        self._pause = patience(len(answers), rows, seconds) if rows else 0.0
        # Counted first: whoever waits for an answer may ask for the counters at once.
        self._count(rows, answers, seconds)
        for answer in answers:
            self._deliver(answer)

    def _deliver(self, answer: Any) -> None:
        job = self._flying.pop(answer.request_id)
        try:
            completion = joined([*job.parts, self._part(job, answer)])
        except ConfigError as problem:
            job.tell(partial(job.future.set_exception, problem))
        else:
            job.tell(partial(job.future.set_result, completion))

    def _part(self, job: _Job, answer: Any) -> Completion:
        told = answer.outputs[0]
        rows = [[entry.logprob for entry in step.values()] for step in told.logprobs or ()]
        return completed(told.token_ids, rows, job.sampling, self.version)

    def _count(self, rows: int, answers: Iterable[Any], seconds: float) -> None:
        reused = sum(answer.num_cached_tokens for answer in answers)
        prompts = sum(len(answer.prompt_token_ids) for answer in answers)
        then = self.stats_
        self.stats_ = EngineStats(
            prompt_computed=then.prompt_computed + prompts - reused,
            prompt_reused=then.prompt_reused + reused,
            generated=then.generated + sum(len(a.outputs[0].token_ids) for a in answers),
            steps=then.steps + 1,
            rows=then.rows + rows,
            seconds=then.seconds + seconds,
        )

    def _abort(self, names: Iterable[str]) -> None:
        self._engine.abort_request(list(names))

    def _fail(self, problem: Exception) -> None:
        """What vLLM's state is after an exception nobody knows: whoever asks is told of it."""
        self._failure = EngineError(f"vLLM failed: {one_line(problem)}")
        self._failure.__cause__ = problem
        leaving, self._flying = self._flying, {}
        for job in leaving.values():
            job.tell(partial(job.future.set_exception, self._failure))

    def _stop(self) -> None:
        self._fail(RuntimeError("the engine was closed"))
        self._engine.engine_core.shutdown()
        self._engine = None


def _await(done: Future[None], what: str) -> None:
    """Wait in a thread that is not the engine's."""
    try:
        done.result(SILENCE)
    except TimeoutError:
        raise EngineError(f"vLLM took more than {SILENCE:g} s {what}") from None


def start(arguments: Mapping[str, Any]) -> tuple[Any, bool]:
    """A running engine of vLLM, and whether it reports entropies."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import torch
        from vllm.engine.arg_utils import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine
        from vllm.v1.executor import Executor
    except ImportError as problem:
        raise MissingExtra(
            f'the engine needs vLLM: pip install "agentic-gym[vllm]" ({one_line(problem)})'
        ) from problem
    gpu = torch.cuda.is_available()
    settings = {**defaults(gpu), "enable_sleep_mode": gpu, **arguments}
    settings["dtype"] = settings["dtype"] or default_dtype(gpu)
    try:
        with _one_process():
            config = EngineArgs(
                **settings, distributed_executor_backend="uni", skip_tokenizer_init=True
            ).create_engine_config()
            kind = Executor.get_class(config)
            engine = LLMEngine(config, kind, log_stats=False, multiprocess_mode=False)
        exact = all(engine.collective_rpc("agentgym_report_entropies"))
    except Exception as problem:
        raise EngineError(f"vLLM could not start: {one_line(problem)}") from problem
    return engine, exact


def unfinished(engine: Any) -> list[Any]:
    """What there is of requests in flight, as answers of vLLM."""
    from vllm.v1.engine import FinishReason

    return [
        state.make_request_output(
            new_token_ids=[],
            pooling_output=None,
            finish_reason=FinishReason.ABORT,
            stop_reason=None,
        )
        for state in engine.output_processor.request_states.values()
    ]


@contextmanager
def _one_process() -> Iterator[None]:
    """On a CPU, vLLM takes its worker elsewhere unless it reads this; servers must not read it."""
    name = "VLLM_ENABLE_V1_MULTIPROCESSING"
    before = os.environ.get(name)
    os.environ[name] = "0"
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def default_dtype(gpu: bool) -> str:
    """As ``load_model`` gives the trainer, so that the two compute alike."""
    return "bfloat16" if gpu else "float32"


def defaults(gpu: bool) -> dict[str, Any]:
    """Arguments of vLLM that our engines rely on, and that make a CPU start quickly."""
    common = {
        "logprobs_mode": "processed_logprobs",
        "max_logprobs": TOP,
        "enable_prefix_caching": True,
        "worker_extension_cls": EXTENSION,
        "generation_config": "vllm",
    }
    if gpu:
        # The trainer's model is on the same one, unless told otherwise.
        return {**common, "gpu_memory_utilization": 0.5}
    # Compiling takes a minute and gains little; attention wants blocks of 32 tokens or more. A
    # prompt in pieces makes vLLM wind back the generator of its seed, which a CPU's cannot do.
    return {**common, "enforce_eager": True, "block_size": 32, "enable_chunked_prefill": False}


def parameters(sampling: Sampling, top: int) -> Any:
    """What vLLM is told of a request: its ``SamplingParams``."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        seed=sampling.seed,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        max_tokens=sampling.max_tokens,
        stop_token_ids=list(sampling.stop),
        ignore_eos=True,  # What ends a completion is said by ``stop`` alone.
        logprobs=top,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def check_temperature(sampling: Sampling) -> None:
    """Refuse what vLLM would silently replace or reject.

    Raises:
        ConfigError: The temperature is neither 0 nor in [0.01, 2].
    """
    if sampling.temperature and not 0.01 <= sampling.temperature <= 2.0:
        raise ConfigError(f"vLLM samples at temperature 0 or 0.01 to 2, got {sampling.temperature}")


def completed(
    tokens: Sequence[int], rows: Sequence[Sequence[float]], sampling: Sampling, version: int
) -> Completion:
    """What vLLM answered.

    Args:
        tokens: Sampled ids.
        rows: Per token its log-probability first; then its entropy alone, or log-probabilities of
            the likeliest tokens, among which it is not repeated.
        sampling: What was asked for.
        version: Of the policy.

    Raises:
        ConfigError: A log-probability is no number, as those of weights that diverged.
    """
    if not all(row and float("-inf") < row[0] <= 1e-3 for row in rows):
        raise ConfigError(
            "the model's log-probabilities are not finite, its weights have diverged: lower the "
            "learning rate and go on from an earlier checkpoint"
        )
    told = tuple(tokens)
    finish = finish_of(told, sampling)
    if sampling.temperature == 0.0:
        # vLLM reports the model's numbers, but a greedy completion is drawn from a certainty.
        return Completion(told, (0.0,) * len(told), (0.0,) * len(told), version, finish)
    entropies = (
        row[1] if len(row) == 2 and row[1] >= 0.0 else entropy_at_least(row) for row in rows
    )
    return Completion(told, tuple(row[0] for row in rows), tuple(entropies), version, finish)


def one_line(problem: BaseException) -> str:
    """The last line of an exception's text, where libraries put the reason."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return f"{type(problem).__name__}: {lines[-1]}" if lines else type(problem).__name__
