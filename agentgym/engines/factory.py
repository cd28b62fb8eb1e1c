"""Creates and closes the engine that the settings choose."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch

from agentgym.engines import Engine
from agentgym.engines.stats import ChatUsage
from agentgym.errors import ConfigError
from agentgym.models.lora import (
    adapter_config,
    adapter_weights,
    has_lora,
    merge_lora,
    without_lora,
)
from agentgym.models.precision import compute_dtype
from agentgym.models.protocols import CausalLM, Tokenizer
from agentgym.settings import EndpointSettings, EngineKind, Precision

API_KEY_VARIABLE = "OPENAI_API_KEY"
"""Environment variable that holds the API key of a chat endpoint."""
OPENAI_URL = "https://api.openai.com"
"""Default address of the chat endpoint."""


def check_device(kind: EngineKind, name: str) -> None:
    """Reject a device that does not exist, or a device for an engine other than local.

    Raises:
        ConfigError: Naming it.
    """
    if kind != "local":
        raise ConfigError(
            f"the engine {kind} finds its own device: set CUDA_VISIBLE_DEVICES for it, and leave "
            f"`--engine-device` out"
        )
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as problem:
        reason = (str(problem).splitlines() or [type(problem).__name__])[0]
        raise ConfigError(
            f"`--engine-device` must be a device of this machine such as cpu or cuda:0, got "
            f"{name!r} ({reason})"
        ) from problem


@dataclass
class EngineFactory:
    """Creates the engine of a run; at most one is open at a time, none after ``close``."""

    kind: EngineKind = "local"
    server: str | None = None
    """Address of a running server, without ``/v1``; ``vllm-server`` starts one unless given."""
    device: str | None = None
    """Device of the local engine; default: that of the model."""
    batch_invariant: bool = True
    """Batch-invariant results of the local engine in float32 on a CPU, see ``LocalEngine``."""
    precision: Precision = "auto"
    """Precision of the engine; in bfloat16 the local engine is not batch-invariant."""
    cuda_graphs: bool = True
    """Capture CUDA graphs; only where no trainer uses the GPU while the engine samples."""
    server_model: str | None = None
    """Model that a running server was started with, if training sends its own weights to it."""
    endpoint: EndpointSettings = field(default_factory=EndpointSettings)
    """How a chat endpoint is used."""
    sync_adapters: bool = False
    """vLLM gets the base of a model with adapters once, and then the adapters alone."""
    report: Callable[[str], None] | None = None
    """Called with one line when an endpoint keeps requests waiting, and with its usage at the end;
    default: silent."""
    _closing: list[Callable[[], None]] = field(default_factory=list)

    @property
    def units_per_token(self) -> int:
        """Tokens of the engine's tokenizer per token of a usual vocabulary."""
        return 4 if self.kind == "openai" else 1

    def make(
        self, model: CausalLM | str | Path, tokenizer: Tokenizer, *, slots: int, context: int
    ) -> Engine:
        """Close the previous engine and start a new one.

        Args:
            model: A Hugging Face model, its folder or hub id, or a model name of the endpoint.
            tokenizer: Of the model; for a chat endpoint, of the conversation.
            slots: Maximum number of concurrent completions.
            context: Longest prompt plus completion, in tokens.

        Raises:
            ConfigError: The choice does not fit the model.
            MissingExtra: A package is not installed.
            EngineError: The engine could not be started.
        """
        self.close()
        if self.kind == "local":
            from agentgym.engines.local.engine import LocalEngine

            if isinstance(model, str | Path):
                make = partial(LocalEngine.from_pretrained, str(model))
            else:
                make = partial(LocalEngine, model, dtype=compute_dtype(self.precision, model))
            return make(
                slots=slots,
                context=context,
                device=self.device,
                cuda_graphs=self.cuda_graphs,
                batch_invariant=self.batch_invariant,
            )
        if self.kind == "openai":
            from agentgym.engines.chat import ChatEngine
            from agentgym.engines.endpoint import Endpoint, RetryPolicy

            endpoint = Endpoint(
                self.server or OPENAI_URL,
                key=os.environ.get(API_KEY_VARIABLE),
                retry=RetryPolicy(deadline=self.endpoint.deadline),
                report=self.report,
            )
            fields = self.endpoint.fields
            chat = ChatEngine(str(model), endpoint, tokenizer, extra=fields, report=self.report)
            self._closing.append(lambda: self._report_usage(chat.usage))
            return chat
        if self.server_model is not None and not self.sync_adapters:
            engine = self._vllm(self.server_model, slots, context)
            assert not isinstance(model, str | Path), "a running server is sent weights"
            engine.load(merge_lora(model).state_dict(), 0)
            return engine
        if isinstance(model, str | Path):
            given = None if self.precision == "auto" else self.precision
            return self._vllm(str(model), slots, context, given)
        # As the trainer computes, so that log-probabilities agree.
        dtype = str(compute_dtype(self.precision, model)).removeprefix("torch.")
        if not (self.sync_adapters and has_lora(model)):
            return self._vllm(self._save(merge_lora(model), tokenizer), slots, context, dtype)
        path = self.server_model or self._save(without_lora(model), tokenizer)
        engine = self._vllm(path, slots, context, dtype, adapter_config(model))
        engine.load(adapter_weights(model), 0)
        return engine

    def close(self) -> None:
        """Close the engine, if one is open."""
        while self._closing:
            self._closing.pop()()

    async def __aenter__(self) -> Self:
        """Start nothing yet."""
        return self

    async def __aexit__(self, *raised: object) -> None:
        """Close the engine."""
        self.close()

    def _report_usage(self, usage: ChatUsage) -> None:
        prices = self.endpoint.prompt_price, self.endpoint.completion_price
        if self.report is not None and usage.requests:
            self.report(f"endpoint: {usage.priced(*prices)}")

    def _vllm(
        self,
        path: str,
        slots: int,
        context: int,
        dtype: str | None = None,
        adapters: Mapping[str, Any] | None = None,
    ) -> Engine:
        if self.kind == "vllm":
            if self.server is not None:
                raise ConfigError("the engine vllm needs no server: use `--engine vllm-server`")
            from agentgym.engines.vllm.engine import VLLMEngine

            engine = VLLMEngine(path, slots=slots, context=context, dtype=dtype, adapters=adapters)
            self._closing.append(engine.close)
            return engine
        from agentgym.engines.vllm.server import ServerEngine

        server = ServerEngine(
            path, url=self.server, slots=slots, context=context, dtype=dtype, adapters=adapters
        )
        self._closing.append(server.close)
        return server

    def _save(self, model: CausalLM, tokenizer: Tokenizer) -> str:
        """Save a model without adapters for vLLM to read; its folder."""
        folder = tempfile.TemporaryDirectory(prefix="agentgym-model-")
        self._closing.append(folder.cleanup)
        model.save_pretrained(folder.name)
        tokenizer.save_pretrained(folder.name)
        return folder.name
