"""Warm-up: imitation ends when the policy wins now and then."""

import asyncio

import pytest

from agentgym import scratch
from agentgym.policy import Policy
from agentgym.registry import world
from agentgym.settings import Imitation, Optimisation, Shape
from agentgym.types import Task
from agentgym.warmup import demonstrations, imitate

ENV = "agentgym/Hotter-v0"
STEPS = 100


def shown(agent, *, learn_slips=False):
    tasks = [Task(ENV, f"hotter-{number}") for number in range(4)]
    told = []
    wanted = Imitation(slip=0.3, learn_slips=learn_slips)
    found = demonstrations(world(ENV), agent, tasks, 2, wanted, seed=0, advance=told.append)
    assert told == list(range(1, 9))
    return found


def warm(agent, tokenizer, *, until, wins):
    """Imitate with probes that find the given shares of wins; what was said after each step."""
    shape = Shape(hidden=16, layers=1, heads=1, kv_heads=1, ffn=32)
    model = scratch.make_model(tokenizer, shape, context=256, seed=0)
    said, answers = [], iter(wins)

    async def probe():
        probed.append(len(said) + 1)
        return next(answers)

    probed = []
    job = imitate(
        Policy(model),
        shown(agent),
        Optimisation(),
        Imitation(batch=2, until=until, learning_rate=5e-3),
        steps=STEPS,
        seed=0,
        probe=probe,
        advance=lambda done, note="": said.append(note),
    )
    asyncio.run(job)
    return said, probed


def test_demonstrations_are_every_task_as_often_as_asked_and_all_won(agent):
    found = shown(agent)
    assert [(t.task.id, t.sample) for t in found] == [
        (f"hotter-{number}", sample) for sample in range(2) for number in range(4)
    ]
    assert all(t.won for t in found)


def test_slips_are_learned_only_from_a_player_who_is_meant_to_be_careless(agent):
    careful, careless = shown(agent), shown(agent, learn_slips=True)
    assert not all(turn.learn for t in careful for turn in t.turns)
    assert all(turn.learn for t in careless for turn in t.turns)
    assert [t.turns[0].action for t in careful] == [t.turns[0].action for t in careless]


def test_imitation_ends_at_the_first_probe_that_wins_enough(agent, tokenizer):
    said, probed = warm(agent, tokenizer, until=0.5, wins=[0.0, 0.49, 0.5])
    assert probed == [26, 31, 36] and len(said) == 36
    assert "wins 0.50" in said[-1]


@pytest.mark.parametrize(("until", "probes"), [(0.5, 15), (1.0, 0)])
def test_imitation_without_success_takes_every_step_and_learns(agent, tokenizer, until, probes):
    said, probed = warm(agent, tokenizer, until=until, wins=[0.0] * 99)
    assert len(said) == STEPS and len(probed) == probes
    first, last = (float(note.split()[1]) for note in (said[0], said[-1]))
    assert last < first / 2
