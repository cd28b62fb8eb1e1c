"""A scorer as the reward of training."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from agentgym.evaluation.records import Decode, EpisodeRecord
from agentgym.scoring.scorer import Scorer, Unscored
from agentgym.types import Stop, Trajectory


def as_reward(scorer: Scorer, decode: Decode) -> Callable[[Trajectory], Awaitable[Trajectory]]:
    """What gives finished episodes the score of ``scorer`` instead of the environment's.

    The score is the reward of the last turn; the others have none. An episode without a score ends
    as ``Stop.ABORTED``, so it enters neither advantages nor statistics. An episode that the
    environment has not scored stays as it is.

    Args:
        scorer: The scorer.
        decode: Completion tokens to text, which the scorer may read.
    """

    async def rescored(trajectory: Trajectory) -> Trajectory:
        if not trajectory.stop.scored:
            return trajectory
        try:
            score = await scorer.score(EpisodeRecord.of(trajectory, decode=decode))
        except Unscored as problem:
            return replace(trajectory, stop=Stop.ABORTED, error=f"unscored: {problem}")
        turns = [replace(turn, reward=0.0) for turn in trajectory.turns]
        if turns:
            turns[-1] = replace(turns[-1], reward=score.value)
        return replace(trajectory, turns=tuple(turns), score=score.value, won=score.success)

    return rescored
