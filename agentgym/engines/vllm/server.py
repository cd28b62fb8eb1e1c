"""Samples with a vLLM server over HTTP, started here or running elsewhere; token ids in and out."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from agentgym.engines.endpoint import Endpoint, RetryPolicy
from agentgym.engines.requests import Room, check_request, check_weights, joined, rest_of
from agentgym.engines.vllm.engine import (
    ENVIRONMENT,
    TOP,
    check_temperature,
    completed,
    default_dtype,
    defaults,
)
from agentgym.engines.vllm.model_info import Saved
from agentgym.engines.vllm.process import ServerProcess
from agentgym.errors import EngineError
from agentgym.types import Completion, Sampling

if TYPE_CHECKING:
    import torch

START_SECONDS = 600.0
"""In which a server that we start must be ready; reading a large model takes minutes."""
RESETS = 100
"""Tries to empty the cache of a server that is paused."""


class ServerEngine:
    """A vLLM server that samples; its processes do not share this interpreter.

    Without ``url`` the server is started here, ends with this process, and is started again when
    it goes down: requests that it took with it are made anew, and the weights are the last ones
    loaded. With ``url`` a running server is used. It must serve the model, report processed
    log-probabilities, and for ``load`` run in vLLM's development mode with our extension of its
    worker, and see the files that we write.

    Log-probabilities, entropies, versions and seeds are as with ``VLLMEngine``. A running server
    without our extension reports no entropies: they are lower bounds, ``exact_entropies`` says.

    Args:
        model: Hugging Face folder or hub id.
        url: Of a running server, without ``/v1``; unless given, one is started.
        slots: Largest batch of a server that is started.
        context: Longest prompt plus completion, in tokens; cut to what model and server take.
        dtype: Of a server that is started: float32 on a CPU, bfloat16 on a GPU unless given.
        patience: How long to wait for an answer.
        options: Further arguments of a server that is started, such as
            ``{"tensor-parallel-size": 2}``.

    Raises:
        ConfigError: There is no such model.
        EngineError: The server could not be started or reached, or is another model's.
    """

    def __init__(
        self,
        model: str,
        *,
        url: str | None = None,
        slots: int = 64,
        context: int = 4096,
        dtype: str | None = None,
        patience: RetryPolicy | None = None,
        options: Mapping[str, object] | None = None,
    ) -> None:
        self._saved = Saved.read(model)
        self.context = min(context, self._saved.context or context)
        self.version = 0
        self._loads = 0
        """Odd while weights are changing; an answer counts when it saw one even number."""
        self._doubted = False
        """Another's server was out of reach after it had been given weights."""
        self._failure: EngineError | None = None
        """Why the server is in no state to be asked."""
        self._lock = threading.Lock()
        self._folder = Path(tempfile.mkdtemp(prefix="agentgym-vllm-"))
        self._weights: Path | None = None
        self._process: ServerProcess | None = None
        if url is None:
            self._process = self._server(slots, dtype, options or {})
            url = self._process.url
        self._endpoint = Endpoint(url, patience=patience, revive=self._revive)
        try:
            if self._process is not None:
                self._process.ensure()
            self._name = self._identify()
            self.exact_entropies = self._install()
            self._check_mode()
        except BaseException:
            self.close()
            raise

    async def generate(self, prompt: Sequence[int], sampling: Sampling) -> Completion:
        """Sample one completion.

        Raises:
            ConfigError: The prompt is empty, leaves no room for ``max_tokens``, or holds an id
                outside the vocabulary; or a sampling parameter is out of range.
            EngineError: The server refused the request, or gave no usable answer in time.
        """
        tokens = list(prompt)
        check_request(tokens, sampling, Room(self.context, self._saved.vocabulary))
        check_temperature(sampling)
        parts: list[Completion] = []
        while True:
            while self._loads % 2:
                await asyncio.sleep(0.01)
            if self._failure is not None:
                raise self._failure
            loads = self._loads
            part = await self._endpoint.post(
                "/v1/completions",
                self._body(*rest_of(tokens, sampling, parts)),
                partial(_read, sampling=sampling, version=self.version),
            )
            if self._doubted:
                await asyncio.to_thread(self._remind)
            elif part.cut and self._loads <= loads + 2:
                parts.append(part.completion)
            elif loads == self._loads:
                return joined([*parts, part.completion])

    def finish(self, context: Sequence[int]) -> None:
        """Nothing to do: vLLM forgets what has not been used for longest."""

    def rest(self) -> None:
        """Nothing to do: a server has memory of its own."""

    def load(self, weights: Mapping[str, torch.Tensor], version: int) -> None:
        """Write new weights to a folder and have the server read them; drops every cache.

        Completions in flight go on under them. May be called from any thread.

        Raises:
            ConfigError: A weight is missing or has another shape; nothing was changed.
            EngineError: The server did not take them.
        """
        check_weights(self._saved.shapes, weights)
        with self._lock, self._changing():
            old, self._weights = self._weights, self._write(weights)
            if self._process is not None and self._process.ensure():
                self._install()
            else:
                self._publish()
            self.version = version
        if old is not None:
            shutil.rmtree(old)

    def close(self) -> None:
        """End a server that was started here; completions in flight fail."""
        if self._process is not None:
            self._process.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    # ---- requests ----------------------------------------------------------------------------

    def _body(self, prompt: list[int], sampling: Sampling) -> dict[str, Any]:
        return {
            "model": self._name,
            "prompt": prompt,
            "seed": sampling.seed,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "max_tokens": sampling.max_tokens,
            "stop_token_ids": list(sampling.stop),
            "ignore_eos": True,  # What ends a completion is said by ``stop`` alone.
            "logprobs": 1 if self.exact_entropies else TOP,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
        }

    async def _revive(self) -> None:
        """Start our server again if it is down; of another's, doubt that it is what it was."""
        if self._process is None:
            self._doubted = self._weights is not None
        elif not self._process.alive:
            await asyncio.to_thread(self._restart)

    def _remind(self) -> None:
        """Give a server that was out of reach our weights: it may have begun anew."""
        with self._lock:
            if self._doubted:
                with self._changing():
                    self._install()
                self._doubted = False

    def _restart(self) -> None:
        assert self._process is not None, "only a server of our own goes down"
        with self._lock:
            if not self._process.alive:
                with self._changing():
                    self._process.ensure()
                    self._install()

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """What is answered meanwhile counts for nothing; after a failure nothing is asked."""
        self._loads += 1
        try:
            yield
            self._failure = None
        except EngineError as problem:
            self._failure = problem
            raise
        finally:
            self._loads += 1

    # ---- the server --------------------------------------------------------------------------

    def _server(
        self, slots: int, dtype: str | None, options: Mapping[str, object]
    ) -> ServerProcess:
        import torch

        gpu = torch.cuda.is_available()
        settings = {
            "model": self._saved.path,
            "host": "127.0.0.1",
            "dtype": dtype or default_dtype(gpu),
            "max-model-len": self.context,
            "max-num-seqs": slots,
            **{name.replace("_", "-"): value for name, value in defaults(gpu).items()},
            **options,
        }
        words = ["--disable-uvicorn-access-log"]
        for name, value in settings.items():
            if isinstance(value, bool):
                words += [f"--{name}" if value else f"--no-{name}"]
            else:
                words += [f"--{name}", str(value)]
        return ServerProcess(
            "agentgym.engines.vllm.serve",
            words,
            # Pausing and new weights are served in the development mode only.
            {**ENVIRONMENT, "VLLM_SERVER_DEV_MODE": "1"},
            log=self._folder / "server.log",
            deadline=START_SECONDS,
        )

    def _identify(self) -> str:
        """The name under which the server serves our model."""
        served = self._endpoint.ask("GET", "/v1/models", _served)
        ours = self._saved.path
        for model in served:
            if _same(ours, model.id) or _same(ours, model.root):
                self.context = min(self.context, model.context or self.context)
                return model.id
        raise EngineError(
            f"the server at {self._endpoint.url} serves {', '.join(m.id for m in served)}, "
            f"expected {ours}: name the server of this model, or the model of this server"
        )

    def _install(self) -> bool:
        """Bring the server to our state; whether it reports entropies."""
        try:
            # Answers are sent as text.
            exact = set(self._call("agentgym_report_entropies")) == {"True"}
        except EngineError:
            if self._process is not None:
                raise
            return False  # A running server may be without our extension.
        if self._weights is not None:
            self._publish()
        return exact

    def _check_mode(self) -> None:
        """Refuse a server whose log-probabilities are not of the distribution sampled from."""
        last = self._saved.vocabulary - 1
        asked = self._body([last], Sampling(max_tokens=1)) | {"logprobs": TOP}
        rows = []
        for temperature in (0.5, 1.0):
            rows.append(
                self._endpoint.ask(
                    "POST",
                    "/v1/completions",
                    lambda answer: sorted(_likeliest(answer).values())[-5:],
                    json=asked | {"temperature": temperature},
                )
            )
        spread = rows[1][-1] - rows[1][0]
        if rows[0] == rows[1] and spread > 1e-6:
            raise EngineError(
                f"the server at {self._endpoint.url} reports log-probabilities from before "
                f"temperature and cuts; start it with --logprobs-mode processed_logprobs"
            )

    def _call(self, method: str, *arguments: object) -> list[Any]:
        body = {"method": method, "args": list(arguments), "timeout": START_SECONDS}
        return self._endpoint.ask(
            "POST", "/collective_rpc", lambda answer: list(answer["results"]), json=body
        )

    def _publish(self) -> None:
        """Have the server read our last weights while nothing is computed with the old ones."""
        self._endpoint.ask("POST", "/pause", params={"mode": "abort"})
        self._call("agentgym_load", str(self._weights))
        for _ in range(RESETS):
            if self._endpoint.ask("POST", "/reset_prefix_cache", lambda told: told["success"]):
                break
            time.sleep(0.1)  # Aborted requests hold their part of the cache for a moment.
        else:
            raise EngineError(f"{self._endpoint.url} keeps a cache of the old weights")
        self._endpoint.ask("POST", "/resume")

    def _write(self, weights: Mapping[str, torch.Tensor]) -> Path:
        from safetensors.torch import save_file

        folder = Path(tempfile.mkdtemp(prefix="weights-", dir=self._folder))
        # Copies, because tied weights share memory, which the format does not know.
        named = {name: w.detach().cpu().clone().contiguous() for name, w in weights.items()}
        save_file(named, folder / "model.safetensors")
        return folder


class _Model(NamedTuple):
    """What a server says it serves."""

    id: str
    root: str
    """Where it was loaded from."""
    context: int | None


def _served(answer: Any) -> list[_Model]:
    return [
        _Model(str(one["id"]), str(one.get("root") or one["id"]), one.get("max_model_len"))
        for one in answer["data"]
    ]


def _same(ours: str, theirs: str) -> bool:
    """Whether two names are of one model: a folder may be another's mount of ours.

    But not one that is here as well: every run has a folder ``final``.
    """
    if ours == theirs:
        return True
    if Path(theirs).is_absolute() and Path(theirs).exists():
        return Path(ours).resolve() == Path(theirs).resolve()
    return Path(ours).name == Path(theirs).name


def _likeliest(answer: Any) -> dict[str, float]:
    found: dict[str, float] = answer["choices"][0]["logprobs"]["top_logprobs"][0]
    return found


class _Part(NamedTuple):
    """A completion, or the beginning of one."""

    completion: Completion
    cut: bool
    """New weights are on their way, and it is to go on under them."""


def _read(answer: Any, *, sampling: Sampling, version: int) -> _Part:
    """The completion in an answer; raises what ``Endpoint.post`` takes for none."""
    choice = answer["choices"][0]
    cut = choice["finish_reason"] == "abort" and bool(choice["token_ids"])
    if not cut and choice["finish_reason"] not in ("stop", "length"):
        raise ValueError(f"a completion ended by {choice['finish_reason']!r}")
    told = choice["logprobs"]
    rows = [
        [logprob, *(value for token, value in likeliest.items() if token != name)]
        for name, logprob, likeliest in zip(
            told["tokens"], told["token_logprobs"], told["top_logprobs"], strict=True
        )
    ]
    named = [f"token_id:{token}" for token in choice["token_ids"]]
    if told["tokens"] != named:
        raise ValueError(f"log-probabilities of {told['tokens'][:9]} came with {named[:9]}")
    return _Part(completed(choice["token_ids"], rows, sampling, version), cut)
