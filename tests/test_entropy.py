import math

import numpy as np
import pytest

from agentgym.engines.entropy import entropy_at_least


@pytest.mark.parametrize("known", [1, 3, 20, 49, 50])
def test_the_bound_is_below_the_entropy_by_at_most_the_stated_gap(known):
    for seed in range(50):
        logits = np.random.default_rng(seed).normal(0, 2, 50)
        p = np.sort(np.exp(logits) / np.exp(logits).sum())[::-1]
        entropy, rest = -(p * np.log(p)).sum(), p[known:].sum()
        bound = entropy_at_least(np.log(p[:known]).tolist())
        slack = rest * math.log(max(1, 50 - known))
        assert entropy - slack - 1e-5 <= bound <= entropy + 1e-5
        if known >= 49:
            assert bound == pytest.approx(entropy, abs=1e-5)


def test_impossible_tokens_do_not_change_the_bound():
    assert entropy_at_least([math.log(0.5), math.log(0.5), -math.inf]) == pytest.approx(math.log(2))


def test_the_bound_of_two_known_tokens_by_hand():
    found = entropy_at_least([math.log(0.5), math.log(0.25)])
    assert found == pytest.approx(1.039721, abs=1e-6)
    assert found + 0.25 * math.log(0.25) == pytest.approx(0.693147, abs=1e-6)
