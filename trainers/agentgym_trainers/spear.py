"""SPEAR: imitate your own good episodes while exploring less (Qin et al. 2025, arXiv:2509.22601).

On top of Dr.BoT: episodes that beat their task are kept with the log-probabilities they were
played with, and replayed in optimiser steps of their own, with covariance clipping. Their
advantage is their return less the median of past task means, so that what was good once is dropped
when it is good no longer. Replay ramps up along a cosine, a reward for acting at all fades out.

Differs from the paper: every step replays a few episodes, drawn at random, instead of a full
buffer in one burst; capacity counts episodes where the paper counts turns; the reward for acting
is flat for episodes that win, so that longer wins are not paid more. Rewards here are 1 for a win
where the paper has 10, and sizes are scaled to match. As in the paper, the median is over all tasks
together and returns hold the bonus of their own step.

``paper()``: the bonus counts turns, the whole buffer is replayed and emptied when it is full.
``released()``: the same, also episodes exactly at the median, and a power of two of them, on
``DrBoT.released()``, whose docstring says what of the code is not reproduced; nor is its threshold
of one and a half buffers, and its entropy bonus is of fresh episodes only.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from agentgym.algorithm import About, Algorithm, Update
from agentgym.credit.transforms import chain
from agentgym.credit.weights import CONSTANT
from agentgym.losses.compose import scale, times_column
from agentgym.losses.surrogates import policy_gradient
from agentgym.utils.bounds import at_least, ordered, within
from agentgym_trainers.clipcov import KEPT, spare_covariant
from agentgym_trainers.curriculum import fade, ramp, reward_acting
from agentgym_trainers.drbot import DrBoT
from agentgym_trainers.replay import Draw, burst, fresh, replay, replayed, sample


@dataclass(frozen=True, kw_only=True)
class SPEAR:
    """Self-imitation with progressive exploration."""

    about: ClassVar[About] = About(
        "2509.22601",
        "n episodes side by side, with a fading reward for acting",
        "Dr.BoT's; replayed episodes: return minus the median of past task means",
        "Dr.BoT's, then the replayed episodes' with covariance clipping",
    )

    base: DrBoT = field(default_factory=DrBoT)
    """How fresh episodes are learned from."""
    replay_loss_coef: float = 1.0
    """Weight of replay once it has ramped up; 0 leaves the base and the bonus."""
    replay_warmup: int = 20
    """Training steps until replay has full weight."""
    acting_reward: float = 0.1
    """Most that acting is worth at first, in reward; 0 means none."""
    acting_decay: int = 40
    """Training steps until acting is worth nothing."""
    acting_reward_form: Literal["flat", "count"] = "flat"
    """Whether an episode that wins is paid for each act."""
    buffer_size: int = 256
    """Episodes kept."""
    max_age: int = 5
    """Training steps an episode is kept."""
    baseline_buffer_size: int = 10240
    """Task means that the median is taken over."""
    replay_mode: Literal["some", "burst", "power-of-two-burst"] = "some"
    """What is replayed: a few episodes each step, or all of a full buffer, which is emptied."""
    replay_size: int = 32
    """Episodes replayed per step."""
    clip_cov_ratio: float = 0.02
    """Part of the replayed tokens left out for their covariance."""
    clip_cov_low: float = 0.2
    """Covariance above which a token may be left out."""
    clip_cov_high: float = 6.0
    """Covariance below which it may be."""

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        at_least(0, self, "replay_loss_coef", "acting_reward")
        at_least(
            1,
            self,
            "replay_warmup",
            "acting_decay",
            "buffer_size",
            "max_age",
            "baseline_buffer_size",
            "replay_size",
        )
        within(0, 1, self, "clip_cov_ratio")
        ordered(self, "clip_cov_low", "clip_cov_high")

    @classmethod
    def paper(cls) -> SPEAR:
        """The paper's ALFWorld runs."""
        return cls(
            replay_warmup=100,
            acting_decay=200,
            acting_reward_form="count",
            buffer_size=100,
            replay_mode="burst",
        )

    @classmethod
    def released(cls) -> SPEAR:
        """The authors' code for agents, whose ramp is longer than the paper's."""
        return cls(
            base=DrBoT.released(),
            replay_warmup=200,
            acting_decay=200,
            acting_reward_form="count",
            buffer_size=100,
            replay_mode="power-of-two-burst",
        )

    def build(self) -> Algorithm:
        """Compose it."""
        base = self.base.build()
        curriculum = reward_acting(
            self.acting_reward, fade(self.acting_decay), self.acting_reward_form
        )
        credit = chain(curriculum, base.credit) if self.acting_reward else base.credit
        if not self.replay_loss_coef:
            return replace(base, credit=credit)
        clip = {"clip": self.base.clip_ratio_low, "clip_high": self.base.clip_ratio_high}
        surrogate = policy_gradient(self.base.clip_ratio_low, self.base.clip_ratio_high)
        draws: dict[str, Draw] = {
            "some": sample(self.replay_size),
            "burst": burst(self.buffer_size),
            "power-of-two-burst": burst(self.buffer_size, power_of_two=True),
        }
        imitation = Update(
            loss=scale(
                self.replay_loss_coef,
                scale(
                    ramp(self.replay_warmup), times_column(CONSTANT, times_column(KEPT, surrogate))
                ),
            ),
            rows=replayed,
            name="imitation",
            select=spare_covariant(
                self.clip_cov_ratio, self.clip_cov_low, self.clip_cov_high, **clip
            ),
        )
        buffer = replay(
            self.buffer_size,
            self.max_age,
            self.baseline_buffer_size,
            draws[self.replay_mode],
            self.base.weighting(),
        )
        return replace(
            base,
            credit=chain(credit, buffer),
            updates=(replace(base.updates[0], rows=fresh), imitation),
        )
