"""PPO: a critic predicts the return (Schulman et al. 2017, arXiv:1707.06347).

Advantages are generalised (GAE) over the tokens an episode wrote, across its turns; they are
whitened over the batch. The critic is a copy of the policy's network with one number in place of
the vocabulary; it takes its steps beside the policy's.

Differs from the paper: the policy and the critic share no weights; value and advantage live on
tokens of many turns, and what was read in between is no step.

``released()`` is the agent papers' code base (verl-agent): a win is worth 10; every turn is an
episode of its own that earns the whole return, less 0.1 if the turn is malformed; a KL penalty, an
entropy bonus and a dual clip; the critic's learning rate is 1e-5. Not reproduced: rows that the
code duplicates to fill a batch; means over micro-batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from agentgym.algorithm import DEFAULT_RUN, About, Algorithm, CriticPlan, RunInfo, Update
from agentgym.credit.advantages import RETURN, gae, whiten
from agentgym.credit.reward_shaping import malformed_penalty, scale_rewards
from agentgym.credit.transforms import Transform, chain
from agentgym.credit.weights import mask_truncated, mean_over_tokens
from agentgym.errors import ImpossibleValue
from agentgym.losses.compose import add, scale
from agentgym.losses.surrogates import entropy_bonus, kl_to_reference, policy_gradient, value_error
from agentgym.rollout.collect import independent
from agentgym.utils.bounds import above, at_least, within

SHORT_COMPLETION = 64
"""Tokens of a completion up to which lambda is 0.95 unless it is set."""


@dataclass(frozen=True, kw_only=True)
class PPO:
    """Proximal policy optimisation with a critic."""

    about: ClassVar[About] = About(
        "1707.06347",
        "n episodes side by side",
        "GAE with a critic, whitened over the batch's tokens",
        "clipped surrogate and the critic's squared error",
    )

    group_size: int = 8
    """Episodes per task; one will do."""
    clip_ratio_low: float = 0.2
    """How far the token ratio may fall below 1."""
    clip_ratio_high: float = 0.2
    """How far it may rise above 1."""
    discount: float = 1.0
    """Of reward, per token."""
    gae_lambda: float | None = None
    """The lambda of GAE: 0 trusts the critic, 1 the return. Unset: 0.95 where a completion has at
    most 64 tokens, else 1, since 0.95 forgets within about 20 tokens, less than a thought has."""
    truncated_episodes: Literal["zero", "mask", "bootstrap"] = "zero"
    """Episodes that a limit cut short: what follows is worth nothing, they are not learned, or it
    is worth the critic's value."""
    gae_over: Literal["episode", "turn"] = "episode"
    """What GAE runs over: an episode, or a turn that is given the whole return."""
    value_loss_coef: float = 0.5
    """Weight of the critic's error."""
    value_clip_range: float | None = 0.5
    """How far a value counts as moved in one training step, in units of reward."""
    critic_learning_rate: float = 1e-3
    """Learning rate of the critic; 1e-3 suits a model made from scratch, 1e-5 a pretrained one."""
    entropy_coef: float = 0.0
    """Weight of an entropy bonus, per nat."""
    kl_coef: float = 0.0
    """Weight of the KL divergence from the policy that training began with, per nat."""
    dual_clip: float | None = None
    """Bound on the loss of tokens with negative advantage, in units of |advantage|; unset: none."""
    malformed_penalty: float = 0.0
    """Reward taken from a turn that holds no action. It lowers the return of the episode; with
    ``gae_over: turn`` only that of the turn."""
    reward_scale: float = 1.0
    """Factor on all rewards."""
    minibatches: int = 2
    """Optimiser steps per pass."""
    epochs: int = 1
    """Passes over the batch."""

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        at_least(1, self, "group_size", "minibatches", "epochs")
        within(0, 1, self, "clip_ratio_low", "gae_lambda", "discount")
        above(0, self, "discount", "critic_learning_rate", "value_clip_range", "reward_scale")
        at_least(
            0,
            self,
            "clip_ratio_high",
            "value_loss_coef",
            "entropy_coef",
            "kl_coef",
            "malformed_penalty",
        )
        above(1, self, "dual_clip")

        if self.gae_over == "turn" and self.truncated_episodes == "bootstrap":
            raise ImpossibleValue(
                "PPO.truncated_episodes is 'bootstrap', expected 'zero' or 'mask' with gae_over "
                "'turn': a turn earns the whole return, and nothing follows it"
            )

    @classmethod
    def paper(cls) -> PPO:
        """The paper's setting for Atari, as far as it carries over to language models."""
        return cls(
            gae_lambda=0.95, minibatches=4, epochs=3, entropy_coef=0.01, value_clip_range=None
        )

    @classmethod
    def released(cls) -> PPO:
        """The agent papers' code base."""
        return cls(
            gae_lambda=1.0,
            gae_over="turn",
            entropy_coef=0.001,
            kl_coef=0.01,
            dual_clip=3.0,
            malformed_penalty=0.1,
            reward_scale=10.0,
            critic_learning_rate=1e-5,
            value_loss_coef=1.0,
            group_size=1,
        )

    def shaping(self) -> Transform:
        """What happens to rewards first."""
        pieces = []
        if self.reward_scale != 1:
            pieces.append(scale_rewards(self.reward_scale))
        if self.malformed_penalty and self.gae_over == "episode":
            pieces.append(malformed_penalty(self.malformed_penalty))
        return chain(*pieces)

    def lambda_for(self, run: RunInfo) -> float:
        """The lambda of GAE in a run."""
        if self.gae_lambda is not None:
            return self.gae_lambda
        return 0.95 if run.max_completion_tokens <= SHORT_COMPLETION else 1.0

    def build(self, run: RunInfo = DEFAULT_RUN) -> Algorithm:
        """Compose it."""
        advantage = gae(
            self.discount,
            self.lambda_for(run),
            bootstrap=self.truncated_episodes == "bootstrap",
            per_turn=self.gae_over == "turn",
            malformed_penalty=self.malformed_penalty,
        )
        loss = add(
            policy_gradient(self.clip_ratio_low, self.clip_ratio_high, dual_clip=self.dual_clip),
            scale(self.value_loss_coef, value_error(self.value_clip_range, RETURN)),
            *((scale(self.entropy_coef, entropy_bonus()),) if self.entropy_coef else ()),
            *((scale(self.kl_coef, kl_to_reference()),) if self.kl_coef else ()),
        )
        weights = chain(mean_over_tokens(), *mask_truncated(self.truncated_episodes))
        return Algorithm(
            collect=independent(self.group_size),
            credit=chain(self.shaping(), advantage, whiten(), weights),
            updates=(Update(loss=loss, minibatches=self.minibatches, epochs=self.epochs),),
            critic=CriticPlan(learning_rate=self.critic_learning_rate),
            reference=self.kl_coef > 0,
        )
