"""A lower bound on entropy from the log-probabilities of the most likely tokens."""

from __future__ import annotations

import math
from collections.abc import Iterable


def entropy_at_least(logprobs: Iterable[float]) -> float:
    """A lower bound on the entropy of a distribution of which some tokens are known, in nats.

    The remaining probability is counted as one token. If probability q is spread over n unknown
    tokens, the bound is at most ``q log n`` too low; it is exact if at most one is missing.

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
    # A smaller remainder is float32 rounding.
    if rest > 1e-6:
        terms.append(rest * math.log(rest))
    return max(0.0, -sum(terms))
