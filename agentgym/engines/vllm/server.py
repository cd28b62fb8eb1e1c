"""Samples from a vLLM server over HTTP, started here or elsewhere; token ids in and out."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentgym.engines.endpoint import Endpoint, RetryPolicy
from agentgym.engines.requests import (
    ModelLimits,
    check_request,
    check_shapes,
    join_completions,
    remaining_request,
)
from agentgym.engines.vllm.adapters import AdapterFolder
from agentgym.engines.vllm.answers import parse_answer
from agentgym.engines.vllm.arguments import (
    ENVIRONMENT,
    TOP_LOGPROBS,
    check_temperature,
    server_words,
)
from agentgym.engines.vllm.control import ServerControl
from agentgym.engines.vllm.model_info import ModelInfo
from agentgym.engines.vllm.process import ServerProcess
from agentgym.engines.vllm.weight_files import write_weights
from agentgym.engines.weight_stream import WeightStream
from agentgym.errors import EngineError
from agentgym.types import Completion, Sampling
from agentgym.utils.access import TOKEN

if TYPE_CHECKING:
    import torch

START_SECONDS = 600.0
"""Time limit for a server to become ready; loading a large model takes minutes."""


class ServerEngine:
    """Samples from a vLLM server in its own processes.

    Without ``url`` the server is started here, ends with this process, and is restarted if it
    crashes: its requests are sent again, under the weights loaded last. With ``url`` a running
    server is used. It must serve the model and report processed log-probabilities; for ``load`` it
    must run in vLLM's development mode with this project's worker extension and read the files
    written here.

    Log-probabilities, entropies, versions and seeds are as with ``VLLMEngine``. A running server
    without the extension reports no entropies: they are lower bounds, see ``exact_entropies``.

    Args:
        model: Hugging Face folder or hub id.
        url: Of a running server, without ``/v1``; default: start one. A token in the environment
            variable ``AGENTGYM_TOKEN`` is sent to it.
        slots: Largest batch of a server that is started.
        context: Longest prompt plus completion, in tokens; at most what the server supports.
        dtype: Of a server that is started; default: float32 on a CPU, bfloat16 on a GPU.
        retry: How long to try.
        options: Further arguments of a server that is started, such as
            ``{"tensor-parallel-size": 2}``.
        adapters: PEFT's configuration of LoRA adapters, which ``load`` takes instead of weights.

    Raises:
        ConfigError: There is no such model.
        EngineError: The server could not be started or reached, or serves another model.
    """

    def __init__(
        self,
        model: str,
        *,
        url: str | None = None,
        slots: int = 64,
        context: int = 4096,
        dtype: str | None = None,
        retry: RetryPolicy | None = None,
        options: Mapping[str, object] | None = None,
        adapters: Mapping[str, Any] | None = None,
    ) -> None:
        self.takes_adapters = adapters is not None
        self._adapters = None if adapters is None else AdapterFolder(adapters)
        if self._adapters is not None:
            options = {"enable-lora": True, "max-lora-rank": self._adapters.rank, **(options or {})}
        self._info = ModelInfo.read(model)
        self.context = min(context, self._info.context or context)
        self.version = 0
        self._loads = 0
        """Odd during a weight update; an answer is valid if it saw one even number throughout."""
        self._weights_uncertain = False
        """A server not started here was unreachable and may have lost its weights."""
        self._failure: EngineError | None = None
        """Why the server cannot be used."""
        self._lock = threading.Lock()
        self._folder = Path(tempfile.mkdtemp(prefix="agentgym-vllm-"))
        self._weights: Path | None = None
        self._process: ServerProcess | None = None
        key = os.environ.get(TOKEN)
        if url is None:
            self._process = self._server(slots, dtype, options or {})
            url, key = self._process.url, self._process.token
        self._endpoint = Endpoint(url, key=key, retry=retry, on_unreachable=self._on_unreachable)
        self._control = ServerControl(self._endpoint, self._adapters)
        try:
            if self._process is not None:
                self._process.ensure()
            served = self._control.model(self._info)
            self._name, self.context = served.id, min(self.context, served.context or self.context)
            self.exact_entropies = self._install()
            last = self._info.vocabulary - 1
            self._control.check_mode(self._body([last], Sampling(max_tokens=1)))
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
        check_request(tokens, sampling, ModelLimits(self.context, self._info.vocabulary))
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
                self._body(*remaining_request(tokens, sampling, parts)),
                partial(parse_answer, sampling=sampling, version=self.version),
            )
            if self._weights_uncertain:
                await asyncio.to_thread(self._resend_weights)
            elif part.interrupted and self._loads <= loads + 2:
                parts.append(part.completion)
            elif loads == self._loads:
                return join_completions([*parts, part.completion])

    def finish(self, context: Sequence[int]) -> None:
        """Nothing to do: vLLM evicts the least recently used blocks."""

    def sleep(self) -> None:
        """Nothing to do: a server manages its own memory."""

    stream_device = "cpu"

    def load(self, weights: Mapping[str, torch.Tensor], version: int) -> None:
        """Write new weights to a folder and make the server load them; drops every cache.

        Completions in flight continue under them. May be called from any thread.

        Raises:
            ConfigError: A weight is missing or has another shape; nothing was changed.
            EngineError: The server did not load them.
        """
        self.load_stream(WeightStream.of(weights), version)

    def load_stream(self, weights: WeightStream, version: int) -> None:
        """The same with weights that are written as they arrive; the server samples meanwhile.

        Raises:
            ConfigError: A weight is missing or has another shape; nothing was changed.
            BrokenStream: They stopped arriving; the server keeps the old ones.
            EngineError: The server did not load them.
        """
        if self._adapters is None:
            check_shapes(self._info.shapes, weights.shapes)
        with self._lock:
            new = self._write(weights)
            with self._weight_update():
                old, self._weights = self._weights, new
                if self._process is not None and self._process.ensure():
                    self._install()
                else:
                    self._control.publish(new)
                self.version = version
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)

    def close(self) -> None:
        """Stop a server that was started here; completions in flight fail."""
        if self._process is not None:
            self._process.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._adapters is not None:
            self._adapters.close()

    # ---- requests ----------------------------------------------------------------------------

    def _body(self, prompt: list[int], sampling: Sampling) -> dict[str, Any]:
        return {
            "model": self._control.adapters or self._name,
            "prompt": prompt,
            "seed": sampling.seed,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "max_tokens": sampling.max_tokens,
            "stop_token_ids": list(sampling.stop),
            "ignore_eos": True,  # Only ``stop`` ends a completion.
            "logprobs": 1 if self.exact_entropies else TOP_LOGPROBS,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
        }

    async def _on_unreachable(self) -> None:
        """Restart a server of ours if it is down; mark the weights of another one as uncertain."""
        if self._process is None:
            self._weights_uncertain = self._weights is not None
        elif not self._process.alive:
            await asyncio.to_thread(self._restart)

    def _resend_weights(self) -> None:
        """Send the weights to a server that was unreachable and may have restarted."""
        with self._lock:
            if self._weights_uncertain:
                with self._weight_update():
                    self._install()
                self._weights_uncertain = False

    def _restart(self) -> None:
        assert self._process is not None, "only a server started here is restarted"
        with self._lock:
            if not self._process.alive:
                with self._weight_update():
                    self._process.ensure()
                    self._install()

    @contextmanager
    def _weight_update(self) -> Iterator[None]:
        """Invalidate answers during the update; after a failure refuse all requests."""
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
        words = server_words(self._info.path, self.context, slots, dtype, options)
        return ServerProcess(
            "agentgym.engines.vllm.serve",
            words,
            # Only the development mode serves pausing and weight updates.
            {
                **ENVIRONMENT,
                "VLLM_SERVER_DEV_MODE": "1",
                "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
            },
            log=self._folder / "server.log",
            deadline=START_SECONDS,
        )

    def _install(self) -> bool:
        """Install extension and weights; returns whether the server reports entropies."""
        try:
            exact = self._control.report_entropies()
        except EngineError:
            if self._process is not None:
                raise
            return False  # A running server may lack the extension.
        if self._weights is not None:
            self._control.publish(self._weights)
        return exact

    def _write(self, weights: WeightStream) -> Path:
        if self._adapters is None:
            return write_weights(weights, self._folder)
        self._adapters.write(dict(weights))
        return self._adapters.path
