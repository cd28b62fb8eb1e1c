"""A run under torchrun: rank 0 runs the stages, the other ranks help its learner."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from agentgym.algorithm import Algorithm
from agentgym.distributed.lead import LeadLearner, carry_out_commands
from agentgym.distributed.learner import ShardedLearner
from agentgym.distributed.process_group import ProcessGroup, current
from agentgym.errors import AgentGymError
from agentgym.experiment.parts import RunParts
from agentgym.models.policy import Policy
from agentgym.models.protocols import CausalLM
from agentgym.training.learner import Learner
from agentgym.training.schedule import with_importance_correction
from agentgym.utils.seeds import derive

R = TypeVar("R")


class _Learn(NamedTuple):
    """Message of rank 0: make a learner from this checkpoint."""

    checkpoint: Path


class _Done(NamedTuple):
    """Message of rank 0: the run is over."""

    result: object
    failure: str | None = None


def make_learner(
    parts: RunParts, model: CausalLM, algorithm: Algorithm, checkpoint: Path
) -> Learner:
    """The learner of a run, on all ranks where there are several.

    Args:
        parts: Of the run.
        model: The network, which the learner trains.
        algorithm: As the trainer attaches it.
        checkpoint: Where the model came from; the other ranks read it too.
    """
    experiment, ranks = parts.experiment, current()
    policy = Policy(model, temperature=experiment.rollout.temperature)
    seed = derive(experiment.seed, "updates")
    if ranks is None:
        return Learner(policy, experiment.optimizer, seed=seed, horizon=experiment.steps)
    if ranks.lead:
        ranks.broadcast(_Learn(checkpoint.resolve()))
    kind = LeadLearner if ranks.lead else ShardedLearner
    return kind(policy, experiment.optimizer, seed=seed, horizon=experiment.steps, ranks=ranks)


def lead(ranks: ProcessGroup | None, stages: Callable[[], R]) -> R:
    """Run the stages on rank 0, and let the other ranks go at the end."""
    if ranks is None:
        return stages()
    try:
        result = stages()
    except (AgentGymError, KeyboardInterrupt) as problem:
        ranks.broadcast(_Done(None, str(problem) or type(problem).__name__))
        raise
    ranks.broadcast(_Done(result))
    return result


def follow(ranks: ProcessGroup, parts: RunParts, algorithm: Algorithm) -> Any:
    """Help rank 0 until its run is over; returns the result of its stages.

    Raises:
        AgentGymError: The run failed there; rank 0 reports it.
    """
    whole = with_importance_correction(algorithm, parts.experiment.schedule)
    while True:
        message = ranks.broadcast()
        if isinstance(message, _Done):
            if message.failure is not None:
                raise AgentGymError(message.failure)
            return message.result
        _, model = parts.trainable(message.checkpoint)
        learner = make_learner(parts, model, whole, message.checkpoint)
        assert isinstance(learner, ShardedLearner)
        learner.attach(whole)
        carry_out_commands(learner, whole.updates, ranks)
