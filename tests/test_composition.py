"""Every term of the entropy family on bases with a group, a critic or a sequence ratio."""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from test_methods_train import step, trainer

from agentgym.algorithm import Algorithm, extend
from agentgym.credit.transforms import chain, mean_over_episodes
from agentgym.credit.weights import keep_only
from agentgym.losses.compose import add, scale, times_column, with_advantage
from agentgym.losses.reductions import expected_tilt, nucleus_entropy
from agentgym.testing import update_checks
from agentgym.testing.trial import Trial
from agentgym_trainers import clipcov, copo, discriminator, klcov, riskpo, siren, steer
from agentgym_trainers.aepo import scale_by_entropy
from agentgym_trainers.aepo_arbitrary import apart, inject, play_again
from agentgym_trainers.ares import ARES, explore_as_needed
from agentgym_trainers.dcpo import Target, exact_entropy, weigh_in, won
from agentgym_trainers.ear import reshape_by_certainty
from agentgym_trainers.empo import reward_agreement
from agentgym_trainers.etmr import TreeShape, from_peaks, own
from agentgym_trainers.grpo import GRPO
from agentgym_trainers.gspo import GSPO
from agentgym_trainers.pear import charge_thoughts
from agentgym_trainers.ppo import PPO

SMALL = {"group_size": 3, "minibatches": 1}
HOSTS = {"grpo": GRPO(**SMALL), "ppo": PPO(**SMALL), "gspo": GSPO(**SMALL)}
NUCLEUS = nucleus_entropy(siren.NUCLEUS, 0.8)


def surrogate(base, change):
    """The base with a changed surrogate; its other terms are kept."""
    first, *others = base.updates
    parts = [change(p) if p.name == "surrogate" else p for p in first.loss.apart()]
    return replace(base, updates=(replace(first, loss=add(*parts)), *others))


def marked(base, column, **pieces):
    """The base with its surrogate times a column that the added term writes."""
    return surrogate(extend(base, **pieces), lambda loss: times_column(column, loss))


def second_play(base):
    joining = inject(3, 0.5, 0.5, good="won", first=False)
    credit = chain(apart(3), base.credit, joining, mean_over_episodes())
    return replace(base, credit=credit, collect=play_again(3, 1.0, 0.5, warm=1.2, cool=0.8))


def between(base):
    def both(loss):
        outer = times_column(copo.OUTER, with_advantage(copo.BETWEEN, loss))
        return add(times_column(copo.INNER, loss), outer)

    comparing = copo.compare_tasks(5.0, 0.5, copo.share_won_alike)
    return surrogate(extend(base, credit=chain(comparing, copo.weigh_either())), both)


PIECES = {
    "clip-cov": lambda base: marked(
        base,
        clipcov.KEPT,
        select=clipcov.spare_covariant(0.2, -99.0, 99.0, clip=0.2, clip_high=0.28),
    ),
    "kl-cov": lambda base: extend(
        base,
        loss=scale(1.0, times_column(klcov.HELD, klcov.distance())),
        select=klcov.hold_covariant(0.2),
    ),
    "steer": lambda base: marked(
        base, steer.WEIGHT, select=steer.weigh_by_effect("linear", 0.8, 1.2)
    ),
    "siren": lambda base: extend(
        base,
        credit=siren.anchored(0.8, "episode", NUCLEUS),
        loss=scale(0.5, siren.squared_distance(NUCLEUS)),
        select=siren.find_peaks(0.8, "episode"),
    ),
    "aepo": lambda base: extend(base, credit=scale_by_entropy(0.2)),
    "aepo-arbitrary": second_play,
    "dcpo": lambda base: extend(
        base, credit=weigh_in(Target(99.0, 0.1), exact_entropy, won, warm=1.2, cool=0.8, late=False)
    ),
    "ares": lambda base: extend(
        base, reward=explore_as_needed(ARES(window_size=1, entropy_quantile=0.5))
    ),
    "clip-b": lambda base: marked(
        base,
        discriminator.KEPT,
        credit=discriminator.drop(discriminator.above_the_batch(0.1), shrink=True),
    ),
    "clip-v": lambda base: marked(
        base,
        discriminator.KEPT,
        credit=discriminator.drop(discriminator.near_the_policy(0.0, 1.0), shrink=True)._replace(
            reductions=(expected_tilt(discriminator.EXPECTED),)
        ),
    ),
    "pear": lambda base: extend(base, reward=charge_thoughts(0.0, 0.9, silent_is_thought=False)),
    "copo": between,
    "ear": lambda base: extend(base, credit=reshape_by_certainty(keep_sign=True)),
    "etmr": lambda base: replace(
        extend(base, credit=keep_only(own)), collect=from_peaks(TreeShape(1, 1, 2))
    ),
    "empo": lambda base: extend(base, reward=reward_agreement(-1.0, 9.0, world=1.0)),
    "riskpo": lambda base: extend(
        base,
        credit=chain(
            riskpo.risk_tracked(2, riskpo.Tail(0.2, 0.8, 0.5), 0.1),
            mean_over_episodes(),
        ),
    ),
}


@dataclass(frozen=True)
class Composed:
    """An algorithm where its configuration is expected."""

    algorithm: Algorithm

    def build(self, run=None):
        return self.algorithm


def gradient(algorithm):
    """Gradients of its update on the last of three made-up batches, after the policy moved."""
    trial = Trial("composed", Composed(algorithm))
    batch = trial.credit(trial.batches())[0][-1]
    learner = trial.learner()
    with torch.no_grad():
        for parameter in learner.policy.model.parameters():
            parameter.mul_(1.05)
    part, _ = update_checks.prepared(learner, batch, algorithm.updates[0])
    return update_checks.gradient(learner, part, algorithm.updates[0])


@pytest.fixture(scope="module")
def plain():
    """Gradients of the bases alone."""
    return {name: gradient(base.build()) for name, base in HOSTS.items()}  # type: ignore[attr-defined]


@pytest.mark.parametrize("base", HOSTS)
@pytest.mark.parametrize("piece", PIECES)
def test_a_piece_of_the_entropy_family_trains_on_hosts_of_every_kind(tokenizer, plain, piece, base):
    """It runs in an environment, and changes the gradient of its base."""
    algorithm = PIECES[piece](HOSTS[base].build())  # type: ignore[attr-defined]
    if piece != "etmr":  # made-up episodes share no beginning
        assert not gradient(algorithm).allclose(plain[base], rtol=1e-3, atol=1e-6)
    found = step(trainer(tokenizer, Composed(algorithm)))
    assert found.metrics["update/grad_norm"] > 0
    assert all(map(math.isfinite, found.metrics.values()))
    sizes = {len(group) for group in found.groups}
    assert sizes == {6 if piece == "aepo-arbitrary" else 3}
    forked = any(t.shared_turns for group in found.groups for t in group)
    assert forked == (piece == "etmr")
