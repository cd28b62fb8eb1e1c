"""Starts vLLM's engine in this process, and reads what it holds."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from agentgym.engines.vllm.arguments import ENVIRONMENT, default_dtype, defaults
from agentgym.errors import EngineError, MissingExtra, one_line


def start_engine(arguments: Mapping[str, Any]) -> tuple[Any, bool]:
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


@contextmanager
def _one_process() -> Iterator[None]:
    """Keep vLLM's worker in this process on a CPU; servers must not inherit the setting."""
    name = "VLLM_ENABLE_V1_MULTIPROCESSING"
    before = os.environ.get(name)
    os.environ[name] = "0"
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def unfinished_outputs(engine: Any) -> list[Any]:
    """The partial outputs of requests in flight."""
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
