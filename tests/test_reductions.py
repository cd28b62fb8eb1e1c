"""With neutral hyper-parameters every method is bit-identical to its base.

Where there is no such setting, or the arithmetic differs:

| method | what is compared instead |
|---|---|
| ARES | its base up to rounding: a mean of equal targets may differ from them in the last place |
| COPO | its base where no group is tied: a tied group has weight because of other tasks |
| CISPO | GRPO without a clip up to rounding: weight and ratio are multiplied in another order |
| DAPO | GRPO with its weights; GRPO with the mean over tokens where no group is tied |
| EAR | its base where entropies are equal, and with its other form, which has a neutral bound |
| EMPG | its base where the mean over steps is 0: centring has no coefficient |
| GSPO | GRPO up to rounding where a turn is a token, as the ratio is a mean in logarithms |
| PPO | REINFORCE++ with a critic of 0 |
| RiskPO | its credit: the return minus the maximum; its update: GSPO's |
| RLOO | Dr.GRPO times n / (n - 1) |
| SAPO | GRPO at ratio 1: its gate is the ratio in the limit of temperature 0 only |
"""

import asyncio
import random
from dataclasses import replace

import pytest
import torch

from agentgym import Task, make
from agentgym.algorithm import extend
from agentgym.batch.batch import REFERENCE, VALUE
from agentgym.batch.collate import collate
from agentgym.credit.transforms import chain, mean_over_episodes, stateless
from agentgym.credit.weights import TURNS, mean_over_informative_tokens, side_weights
from agentgym.engines.scripted import ScriptedEngine
from agentgym.losses.compose import Outputs, scale, weighted_by
from agentgym.losses.surrogates import entropy_bonus
from agentgym.rollout.branching import fixed_roots, grow_tree
from agentgym.rollout.collect import independent
from agentgym.rollout.player import Player
from agentgym.rollout.setup import EpisodeLimits
from agentgym.testing.episodes import MIXED, STEPS, made_up
from agentgym_trainers.aepo import AEPO
from agentgym_trainers.aepo_arbitrary import AEPOArbitrary
from agentgym_trainers.ares import ARES
from agentgym_trainers.arpo import ARPO
from agentgym_trainers.cispo import CISPO
from agentgym_trainers.clipcov import ClipCov
from agentgym_trainers.copo import COPO
from agentgym_trainers.dapo import DAPO
from agentgym_trainers.dcpo import DCPO
from agentgym_trainers.discriminator import ClipB, ClipV
from agentgym_trainers.drbot import DrBoT
from agentgym_trainers.drgrpo import DrGRPO
from agentgym_trainers.ear import EAR
from agentgym_trainers.empg import EMPG
from agentgym_trainers.empo import EMPO
from agentgym_trainers.epo import EPO
from agentgym_trainers.etmr import ETMR
from agentgym_trainers.gigpo import GiGPO
from agentgym_trainers.gppo import GPPO
from agentgym_trainers.grpo import GRPO
from agentgym_trainers.gspo import GSPO
from agentgym_trainers.klcov import KLCov, unclipped
from agentgym_trainers.pear import PEAR
from agentgym_trainers.ppo import PPO
from agentgym_trainers.reinforce_pp import ReinforcePP
from agentgym_trainers.riskpo import RiskPO
from agentgym_trainers.rloo import RLOO
from agentgym_trainers.sapo import SAPO
from agentgym_trainers.siren import SIREN
from agentgym_trainers.spear import SPEAR
from agentgym_trainers.steer import STEER


def batch_at(step, rewards, *, drift=0.15, flat=False, length=5):
    """A batch with synthetic network outputs, and the outputs of a slightly later policy."""
    generator = torch.Generator().manual_seed(step)
    groups = made_up(step, rewards, length=length)
    if flat:
        groups = [[replace(t, turns=t.turns[:1]) for t in group] for group in groups]
    batch = collate(groups)

    def column(scale, shift=0.0):
        size = (len(batch.mask),)
        return (scale * torch.randn(size, generator=generator).abs() + shift) * batch.mask

    batch = batch.with_(logprob=-column(1.0, 0.1), entropy=column(1.0, 0.1), parsed=batch.mask)
    batch = batch.with_(**{VALUE: column(0.0), REFERENCE: -column(1.0)})
    moved = (drift * torch.randn(batch.mask.shape, generator=generator)) * batch.mask
    return batch, Outputs(batch.logprob + moved, column(1.0, 0.1), column(0.5))


def made_of(reductions, batch):
    """Synthetic vocabulary reductions: slightly above the log-probability."""
    return {r.name: (batch.entropy - 0.3 * batch.logprob) * batch.mask for r in reductions}


def gradients(update, outputs, batch, step):
    """Gradients of the loss by the policy outputs: log-probabilities and entropies."""
    leaves = [x.clone().requires_grad_() for x in outputs[:3]]
    named = dict(zip(("logprob", "entropy", "value"), leaves, strict=True))
    terms = [
        (term.apply(outputs._replace(**named), batch, step) * batch.column(term.weight)).sum()
        for term in update.loss.terms()
    ]
    found = torch.autograd.grad(sum(terms), leaves[:2], allow_unused=True)
    return [
        torch.zeros_like(leaf) if g is None else g
        for g, leaf in zip(found, leaves[:2], strict=True)
    ]


def trace(algorithm, steps=STEPS, **kwargs):
    """Advantages, weights, and the gradient of the first update by the policy outputs."""
    state, found = algorithm.credit.init(), []
    for step, rewards in enumerate(steps):
        batch, outputs = batch_at(step, rewards, **kwargs)
        batch = batch.with_(**made_of(algorithm.credit.reductions, batch))
        batch, state = algorithm.credit.apply(batch, state, step)
        update = algorithm.updates[0]
        outputs = outputs._replace(extra=made_of(update.loss.asks(), batch))
        if update.select is not None:
            batch = update.select.apply(outputs, batch, torch.Generator().manual_seed(0))
        found += [batch.advantage, batch.weight, *gradients(update, outputs, batch, step)]
    return found


def same(one, other, **kwargs):
    left, right = trace(one, **kwargs), trace(other, **kwargs)
    return len(left) == len(right) and all(map(torch.equal, left, right))


def test_the_comparison_detects_different_algorithms():
    assert not same(GRPO().build(), GRPO(scale_by_std=False).build())
    assert not same(GRPO().build(), GRPO(clip_ratio_low=0.1).build())


@pytest.mark.parametrize("base", [GRPO(), PPO(), GRPO.released()])
def test_epo_without_entropy_is_its_base(base):
    assert same(EPO(base=base, entropy_coef=0.0).build(), base.build())
    assert not same(EPO(base=base).build(), base.build())


@pytest.mark.parametrize("base", [GRPO(), PPO()])
def test_epo_without_penalty_is_its_base_with_an_entropy_bonus(base):
    bonus = scale(0.001, weighted_by(TURNS, entropy_bonus()))
    plain = extend(base.build(), credit=side_weights(TURNS), loss=bonus)
    assert same(EPO(base=base, smoothing_weight=0.0).build(), plain)


def test_epo_as_released_is_an_entropy_bonus_and_nothing_else():
    """Its penalty has no gradient at any coefficient."""
    none, huge = (replace(EPO.released(), smoothing_weight=p, gate_turn=0) for p in (0.0, 100.0))
    assert same(none.build(), huge.build())
    assert not same(
        replace(
            EPO.released(), penalty_form="distance", gate_turn=0, smoothing_weight=100.0
        ).build(),
        none.build(),
    )


@pytest.mark.parametrize(
    "base", [GRPO(loss_aggregation="token-mean"), DAPO(baseline_over="episodes")]
)
def test_empg_without_modulation_is_its_base_up_to_centring(base):
    """Equal numbers of turns, and as many wins as losses: the mean over steps is 0."""
    neutral = EMPG(base=base, scaling_sharpness=0.0, clarity_weight=0.0).build()
    balanced = [[1.0, 0.0, 0.0, 1.0]] * 3
    for step in range(3):
        batch, _ = batch_at(step, balanced, flat=True)
        plain, _ = base.build().credit.apply(batch, base.build().credit.init(), step)
        found, _ = neutral.credit.apply(batch, neutral.credit.init(), step)
        assert found.advantage.equal(plain.advantage) and found.weight.equal(plain.weight)


def test_spear_without_imitation_and_bonus_is_dr_bot():
    assert same(SPEAR(replay_loss_coef=0.0, acting_reward=0.0).build(), DrBoT().build())
    assert not same(SPEAR(replay_loss_coef=0.0).build(), DrBoT().build())


def test_dr_bot_without_its_filters_is_dr_grpo():
    assert same(DrBoT(task_keep_ratio=1.0, dual_clip=None).build(), DrGRPO().build())


def test_gigpo_without_step_groups_is_grpo():
    assert same(GiGPO(step_advantage_weight=0.0).build(), GRPO().build())
    assert not same(GiGPO().build(), GRPO().build())


def test_covariance_clipping_without_candidates_is_grpo():
    assert same(ClipCov(clip_cov_low=1e6, clip_cov_high=2e6).build(), GRPO().build())
    assert not same(
        ClipCov(clip_cov_low=-9.0, clip_cov_high=9.0, clip_cov_ratio=0.5).build(), GRPO().build()
    )


def test_kl_cov_without_coefficient_is_grpo_without_a_clip():
    free = GRPO().compose(unclipped())
    assert same(KLCov(kl_cov_coef=0.0, minibatches=2).build(), free)
    assert not same(KLCov(minibatches=2, kl_cov_ratio=0.5).build(), free)


def test_clip_b_that_tolerates_any_deviation_is_grpo():
    for denominator in ("shrink", "keep"):
        assert same(ClipB(mu=1e9, denominator=denominator).build(), GRPO().build())
        assert not same(ClipB(mu=0.1, denominator=denominator).build(), GRPO().build())


def test_clip_v_that_tolerates_any_difference_is_grpo():
    for denominator in ("shrink", "keep"):
        assert same(ClipV(mu=1e9, denominator=denominator).build(), GRPO().build())
        strict = ClipV(mu=0.0, max_dropped_ratio=1.0, denominator=denominator)
        assert not same(strict.build(), GRPO().build())


@pytest.mark.parametrize("base", [GRPO(), DAPO()])
def test_ear_without_a_bound_is_its_base(base):
    assert same(EAR(base=base, reshaping="clip", advantage_clip=1e9).build(), base.build())
    assert not same(EAR(base=base, reshaping="clip", advantage_clip=0.1).build(), base.build())
    assert not same(EAR(base=base).build(), base.build())


@pytest.mark.parametrize("sign", ["kept", "free"])
def test_equal_entropies_leave_the_advantage_of_ear_unchanged(sign):
    batch, _ = batch_at(0, MIXED)
    batch = batch.with_(entropy=0.5 * batch.mask)
    base, ear = GRPO().build(), EAR(advantage_sign=sign).build()
    found, _ = ear.credit.apply(batch, ear.credit.init(), 0)
    plain, _ = base.credit.apply(batch, base.credit.init(), 0)
    assert found.advantage.equal(plain.advantage) and found.weight.equal(plain.weight)


@pytest.mark.parametrize("base", [GSPO(), GRPO()])
def test_empo_with_zero_agreement_weight_is_its_base(base):
    """No entropy is above and below the same bound, so only the environment reward remains."""
    assert same(
        EMPO(base=base, entropy_low=0.0, entropy_high=0.0, env_reward_weight=1.0).build(),
        base.build(),
    )
    assert not same(EMPO(base=base, entropy_low=-1.0, env_reward_weight=1.0).build(), base.build())


def test_riskpo_with_every_return_in_the_tail_credits_return_minus_maximum():
    """Bundles of one task, quantiles at the ends, and no extra weight on the lower tail."""
    neutral = RiskPO(
        bundle_size=1,
        quantile_low=0.0,
        quantile_high=1.0,
        omega=0.0,
        quantile_step_size=0.0,
        ratio_per="token",
        dual_clip=None,
    )

    def less_the_most(batch):
        return batch.with_(advantage=(batch.reward - 1)[batch.episode_of_token] * batch.mask)

    plain = GRPO(
        clip_ratio_low=neutral.clip_ratio_low, clip_ratio_high=neutral.clip_ratio_high
    ).build()
    plain = replace(plain, credit=chain(stateless(less_the_most), mean_over_episodes()))
    assert same(neutral.build(), plain)
    assert not same(replace(neutral, bundle_size=2).build(), plain)
    for low in (0.0, 0.7):
        heavier = replace(neutral, quantile_low=low, omega=0.5)
        assert same(heavier.build(), plain) == (low == 0.0)


def test_riskpo_without_a_dual_clip_has_the_update_of_gspo():
    base = GSPO(clip_ratio_low=3e-3, clip_ratio_high=4e-3)

    def moved(config):
        return replace(config.build(), credit=base.build().credit)

    assert same(moved(RiskPO(dual_clip=None)), base.build())
    assert not same(moved(RiskPO(dual_clip=1.01)), base.build(), drift=0.5)
    assert not same(moved(RiskPO(dual_clip=None, ratio_per="row")), base.build())


def test_dapo_without_a_length_penalty_is_grpo_with_its_weights():
    free = DAPO(max_episode_tokens=10**9, baseline_over="episodes").build()
    assert same(free, extend(GRPO().build(), credit=mean_over_informative_tokens()))
    assert same(free, GRPO(loss_aggregation="token-mean").build(), steps=[MIXED, MIXED])
    assert not same(free, GRPO(loss_aggregation="token-mean").build())
    assert not same(DAPO(max_episode_tokens=10**9).build(), free)
    assert not same(DAPO(max_episode_tokens=4, baseline_over="episodes").build(), free)


def test_arpo_has_the_credit_and_update_of_its_base():
    for base in (
        GRPO(),
        GRPO(group_size=16, clip_ratio_high=0.2, dual_clip=3.0, loss_aggregation="token-mean"),
    ):
        assert same(ARPO(base=base).build(), base.build())


def test_dcpo_without_pull_is_its_base():
    base = GRPO(dual_clip=3.0)
    assert same(DCPO(base=base, max_entropy_gap=0.0).build(), base.build())
    assert not same(DCPO(base=base, target_entropy=9.0).build(), base.build())


def test_siren_without_weight_is_its_base():
    for base in (DrGRPO(), GRPO()):
        assert same(SIREN(base=base, anchor_weight=0.0).build(), base.build())


def test_pear_without_penalty_is_its_base():
    assert same(PEAR(alpha=1e9).build(), GRPO().build())
    assert not same(PEAR(alpha=0.0).build(), GRPO().build())


def test_ares_with_paper_settings_is_its_base():
    """Its multiplier is the mean minus itself, up to rounding."""
    config = ARES.paper()
    pairs = zip(trace(config.build()), trace(config.base.build()), strict=True)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in pairs)
    assert not same(ARES(base=config.base).build(), config.base.build())


def test_copo_without_other_tasks_has_the_gradient_of_its_base():
    """Made-up episodes end alike or by a limit, so a low middle gives all to the task itself."""
    within = COPO(gate_sharpness=1e4, gate_midpoint=-1.0).build()
    steps = [MIXED] * 3
    assert same(within, GRPO().build(), steps=steps)
    for other in (COPO(), COPO(gate_sharpness=1e4, gate_midpoint=9.0)):
        assert not same(other.build(), GRPO().build(), steps=steps)


def test_etmr_with_every_prefix_counted_has_the_credit_of_its_base():
    assert same(ETMR(prefix_loss="every").build(), ETMR().base.build())


def test_aepo_arbitrary_without_a_second_rollout_is_its_base():
    assert same(AEPOArbitrary().build(), AEPOArbitrary().base.build())


def test_steer_with_equal_weights_is_grpo():
    base = GRPO(dual_clip=10.0)
    assert same(STEER(base=base, weight_low=1.0, weight_high=1.0).build(), base.build())
    assert not same(STEER(base=base).build(), base.build())


def test_aepo_within_the_clip_and_without_entropy_is_grpo():
    base = GRPO(dual_clip=3.0)
    assert same(AEPO(base=base, entropy_advantage_weight=0.0).build(), base.build(), drift=0.01)
    assert not same(AEPO(base=base, entropy_advantage_weight=0.0).build(), base.build(), drift=0.5)
    assert not same(AEPO(base=base).build(), base.build(), drift=0.01)


def test_constant_entropy_leaves_the_advantage_of_aepo_unchanged():
    batch, _ = batch_at(0, MIXED)
    batch = batch.with_(entropy=0.5 * batch.mask)
    base, aepo = AEPO().base.build(), AEPO().build()
    found, _ = aepo.credit.apply(batch, aepo.credit.init(), 0)
    plain, _ = base.credit.apply(batch, base.credit.init(), 0)
    assert found.advantage.equal(plain.advantage)


@pytest.mark.parametrize(
    "method",
    [
        GPPO(),
        CISPO(),
        SAPO(tau_positive=1.0, tau_negative=2.0),
        GSPO(),
        ARPO(),
        ClipCov(clip_cov_low=1e6, clip_cov_high=2e6),
    ],
)
def test_at_ratio_one_every_surrogate_has_the_gradient_of_grpo(method):
    assert same(method.build(), GRPO().build(), drift=0.0)


def test_at_ratio_one_sapo_has_the_gradient_of_grpo_up_to_rounding():
    """The temperature is a factor and a divisor, which is exact only for powers of 2."""
    pairs = zip(trace(SAPO().build(), drift=0.0), trace(GRPO().build(), drift=0.0), strict=True)
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in pairs)


def test_without_clipping_gppo_and_cispo_have_the_gradient_of_grpo():
    free = {"clip_ratio_low": 1.0, "clip_ratio_high": 1e9}
    base = GRPO(**free).build()
    assert same(GPPO(**free).build(), base, drift=0.5)
    pairs = zip(trace(CISPO(**free).build(), drift=0.5), trace(base, drift=0.5), strict=True)
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-8) for a, b in pairs)
    for kind in (GPPO, CISPO):
        assert not same(kind().build(), GRPO().build(), drift=0.5)


def test_gspo_with_one_token_turns_is_grpo_up_to_rounding():
    wide = {"clip_ratio_low": 0.2, "clip_ratio_high": 0.28}

    def close(length):
        found = trace(GSPO(**wide).build(), drift=0.5, length=length)
        expected = trace(GRPO(**wide).build(), drift=0.5, length=length)
        return all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, expected, strict=True))

    assert close(2) and not close(5)


def test_ppo_with_a_zero_critic_is_reinforce_plus_plus():
    """With a critic of 0 and lambda 1, GAE is the reward-to-go."""
    ppo, plain = PPO(gae_lambda=1.0).build(), ReinforcePP().build()
    batch, _ = batch_at(0, MIXED)
    found, _ = ppo.credit.apply(batch, ppo.credit.init(), 0)
    expected, _ = plain.credit.apply(batch, plain.credit.init(), 0)
    assert found.advantage.equal(expected.advantage) and found.weight.equal(expected.weight)


def test_rloo_is_dr_grpo_times_a_factor():
    batch, _ = batch_at(0, MIXED)
    rloo, dr = RLOO().build(), DrGRPO().build()
    found, _ = rloo.credit.apply(batch, rloo.credit.init(), 0)
    expected, _ = dr.credit.apply(batch, dr.credit.init(), 0)
    assert found.advantage.equal(expected.advantage * 4 / 3)


# ---- collection ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "collect",
    [
        grow_tree(6, fixed_roots(6), lambda decision, rng: True),
        DAPO(group_size=6, max_attempts=1).build().collect,
        ARPO(base=GRPO(group_size=6), initial_rollouts=6).build().collect,
        ETMR(base=GRPO(group_size=6), initial_rollouts=6, peaks_per_root=0).build().collect,
        AEPOArbitrary(base=GRPO(group_size=6), replayed_task_ratio=0.0).build().collect,
    ],
)
def test_without_forks_and_retries_episodes_equal_independent_ones(agent, collect):
    def say(prompt, sampling):
        return agent.encode_action(str(random.Random(sampling.seed).randrange(100)))

    def player():
        engine = ScriptedEngine(say)
        return Player(
            agent=agent,
            engine=engine,
            make_env=lambda t: make(t.env),
            limits=EpisodeLimits(turns=4),
        )

    task = Task("agentgym/Hotter-v0", "hotter-3")
    expected = asyncio.run(independent(6)(task, player()))
    assert asyncio.run(collect(task, player())) == expected
