"""A conversational dataset of TRL in JSON lines: ``messages``, ``tools``, ``metadata``.

``datasets.load_dataset("json", ...)`` gives every row the same columns of the same types, so
what differs between rows is text: schemas of tools, arguments of calls, metadata.

Source:
    TRL, dataset formats (language modelling, conversational, with tools; a text in ``tools`` is
    decoded by ``SFTTrainer``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from agentgym.evaluation.records import EpisodeRecord
from agentgym.interchange import openai_format
from agentgym.interchange.conversation import FACTS
from agentgym.utils.jsonl import dumps, write_lines

read = openai_format.read


def write(records: Iterable[EpisodeRecord], path: Path) -> int:
    """Write one line per episode."""
    lines = [dumps(row(record)) for record in records]
    write_lines(path, lines)
    return len(lines)


def row(record: EpisodeRecord) -> dict[str, Any]:
    """The object of one episode."""
    found = openai_format.row(record)
    tools = json.dumps(found["tools"]) if "tools" in found else None
    return {
        "messages": found["messages"],
        "tools": tools,
        "metadata": {FACTS: dumps(found["metadata"][FACTS])},
    }
