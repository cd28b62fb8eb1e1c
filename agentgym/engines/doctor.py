"""Which engines work on this machine: each is tried for real, with a model of a moment."""

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
from agentgym.engines.endpoint import Endpoint, RetryPolicy
from agentgym.engines.factory import ENDPOINT, KEY, Engines
from agentgym.engines.vllm.engine import one_line
from agentgym.errors import AgentGymError
from agentgym.models import from_scratch
from agentgym.settings import EngineKind, ScratchSettings
from agentgym.types import Completion, Sampling

SHAPE = ScratchSettings(
    hidden_size=64,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    intermediate_size=96,
    vocab_size=from_scratch.SMALLEST,
)
PROMPT = tuple(range(10, 80))
SECONDS = 20.0
"""In which a chat endpoint must answer."""
CLOSE = {torch.float32: 1e-4, torch.bfloat16: 0.3}
"""Largest difference of a log-probability, in nats, that precision explains."""


class Finding(NamedTuple):
    """What was found out about one engine."""

    engine: EngineKind
    works: bool
    note: str
    seconds: float


def examine(server: str | None = None) -> Iterator[Finding]:
    """Try every engine; ``server`` is a chat endpoint's address."""
    for kind in get_args(EngineKind):
        begun = time.perf_counter()
        try:
            works, note = True, _endpoint(server) if kind == "openai" else _sample(kind)
        except AgentGymError as problem:
            works, note = False, str(problem)
        except Exception as problem:  # Of what others have made; the next may work.
            works, note = False, one_line(problem)
        yield Finding(kind, works, note, time.perf_counter() - begun)


def table(findings: Iterator[Finding]) -> Table:
    """For people."""
    shown = Table(title="engines on this machine")
    for name in ("engine", "works", "seconds", "how it did, or why it does not"):
        shown.add_column(name)
    for finding in findings:
        works = "[green]yes[/]" if finding.works else "[bold red]no[/]"
        shown.add_row(finding.engine, works, f"{finding.seconds:.0f}", escape(finding.note))
    return shown


def _sample(kind: EngineKind) -> str:
    """Sample with two sets of weights and compare with the model; raises what is wrong."""
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
    engines = Engines(kind)
    try:
        engine = engines.make(models[0], tokenizer, slots=4, context=256)
        gaps = [_gap(models[0], _ask(engine))]
        engine.load(models[1].state_dict(), 1)
        gaps.append(_gap(models[1], _ask(engine)))
    finally:
        engines.close()
    told = f"log-probabilities within {max(gaps):.0e} nats of the model's, also after new weights"
    if max(gaps) > CLOSE[dtype]:
        raise AgentGymError(f"wrong: {told.replace('also', f'{gaps[0]:.0e} before,')}")
    exact = getattr(engine, "exact_entropies", True)
    return f"{told}; entropies {'exact' if exact else 'are lower bounds'}; {device()}"


def _ask(engine: Engine) -> Completion:
    return asyncio.run(engine.generate(PROMPT, Sampling(max_tokens=32)))


def _gap(model: Any, completion: Completion) -> float:
    """Largest difference of a log-probability from a plain forward pass, in nats."""
    text = torch.tensor([[*PROMPT, *completion.tokens]], device=model.device)
    with torch.no_grad():
        logprobs = model(input_ids=text).logits[0, len(PROMPT) - 1 : -1].float().log_softmax(-1)
    said = torch.tensor(completion.tokens, device=model.device)
    picked = logprobs.gather(-1, said[:, None])[:, 0].cpu()
    return float((picked - torch.tensor(completion.logprobs)).abs().max())


def device() -> str:
    """What a model runs on here unless told otherwise."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU, {torch.get_num_threads()} threads"


def _endpoint(server: str | None) -> str:
    """Ask a chat endpoint for its models."""
    if server is None and KEY not in os.environ:
        raise AgentGymError(
            f"no endpoint to ask: give one with `--server`, or a key for {ENDPOINT} in {KEY}"
        )
    endpoint = Endpoint(
        server or ENDPOINT, key=os.environ.get(KEY), patience=RetryPolicy(deadline=SECONDS)
    )
    models = endpoint.ask(
        "GET", "/v1/models", lambda answer: [str(model["id"]) for model in answer["data"]]
    )
    return f"{endpoint.url} serves {', '.join(models[:8])}{', ...' if models[8:] else ''}"
