"""Messages in JSON lines: ``{"messages": [...], "tools": [...], "metadata": {...}}``.

Source:
    OpenAI, supervised fine-tuning, chat format with tool calls. A conversation ends with the last
    answer of the model.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from agentgym.errors import ConfigError
from agentgym.evaluation.records import EpisodeRecord
from agentgym.interchange.conversation import FACTS, conversation_of, facts_of, record_of
from agentgym.interchange.formats import Report
from agentgym.interchange.messages import conversation_from, messages_of, without_last_answer
from agentgym.utils.jsonl import dumps, parse_object, write_lines


def write(records: Iterable[EpisodeRecord], path: Path) -> int:
    """Write one line per episode."""
    lines = [dumps(row(record)) for record in records]
    write_lines(path, lines)
    return len(lines)


def row(record: EpisodeRecord) -> dict[str, Any]:
    """The object of one episode."""
    held = without_last_answer(conversation_of(record))
    tools = {"tools": list(held.tools)} if held.tools else {}
    facts = {FACTS: facts_of(record, held)}
    return {"messages": messages_of(held), **tools, "metadata": facts}


def read(path: Path, report: Report) -> Iterator[EpisodeRecord]:
    """The episodes of a file, this project's or another's."""
    for number, line in enumerate(_lines(path), start=1):
        try:
            yield record_from(parse_object(line.decode()), f"{path.stem}-{number}")
        except (ConfigError, UnicodeDecodeError) as problem:
            report(f"{path}, line {number} is left out: {problem}")


def _lines(path: Path) -> Iterator[bytes]:
    """Lines that are not blank; other projects leave out the last newline."""
    with path.open("rb") as file:
        yield from (line for line in file if line.strip())


def record_from(found: dict[str, Any], name: str) -> EpisodeRecord:
    """The episode of an object."""
    if "messages" not in found:
        raise ConfigError(f"expected the key 'messages', got {', '.join(found)[:200]}")
    tools = found.get("tools")
    if isinstance(tools, str):
        tools = json.loads(tools)
    metadata = found.get("metadata")
    facts = metadata.get(FACTS) if isinstance(metadata, dict) else None
    if isinstance(facts, str):
        facts = parse_object(facts)
    return record_of(conversation_from(found["messages"], tools), facts, name)
