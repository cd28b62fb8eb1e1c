"""Which engine samples: one function that makes any of them, and whoever closes it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

from agentgym.engines import Engine
from agentgym.errors import ConfigError
from agentgym.models.lora import merged
from agentgym.settings import EngineKind

KEY = "OPENAI_API_KEY"
"""Environment variable with the key of a chat endpoint."""
ENDPOINT = "https://api.openai.com"
"""The chat endpoint unless another is named."""


def check_device(kind: EngineKind, name: str) -> None:
    """Refuse a device that is not there, or is not the local engine's to choose.

    Raises:
        ConfigError: Naming it.
    """
    import torch

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
class Engines:
    """Makes a run's engine, again whenever asked; one lives at a time, none after ``close``."""

    kind: EngineKind = "local"
    server: str | None = None
    """Address of a running server, without ``/v1``; ``vllm-server`` starts one unless given."""
    device: str | None = None
    """Where the local engine is; beside the model unless given."""
    bitwise: bool = True
    """On a CPU, see ``LocalEngine``."""
    alone: bool = True
    """Nobody learns there while it samples, so that it may make CUDA graphs."""
    served: str | None = None
    """What a running server was started with, when it is to be given the weights of other models:
    those that training makes of it."""
    _closing: list[Callable[[], None]] = field(default_factory=list)

    def make(self, model: Any, tokenizer: Any, *, slots: int, context: int) -> Engine:
        """End the last engine and start another.

        Args:
            model: A Hugging Face model, or the folder, hub id or endpoint's name of one.
            tokenizer: The model's; a chat endpoint's conversations are written with it.
            slots: Completions at once.
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
                make = partial(LocalEngine, model)
            return make(
                slots=slots,
                context=context,
                device=self.device,
                graphs=self.alone,
                bitwise=self.bitwise,
            )
        if self.kind == "openai":
            from agentgym.engines.chat import ChatEngine
            from agentgym.engines.endpoint import Endpoint

            endpoint = Endpoint(self.server or ENDPOINT, key=os.environ.get(KEY))
            return ChatEngine(str(model), endpoint, tokenizer)
        if self.served is not None:
            engine = self._vllm(self.served, slots, context)
            engine.load(merged(model).state_dict(), 0)
            return engine
        path = str(model) if isinstance(model, str | Path) else self._save(model, tokenizer)
        return self._vllm(path, slots, context)

    def close(self) -> None:
        """End the engine, if there is one."""
        while self._closing:
            self._closing.pop()()

    async def __aenter__(self) -> Self:
        """Nothing is started yet."""
        return self

    async def __aexit__(self, *raised: object) -> None:
        """End the engine."""
        self.close()

    def _vllm(self, path: str, slots: int, context: int) -> Engine:
        if self.kind == "vllm":
            if self.server is not None:
                raise ConfigError("the engine vllm needs no server: use `--engine vllm-server`")
            from agentgym.engines.vllm.engine import VLLMEngine

            engine = VLLMEngine(path, slots=slots, context=context)
            self._closing.append(engine.close)
            return engine
        from agentgym.engines.vllm.server import ServerEngine

        server = ServerEngine(path, url=self.server, slots=slots, context=context)
        self._closing.append(server.close)
        return server

    def _save(self, model: Any, tokenizer: Any) -> str:
        """Where vLLM finds a model that is in memory, with adapters added to the weights."""
        folder = tempfile.TemporaryDirectory(prefix="agentgym-model-")
        self._closing.append(folder.cleanup)
        merged(model).save_pretrained(folder.name)
        tokenizer.save_pretrained(folder.name)
        return folder.name
