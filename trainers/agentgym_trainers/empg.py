"""EMPG: trust confident steps, reward clarity to come (Wang et al. 2025, arXiv:2509.09265).

A step is a turn and its entropy h the mean over the tokens the policy wrote in it, before the
update, rescaled to [0, 1] over all steps of the batch. The advantage of a step is multiplied by
``exp(-k h)`` over its batch mean, so that confident steps count more and the mean factor is 1; it
gains ``zeta * exp(-k' h_next)`` for leading to a confident step; the mean over steps is taken off.

Differs from the paper: groups of equal returns, which have no advantage of their own, are left out
of the loss, so that the bonus of tied groups does not train alone. ``paper()`` keeps them.
There is no official code; ``released()`` follows the port in ARL-Arena (arXiv:2602.21534), whose
groups count every turn, with ``GRPO.released()`` as base. Not reproduced: what that leaves out.
``control()`` has k = zeta = 0, so that only centring over steps is left.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from agentgym.algorithm import DEFAULT_RUN, About, Algorithm, RunInfo, extend
from agentgym.batch.batch import Batch
from agentgym.batch.turns import Turns, turns_of
from agentgym.credit.transforms import State, Transform, chain, stateless
from agentgym.utils.bounds import at_least
from agentgym.utils.seeds import derive
from agentgym_trainers.dapo import DAPO
from agentgym_trainers.grpo import GRPO


def rescale(entropy: Float[Tensor, " K"], epsilon: float = 1e-8) -> Float[Tensor, " K"]:
    """Step entropies moved and stretched to [0, 1] over the batch."""
    low, high = entropy.min(), entropy.max()
    return (entropy - low) / (high - low + epsilon)


def confidence(batch: Batch, turns: Turns, sharpness: float) -> Float[Tensor, " K"]:
    """``exp(-sharpness * h)`` of each step over its mean, which is then exactly 1."""
    weight = (-sharpness * rescale(turns.mean(batch.entropy))).exp()
    return weight / weight.mean()


def scale_by_confidence(sharpness: float) -> Transform:
    """Multiply advantages by the confidence of their step."""

    def apply(batch: Batch) -> Batch:
        turns = turns_of(batch)
        if not len(turns.length):
            return batch
        factor = turns.spread(confidence(batch, turns, sharpness), batch)
        return batch.with_(advantage=batch.advantage * factor)

    return stateless(apply)


def scale_by_permuted_confidence(sharpness: float, seed: int = 0) -> Transform:
    """A placebo: multiply advantages by the confidence of another step of the batch, at random."""

    def apply(batch: Batch, state: State, step: int) -> tuple[Batch, State]:
        turns = turns_of(batch)
        if not len(turns.length):
            return batch, state
        found = confidence(batch, turns, sharpness)
        generator = torch.Generator().manual_seed(derive("empg", seed, step))
        order = torch.randperm(len(found), generator=generator)
        factor = turns.spread(found[order], batch)
        return batch.with_(advantage=batch.advantage * factor), state

    return Transform(lambda: (), apply)


def reward_clarity(sharpness: float, weight: float) -> Transform:
    """Add ``weight * exp(-sharpness * h)`` of the episode's next step; nothing on its last."""

    def apply(batch: Batch) -> Batch:
        turns = turns_of(batch)
        if not len(turns.length):
            return batch
        clarity = (-sharpness * rescale(turns.mean(batch.entropy))).exp()
        bonus = turns.spread(weight * turns.following(clarity), batch)
        return batch.with_(advantage=batch.advantage + bonus)

    return stateless(apply)


def centre_steps() -> Transform:
    """Subtract the mean advantage over the steps of the batch."""

    def apply(batch: Batch) -> Batch:
        turns = turns_of(batch)
        if not len(turns.length):
            return batch
        mean = turns.mean(batch.advantage).mean()
        return batch.with_(advantage=(batch.advantage - mean) * batch.mask)

    return stateless(apply)


@dataclass(frozen=True, kw_only=True)
class EMPG:
    """Entropy-modulated policy gradients, on GRPO or DAPO."""

    about: ClassVar[About] = About(
        "2509.09265",
        "its base's",
        "its base's, scaled by the confidence of each turn, plus clarity of the next, centred",
        "its base's",
    )

    base: GRPO | DAPO = field(default_factory=GRPO)
    """Method that gives the advantages to modulate."""
    scaling_sharpness: float = 1.0
    """How fast credit falls with a step's entropy: k."""
    clarity_sharpness: float = 1.0
    """How fast the bonus falls with the next step's entropy: k'."""
    clarity_weight: float = 0.05
    """Size of the bonus, in advantages: zeta."""
    scaling_order: Literal["own", "permuted"] = "own"
    """Step that gives the scaling factor: its own, or another at random (a control)."""

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        at_least(0, self, "scaling_sharpness", "clarity_sharpness", "clarity_weight")

    @classmethod
    def paper(cls) -> EMPG:
        """The paper's setting, as far as it is known."""
        return cls(base=GRPO(clip_ratio_high=0.2, loss_aggregation="token-mean"))

    @classmethod
    def control(cls) -> EMPG:
        """The control k = zeta = 0: what centring over steps does by itself."""
        return cls(scaling_sharpness=0.0, clarity_weight=0.0)

    @classmethod
    def released(cls) -> EMPG:
        """ARL-Arena's port."""
        return cls(base=GRPO.released())

    def build(self, run: RunInfo = DEFAULT_RUN) -> Algorithm:
        """Compose it."""
        scale = {
            "own": scale_by_confidence(self.scaling_sharpness),
            "permuted": scale_by_permuted_confidence(self.scaling_sharpness, run.seed),
        }
        return extend(
            self.base.build(run),
            credit=chain(
                scale[self.scaling_order],
                reward_clarity(self.clarity_sharpness, self.clarity_weight),
                centre_steps(),
            ),
        )
