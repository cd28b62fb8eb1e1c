"""Calls of a program as the turns of a trajectory.

A call whose prompt begins with the context of the call before it is the next turn of one row.
Any other call starts a row; rows that begin alike are computed once
(``agentgym.batch.prefix_tree``), whichever calls lie between them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from agentgym.programs.values import Call
from agentgym.rollout.tool_calls import hermes_text
from agentgym.types import Turn


def turns_of(
    calls: Sequence[Call], rewards: Sequence[float], trained: Collection[str]
) -> tuple[Turn, ...]:
    """One turn per call, in the order in which they were answered.

    Args:
        calls: Of one episode.
        rewards: Of each call.
        trained: Names of the agents whose completions are trained on.
    """
    return tuple(_turns(calls, rewards, trained))


def _turns(
    calls: Sequence[Call], rewards: Sequence[float], trained: Collection[str]
) -> Iterator[Turn]:
    context: tuple[int, ...] = ()
    shown = [*(call.shown for call in calls), ""][1:]
    for call, reward, following in zip(calls, rewards, shown, strict=True):
        extends = bool(context) and call.prompt[: len(context)] == context
        yield Turn(
            call.prompt[len(context) :] if extends else call.prompt,
            call.completion,
            action=_text(call),
            observation=following,
            reward=reward,
            fresh=not extends,
            parsed=call.reply.parsed,
            valid=call.reply.parsed,
            learn=call.agent in trained,
            thought_tokens=call.thought_tokens,
            forced=call.forced,
            calls=call.reply.calls,
            sampling_seconds=call.seconds,
        )
        context = call.context


def _text(call: Call) -> str:
    """What the program read."""
    written = hermes_text(call.reply.calls) if call.reply.calls else ""
    return "\n".join(filter(None, (call.reply.content, written)))
