"""Metrics of a run against hand-computed values, and alarms on faulty runs."""

import asyncio
import math
from dataclasses import replace

import pytest
import torch

from agentgym import make
from agentgym.batch.collate import collate
from agentgym.credit.transforms import chain, group_advantage, mean_over_episodes, stateless
from agentgym.engines.local.engine import LocalEngine
from agentgym.errors import TrainingError
from agentgym.losses.compose import Loss, Outputs, add, scale, times_column
from agentgym.losses.surrogates import entropy_bonus, policy_gradient, policy_gradient_kept
from agentgym.models import from_scratch
from agentgym.models.policy import Policy
from agentgym.rollout.agent import ChatAgent
from agentgym.rollout.player import Player
from agentgym.rollout.setup import EpisodeLimits
from agentgym.settings import AlarmSettings, OptimizerSettings, ScratchSettings
from agentgym.testing.episodes import MIXED, made_up
from agentgym.testing.trial import Trial
from agentgym.training.alarms import ADVICE, AlarmState
from agentgym.training.learner import Learner
from agentgym.training.metrics import (
    coefficient_metrics,
    credit_metrics,
    entropy_push,
    gradient_norms,
    group_metrics,
    task_information,
    token_coefficients,
)
from agentgym.training.mismatch import check_mismatch, mismatch
from agentgym.training.trainer import Trainer
from agentgym.types import Completion, Sampling, Stop, Task, Trajectory, Turn
from agentgym_trainers.aepo import AEPO
from agentgym_trainers.corridor import HIGH, LOW, outside, outside_indicator
from agentgym_trainers.empg import scale_by_confidence
from agentgym_trainers.epo import EPO
from agentgym_trainers.grpo import GRPO
from agentgym_trainers.klcov import KLCov
from agentgym_trainers.replay import replay, sample
from agentgym_trainers.spear import SPEAR


def episode(actions, reward=0.0, *, entropy=0.5, stop=Stop.TERMINATED, learn=True):
    turns = tuple(
        Turn(
            (1,),
            Completion((5 + k, 6), (-1.0, -1.0), (entropy, entropy)),
            action,
            "o",
            reward if k == len(actions) - 1 else 0.0,
            fresh=k == 0,
            learn=learn,
        )
        for k, action in enumerate(actions)
    )
    return Trajectory(Task("e", "t"), 0, "g", "o", turns, stop)


def tokens(**columns):
    """A batch of one episode of one turn per token, with these columns on its tokens."""
    size = len(next(iter(columns.values())))
    turn = Turn((1,), Completion((5,) * size, (-1.0,) * size, (0.5,) * size), "a", "o", 1.0, True)
    batch = collate([[Trajectory(Task("e", "t"), 0, "g", "o", (turn,), Stop.TERMINATED)]])
    written = {}
    for name, values in columns.items():
        written[name] = torch.zeros(len(batch.mask))
        written[name][batch.mask] = torch.tensor(values)
    return batch.with_(**written)


# ---- episodes ------------------------------------------------------------------------------------


def test_group_metrics_compare_the_actions_of_episodes():
    groups = [
        [episode("ab", 1.0), episode("ac", 0.0), episode("ab", 1.0)],
        [episode("x"), episode("x", entropy=0.8)],
        [episode("q", stop=Stop.ENV_ERROR)],
    ]
    found = group_metrics(groups)
    assert found["group/tied"] == 1 / 2
    assert found["group/identical"] == 1 / 2
    assert found["group/prefixes"] == (3 + 1) / 2  # a, ab, ac; x
    assert found["policy/entropy_sampled"] == pytest.approx((14 * 0.5 + 2 * 0.8) / 16)


def test_untrained_tokens_are_excluded_from_the_engine_entropy():
    found = group_metrics([[episode("a"), episode("a", entropy=9.0, learn=False)]])
    assert found["policy/entropy_sampled"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (["aa", "bb"], 1.0),
        (["ab", "ab"], 0.0),
        (["aa", "ab"], (math.log(4) - 0.75 * math.log(3) - 0.5 * math.log(2)) / math.log(2)),
        (["aaa", "b"], 1.0),
    ],
)
def test_task_information_is_mutual_information_of_member_and_group(groups, expected):
    assert task_information(groups) == pytest.approx(expected)


def test_metrics_without_data_are_absent():
    assert group_metrics([]) == {} and group_metrics([[episode("a", stop=Stop.ABORTED)]]) == {}
    assert "group/task_information" not in group_metrics([[episode("a"), episode("b")]])
    assert "group/identical" not in group_metrics([[episode("a")], [episode("b")]])
    assert credit_metrics(collate([[episode("a", learn=False)]])) == {}


# ---- tokens before the update --------------------------------------------------------------------


def test_the_predicted_change_of_entropy_has_its_golden_value():
    """Tokens sampled with p = (1/2, 1/4, 1/8, 1/8) and logits changed by dz as in the spec, 0.7."""
    p = torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=torch.float64)
    dz = torch.tensor([0.001, -0.002, 0.0005, 0.003], dtype=torch.float64)
    draws = [0, 0, 0, 0, 1, 1, 2, 3]
    batch = tokens(
        logprob=[float(p[k].log()) for k in draws], advantage=[float(dz[k]) for k in draws]
    )
    assert entropy_push(batch) == pytest.approx(3.249e-5, abs=5e-9)

    def entropy(logits):
        return float(-(logits.softmax(-1) * logits.log_softmax(-1)).sum())

    exact = entropy(p.log() + dz) - entropy(p.log())
    assert exact == pytest.approx(3.170e-5, abs=5e-9)


def test_likely_tokens_with_a_positive_advantage_lower_entropy():
    assert entropy_push(tokens(logprob=[-0.1, -3.0], advantage=[1.0, -1.0])) < 0
    assert entropy_push(tokens(logprob=[-0.1, -3.0], advantage=[-1.0, 1.0])) > 0


def test_masked_and_reweighted_tokens_are_counted():
    groups = [[episode("ab", 1.0), episode("cd", 0.0)], [episode("e"), episode("f")]]
    batch = collate(groups)
    plain = chain(group_advantage(), mean_over_episodes())
    found = credit_metrics(plain.apply(batch, plain.init(), 0)[0])
    assert found["credit/masked"] == pytest.approx(4 / 12)  # the tied group
    assert found["credit/reweighted"] == 0
    entropy = torch.where(batch.turn == 1, 1.0, 0.2) * batch.mask
    scaled = chain(group_advantage(), scale_by_confidence(1.0))
    found = credit_metrics(scaled.apply(batch.with_(entropy=entropy), scaled.init(), 0)[0])
    assert found["credit/reweighted"] == pytest.approx(8 / 12)
    assert found["credit/masked"] == 0


def test_the_net_advantage_follows_the_weights():
    batch = collate([[episode("abc"), episode("d")]])
    columns = {
        "advantage": torch.where(batch.episode_of_token == 0, 1.0, -1.0) * batch.mask,
        "weight": torch.where(batch.episode_of_token == 0, 1.0, 2.0) * batch.mask,
    }
    tokens = [int((batch.mask & (batch.episode_of_token == k)).sum()) for k in (0, 1)]
    expected = (tokens[0] - 2 * tokens[1]) / (tokens[0] + 2 * tokens[1])
    assert credit_metrics(batch.with_(**columns))["credit/net"] == pytest.approx(expected)
    silent = batch.with_(weight=torch.zeros_like(batch.weight))
    assert credit_metrics(silent)["credit/net"] == 0


# ---- tokens in the update ------------------------------------------------------------------------


def pulls(loss, ratios, advantages, **columns):
    size = len(ratios)
    batch = tokens(logprob=[-1.0] * size, advantage=advantages, weight=[1 / size] * size)
    batch = batch.with_(**{name: tokens(x=value).extra["x"] for name, value in columns.items()})
    now = batch.logprob.clone()
    now[batch.mask] += torch.tensor(ratios).log()
    outputs = Outputs(now.requires_grad_(), torch.zeros_like(now))
    return coefficient_metrics(token_coefficients(loss, outputs, batch, 0), loss, batch)


def test_clipped_tokens_are_counted_by_the_sign_of_their_advantage():
    """Positive advantages stop above the clip, negative ones below; other tokens do not."""
    ratios = [1.5, 0.5, 1.0, 1.0, 1.5, 0.5, 0.5, 1.0]
    advantages = [1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0]
    found = pulls(policy_gradient(0.2, 0.28), ratios, advantages)
    assert found == {"stopped_positive": 1 / 4, "stopped_negative": 2 / 4, "reweighted": 0.0}


def test_tokens_clipped_by_the_loss_are_counted_as_stopped():
    assert pulls(policy_gradient(0.2, 0.6), [1.5, 1.0], [1.0, 1.0])["stopped_positive"] == 0
    assert pulls(policy_gradient(0.2, 0.4), [1.5, 1.0], [1.0, 1.0])["stopped_positive"] == 1 / 2
    kept = policy_gradient_kept(0.2, 0.28, below=False)
    found = pulls(kept, [1.5, 1.0, 1.0, 0.5], [1.0, 1.0, 1.0, -1.0])
    assert found["stopped_positive"] == 0 and found["stopped_negative"] == 1
    assert found["reweighted"] == pytest.approx(1 / 3)


def test_masks_stop_tokens_weights_reweight_them_and_constants_do_neither():
    loss = times_column("w", policy_gradient())
    found = pulls(loss, [1.0] * 4, [1.0, -1.0, 1.0, 2.0], w=[0.0, 1.0, 1.0, 3.0])
    expected = {"stopped_positive": 1 / 3, "stopped_negative": 0, "reweighted": 1 / 3}
    assert found == pytest.approx(expected)
    found = pulls(loss, [1.0] * 4, [1.0, -1.0, 1.0, 2.0], w=[7.0] * 4)
    assert found == {"stopped_positive": 0, "stopped_negative": 0, "reweighted": 0}


def test_each_part_of_a_loss_has_the_norm_of_its_own_gradient():
    """Two parameters: the log-probability is 3 a, the entropy 4 b, a penalty is a constant."""
    a, b = torch.tensor(1.0, requires_grad=True), torch.tensor(1.0, requires_grad=True)
    batch = tokens(advantage=[2.0], weight=[1.0], logprob=[0.0])
    inside = batch.mask.float()
    outputs = Outputs(3 * a * inside, 4 * b * inside)
    outputs = outputs._replace(logprob=outputs.logprob - 3 * inside)  # the ratio is 1
    flat = Loss(lambda outputs, batch, step: torch.ones_like(batch.weight), name="flat")
    loss = scale(0.5, add(policy_gradient(), scale(0.1, entropy_bonus()), flat))
    found = gradient_norms(loss, outputs, batch, 0, [a, b])
    assert found == pytest.approx({"surrogate": 0.5 * 2 * 3, "entropy": 0.5 * 0.1 * 4, "flat": 0})


# ---- buffers, forks, drift -----------------------------------------------------------------------


def test_a_replay_buffer_reports_its_size_and_age():
    piece = chain(group_advantage(), replay(10, 5, 100, sample(2), mean_over_episodes()))
    state = piece.init()
    assert piece.health(state, 0) == {"replay/size": 0.0}
    for step in range(3):
        batch = collate([[episode("a", 1.0), episode("b"), episode("c")]])
        _, state = piece.apply(batch, state, step)
    found = piece.health(state, 2)
    assert found == {
        "replay/size": 3,
        "replay/age": 1.0,  # played at steps 0, 1 and 2
        "replay/median": pytest.approx(1 / 3),
    }
    assert "replay/size" in SPEAR().build().credit.health(SPEAR().build().credit.init(), 0)
    assert AEPO().build().credit.health(AEPO().build().credit.init(), 0) == {}


def test_mismatch_is_the_median_over_episodes_and_ignores_a_few_at_higher_temperature():
    batch = collate([[episode("a"), episode("b"), episode("c")]])
    gap = torch.tensor([0.001, 0.002, 0.7])[batch.episode_of_token] * batch.mask
    batch = batch.with_(logprob=batch.logprob_sampled + gap)
    assert mismatch(batch) == pytest.approx(0.002, rel=1e-3)
    check_mismatch(batch, 0.0021)
    with pytest.raises(TrainingError, match=r"differ by 0\.002 nats per token, expected at most"):
        check_mismatch(batch, 0.0019)


# ---- alarms --------------------------------------------------------------------------------------

WELL = {
    "policy/entropy": 1.0,
    "group/identical": 0.2,
    "group/task_information": 0.6,
    "update/grad_norm": 0.3,
}


def warnings(steps, limits=AlarmSettings(patience=2)):  # noqa: B008
    state, given = AlarmState(), []
    for metrics in steps:
        state = AlarmState(*tuple(state)).updated(metrics, limits)
        given.append([text.partition(",")[0] for text in state.warnings(limits)])
    return given


def test_a_healthy_run_raises_no_alarm():
    course = [{**WELL, "policy/entropy": 1.0 - 0.08 * k} for k in range(10)]
    assert warnings(course) == [[]] * 10


@pytest.mark.parametrize(
    ("name", "ill"),
    [
        ("entropy-collapse", {"policy/entropy": 0.05}),
        ("entropy-explosion", {"policy/entropy": 6.0}),
        ("same-episodes", {"group/identical": 0.95}),
        ("never-acts", {"episode/parsed": 0.05}),
        ("cut-completions", {"episode/cut": 0.6}),
        ("template", {"group/task_information": 0.01}),
        ("inert-term", {"update/norm/surrogate": 1.0, "update/norm/entropy": 0.005}),
        ("zero-gradient", {"update/grad_norm": 0.0}),
    ],
)
def test_each_alarm_warns_once_after_its_patience(name, ill):
    bad = {**WELL, **ill}
    assert warnings([WELL, bad, bad, bad, bad]) == [[], [], [name], [], []]
    assert warnings([WELL, bad, WELL, bad, WELL]) == [[]] * 5
    watch = (
        AlarmState()
        .updated(WELL, AlarmSettings())
        .updated(bad, AlarmSettings())
        .updated(bad, AlarmSettings())
    )
    assert watch.metrics()[f"alarm/{name}"] == 2
    assert sum(watch.metrics().values()) == 2


@pytest.mark.parametrize(
    ("ill", "name"),
    [({"episode/parsed": 0.0}, "never-acts"), ({"episode/cut": 1.0}, "cut-completions")],
)
def test_episodes_without_actions_trigger_no_temperature_advice(ill, name):
    """All answers of a policy at its maximum entropy are the same to the environment."""
    bad = {**WELL, "policy/entropy": 7.3, "group/identical": 1.0, "episode/parsed": 0.0, **ill}
    steps = [bad, bad]
    assert warnings(steps) == [[], [name]]
    assert "temperature" not in ADVICE[name]


def test_a_step_without_an_update_counts_as_one_without_a_gradient():
    mute = {name: value for name, value in WELL.items() if name != "update/grad_norm"}
    assert warnings([mute, mute]) == [[], ["zero-gradient"]]
    both = {**mute, "update/grad_norm": 0.0, "imitation/grad_norm": 0.1}
    assert warnings([both, both]) == [[], []]


# ---- in a run ------------------------------------------------------------------------------------


def trainer(tokenizer, config, *, alarms=AlarmSettings(), how=None, engine=None):  # noqa: B008
    how = how or OptimizerSettings(warmup_steps=1)
    shape = ScratchSettings(
        hidden_size=32, num_layers=1, num_heads=2, num_kv_heads=1, intermediate_size=32
    )
    model = from_scratch.make_model(tokenizer, shape, context=256, seed=0)
    player = Player(
        agent=ChatAgent(tokenizer),
        engine=LocalEngine(engine or model, slots=6, context=256),
        make_env=lambda task: make(task.env),
        limits=EpisodeLimits(turns=3, tokens=256),
        sampling=Sampling(max_tokens=4),
        concurrency=6,
    )
    return Trainer(config.build(), Learner(Policy(model), how), player, alarms=alarms)


def step(trainer):
    tasks = [Task("agentgym/Hotter-v0", f"hotter-{k}") for k in (1, 2)]
    return asyncio.run(trainer.run_step(tasks))


def test_all_metrics_are_logged_and_engine_and_trainer_agree(tokenizer):
    config = EPO(base=GRPO(group_size=3, minibatches=1))
    one = trainer(tokenizer, config, how=OptimizerSettings(learning_rate=1e-2, warmup_steps=1))
    one.algorithm = replace(one.algorithm, credit=chain(pretend(), one.algorithm.credit))
    one = Trainer(one.algorithm, Learner(one.learner.policy, one.learner.settings), one.player)
    step(one)
    found = step(one)
    metrics = found.metrics
    assert metrics["policy/entropy_sampled"] == pytest.approx(metrics["policy/entropy"], rel=1e-4)
    assert metrics["policy/mismatch"] < 1e-4
    assert metrics["update/norm/surrogate"] > 0
    assert metrics["update/norm/entropy"] > 0
    assert {
        "update/norm/corridor",
        "update/stopped_positive",
        "update/reweighted",
    } <= metrics.keys()
    assert metrics["spent/turns"] == 2 * 2 * 3 * 3  # steps, tasks, episodes, turns
    written = sum(len(u.completion.tokens) for g in found.groups for t in g for u in t.turns)
    assert metrics["spent/tokens"] > written > 0
    assert found.warnings == ()


@pytest.mark.parametrize(("minibatches", "epochs"), [(1, 1), (2, 1), (1, 2)])
def test_the_norm_of_a_kl_penalty_is_measured_after_a_policy_update(minibatches, epochs):
    """KL-Cov's penalty has no gradient before the first optimiser step, only before later ones."""
    trial = Trial("test", KLCov(kl_cov_ratio=0.5, minibatches=minibatches))
    learner, algorithm = trial.learner(), trial.algorithm
    batch = learner.observe(collate(made_up(0, MIXED)))
    batch, _ = algorithm.credit.apply(batch, algorithm.credit.init(), 0)
    update = replace(algorithm.updates[0], epochs=epochs)
    found = learner.update(batch, update, 0)
    moved = minibatches * epochs > 1
    assert (found["update/norm/penalty"] > 0) is moved
    assert found["update/norm/surrogate"] > 0


def pretend():
    """Credit for low token ids: a gradient exists although no episode succeeds."""

    def apply(batch):
        low = torch.zeros(len(batch.group)).index_add(
            0, batch.episode_of_token, batch.tokens.float()
        )
        return batch.with_(reward=low)

    return stateless(apply)


def test_a_penalty_without_a_gradient_has_norm_zero():
    """The published indicator of EPO: its norm is 0 while tokens are outside the entropy range."""
    entropy = torch.tensor([0.0, 0.3, 0.9], requires_grad=True)
    batch = tokens(advantage=[1.0, 1.0], weight=[0.5, 0.5], logprob=[-1.0, -1.0])
    sides = {LOW: torch.full((3,), 0.4), HIGH: torch.full((3,), 0.6)}
    batch = batch.with_(**sides)
    outputs = Outputs(batch.logprob * 1, entropy * batch.mask)
    distance = gradient_norms(add(entropy_bonus(), outside()), outputs, batch, 0, [entropy])
    indicator = gradient_norms(
        add(entropy_bonus(), outside_indicator()), outputs, batch, 0, [entropy]
    )
    assert distance["corridor"] == pytest.approx(math.sqrt(0.5))
    assert indicator["corridor"] == 0 < indicator["entropy"]


def test_a_run_stops_when_the_engine_has_other_weights(tokenizer):
    shape = ScratchSettings(
        hidden_size=32, num_layers=1, num_heads=2, num_kv_heads=1, intermediate_size=32
    )
    other = from_scratch.make_model(tokenizer, shape, context=256, seed=1)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(20)
    one = trainer(tokenizer, GRPO(group_size=3), engine=other)
    before = [p.clone() for p in one.learner.policy.model.parameters()]
    with pytest.raises(TrainingError, match="engine and trainer differ by"):
        step(one)
    assert all(
        a.equal(b) for a, b in zip(before, one.learner.policy.model.parameters(), strict=True)
    )


def test_a_run_without_learning_warns_once_even_after_resuming(tokenizer):
    """No episode succeeds in three turns: all groups are tied, and there is no gradient."""
    config, alarms = GRPO(group_size=2), AlarmSettings(patience=2)
    one = trainer(tokenizer, config, alarms=alarms)
    first = step(one)
    assert first.metrics["group/tied"] == 1 and first.warnings == ()
    twin = trainer(tokenizer, config, alarms=alarms)
    twin.restore(one.state())
    assert twin.player.usage == one.player.usage
    second = step(twin)
    assert any(text.startswith("zero-gradient, 2 steps in a row") for text in second.warnings)
    assert second.metrics["alarm/zero-gradient"] == 2
    assert step(twin).warnings == ()
