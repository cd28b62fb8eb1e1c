"""Warm-up: imitation ends when the policy reaches the required success rate."""

import asyncio
from dataclasses import replace

import pytest
import torch

from agentgym.env.registry import world
from agentgym.models import from_scratch
from agentgym.models.policy import Policy
from agentgym.rollout.demonstrations import to_trajectory
from agentgym.settings import ImitationSettings, OptimizerSettings, ScratchSettings
from agentgym.training.warmup import demonstration_batch, demonstrations, imitate
from agentgym.types import Task

ENV = "agentgym/Hotter-v0"
STEPS = 100


def shown(agent, *, learn_random_actions=False):
    tasks = [Task(ENV, f"hotter-{number}") for number in range(4)]
    counts = []
    wanted = ImitationSettings(random_action_rate=0.3, learn_random_actions=learn_random_actions)
    found = demonstrations(world(ENV), tasks, 2, wanted, seed=0, advance=counts.append)
    assert counts == list(range(1, 9))
    return [to_trajectory(each, agent, learn_random_actions=learn_random_actions) for each in found]


def warm(agent, tokenizer, *, until, wins):
    """Imitate with probes of the given success rates; returns the note after each step."""
    _, notes, probed = imitated(
        agent, tokenizer, ImitationSettings(batch_size=2, until_success=until), wins
    )
    return notes, probed


def imitated(agent, tokenizer, wanted, wins=()):
    """Returns the policy, the note after each step, and the steps with a probe before them."""
    shape = ScratchSettings(
        hidden_size=16, num_layers=1, num_heads=1, num_kv_heads=1, intermediate_size=32
    )
    policy = Policy(from_scratch.make_model(tokenizer, shape, context=256, seed=0))
    notes, answers = [], iter(wins)

    async def probe():
        probed.append(len(notes) + 1)
        return next(answers)

    probed = []
    job = imitate(
        policy,
        shown(agent),
        OptimizerSettings(),
        replace(wanted, max_steps=STEPS, learning_rate=5e-3),
        seed=0,
        probe=probe,
        advance=lambda done, *facts: notes.append(facts),
    )
    asyncio.run(job)
    return policy, notes, probed


def test_demonstrations_cover_every_task_and_all_succeed(agent):
    found = shown(agent)
    assert [(t.task.id, t.sample) for t in found] == [
        (f"hotter-{number}", sample) for sample in range(2) for number in range(4)
    ]
    assert all(t.won for t in found)


def test_random_actions_are_trained_on_only_if_configured(agent):
    careful, careless = shown(agent), shown(agent, learn_random_actions=True)
    assert not all(turn.learn for t in careful for turn in t.turns)
    assert all(turn.learn for t in careless for turn in t.turns)
    assert [t.turns[0].action for t in careful] == [t.turns[0].action for t in careless]


def test_imitation_stops_at_the_first_probe_with_enough_success(agent, tokenizer):
    notes, probed = warm(agent, tokenizer, until=0.5, wins=[0.0, 0.49, 0.5])
    assert probed == [26, 31, 36] and len(notes) == 36
    assert ("success", "0.50") in [fact[:2] for fact in notes[-1]]


@pytest.mark.parametrize(("until", "probes"), [(0.5, 15), (1.0, 0)])
def test_imitation_without_success_runs_all_steps_and_learns(agent, tokenizer, until, probes):
    notes, probed = warm(agent, tokenizer, until=until, wins=[0.0] * 99)
    assert len(notes) == STEPS and len(probed) == probes
    first, last = (float(facts[0].value.split()[0]) for facts in (notes[0], notes[-1]))
    assert last < first / 2


@pytest.mark.parametrize("reading", [0.0, 0.5])
def test_observation_tokens_have_the_configured_weight_and_action_tokens_one(agent, reading):
    found = shown(agent)
    batch = demonstration_batch(found, reading)
    done, read = batch.turn >= 0, batch.mask & (batch.turn < 0)
    assert batch.weight[done].sum() == pytest.approx(1)
    assert batch.weight[read].sum() == pytest.approx(reading)
    assert not batch.weight[~(done | read)].any()
    for column in (done, read):
        assert len(batch.weight[column].unique()) <= 1


def test_all_observation_tokens_count_except_the_first_of_a_row(agent):
    found = shown(agent)
    batch = demonstration_batch(found, 1.0)
    left, at = [], 0
    for trajectory in found:
        first = True
        for turn in trajectory.turns:
            left += [at] if first else []
            at += len(turn.prompt)
            left += [] if turn.learn else range(at, at + len(turn.completion.tokens))
            at += len(turn.completion.tokens)
            first = False
    assert (~batch.mask).nonzero().squeeze(-1).tolist() == left
    assert any(not turn.learn for trajectory in found for turn in trajectory.turns)


def test_observation_loss_improves_the_prediction_of_observations(agent, tokenizer):
    """For the same number of steps, only a loss weight improves the prediction."""

    def surprise(reading):
        policy, _, _ = imitated(
            agent,
            tokenizer,
            ImitationSettings(batch_size=2, until_success=1.0, observation_loss_weight=reading),
        )
        batch = demonstration_batch(shown(agent), 1.0)
        with torch.no_grad():
            logprob = policy(batch).logprob
        return -float(logprob[batch.mask & (batch.turn < 0)].mean())

    assert surprise(1.0) < surprise(0.0) / 3
