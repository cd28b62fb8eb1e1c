"""Parquet for verl: a row per episode.

======================================  ====================================================
``messages``, ``tools``                 ``MultiTurnSFTDataset``; tools if all episodes have the same
``prompt``, ``data_source``,            ``RLHFDataset``: the task, without what was played
``ability``, ``reward_model``,
``extra_info``
``prompt_ids``, ``response_ids``,       the output of an agent loop: tokens of an episode that is
``response_mask``,                      one training row, else empty; the mask is 1 on tokens that
``response_logprobs``, ``score``        the policy chose and is trained on
``agentgym``                            the other fields of our record, as JSON
======================================  ====================================================

Source:
    verl 0.9: ``utils/dataset/rl_dataset.py``, ``utils/dataset/multiturn_sft_dataset.py``,
    ``AgentLoopOutput``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

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
from agentgym.interchange.messages import conversation_from, messages_of, without_last_answer
from agentgym.utils.jsonl import dumps, parse_object

_CHUNK = 256
"""Episodes per row group; bounds memory."""


def write(records: Iterable[EpisodeRecord], path: Path) -> int:
    """Write the table; it appears when it is complete."""
    pa, parquet = _arrow()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    episodes = list(records)
    schema, count, rows = _schema(pa, episodes), 0, iter(episodes)
    try:
        with parquet.ParquetWriter(partial, schema, compression="zstd") as table:
            while chunk := [row(each, count + n) for n, each in enumerate(islice(rows, _CHUNK))]:
                table.write_table(pa.Table.from_pylist(chunk, schema=schema))
                count += len(chunk)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return count


def row(record: EpisodeRecord, index: int) -> dict[str, Any]:
    """The columns of one episode."""
    held = in_unicode(without_last_answer(conversation_of(record)))
    messages = messages_of(held)
    task = {"task": record.task, "seed": record.seed, "split": record.panel}
    return {
        "data_source": record.env,
        "prompt": [each for each in messages[:2] if each["role"] != "assistant"],
        "ability": "agent",
        "reward_model": {"style": "rule", "ground_truth": ""},
        "extra_info": {"index": index, "sample": record.sample, **task},
        "messages": messages,
        "tools": list(held.tools),
        **_tokens(record),
        "score": record.reward,
        FACTS: dumps({**facts_of(record, held, columns=True), "tools": list(held.tools)}),
    }


def _tokens(record: EpisodeRecord) -> dict[str, list[Any]]:
    """The columns of tokens; empty unless the episode is one row that was sampled."""
    empty: dict[str, list[Any]] = {
        name: [] for name in ("prompt_ids", "response_ids", "response_mask", "response_logprobs")
    }
    if not record.turns or any(turn.fresh for turn in record.turns[1:]):
        return empty
    found = {**empty, "prompt_ids": list(record.turns[0].prompt)}
    for number, turn in enumerate(record.turns):
        read = list(turn.prompt) if number else []
        found["response_ids"] = [*found["response_ids"], *read, *turn.tokens]
        chosen = map(int, turn.loss_mask)
        found["response_mask"] = [*found["response_mask"], *([0] * len(read)), *chosen]
        blank = [0.0] * len(read)
        found["response_logprobs"] = [*found["response_logprobs"], *blank, *turn.logprobs]
    return found if found["response_ids"] else empty


def read(path: Path, report: Report) -> Iterator[EpisodeRecord]:
    """The episodes of a table with a column ``messages``, this project's or another's.

    Raises:
        ConfigError: It is no Parquet file, or has no such column.
    """
    pa, parquet = _arrow()
    try:
        table = parquet.ParquetFile(path)
        names = table.schema_arrow.names
    except (OSError, pa.ArrowException) as problem:
        reason = " ".join(str(problem).split())[:200]
        raise ConfigError(f"{path} is no Parquet file, or was cut off: {reason}") from problem
    if "messages" not in names:
        raise ConfigError(
            f"{path} has no column 'messages', only {', '.join(names)[:200]}: prompts alone are "
            f"tasks, not episodes"
        )
    wanted = [name for name in ("messages", "tools", FACTS) if name in names]
    number = 0
    for batch in table.iter_batches(_CHUNK, columns=wanted):
        for found in batch.to_pylist():
            number += 1
            try:
                yield _record(found, f"{path.stem}-{number}")
            except (ConfigError, ValueError) as problem:
                report(f"{path}, row {number} is left out: {problem}")


def _record(found: Mapping[str, Any], name: str) -> EpisodeRecord:
    text, tools = found.get(FACTS), found.get("tools")
    facts = None if text is None else parse_object(text)
    if facts is not None:
        tools = facts.pop("tools", None)
    elif isinstance(tools, str):
        tools = json.loads(tools)
    return record_of(conversation_from(found["messages"], tools), facts, name)


def _schema(pa: Any, episodes: Sequence[EpisodeRecord]) -> Any:
    """The columns; ``tools`` is one of them where all episodes have the same tools.

    A column has one type. Schemas of different tools would get each other's fields, as nulls.
    """
    kinds = {dumps({"tools": each.tools}): each.tools for each in episodes}
    (tools,) = kinds.values() if len(kinds) == 1 else ((),)
    listed = {"tools": pa.infer_type([list(tools)])} if tools else {}
    text, whole = pa.string(), pa.int64()
    function = pa.struct({"name": text, "arguments": text})
    call = pa.struct({"id": text, "type": text, "function": function})
    message = {"role": text, "content": text, "tool_calls": pa.list_(call)}
    spoken = pa.list_(pa.struct({**message, "tool_call_id": text, "name": text}))
    task = {"index": whole, "sample": whole, "task": text, "seed": whole, "split": text}
    return pa.schema(
        {
            "data_source": text,
            "prompt": pa.list_(pa.struct({"role": text, "content": text})),
            "ability": text,
            "reward_model": pa.struct({"style": text, "ground_truth": text}),
            "extra_info": pa.struct(task),
            "messages": spoken,
            **listed,
            "prompt_ids": pa.list_(whole),
            "response_ids": pa.list_(whole),
            "response_mask": pa.list_(whole),
            "response_logprobs": pa.list_(pa.float64()),
            "score": pa.float64(),
            FACTS: text,
        }
    )


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as problem:
        raise MissingExtra("Parquet needs pyarrow: pip install 'agentic-gym[parquet]'") from problem
    return pyarrow, pyarrow.parquet
