"""SPEAR: imitate your own good episodes while exploring less (Qin et al. 2025, arXiv:2509.22601).

On top of Dr.BoT: episodes that beat their task are kept with the log-probabilities they were
played with, and replayed in optimiser steps of their own, with covariance clipping. Their
advantage is their return less the median of past task means, so that what was good once is dropped
when it is good no longer. Replay ramps up along a cosine, a reward for acting at all fades out.

Differs from the paper: every step replays a few episodes, drawn at random, instead of a full
buffer in one burst; capacity counts episodes where the paper counts turns; the reward for acting
is flat for episodes that win, so that longer wins are not paid more. Rewards here are 1 for a win
where the paper has 10, and sizes are scaled to match. Ramp and fade are parts of the run. As in the
paper, the median is over all tasks together and returns hold the bonus of their own step.

``paper()``: the bonus counts turns; the buffer is replayed and emptied when one and a half times
its capacity is better than the median.

``released()``: the same on ``DrBoT.released()``, in units of 10 for a win; covariance clipping acts
on fresh episodes too, without a dual clip; also episodes exactly at the median are replayed, a
power of two of them; ramp and fade over the whole run of 200 steps. Not reproduced: what
``DrBoT.released()`` leaves out; the code selects, keeps and replays turns, here whole episodes, so
returns in the buffer and the means of the median have no fines on malformed turns.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from agentgym.algorithm import DEFAULT_RUN, About, Algorithm, RunInfo, Update
from agentgym.credit.transforms import Transform, chain
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
    """Weight of replay once it has ramped up; 0 leaves the base and the reward for acting."""
    replay_warmup: float = 0.5
    """Part of the run until replay has full weight: T_warm."""
    acting_reward: float = 0.1
    """Most that acting is worth at first, in rewards as the base scales them; 0 means none."""
    acting_decay: float = 1.0
    """Part of the run until acting is worth nothing: T_decay."""
    acting_reward_form: Literal["flat", "count"] = "flat"
    """Whether an episode that wins is paid for each act."""
    buffer_size: int = 256
    """Episodes kept: N_D."""
    max_age: int = 5
    """Training steps an episode is kept."""
    baseline_buffer_size: int = 10240
    """Task means that the median is taken over: N_DR."""
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
    fresh_clip_cov: Literal["none", "released"] = "none"
    """Covariance clipping of fresh episodes: none, or 2e-4 of the tokens, between 1 and 5, in the
    place of the dual clip."""

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        at_least(0, self, "replay_loss_coef", "acting_reward", "replay_warmup", "acting_decay")
        at_least(1, self, "buffer_size", "max_age", "baseline_buffer_size", "replay_size")
        within(0, 1, self, "clip_cov_ratio")
        ordered(self, "clip_cov_low", "clip_cov_high")

    @classmethod
    def paper(cls) -> SPEAR:
        """The paper's ALFWorld runs of 200 steps."""
        return cls(
            base=DrBoT.paper(), acting_reward_form="count", buffer_size=100, replay_mode="burst"
        )

    @classmethod
    def released(cls) -> SPEAR:
        """The authors' code for agents, with a longer ramp than the paper."""
        return cls(
            base=DrBoT.released(),
            replay_warmup=1.0,
            acting_reward=1.0,
            acting_reward_form="count",
            buffer_size=100,
            replay_mode="power-of-two-burst",
            clip_cov_low=2.0,
            clip_cov_high=60.0,
            fresh_clip_cov="released",
        )

    def curriculum(self, run: RunInfo) -> Transform:
        """The reward for acting, which fades."""
        size = self.acting_reward / self.base.reward_scale
        return reward_acting(size, fade(run.steps_in(self.acting_decay)), self.acting_reward_form)

    def imitation(self, run: RunInfo) -> Update:
        """What is learned from replayed episodes."""
        base = self.base
        low, high = base.clip_ratio_low, base.clip_ratio_high
        surrogate = times_column(KEPT, policy_gradient(low, high))
        ramped = scale(ramp(run.steps_in(self.replay_warmup)), base.summed(surrogate, run))
        return Update(
            loss=scale(self.replay_loss_coef, ramped),
            rows=replayed,
            name="imitation",
            select=spare_covariant(
                self.clip_cov_ratio,
                self.clip_cov_low,
                self.clip_cov_high,
                clip=low,
                clip_high=high,
            ),
        )

    def fresh_update(self, update: Update, run: RunInfo) -> Update:
        """What is learned from episodes of this step."""
        if self.fresh_clip_cov == "none":
            return update
        base = self.base
        low, high = base.clip_ratio_low, base.clip_ratio_high
        surrogate = times_column(KEPT, policy_gradient(low, high))
        return replace(
            update,
            loss=base.summed(base.regularised(surrogate), run),
            select=spare_covariant(2e-4, 1.0, 5.0, clip=low, clip_high=high),
        )

    def build(self, run: RunInfo = DEFAULT_RUN) -> Algorithm:
        """Compose it."""
        base = self.base.build(run)
        credit = chain(self.curriculum(run), base.credit) if self.acting_reward else base.credit
        update = self.fresh_update(base.updates[0], run)
        if not self.replay_loss_coef:
            return replace(base, credit=credit, updates=(update,))
        draws: dict[str, Draw] = {
            "some": sample(self.replay_size, run.seed),
            "burst": burst(self.buffer_size, run.seed),
            "power-of-two-burst": burst(self.buffer_size, run.seed, power_of_two=True),
        }
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
            updates=(replace(update, rows=fresh), self.imitation(run)),
        )
