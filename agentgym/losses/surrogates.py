"""What to minimise: pure functions from the policy's fresh outputs to one number per token.

No loss reduces, and none looks at another row: what a token must know about the rest of the batch
is a column, written by credit before the batch is split. So the split never changes the gradient.
All tensors are (P,), one entry per position of the batch.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from agentgym.batch.batch import REFERENCE, VALUE, Batch
from agentgym.losses.compose import Loss, Outputs


def ratio(outputs: Outputs, batch: Batch) -> Float[Tensor, " P"]:
    """Importance ratio of each token: new over old probability, 1 off the mask.

    The logarithm is cut to [-20, 20] so that the ratio stays finite.
    """
    return (outputs.logprob - batch.logprob).clamp(-20, 20).exp()


def clipped_tokens(outputs: Outputs, batch: Batch, low: float, high: float) -> Bool[Tensor, " P"]:
    """Tokens that have no gradient in ``policy_gradient`` because of the clip."""
    r = ratio(outputs, batch)
    return r.clamp(1 - low, 1 + high) * batch.advantage < r * batch.advantage


def apply_dual_clip(
    surrogate: Float[Tensor, " P"], advantage: Float[Tensor, " P"], bound: float
) -> Float[Tensor, " P"]:
    """Bound the loss of a token with negative advantage at ``-bound * advantage``.

    Ye et al. 2020 (arXiv:1912.09729), eq. 4: keeps a token with negative advantage and a
    greatly increased probability from dominating; beyond the bound it has no gradient.
    """
    return torch.where(advantage < 0, surrogate.minimum(-bound * advantage), surrogate)


def policy_gradient(
    low: float = 0.2, high: float | None = None, *, dual_clip: float | None = None
) -> Loss:
    """PPO's clipped surrogate per token, eq. 7 of Schulman et al. 2017 (arXiv:1707.06347).

    Args:
        low: The ratio may fall to ``1 - low`` before its gradient stops.
        high: And rise to ``1 + high``; equal to ``low`` unless given ("clip-higher", Yu et al.
            2025, arXiv:2503.14476, section 3.1).
        dual_clip: Bound of ``apply_dual_clip``, above 1; none unless given.
    """
    upper = low if high is None else high

    def apply(outputs: Outputs, batch: Batch, step: int) -> Tensor:
        r = ratio(outputs, batch)
        clipped = r.clamp(1 - low, 1 + upper)
        loss = -(r * batch.advantage).minimum(clipped * batch.advantage)
        return loss if dual_clip is None else apply_dual_clip(loss, batch.advantage, dual_clip)

    return Loss(apply, name="surrogate")


def policy_gradient_kept(
    low: float = 0.2, high: float = 0.28, *, below: bool, dual_clip: float | None = None
) -> Loss:
    """The clipped surrogate whose clipped tokens keep a gradient of the size of the clip.

    The value is that of ``policy_gradient``; beyond ``1 + high`` a token with positive advantage
    has the gradient coefficient ``1 + high`` instead of none.

    Args:
        low: As in ``policy_gradient``.
        high: As in ``policy_gradient``.
        below: Keep a gradient below ``1 - low`` too, where the advantage is negative (GPPO);
            otherwise only above ``1 + high`` (AEPO).
        dual_clip: Bound of ``apply_dual_clip``, above 1; none unless given.
    """

    def apply(outputs: Outputs, batch: Batch, step: int) -> Tensor:
        r = ratio(outputs, batch)
        one = r / r.detach()  # its value is 1, its gradient that of the log-probability
        clipped = torch.where(r > 1 + high, (1 + high) * one, r)
        clipped = torch.where(r < 1 - low, (1 - low) * (one if below else one.detach()), clipped)
        loss = -(r * batch.advantage).minimum(clipped * batch.advantage)
        return loss if dual_clip is None else apply_dual_clip(loss, batch.advantage, dual_clip)

    return Loss(apply, name="surrogate")


def policy_gradient_controlled(
    low: float = 0.2,
    high: float = 0.2,
    *,
    below: float,
    above: float,
    dual_clip: float | None = None,
) -> Loss:
    """The surrogate whose clipped tokens keep a chosen part of the gradient at the clip.

    CE-GPPO (Su et al. 2025, arXiv:2509.20712, the objective with beta1 and beta2): the parts scale
    the value as well, so that at (0, 0) the gradient is that of ``policy_gradient`` and a clipped
    token's loss is 0; at (1, 1) it is ``policy_gradient_kept`` on both sides (GPPO).

    Args:
        low: As in ``policy_gradient``.
        high: As in ``policy_gradient``.
        below: Part kept below ``1 - low`` where the advantage is negative: beta1.
        above: Part kept above ``1 + high`` where the advantage is positive: beta2.
        dual_clip: Bound of ``apply_dual_clip``, above 1; none unless given.
    """

    def apply(outputs: Outputs, batch: Batch, step: int) -> Tensor:
        r, advantage = ratio(outputs, batch), batch.advantage
        one = r / r.detach()  # its value is 1, its gradient that of the log-probability
        kept = torch.where((advantage < 0) & (r < 1 - low), below * (1 - low) * one, r)
        kept = torch.where((advantage > 0) & (r > 1 + high), above * (1 + high) * one, kept)
        loss = -kept * advantage
        return loss if dual_clip is None else apply_dual_clip(loss, advantage, dual_clip)

    return Loss(apply, name="surrogate")


def reinforce() -> Loss:
    """Minus the advantage times the log-probability: the plain policy gradient."""
    return Loss(lambda outputs, batch, step: -batch.advantage * outputs.logprob, name="surrogate")


def kl_to_reference(bound: float = 10.0) -> Loss:
    """The k3 estimate of KL(policy || reference) per token, in nats, cut to ``bound``.

    ``exp(d) - 1 - d`` with d = log reference - log policy (Schulman 2020, "Approximating KL
    divergence"). The reference is the policy that training began with.
    """

    def apply(outputs: Outputs, batch: Batch, step: int) -> Tensor:
        move = (batch.extra[REFERENCE] - outputs.logprob).clamp(-20, 20)
        return (move.exp() - 1 - move).clamp(max=bound) * batch.mask

    return Loss(apply, frozenset({REFERENCE}), name="kl")


def value_error(clip: float | None, target: str) -> Loss:
    """Half the squared error of the critic, the worse of its value with and without a clip.

    Args:
        clip: How far the value counts as moved from the one before the update, in units of
            reward; none means any distance.
        target: Column with the critic's regression target.
    """

    def apply(outputs: Outputs, batch: Batch, step: int) -> Tensor:
        assert outputs.value is not None, "an algorithm with `critic` gives values"
        error = (outputs.value - batch.extra[target]).square()
        if clip is not None:
            old = batch.extra[VALUE]
            near = old + (outputs.value - old).clamp(-clip, clip)
            error = error.maximum((near - batch.extra[target]).square())
        return 0.5 * error * batch.mask

    return Loss(apply, frozenset({VALUE, target}), name="value")


def negative_log_likelihood() -> Loss:
    """Minus the log-probability of the token: imitation of whatever the batch holds."""
    return Loss(lambda outputs, batch, step: -outputs.logprob, name="likelihood")


def entropy_bonus() -> Loss:
    """Minus the token entropy, so that minimising it explores."""
    return Loss(lambda outputs, batch, step: -outputs.entropy, name="entropy")
