"""Methods that hold entropy at a target: golden numbers, gradients, controllers."""

import io
import math

import numpy as np
import pytest
import torch
from family_fixture import FIXTURE, GOLDEN, episodes, flat, near

from agentgym.batch.collate import collate
from agentgym.batch.turns import quantile_by
from agentgym.losses.compose import Outputs
from agentgym.losses.reductions import tempered_logprob
from agentgym.models import from_scratch
from agentgym.models.policy import Policy
from agentgym.settings import OptimizerSettings, ScratchSettings
from agentgym.testing.batches import batch_of, written
from agentgym.testing.episodes import MIXED, made_up
from agentgym.training.entropy_law import EntropyFit
from agentgym.training.learner import Learner
from agentgym_trainers.dcpo import (
    COOL,
    DCPO,
    WARM,
    Target,
    exact_entropy,
    rewarded,
    sampled_entropy,
    share_of_bonus,
    weigh_in,
    won,
)
from agentgym_trainers.siren import (
    ANCHOR,
    COEFFICIENT,
    MEAN,
    NUCLEUS,
    PEAK,
    SIREN,
    adaptive_bonus,
    adaptive_coefficient,
    anchored,
    find_peaks,
    height,
    peaks,
    squared_distance,
)


def fixture(**about):
    """The two episodes; the first was won."""
    batch = episodes(reward=[1.0, 0.0], **about)
    return batch.with_(entropy=written(batch, flat(FIXTURE["H"])))


def learner_of(algorithm, tokenizer):
    """A network with different entropies per token, and the learner that trains it."""
    shape = ScratchSettings(
        hidden_size=16, num_layers=1, num_heads=2, num_kv_heads=1, intermediate_size=16
    )
    model = from_scratch.make_model(tokenizer, shape, context=256, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8 if parameter.dim() > 1 else 1)
    learner = Learner(Policy(model), OptimizerSettings())
    learner.attach(algorithm)
    return learner


# ---- the law of entropy and score --------------------------------------------------------------


def course(entropies, scores):
    found = EntropyFit()
    for entropy, score in zip(entropies, scores, strict=True):
        found = found.updated(entropy, score)
    return found


def test_w1_the_fit_recovers_a_known_law():
    golden = GOLDEN["W1"]
    law = course(golden["H"], golden["R"]).fit()
    assert law[:2] == near(golden["fit"], 2e-6) and law.ceiling == near(golden["ceiling"], 2e-6)
    assert law.residual < 1e-6
    assert [-law.a * math.exp(h) for h in golden["H"]] == near(golden["dRdH"], 5e-6)


def test_the_law_is_a_least_squares_fit_and_reports_its_error():
    rng = np.random.default_rng(0)
    entropies, scores = rng.random(40) * 2, rng.random(40)
    features = np.stack([-np.exp(entropies), np.ones(40)], 1)
    (a, b), square, *_ = np.linalg.lstsq(features, scores, rcond=None)
    law = course(entropies.tolist(), scores.tolist()).fit()
    assert law == near((a, b, math.sqrt(float(square[0]) / 40)), 1e-9)


def test_a_fit_needs_three_steps_with_different_entropies():
    assert course([0.1, 0.2], [0, 1]).fit() is None and course([0.5] * 9, range(9)).fit() is None
    assert course([0.5] * 9, range(9)).metrics() == {}
    three = course([0.1, 0.2, 0.3], [0.3, 0.2, 0.1])
    assert set(three.metrics()) == {
        "entropy_law/a",
        "entropy_law/b",
        "entropy_law/ceiling",
        "entropy_law/residual",
    }
    assert EntropyFit(*tuple(three)) == three


# ---- DCPO --------------------------------------------------------------------------------------


def mixed(batch, entropy=0.3, late=False, state=0.0):
    golden = written(batch, flat(GOLDEN["W7_dcpo"]["lT"]))
    batch = batch.with_(**{WARM: golden, COOL: 2 * golden})
    transform = weigh_in(Target(0.5, 0.1), lambda _: entropy, won, warm=1.2, cool=0.8, late=late)
    found, state = transform.apply(batch, state, 0)
    return found.advantage[batch.mask].tolist(), state


def test_w7_the_share_of_the_bonus():
    golden = GOLDEN["W7_dcpo"]
    target = Target(0.5, 0.1)
    assert share_of_bonus(target, 0.3, 0.5) == near(golden["alpha"])
    assert share_of_bonus(target, 0.45, 0.5) == near(golden["alpha_close"])
    assert share_of_bonus(target, 0.3, 0.0) == golden["alpha_nocorrect"]
    assert share_of_bonus(target, 0.5, 0.5) == 0
    assert share_of_bonus(target, 9.0, 0.01) < 1


def test_w7_the_advantage():
    assert mixed(fixture())[0] == near(flat(GOLDEN["W7_dcpo"]["A"]))


def test_dcpo_at_temperature_one_every_factor_is_one_and_the_bonus_is_constant():
    logits = torch.randn(9, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logp, tokens = logits.log_softmax(-1), torch.arange(9) % 5
    sampled = logp[torch.arange(9), tokens]
    factor = (tempered_logprob(WARM, 1.0).apply(logp, tokens) - sampled).exp()
    assert factor.tolist() == near([1.0] * 9, 1e-12)
    batch = fixture()
    batch = batch.with_(**{WARM: batch.logprob, COOL: batch.logprob - 1})
    transform = weigh_in(Target(0.5, 0.1), lambda _: 0.3, won, warm=1.0, cool=0.8, late=False)
    share = share_of_bonus(Target(0.5, 0.1), 0.3, 0.5)
    gained = transform.apply(batch, 0.0, 0)[0].advantage - (1 - share) * batch.advantage
    assert gained[batch.mask].tolist() == near([share] * 4 + [0] * 3, 1e-12)


def test_w7_at_the_target_or_without_a_win_the_advantage_is_unchanged():
    batch = fixture()
    before = batch.advantage[batch.mask].tolist()
    assert mixed(batch, entropy=0.5)[0] == before
    assert mixed(batch.with_(won=torch.zeros(2, dtype=torch.bool)))[0] == before


@pytest.mark.parametrize(("entropy", "column"), GOLDEN["W6_ctrl"])
def test_w6_the_temperature_is_high_up_to_the_target_and_low_above(entropy, column):
    """The columns show which one is used: the cool one holds half the log-probability."""
    batch = fixture()
    found = mixed(batch, entropy=float(entropy))[0]
    share = share_of_bonus(Target(0.5, 0.1), float(entropy), 0.5)
    tempered = flat(GOLDEN["W7_dcpo"]["lT"])[0] * (1 if column == 1.2 else 2)
    factor = float(torch.tensor(tempered - FIXTURE["old"][0][0]).exp())
    assert found[0] == near((1 - share) * 1.2 + share * factor)


def test_dcpo_the_released_code_uses_the_entropy_of_the_previous_step_and_starts_from_zero():
    batch = fixture()
    first, state = mixed(batch, entropy=9.0, late=True)
    assert first == near(flat(GOLDEN["W7_dcpo"]["A"])) and state == 9.0
    assert mixed(batch, entropy=0.0, late=True, state=state)[0] != near(first)


def test_dcpo_entropies_and_successes_of_a_batch():
    batch = fixture()
    assert sampled_entropy(batch) == near(8 / 7 - 0.0, 0.2)
    assert sampled_entropy(batch) == near(-sum(flat(FIXTURE["old"])) / 7)
    assert exact_entropy(batch) == near(sum(flat(FIXTURE["H"])) / 7)
    part = batch.with_(reward=torch.tensor([0.04, 0.1]), won=torch.tensor([False, False]))
    assert rewarded(part).tolist() == [False, True] and not won(part).any()


def test_dcpo_trains_on_a_group_that_always_wins(tokenizer):
    batch = collate(made_up(0, [[1.0] * 4, [1.0, 0.0, 0.0, 0.0]]))
    algorithm = DCPO(target_entropy=9.0).build()
    batch = learner_of(algorithm, tokenizer).observe(batch)
    found, _ = algorithm.credit.apply(batch, algorithm.credit.init(), 0)
    assert found.weight[found.mask & (found.group[found.episode_of_token] == 0)].min() > 0


# ---- SIREN -------------------------------------------------------------------------------------


def test_w8_peaks_of_one_row():
    golden = GOLDEN["W8_mask"]
    batch = batch_of([[5]])
    found = peaks(written(batch, golden["H"]), batch, 0.8, "episode")
    assert found[batch.mask].tolist() == golden["mask"]
    entropy = torch.tensor(golden["H"], dtype=torch.float64)
    assert quantile_by(entropy, torch.zeros(5).long(), 0.8, 1).tolist() == near([golden["thr"]])


def test_f2_peaks_of_an_episode_and_of_its_turns():
    batch = batch_of([[2, 2, 1]])
    value = torch.where(batch.mask, written(batch, [0.2, 0.8, 0.4, 1.6, 0.6]), 5.0)
    assert peaks(value, batch, 0.8, "episode")[batch.mask].tolist() == [0, 0, 0, 1, 0]
    assert peaks(value, batch, 0.8, "turn")[batch.mask].tolist() == [0, 1, 0, 1, 0]


def test_w8_the_squared_distance_and_its_slope():
    golden = GOLDEN["W8_reg"]
    batch = fixture()
    weight, mean = height(batch.entropy, batch, 0.8, "episode")
    masks = [*golden["masks"][0], *golden["masks"][1][:3]]
    assert (weight > 0)[batch.mask].tolist() == masks and mean == near(golden["H"])
    alone = [batch.rows(torch.tensor([row])) for row in range(2)]
    each = [height(one.entropy, one, 0.8, "episode")[1] for one in alone]
    assert each == near(golden["per_seq"])
    for anchor, value, slope in [
        (golden["anchor"], golden["reg"], golden["dreg_dH"]),
        (mean, golden["perfect"], 0.0),
    ]:
        found, gradient = regularised(batch, batch.entropy, anchor)
        assert 0.005 * found == near(value)
        assert 0.005 * float(gradient.sum()) == near(slope)


def regularised(batch, entropy, anchor, level=0.8):
    """The term and its gradient, computed with the parts that the learner combines."""
    leaf = entropy.detach().clone().requires_grad_()
    outputs = Outputs(leaf, leaf, extra={NUCLEUS: leaf})
    held = anchor * batch.mask.double()
    batch = find_peaks(level, "episode").apply(
        outputs._replace(extra={NUCLEUS: leaf.detach()}),
        batch.with_(**{ANCHOR: held}),
        torch.Generator(),
    )
    value = squared_distance(SIREN().build().credit.reductions[0]).apply(outputs, batch, 0)
    total = (value * batch.extra[PEAK]).sum()
    (gradient,) = torch.autograd.grad(total, leaf)
    return float(total.detach()), gradient


def test_siren_the_linearised_term_has_the_gradient_of_the_square():
    batch = batch_of([[4], [3], [5]])
    generator = torch.Generator().manual_seed(1)
    entropy = torch.rand(len(batch.mask), generator=generator, dtype=torch.float64) * batch.mask

    def square(value):
        return (height(value, batch, 0.5, "episode")[1] - 0.9) ** 2

    found, gradient = regularised(batch, entropy, 0.9, 0.5)
    assert found == near(square(entropy), 1e-6)
    for at in batch.mask.nonzero().squeeze(-1).tolist():
        step = torch.zeros_like(entropy)
        step[at] = 1e-6
        slope = (square(entropy + step) - square(entropy - step)) / 2e-6
        assert float(gradient[at]) == near(slope, 1e-6)


def test_siren_the_anchor_is_set_by_the_first_batch_and_stays():
    batch = fixture()
    nucleus = SIREN().build().credit.reductions[0]
    transform = anchored(0.8, "episode", nucleus)
    alike = batch.with_(**{NUCLEUS: batch.mask.double()})
    found, state = transform.apply(alike, transform.init(), 0)
    assert state == () and found.extra[PEAK].sum() == 0
    found, state = transform.apply(batch.with_(**{NUCLEUS: batch.entropy}), state, 1)
    assert state == (near(1.55),) and found.extra[ANCHOR][batch.mask].tolist() == near([1.55] * 7)
    later, state = transform.apply(batch.with_(**{NUCLEUS: 2 * batch.entropy}), state, 2)
    assert state == (near(1.55),) and later.extra[MEAN][batch.mask].tolist() == near([3.1] * 7)


def adapted(transform, state, entropy):
    batch = batch_of([[2]])
    return transform.apply(batch.with_(entropy=written(batch, [entropy, entropy])), state, 0)


def test_w20_the_adaptive_coefficient():
    """The golden block lacks its inputs: 0.1 nat on either side and this rate reproduce it."""
    transform = adaptive_coefficient(0.005, 1.2, 0.001)
    start = transform.init()
    found = [adapted(transform, start, entropy)[1] for entropy in (1.1, 1.2, 1.3)]
    assert found == near(GOLDEN["W20_ctrl"], 1e-9)
    for entropy, rate, weight in [(1.55, 0.1, 0.0), (1.0, 0.01, 0.007)]:
        batch, state = adapted(adaptive_coefficient(0.005, 1.2, rate), 0.005, entropy)
        assert state == near(weight, 1e-9)
        assert batch.extra[COEFFICIENT].tolist() == near([0, weight, weight], 1e-9)


def test_the_adaptive_coefficient_resumes_from_a_checkpoint_and_is_kept_without_tokens():
    transform = adaptive_coefficient(0.005, 1.2, 0.01)
    _, state = adapted(transform, transform.init(), 1.0)
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    again = torch.load(file, weights_only=True)
    assert adapted(transform, again, 0.5)[1] == adapted(transform, state, 0.5)[1] == near(0.014)
    batch = batch_of([[1]])
    silent = batch.with_(mask=torch.zeros_like(batch.mask))
    assert transform.apply(silent, state, 0)[1] == state


def test_the_gradient_of_the_adaptive_bonus_is_its_coefficient():
    batch, _ = adapted(adaptive_coefficient(0.3, 1.2, 0.0), 0.3, 1.0)
    entropy = batch.entropy.clone().requires_grad_()

    def total(entropy):
        return adaptive_bonus().apply(Outputs(entropy, entropy), batch, 0).sum()

    assert torch.autograd.gradcheck(total, [entropy])
    (slope,) = torch.autograd.grad(total(entropy), entropy)
    assert slope.tolist() == near([0, -0.3, -0.3])


def test_siren_pulls_the_entropy_of_a_network_towards_the_anchor(tokenizer):
    """Through the learner: the network has the gradient of the square, which points down."""
    algorithm = SIREN(anchor_weight=1.0).build()
    learner = learner_of(algorithm, tokenizer)
    batch = learner.observe(collate(made_up(0, MIXED)))
    credit = algorithm.credit
    batch, _ = credit.apply(batch, credit.init(), 0)
    update = algorithm.updates[0]
    loss = squared_distance(credit.reductions[0])
    for shift in (-0.3, 0.0, 0.3):
        moved = batch.with_(**{ANCHOR: batch.extra[ANCHOR] + shift * batch.mask})
        part = learner.prepare(moved, update)
        outputs = learner.policy(part, credit.reductions)
        total = (loss.apply(outputs, part, 0) * part.extra[PEAK]).sum()
        assert float(total.detach()) == near(shift**2, 1e-5)
        gradient = torch.autograd.grad(total, list(learner.policy.model.parameters()))
        norm = sum(float(g.square().sum()) for g in gradient)
        assert (norm > 1e-9) is (shift != 0)
