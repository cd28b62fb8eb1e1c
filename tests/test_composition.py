"""Every piece of the entropy family on hosts that differ in kind: group, critic, sequence ratio."""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from test_methods_train import step, trainer

from agentgym.algorithm import Algorithm, extend
from agentgym.credit.transforms import chain, weigh_episodes
from agentgym.credit.weights import keep
from agentgym.losses.compose import add, crediting, times, weigh
from agentgym.losses.reductions import expected_tilt, nucleus_entropy
from agentgym.testing.algorithms import _gradient, _prepared, _Trial
from agentgym_trainers import clipcov, copo, discriminator, klcov, riskpo, siren, steer
from agentgym_trainers.aepo import scale_by_entropy
from agentgym_trainers.aepo_arbitrary import apart, inject, play_again
from agentgym_trainers.ares import ARES, explore_as_needed
from agentgym_trainers.dcpo import Target, exact_entropy, weigh_in, won
from agentgym_trainers.ear import reshape_by_certainty
from agentgym_trainers.empo import reward_agreement
from agentgym_trainers.etmr import Shape, from_peaks, own
from agentgym_trainers.grpo import GRPO
from agentgym_trainers.gspo import GSPO
from agentgym_trainers.pear import charge_thoughts
from agentgym_trainers.ppo import PPO

SMALL = {"group_size": 3, "minibatches": 1}
HOSTS = {"grpo": GRPO(**SMALL), "ppo": PPO(**SMALL), "gspo": GSPO(**SMALL)}
NUCLEUS = nucleus_entropy(siren.NUCLEUS, 0.8)


def surrogate(host, change):
    """The host with a change to its surrogate; what stands beside it stays."""
    first, *others = host.updates
    parts = [change(p) if p.name == "surrogate" else p for p in first.loss.apart()]
    return replace(host, updates=(replace(first, loss=add(*parts)), *others))


def marked(host, column, **pieces):
    """The host with its surrogate times a column that a piece writes."""
    return surrogate(extend(host, **pieces), lambda loss: times(column, loss))


def second_play(host):
    joining = inject(3, 0.5, 0.5, good="won", first=False)
    credit = chain(apart(3), host.credit, joining, weigh_episodes())
    return replace(host, credit=credit, collect=play_again(3, 1.0, 0.5, warm=1.2, cool=0.8))


def between(host):
    def both(loss):
        outer = times(copo.OUTER, crediting(copo.BETWEEN, loss))
        return add(times(copo.INNER, loss), outer)

    comparing = copo.compare_tasks(5.0, 0.5, copo.share_won_alike)
    return surrogate(extend(host, credit=chain(comparing, copo.weigh_either())), both)


PIECES = {
    "clip-cov": lambda host: marked(
        host,
        clipcov.KEPT,
        select=clipcov.spare_covariant(0.2, -99.0, 99.0, clip=0.2, clip_high=0.28),
    ),
    "kl-cov": lambda host: extend(
        host,
        loss=weigh(1.0, times(klcov.HELD, klcov.distance())),
        select=klcov.hold_covariant(0.2),
    ),
    "steer": lambda host: marked(
        host, steer.WEIGHT, select=steer.weigh_by_effect("linear", 0.8, 1.2)
    ),
    "siren": lambda host: extend(
        host,
        credit=siren.anchored(0.8, "episode", NUCLEUS),
        loss=weigh(0.5, siren.squared_distance(NUCLEUS)),
        select=siren.find_peaks(0.8, "episode"),
    ),
    "aepo": lambda host: extend(host, credit=scale_by_entropy(0.2)),
    "aepo-arbitrary": second_play,
    "dcpo": lambda host: extend(
        host, credit=weigh_in(Target(99.0, 0.1), exact_entropy, won, warm=1.2, cool=0.8, late=False)
    ),
    "ares": lambda host: extend(host, reward=explore_as_needed(ARES(width=1, level=0.5))),
    "clip-b": lambda host: marked(
        host,
        discriminator.KEPT,
        credit=discriminator.drop(discriminator.above_the_batch(0.1), shrink=True),
    ),
    "clip-v": lambda host: marked(
        host,
        discriminator.KEPT,
        credit=discriminator.drop(discriminator.near_the_policy(0.0, 1.0), shrink=True)._replace(
            reductions=(expected_tilt(discriminator.EXPECTED),)
        ),
    ),
    "pear": lambda host: extend(host, reward=charge_thoughts(0.0, 0.9, silent_is_thought=False)),
    "copo": between,
    "ear": lambda host: extend(host, credit=reshape_by_certainty(keep_sign=True)),
    "etmr": lambda host: replace(
        extend(host, credit=keep(own)), collect=from_peaks(Shape(1, 1, 2))
    ),
    "empo": lambda host: extend(host, reward=reward_agreement(-1.0, 9.0, world=1.0)),
    "riskpo": lambda host: extend(
        host,
        credit=chain(
            riskpo.risk_tracked(2, riskpo.Tail(0.2, 0.8, 0.5), 0.1),
            weigh_episodes(),
        ),
    ),
}


@dataclass(frozen=True)
class Composed:
    """An algorithm where its configuration is expected."""

    algorithm: Algorithm

    def build(self):
        return self.algorithm


def gradient(algorithm):
    """Of its update on the last of three made-up batches, the policy having moved."""
    trial = _Trial("composed", Composed(algorithm))
    batch = trial.credit(trial.batches())[0][-1]
    learner = trial.learner()
    with torch.no_grad():
        for parameter in learner.policy.model.parameters():
            parameter.mul_(1.05)
    part, _ = _prepared(learner, batch, algorithm.updates[0])
    return _gradient(learner, part, algorithm.updates[0])


@pytest.fixture(scope="module")
def plain():
    """Gradients of the hosts alone."""
    return {name: gradient(host.build()) for name, host in HOSTS.items()}


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("piece", PIECES)
def test_a_piece_of_the_entropy_family_trains_on_hosts_of_every_kind(tokenizer, plain, piece, host):
    """It runs in a world, and it changes what its host would have learned."""
    algorithm = PIECES[piece](HOSTS[host].build())
    if piece != "etmr":  # made-up episodes share no beginning
        assert not gradient(algorithm).allclose(plain[host], rtol=1e-3, atol=1e-6)
    found = step(trainer(tokenizer, Composed(algorithm)))
    assert found.metrics["update/grad_norm"] > 0
    assert all(map(math.isfinite, found.metrics.values()))
    sizes = {len(group) for group in found.groups}
    assert sizes == {6 if piece == "aepo-arbitrary" else 3}
    forked = any(t.shared for group in found.groups for t in group)
    assert forked == (piece == "etmr")
