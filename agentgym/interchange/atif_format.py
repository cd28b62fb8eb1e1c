"""Agent Trajectory Interchange Format, a JSON file per episode.

Source:
    Harbor, RFC 0001, version 1.7 (harbor 0.26.0, ``harbor.models.trajectories``): steps with
    messages, calls, observations, token ids and log-probabilities. Version 1.8 adds audio only.
"""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from agentgym import __version__
from agentgym.errors import ConfigError
from agentgym.evaluation.records import EpisodeRecord, TurnRecord
from agentgym.interchange.conversation import (
    FACTS,
    Conversation,
    Exchange,
    conversation_of,
    facts_of,
    record_of,
)
from agentgym.interchange.formats import Report
from agentgym.interchange.messages import text_of
from agentgym.types import ToolCall
from agentgym.utils.jsonl import dumps, parse_object

VERSION = "ATIF-v1.7"
_THOUGHT = re.compile(r"<think>(.*?)</think>(.*)", re.DOTALL)
_OWN = ("ends", "entropies", "versions", "advantages")
"""Columns without a place of their own."""


# ---- writing ---------------------------------------------------------------------------------


def write(records: Iterable[EpisodeRecord], path: Path) -> int:
    """Write a new folder with one file per episode; it appears when it is complete."""
    if path.exists():
        raise ConfigError(f"{path} exists: choose another `--out`, or remove it")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        count = 0
        for count, record in enumerate(records, start=1):
            text = dumps(trajectory(record)) + "\n"
            (partial / f"trajectory-{count:06d}.json").write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return count


def trajectory(record: EpisodeRecord) -> dict[str, Any]:
    """The object of one episode."""
    held = conversation_of(record)
    steps: list[dict[str, Any]] = (
        [{"source": "system", "message": held.system}] if held.system else []
    )
    steps.append({"source": "user", "message": held.user})
    context: list[int] = []
    for number, (turn, exchange) in enumerate(zip(record.turns, held.exchanges, strict=True)):
        context = [*([] if turn.fresh else context), *turn.prompt]
        copied = {"is_copied_context": True} if number < record.shared_turns else {}
        steps.append({**_agent_step(number, turn, exchange, context), **copied})
        context = [*context, *turn.tokens]
    return {
        "schema_version": VERSION,
        "session_id": f"{record.env}/{record.task}/{record.seed}",
        "trajectory_id": f"{record.env}/{record.task}/{record.seed}/{record.sample}",
        "agent": {
            "name": "agentgym",
            "version": __version__,
            **({"tool_definitions": list(held.tools)} if held.tools else {}),
        },
        "steps": [{"step_id": n, **step} for n, step in enumerate(steps, start=1)],
        "final_metrics": {
            "total_completion_tokens": record.completion_tokens,
            "total_steps": len(steps),
            "extra": {"score": record.score, "reward": record.reward, "won": record.won},
        },
        "extra": {FACTS: facts_of(record, held)},
    }


def _agent_step(
    number: int, turn: TurnRecord, exchange: Exchange, context: list[int]
) -> dict[str, Any]:
    step: dict[str, Any] = {"source": "agent", "message": exchange.content}
    sampled = bool(turn.tokens)
    thought = _THOUGHT.fullmatch(exchange.content) if sampled else None
    if thought is not None:
        step |= {"message": thought[2], "reasoning_content": thought[1]}
    ids = [f"call_{number}_{index}" for index in range(len(exchange.calls))]
    if exchange.calls:
        step["tool_calls"] = [
            {"tool_call_id": id_, "function_name": call.name, "arguments": dict(call.arguments)}
            for id_, call in zip(ids, exchange.calls, strict=True)
        ]
    sources = [{"source_call_id": id_} for id_ in ids] or [{}]
    results = zip(sources, exchange.results, strict=True)
    step["observation"] = {"results": [{**source, "content": text} for source, text in results]}
    step["llm_call_count"] = int(sampled)
    if sampled:
        step["metrics"] = _metrics(turn, context)
    return step


def _metrics(turn: TurnRecord, context: list[int]) -> dict[str, Any]:
    whole = not any(map(math.isnan, turn.logprobs))
    return {
        "prompt_tokens": len(context),
        "completion_tokens": len(turn.tokens),
        "prompt_token_ids": context,
        "completion_token_ids": list(turn.tokens),
        **({"logprobs": list(turn.logprobs)} if whole else {}),
        "extra": {
            "new_prompt_tokens": len(turn.prompt),
            **({} if whole else {"logprobs": list(turn.logprobs)}),
            **{name: list(getattr(turn, name)) for name in _OWN},
        },
    }


# ---- reading ---------------------------------------------------------------------------------


def read(path: Path, report: Report) -> Iterator[EpisodeRecord]:
    """The trajectories of a file, of a file of lines, or of all JSON files in a folder."""
    files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
    if not files:
        raise ConfigError(f"{path} has no JSON files")
    for file in files:
        for place, text in _texts(file):
            try:
                yield record_from(parse_object(text), file.stem)
            except ConfigError as problem:
                report(f"{place} is left out: {problem}")


def _texts(file: Path) -> Iterator[tuple[str, str]]:
    """Each object of a file as text, with its place."""
    whole = file.read_bytes().decode(errors="replace")
    lines = whole.splitlines()
    if file.suffix == ".jsonl" and len(lines) > 1:
        yield from ((f"{file}, line {n}", line) for n, line in enumerate(lines, 1) if line.strip())
    else:
        yield str(file), whole


def record_from(found: Mapping[str, Any], name: str) -> EpisodeRecord:
    """The episode of a trajectory, of any version.

    Raises:
        ConfigError: It is none.
    """
    version = found.get("schema_version")
    if not str(version).startswith("ATIF-v1."):
        raise ConfigError(f"schema_version is {version!r}, expected ATIF-v1.x")
    facts = (found.get("extra") or {}).get(FACTS)
    try:
        held, columns = _conversation(found)
    except (AttributeError, LookupError, TypeError, ValueError) as problem:
        raise ConfigError(f"a step is not as expected ({type(problem).__name__}: {problem})") from (
            problem
        )
    if facts is not None:
        turns = facts.get("turns") or []
        turns = [{**more, **own} for more, own in zip(turns, columns, strict=False)]
        facts = {**facts, "turns": turns}
    return record_of(held, facts, str(found.get("trajectory_id") or name))


def _conversation(found: Mapping[str, Any]) -> tuple[Conversation, list[dict[str, Any]]]:
    """The messages, and the token columns of each turn."""
    texts: dict[str, list[str]] = {"system": [], "user": []}
    exchanges: list[Exchange] = []
    columns: list[dict[str, Any]] = []
    for step in found["steps"]:
        text = text_of(step.get("message"))
        results = (step.get("observation") or {}).get("results") or []
        answers = [text_of(each.get("content")) for each in results]
        if step["source"] == "agent":
            thought = step.get("reasoning_content")
            text = text if thought is None else f"<think>{thought}</think>{text}"
            calls = [
                ToolCall(str(each["function_name"]), dict(each["arguments"]))
                for each in step.get("tool_calls") or ()
            ]
            exchanges.append(Exchange(text, tuple(calls), tuple(answers)))
            columns.append(_columns(step.get("metrics") or {}))
        elif exchanges:
            last = exchanges[-1]
            exchanges[-1] = Exchange(last.content, last.calls, (*last.results, text, *answers))
        else:
            texts[step["source"]] += [text, *answers]
    tools = tuple((found.get("agent") or {}).get("tool_definitions") or ())
    system, user = ("\n\n".join(texts[name]) for name in ("system", "user"))
    return Conversation(system, user, tuple(exchanges), tools), columns


def _columns(metrics: Mapping[str, Any]) -> dict[str, Any]:
    extra = metrics.get("extra") or {}
    tokens = metrics.get("completion_token_ids")
    if tokens is None or "new_prompt_tokens" not in extra:
        return {}
    read = metrics["prompt_token_ids"]
    return {
        "tokens": tokens,
        "prompt": read[len(read) - extra["new_prompt_tokens"] :],
        "logprobs": metrics.get("logprobs", extra.get("logprobs")),
        **{name: extra[name] for name in _OWN},
    }
