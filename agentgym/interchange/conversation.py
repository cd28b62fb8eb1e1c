"""An episode as a conversation: what every format holds, and what only our records hold.

A conversation is derived from a record, and a record from a conversation. What does not come back
that way stands in the *facts*, a JSON object that every format has some place for. Columns with one
entry per token are part of the facts only where a format is for training on tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agentgym.errors import ConfigError, MalformedAction
from agentgym.evaluation.records import SCHEMA, EpisodeRecord, TurnRecord
from agentgym.rollout.tool_calls import HERMES, hermes_text, results_of
from agentgym.types import Stop, ToolCall
from agentgym.utils.json_objects import to_object

FACTS = "agentgym"
"""Name of the facts in the metadata of a format."""
COLUMNS = ("prompt", "tokens", "ends", "logprobs", "entropies", "versions", "advantages")
"""Fields of a turn with one entry per token."""
_SAID = ("action", "text", "observation")
_EPISODE_SAID = ("opening", "manual", "tools", "turns")


@dataclass(frozen=True, slots=True)
class Exchange:
    """What the model wrote in one turn, and what it was answered."""

    content: str
    """The text outside the calls."""
    calls: tuple[ToolCall, ...]
    results: tuple[str, ...]
    """One per call; without calls, the observation, or nothing where none is known."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """One episode."""

    system: str
    """How to act; may be empty."""
    user: str
    """Goal and first observation."""
    exchanges: tuple[Exchange, ...]
    tools: tuple[Mapping[str, Any], ...] = ()


def conversation_of(record: EpisodeRecord) -> Conversation:
    """The messages of an episode."""
    goal = f"{record.goal}\n\n" if record.goal else ""
    return Conversation(
        record.manual,
        f"{goal}{record.opening}",
        tuple(map(_exchange, record.turns)),
        record.tools,
    )


def in_unicode(held: Conversation) -> Conversation:
    """The conversation with marks for halves of characters, which UTF-8 cannot hold."""

    def whole(text: str) -> str:
        return text.encode(errors="replace").decode()

    exchanges = tuple(
        replace(each, content=whole(each.content), results=tuple(map(whole, each.results)))
        for each in held.exchanges
    )
    return replace(held, system=whole(held.system), user=whole(held.user), exchanges=exchanges)


def _exchange(turn: TurnRecord) -> Exchange:
    text = turn.action if turn.text is None else turn.text
    if not turn.calls:
        return Exchange(text, (), (turn.observation,))
    try:
        content = HERMES.read(text).content
    except MalformedAction:
        content = text
    results = results_of(turn.observation, len(turn.calls))
    blanks = [""] * (len(turn.calls) - len(results))
    return Exchange(content, turn.calls, (*results, *blanks))


def said_in(exchange: Exchange) -> dict[str, str]:
    """Action, text and observation that an exchange alone shows."""
    written = [exchange.content, hermes_text(exchange.calls)] if exchange.calls else []
    text = "\n".join(filter(None, written)) if written else exchange.content
    tagged = [f"<tool_response>\n{each}\n</tool_response>" for each in exchange.results]
    seen = "\n".join(tagged if exchange.calls else exchange.results)
    return {"action": text, "text": text, "observation": seen}


def facts_of(record: EpisodeRecord, held: Conversation, *, columns: bool = False) -> dict[str, Any]:
    """What a record holds besides its conversation.

    Args:
        record: The episode.
        held: Its conversation as the format holds it; what differs is added.
        columns: Keep the fields with one entry per token.
    """
    found: dict[str, Any] = to_object(record)
    left_out = {"calls", *_SAID, *(() if columns else COLUMNS)}
    turns = []
    for turn, exchange in zip(record.turns, held.exchanges, strict=True):
        kept = {name: value for name, value in to_object(turn).items() if name not in left_out}
        reported = said_in(exchange)
        exact = {
            name: getattr(turn, name) for name in _SAID if getattr(turn, name) != reported[name]
        }
        turns.append({**kept, **({"exact": exact} if exact else {})})
    episode = {name: value for name, value in found.items() if name not in _EPISODE_SAID}
    return {**episode, "turns": turns}


def record_of(held: Conversation, facts: Mapping[str, Any] | None, name: str) -> EpisodeRecord:
    """The record of an episode.

    Args:
        held: Its conversation.
        facts: What ``facts_of`` returned; None for an episode of another project, where the score
            is unknown (NaN) and which counts as terminated.
        name: Of the episode; becomes its task where there are no facts.

    Raises:
        ConfigError: The facts do not fit the conversation, or a field has another type.
    """
    facts = _foreign(held, name) if facts is None else facts
    turns = facts.get("turns")
    if not isinstance(turns, list) or len(turns) != len(held.exchanges):
        count = len(turns) if isinstance(turns, list) else "no"
        raise ConfigError(
            f"{name}: its metadata describes {count} turns, its conversation has "
            f"{len(held.exchanges)}: one of them was edited"
        )
    goal = f"{facts.get('goal')}\n\n"
    opening = held.user.removeprefix(goal) if facts.get("goal") else held.user
    content = {
        **facts,
        "schema": facts.get("schema", SCHEMA),
        "opening": opening,
        "manual": held.system,
        "tools": [dict(each) for each in held.tools],
        "turns": [_turn(each, more) for each, more in zip(held.exchanges, turns, strict=True)],
    }
    return EpisodeRecord.from_object(content)


def _turn(exchange: Exchange, facts: Any) -> dict[str, Any]:
    if not isinstance(facts, Mapping):
        raise ConfigError(f"the metadata of a turn is {facts!r}, expected an object")
    exact = facts.get("exact") or {}
    more = {name: value for name, value in facts.items() if name != "exact"}
    columns: dict[str, Any] = {name: [] for name in COLUMNS}
    calls = [to_object(call) for call in exchange.calls]
    return {**columns, **said_in(exchange), **more, "calls": calls, **exact}


def _foreign(held: Conversation, name: str) -> dict[str, Any]:
    turn = {
        "reward": 0.0,
        "parsed": True,
        "valid": True,
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "entropy": None,
        "version": -1,
        "thought_tokens": 0,
        "trained": True,
    }
    return {
        "env": "imported",
        "task": name,
        "seed": 0,
        "sample": 0,
        "task_type": "",
        "goal": "",
        "stop": Stop.TERMINATED.value,
        "won": False,
        "score": math.nan,
        "reward": 0.0,
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "version": -1,
        "shared_turns": 0,
        "seconds": math.nan,
        "panel": "",
        "error": "",
        "failed_attempts": [],
        "turns": [turn] * len(held.exchanges),
    }


def without(record: EpisodeRecord, columns: Sequence[str] = COLUMNS) -> EpisodeRecord:
    """The record that comes back from a format that loses some columns."""
    empty: dict[str, Any] = dict.fromkeys(columns, ())
    return replace(record, turns=tuple(replace(turn, **empty) for turn in record.turns))
