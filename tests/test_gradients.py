"""The gradient of every term of every registered loss agrees with finite differences.

For finite differences, parts with a stopped gradient are held constant: each call of ``detach``
returns the value it had at the central point.
"""

import math
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from agentgym import plugins
from agentgym.losses.compose import Outputs, with_advantage
from agentgym.losses.surrogates import policy_gradient, policy_gradient_kept
from agentgym.testing.batches import batch_of, written
from agentgym.testing.trial import Trial
from agentgym_trainers.gspo import sequence_ratio
from agentgym_trainers.riskpo import with_dual_clip

FORMS = ("", "paper", "released")
STOPPING = {"aepo", "cispo", "empo", "gppo", "gspo", "riskpo"}
"""Methods with an intended stop-gradient in the surrogate."""
STEP = 3


def near(values, tolerance=1e-6):
    return pytest.approx(values, abs=tolerance)


@contextmanager
def detaching(answer):
    """Replaces the result of ``detach`` by a function of the tensor."""
    original = torch.Tensor.detach
    torch.Tensor.detach = answer
    try:
        yield
    finally:
        torch.Tensor.detach = original


def noted(term, outputs, batch):
    """The sum over tokens, and the tensors that were detached."""
    original, seen = torch.Tensor.detach, []

    def answer(tensor):
        seen.append(original(tensor))
        return seen[-1]

    with detaching(answer):
        total = term.apply(outputs, batch, STEP)[batch.mask].sum()
    return total, seen


def held(term, outputs, batch, seen):
    """The sum over tokens with detached tensors held constant."""
    answers = iter(seen)
    with detaching(lambda tensor: next(answers)):
        return float(term.apply(outputs, batch, STEP)[batch.mask].sum())


def exact(batch):
    """The batch in double precision."""
    names = ("logprob", "entropy", "advantage", "weight", *batch.extra)
    columns = {name: batch.column(name) for name in names}
    return batch.with_(**{n: c.double() for n, c in columns.items() if c.is_floating_point()})


def later(update, batch):
    """Outputs of a policy far from the sampling policy: ratios from 1/4 to 16."""
    rng = np.random.default_rng(0)

    def column(low, high):
        return written(batch, rng.uniform(low, high, int(batch.mask.sum())))

    asked = {reduction.name: column(0.1, 1.5) for reduction in update.loss.asks()}
    return Outputs(
        batch.logprob + column(-1.4, 2.8), batch.entropy * column(0.2, 3.0), column(-1, 1), asked
    )


def slopes(term, outputs, batch):
    """Autograd and finite differences along random directions; whether a gradient is stopped."""
    names = ("logprob", "entropy", "value", *outputs.extra)
    points = [*outputs[:3], *outputs.extra.values()]

    def at(columns):
        return Outputs(*columns[:3], dict(zip(names[3:], columns[3:], strict=True)))  # type: ignore[call-arg]

    leaves = [point.clone().requires_grad_() for point in points]
    total, seen = noted(term, at(leaves), batch)
    found = (
        torch.autograd.grad(total, leaves, allow_unused=True) if total.requires_grad else [None] * 9
    )
    rng, size, autograd, differences = np.random.default_rng(1), 1e-6, [], []
    for place, gradient in zip(range(len(points)), found, strict=False):
        for _ in range(3):
            way = written(batch, rng.choice([-1, 1], int(batch.mask.sum())).astype(float))
            ends = [
                held(
                    term,
                    at([p + s * size * way * (k == place) for k, p in enumerate(points)]),
                    batch,
                    seen,
                )
                for s in (1, -1)
            ]
            differences.append((ends[0] - ends[1]) / (2 * size))
            autograd.append(0.0 if gradient is None else float((gradient * way).sum()))
    return autograd, differences, bool(seen)


def configurations(name):
    kind = plugins.algorithm(name)
    return {form: getattr(kind, form)() if form else kind() for form in FORMS}


@pytest.mark.parametrize("name", sorted(plugins.algorithms()))
def test_the_gradient_of_every_loss_term_agrees_with_finite_differences(name):
    """A term without a gradient is zero, unless the released code differs."""
    stops, flat, empty = set(), set(), set()
    for form, config in configurations(name).items():
        trial = Trial(f"{name}.{form}", config)
        whole = trial.credit(trial.batches())[0][-1]
        for update in trial.algorithm.updates:
            batch = exact(whole.rows(update.rows(whole).nonzero().squeeze(-1)))
            if not len(batch):
                empty.add((form, update.name))
                continue
            outputs = later(update, batch)
            if update.select is not None:
                generator = torch.Generator().manual_seed(0)
                batch = exact(update.select.apply(outputs, batch, generator))
            for term in (*update.loss.terms(), *update.loss.apart()):
                autograd, differences, stopping = slopes(term, outputs, batch)
                scale = max(1.0, *map(abs, autograd))
                assert autograd == near(differences, 1e-6 * scale), f"{form} {term.name}"
                stops |= {term.name} if stopping else set()
                flat |= set() if any(autograd) else {(form, term.name)}
    assert stops - {"loss"} == ({"surrogate"} if name in STOPPING else set())
    idle = {(form, "entropy") for form in FORMS}
    assert flat <= idle | ({("released", "corridor")} if name == "epo" else set())
    # SPEAR's other forms replay once their buffer is full: the loss is that of its own form.
    bursts = {("paper", "imitation"), ("released", "imitation")}
    assert empty == (bursts if name == "spear" else set())


# ---- pieces written out by hand ----------------------------------------------------------------

TURNS = [3, 2, 5]
RATIOS = np.array([1.5, 1.9, 1.05, 1.5, 4.0, 0.5, 0.95, 5.0, 1.5, 4.0])
ADVANTAGES = np.array([1.0] * 3 + [-1.0] * 2 + [-0.7] * 5)
OTHER = np.array([-0.3, 0.4, -0.5, 0.6, 0.7, 0.8, -0.9, 1.0, 1.1, -1.2])
TURN = np.repeat(range(3), TURNS)


def clipped(r, advantage):
    return -np.minimum(r * advantage, np.clip(r, 0.8, 1.28) * advantage)


def capped(loss, advantage):
    return np.where(advantage < 0, np.minimum(loss, -3 * advantage), loss)


def per_turn(move, move0):
    """Geometric mean of the turn as it is, and the gradient of the token's own ratio."""
    mean = np.array([move0[k == TURN].mean() for k in TURN])
    return np.exp(mean + move - move0)


def keeping(move, move0, *, below):
    r, r0 = np.exp(move), np.exp(move0)
    low = 0.8 * r / r0 if below else np.full_like(r, 0.8)
    kept = np.where(r0 > 1.28, 1.28 * r / r0, np.where(r0 < 0.8, low, r))
    return capped(-np.minimum(r * ADVANTAGES, kept * ADVANTAGES), ADVANTAGES)


PIECES = {
    "turn": (
        sequence_ratio(0.2, 0.28, turn=True),
        lambda m, m0: clipped(per_turn(m, m0), ADVANTAGES),
    ),
    "bounded": (
        with_dual_clip(sequence_ratio(0.2, 0.28, turn=True), 3.0),
        lambda m, m0: capped(clipped(per_turn(m, m0), ADVANTAGES), ADVANTAGES),
    ),
    "bounded-token": (
        with_dual_clip(policy_gradient(0.2, 0.28), 3.0),
        lambda m, m0: capped(clipped(np.exp(m), ADVANTAGES), ADVANTAGES),
    ),
    "crediting": (
        with_advantage("test/other", policy_gradient(0.2, 0.28)),
        lambda m, m0: clipped(np.exp(m), OTHER),
    ),
    "kept-above": (
        policy_gradient_kept(0.2, 0.28, below=False, dual_clip=3.0),
        lambda m, m0: keeping(m, m0, below=False),
    ),
    "kept-both": (
        policy_gradient_kept(0.2, 0.28, below=True, dual_clip=3.0),
        lambda m, m0: keeping(m, m0, below=True),
    ),
}


@pytest.mark.parametrize("name", PIECES)
def test_a_term_with_stopped_gradients_has_the_value_and_gradient_computed_by_hand(name):
    loss, formula = PIECES[name]
    batch = batch_of([TURNS])
    batch = batch.with_(
        advantage=written(batch, ADVANTAGES),
        logprob=written(batch, [-2.0] * 10),
        **{"test/other": written(batch, OTHER)},
    )
    move0, size = np.log(RATIOS), 1e-6
    if name == "bounded":
        move0 = move0 + math.log(1.5)  # so that the mean of one turn passes the bound
    leaf = written(batch, move0 - 2.0).requires_grad_()
    value = loss.apply(Outputs(leaf, torch.zeros_like(leaf)), batch, 0)[batch.mask]
    assert value.tolist() == near(formula(move0, move0).tolist())
    value.sum().backward()
    found = [
        (formula(move0 + d, move0) - formula(move0 - d, move0)).sum() / (2 * size)
        for d in size * np.eye(10)
    ]
    assert leaf.grad[batch.mask].tolist() == near(found, 1e-5)
    assert 0 in leaf.grad[batch.mask] and leaf.grad.abs().max() > 1e-3
