"""A log of Inspect AI, written and read by its own functions: a sample per episode.

A task is a sample's id, the number of the episode its epoch; ``score`` is its score, and our record
without the conversation is its metadata.

Source:
    inspect_ai 0.3: ``EvalLog``, ``EvalSample``, ``write_eval_log``, ``read_eval_log``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from agentgym import __version__
from agentgym.errors import ConfigError, MissingExtra
from agentgym.evaluation.records import EpisodeRecord
from agentgym.interchange.conversation import (
    FACTS,
    conversation_of,
    facts_of,
    in_unicode,
    record_of,
)
from agentgym.interchange.formats import Report
from agentgym.interchange.messages import Message, conversation_from, messages_of
from agentgym.types import Task

SCORER = "agentgym"
"""Name of the environment's score."""
_PLACE = "agentgym-"
"""Beginning of the unique ids of our samples; their number follows."""


def write(records: Iterable[EpisodeRecord], path: Path) -> int:
    """Write the log; it appears when it is complete.

    Raises:
        MissingExtra: inspect_ai is not installed.
        ConfigError: There is no episode.
    """
    log = _inspect()
    found = list(records)
    if not found:
        raise ConfigError("there is no episode to write")
    named = zip(found, _ids(found), strict=True)
    samples = [_sample(log, each, id_, number) for number, (each, id_) in enumerate(named)]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")
    try:
        log.write_eval_log(_log(log, found, samples), str(partial))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return len(found)


def _log(log: Any, records: list[EpisodeRecord], samples: list[Any]) -> Any:
    names = list(dict.fromkeys(sample.id for sample in samples))
    envs = ", ".join(dict.fromkeys(each.env for each in records))
    score = log.EvalScore(name=SCORER, scorer=SCORER, metrics=_metrics(log, records))
    return log.EvalLog(
        status="success",
        eval=log.EvalSpec(
            created=datetime.now(UTC).isoformat(),
            task=envs,
            dataset=log.EvalDataset(name=envs, samples=len(names), sample_ids=names),
            model="none/none",
            config=log.EvalConfig(epochs=1 + max(each.sample for each in records)),
            packages={"agentic-gym": __version__},
        ),
        results=log.EvalResults(
            total_samples=len(samples), completed_samples=len(samples), scores=[score]
        ),
        samples=samples,
    )


def _metrics(log: Any, records: list[EpisodeRecord]) -> dict[str, Any]:
    scored = [record for record in records if record.stop.scored]
    share = sum(record.won for record in scored) / len(scored) if scored else 0.0
    return {"success": log.EvalMetric(name="success", value=share)}


def _ids(records: list[EpisodeRecord]) -> Iterator[str]:
    """Ids of samples, one per task; numbered where training plays a task again.

    Inspect knows a sample by its id and epoch.
    """
    times: Counter[tuple[Task, int]] = Counter()
    for record in records:
        name = f"{record.task}/{record.seed}" if record.seed else record.task
        times[record.key] += 1
        yield name if times[record.key] == 1 else f"{name}#{times[record.key]}"


def _sample(log: Any, record: EpisodeRecord, id_: str, number: int) -> Any:
    held = in_unicode(conversation_of(record))
    messages = [_message(log, each) for each in messages_of(held, texts=False)]
    start = 2 if held.system else 1
    scores = {SCORER: log.Score(value=record.score, explanation=record.stop.value)}
    error = log.EvalError(message=record.error, traceback="", traceback_ansi="")
    return log.EvalSample(
        id=id_,
        epoch=1 + record.sample,
        uuid=f"{_PLACE}{number:09d}",
        input=messages[:start],
        target="",
        messages=messages,
        scores=scores if record.stop.scored else None,
        error=None if record.stop.scored else error,
        metadata={FACTS: facts_of(record, held), "tools": list(held.tools)},
    )


def _message(log: Any, message: Message) -> Any:
    role, content = message["role"], message["content"]
    if role == "assistant":
        calls = [
            log.ToolCall(each["id"], each["function"]["name"], each["function"]["arguments"])
            for each in message.get("tool_calls", ())
        ]
        return log.ChatMessageAssistant(content=content, tool_calls=calls or None)
    if role == "tool":
        return log.ChatMessageTool(
            content=content, tool_call_id=message["tool_call_id"], function=message["name"]
        )
    kind = log.ChatMessageSystem if role == "system" else log.ChatMessageUser
    return kind(content=content)


def read(path: Path, report: Report) -> Iterator[EpisodeRecord]:
    """The samples of a log, this project's or another's; of another's, the first score is kept.

    Raises:
        MissingExtra: inspect_ai is not installed.
        ConfigError: It is no log, or was cut off.
    """
    log = _inspect()
    try:
        found = log.read_eval_log(str(path), resolve_attachments=True)
    except Exception as problem:  # zip, JSON and validation errors have no common type.
        reason = " ".join(str(problem).split())[:200]
        raise ConfigError(f"{path} is no log of Inspect, or was cut off: {reason}") from problem
    # Inspect sorts by epoch and id; our own logs come back in the order in which they were written.
    for sample in sorted(found.samples or (), key=_place):
        name = f"{sample.id}"
        try:
            yield _record(log, sample, name)
        except (ConfigError, AttributeError, TypeError, ValueError) as problem:
            report(f"{path}, sample {name} of epoch {sample.epoch} is left out: {problem}")


def _place(sample: Any) -> str:
    return sample.uuid if str(sample.uuid).startswith(_PLACE) else ""


def _record(log: Any, sample: Any, name: str) -> EpisodeRecord:
    metadata = sample.metadata or {}
    held = conversation_from([_plain(each) for each in sample.messages], metadata.get("tools"))
    if FACTS in metadata:
        return record_of(held, metadata[FACTS], name)
    record = replace(record_of(held, None, name), sample=sample.epoch - 1)
    number = log.value_to_float()  # "C" for correct is 1, "I" is 0.
    scores = [number(each.value) for each in (sample.scores or {}).values()]
    return replace(record, score=scores[0], won=scores[0] >= 1.0) if scores else record


def _plain(message: Any) -> Message:
    calls = [
        {"function": {"name": each.function, "arguments": each.arguments}}
        for each in getattr(message, "tool_calls", None) or ()
    ]
    return {"role": message.role, "content": message.text, "tool_calls": calls}


def _inspect() -> Any:
    """What is used of inspect_ai, in one place."""
    try:
        from inspect_ai import log, model, scorer
        from inspect_ai.tool import ToolCall
    except ImportError as problem:
        raise MissingExtra(
            "logs of Inspect need inspect_ai: pip install 'agentic-gym[inspect]'"
        ) from problem
    return SimpleNamespace(
        **{name: getattr(log, name) for name in log.__all__ if hasattr(log, name)},
        **{name: getattr(model, name) for name in dir(model) if name.startswith("ChatMessage")},
        Score=scorer.Score,
        value_to_float=scorer.value_to_float,
        ToolCall=ToolCall,
    )
