"""EAR: less credit for uncertain episodes, the reshaping of ETTRL (2025, arXiv:2508.11356).

With H the mean entropy of an episode's tokens before the update, its advantage is multiplied by
``2 - H / (mean of H in the task's group)``, with mean 1 over the group; or, in the paper's
other form, cut to [-2, 2]. The paper's other half, branching, is ``etmr.py``.

Differs from the paper: the factor is kept within [0, 2], as an episode with twice the group's
entropy would otherwise be punished for a win. ``paper()`` lets it change sign. There is no official
code; ``released()`` is the paper.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from agentgym.algorithm import DEFAULT_RUN, About, Algorithm, RunInfo, extend
from agentgym.batch.batch import Batch
from agentgym.credit.transforms import Transform, group_mean, mean_of_episode, stateless
from agentgym.utils.bounds import above
from agentgym_trainers.dapo import DAPO
from agentgym_trainers.grpo import GRPO


def relative_certainty(batch: Batch) -> Float[Tensor, " E"]:
    """``2 - H / mean H`` of each episode, over the episodes of its task; 1 without entropy."""
    entropy = mean_of_episode(batch.entropy, batch)
    mean = group_mean(entropy, batch)
    ratio = torch.where(mean > 0, entropy / mean.clamp(min=1e-12), torch.ones_like(entropy))
    return 2 - ratio


def reshape_by_certainty(*, keep_sign: bool) -> Transform:
    """Multiply advantages by ``relative_certainty``, at least 0 where signs are kept."""

    def apply(batch: Batch) -> Batch:
        factor = relative_certainty(batch)
        factor = factor.clamp(min=0) if keep_sign else factor
        return batch.with_(advantage=batch.advantage * factor[batch.episode_of_token])

    return stateless(apply)


def cut(bound: float) -> Transform:
    """Cut advantages to ``[-bound, bound]``."""
    return stateless(lambda batch: batch.with_(advantage=batch.advantage.clamp(-bound, bound)))


@dataclass(frozen=True, kw_only=True)
class EAR:
    """Entropy-based advantage reshaping, on GRPO or DAPO."""

    about: ClassVar[About] = About(
        "2508.11356",
        "its base's",
        "its base's, less for episodes more uncertain than their group",
        "its base's",
    )

    base: GRPO | DAPO = field(default_factory=GRPO)
    """Method that gives the advantages to reshape."""
    reshaping: Literal["residual", "clip"] = "residual"
    """Scale by relative certainty, or cut what is extreme."""
    advantage_sign: Literal["kept", "free"] = "kept"
    """Whether a very uncertain episode keeps the sign of its advantage."""
    advantage_clip: float = 2.0
    """Where the form ``clip`` cuts."""

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        above(0, self, "advantage_clip")

    @classmethod
    def paper(cls) -> EAR:
        """The paper's setting."""
        return cls(
            base=GRPO(clip_ratio_high=0.2, loss_aggregation="token-mean"), advantage_sign="free"
        )

    @classmethod
    def released(cls) -> EAR:
        """There is no official code: the paper."""
        return cls.paper()

    def build(self, run: RunInfo = DEFAULT_RUN) -> Algorithm:
        """Compose it."""
        forms = {
            "residual": reshape_by_certainty(keep_sign=self.advantage_sign == "kept"),
            "clip": cut(self.advantage_clip),
        }
        return extend(self.base.build(run), credit=forms[self.reshaping])
