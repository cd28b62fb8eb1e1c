"""Checks which engines work on this machine by sampling from a tiny model with each."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, NamedTuple, get_args

import torch
from rich.markup import escape
from rich.table import Table

from agentgym.engines import Engine
from agentgym.engines.chat import api_root
from agentgym.engines.endpoint import Endpoint, RetryPolicy
from agentgym.engines.factory import API_KEY_VARIABLE, OPENAI_URL, EngineFactory
from agentgym.errors import AgentGymError, one_line
from agentgym.models import from_scratch
from agentgym.settings import EngineKind, ScratchSettings
from agentgym.types import Completion, Sampling

SHAPE = ScratchSettings(
    hidden_size=64,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    intermediate_size=96,
    vocab_size=from_scratch.MIN_VOCABULARY,
)
PROMPT = tuple(range(10, 80))
SECONDS = 20.0
"""Time limit for the answer of a chat endpoint."""
CLOSE = {torch.float32: 1e-4, torch.bfloat16: 0.3}
"""Largest difference of a log-probability, in nats, that rounding explains."""


class Finding(NamedTuple):
    """The result for one engine."""

    engine: EngineKind
    works: bool
    note: str
    seconds: float


def check_engines(server: str | None = None) -> Iterator[Finding]:
    """Try every engine; ``server`` is a chat endpoint's address."""
    for kind in get_args(EngineKind):
        started = time.perf_counter()
        try:
            works, note = True, _endpoint(server) if kind == "openai" else _sample(kind)
        except AgentGymError as problem:
            works, note = False, str(problem)
        except Exception as problem:  # From a third-party library; the next engine may work.
            works, note = False, one_line(problem)
        yield Finding(kind, works, note, time.perf_counter() - started)


def table(findings: Iterator[Finding]) -> Table:
    """The findings as a table for the terminal."""
    shown = Table(title="engines on this machine")
    for name in ("engine", "works", "seconds", "result, or why it does not work"):
        shown.add_column(name)
    for finding in findings:
        works = "[green]yes[/]" if finding.works else "[bold red]no[/]"
        shown.add_row(finding.engine, works, f"{finding.seconds:.0f}", escape(finding.note))
    return shown


def _sample(kind: EngineKind) -> str:
    """Sample with two sets of weights and compare with the model; raises on a difference."""
    if kind != "local" and find_spec("vllm") is None:
        raise AgentGymError('vLLM is not installed: pip install "agentic-gym[vllm]"')
    gpu = torch.cuda.is_available()
    dtype = torch.bfloat16 if gpu else torch.float32
    tokenizer = from_scratch.make_tokenizer((), SHAPE.vocab_size)
    models = [
        from_scratch.make_model(tokenizer, SHAPE, context=256, seed=seed).to(
            "cuda" if gpu else "cpu", dtype
        )
        for seed in (0, 1)
    ]
    engines = EngineFactory(kind)
    try:
        engine = engines.make(models[0], tokenizer, slots=4, context=256)
        gaps = [_gap(models[0], _ask(engine))]
        engine.load(models[1].state_dict(), 1)
        gaps.append(_gap(models[1], _ask(engine)))
    finally:
        engines.close()
    summary = (
        f"log-probabilities within {max(gaps):.0e} nats of the model's, also after new weights"
    )
    if max(gaps) > CLOSE[dtype]:
        raise AgentGymError(f"wrong: {summary.replace('also', f'{gaps[0]:.0e} before,')}")
    exact = getattr(engine, "exact_entropies", True)
    return f"{summary}; entropies {'exact' if exact else 'are lower bounds'}; {device()}"


def _ask(engine: Engine) -> Completion:
    return asyncio.run(engine.generate(PROMPT, Sampling(max_tokens=32)))


def _gap(model: Any, completion: Completion) -> float:
    """Largest difference of a log-probability from a plain forward pass, in nats."""
    text = torch.tensor([[*PROMPT, *completion.tokens]], device=model.device)
    with torch.no_grad():
        logprobs = model(input_ids=text).logits[0, len(PROMPT) - 1 : -1].float().log_softmax(-1)
    sampled = torch.tensor(completion.tokens, device=model.device)
    picked = logprobs.gather(-1, sampled[:, None])[:, 0].cpu()
    return float((picked - torch.tensor(completion.logprobs)).abs().max())


def device() -> str:
    """The default device of a model on this machine."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU, {torch.get_num_threads()} threads"


def _endpoint(server: str | None) -> str:
    """List the models of a chat endpoint."""
    if server is None and API_KEY_VARIABLE not in os.environ:
        raise AgentGymError(
            f"no endpoint to ask: give one with `--server`, or a key for {OPENAI_URL} "
            f"in {API_KEY_VARIABLE}"
        )
    endpoint = Endpoint(
        server or OPENAI_URL,
        key=os.environ.get(API_KEY_VARIABLE),
        retry=RetryPolicy(deadline=SECONDS),
    )
    models = endpoint.request(
        "GET",
        f"{api_root(endpoint.url)}/models",
        lambda answer: [str(model["id"]) for model in answer["data"]],
    )
    return f"{endpoint.url} serves {', '.join(models[:8])}{', ...' if models[8:] else ''}"
