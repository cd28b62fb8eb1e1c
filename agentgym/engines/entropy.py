"""Entropy, as far as the log-probabilities of the likeliest tokens tell it."""

from __future__ import annotations

import math
from collections.abc import Iterable


def entropy_at_least(logprobs: Iterable[float]) -> float:
    """A lower bound on the entropy of a distribution of which some tokens are known, in nats.

    All that is not known is counted as one token. With probability q spread over n tokens that is
    at most ``q log n`` too little; it is exact when at most one token is missing.

    Args:
        logprobs: Of distinct tokens, in nats; ``-inf`` for those that cannot be drawn.

    Examples:
        >>> round(entropy_at_least([math.log(0.5), math.log(0.25)]), 4)
        1.0397
        >>> entropy_at_least([0.0, -math.inf])
        0.0
    """
    known = [(math.exp(logprob), logprob) for logprob in logprobs]
    rest = 1.0 - sum(p for p, _ in known)
    terms = [p * logprob for p, logprob in known if p > 0.0]
    # Below rounding of 32 bits there is no rest.
    if rest > 1e-6:
        terms.append(rest * math.log(rest))
    return max(0.0, -sum(terms))
