"""Returning to the states of a recorded episode: its turns are executed again, and checked."""

from __future__ import annotations

from agentgym.errors import NotReplayable
from agentgym.evaluation.records import EpisodeRecord, TurnRecord
from agentgym.rollout.episode import Episode
from agentgym.rollout.player import Player
from agentgym.types import Completion


async def bookmarks(player: Player, record: EpisodeRecord) -> list[Episode]:
    """Running episodes in the state before each turn of a recorded one.

    The completions are those recorded where the player's tokenizer decodes them to the recorded
    text; otherwise the actions as the player's agent would write them. The caller discards the
    episodes.

    Raises:
        NotReplayable: The environment answers differently than in the record.
    """
    task, sample = record.key
    running = await player.begin(task, sample)
    marks: list[Episode] = []
    try:
        if running.done:
            raise NotReplayable(f"task {task.id!r} does not start: {running.error}")
        for number, turn in enumerate(record.turns):
            if running.done:
                raise NotReplayable(
                    f"task {task.id!r} ends after {number} turns, the record has "
                    f"{len(record.turns)}: it was played under other settings"
                )
            marks.append(await running.fork(sample))
            running.propose(completion_of(player, turn))
            await running.step()
            _check(running, turn, number)
    except BaseException:
        for mark in marks:
            await mark.discard()
        raise
    finally:
        await running.release()
    return marks


def completion_of(player: Player, turn: TurnRecord) -> Completion:
    """What the player's engine would have sampled for a recorded turn."""
    known = turn.tokens and turn.text is not None
    if known and player.agent.decode(turn.tokens) == turn.text:
        return Completion(turn.tokens, turn.logprobs, turn.entropies, turn.version)
    tokens = player.agent.encode_action(turn.action)
    zeros = (0.0,) * len(tokens)
    return Completion(tokens, zeros, zeros)


def _check(running: Episode, turn: TurnRecord, number: int) -> None:
    if running.error:
        raise NotReplayable(f"turn {number + 1}: {running.error}")
    seen = running.turns[-1]
    if (seen.action, seen.observation) != (turn.action, turn.observation) and turn.parsed:
        raise NotReplayable(
            f"task {running.task.id!r}, turn {number + 1}: the record has {turn.action!r} and "
            f"{turn.observation[:60]!r}, the environment {seen.action!r} and "
            f"{seen.observation[:60]!r}"
        )
