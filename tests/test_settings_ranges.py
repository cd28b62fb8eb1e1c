"""Every range of a setting: the smallest allowed value builds, the next smaller one is refused."""

import pytest

from agentgym import settings
from agentgym.errors import ImpossibleValue

AT_LEAST = {
    settings.AgentSettings: {"window": 0},
    settings.RolloutSettings: {"max_completion_tokens": 1, "concurrency": 1, "workers": 0},
    settings.ScheduleSettings: {"max_staleness": 0},
    settings.ImitationSettings: {"max_steps": 0, "batch_size": 1, "demos_per_task": 1},
    settings.OptimizerSettings: {"warmup_steps": 0, "microbatch_tokens": 1},
    settings.LoraSettings: {"rank": 1, "alpha": 1},
    settings.AlarmSettings: {"patience": 1},
    settings.PanelSettings: {"tasks": 1, "episodes": 1},
    settings.ProgramSettings: {"max_calls": 1},
    settings.ScoringSettings: {"concurrency": 1, "max_tokens": 1},
    settings.UserSettings: {"max_turns": 1, "max_tokens": 1, "temperature": 0},
    settings.Experiment: {"steps": 0, "max_env_steps": 1, "tasks_per_step": 1, "save_every": 1},
}
CASES = [(kind, name, low) for kind, found in AT_LEAST.items() for name, low in found.items()]


@pytest.mark.parametrize(("kind", "name", "low"), CASES)
def test_the_smallest_value_is_allowed_and_the_next_smaller_is_refused(kind, name, low):
    assert getattr(kind(**{name: low}), name) == low
    with pytest.raises(ImpossibleValue) as refused:
        kind(**{name: low - 1})
    field = f"{kind.section}.{name}" if kind.section else name
    assert str(refused.value) == f"{field} is {low - 1}, expected at least {low}"


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (settings.RolloutSettings, "env_timeout"),
        (settings.OptimizerSettings, "max_grad_norm"),
        (settings.ScheduleSettings, "importance_cap"),
        (settings.ProgramSettings, "timeout"),
        (settings.ScoringSettings, "deadline"),
        (settings.CurriculumSettings, "rate"),
    ],
)
def test_zero_is_refused_where_a_value_must_be_positive(kind, name):
    with pytest.raises(ImpossibleValue, match=name):
        kind(**{name: 0.0})


def test_a_context_must_be_longer_than_a_completion():
    with pytest.raises(ImpossibleValue, match="max_context_tokens is 8, expected more than"):
        settings.RolloutSettings(max_context_tokens=8, max_completion_tokens=8)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"agents": ()}, "one at least"),
        ({"agents": ("a", "a")}, "expected different names"),
        ({"agents": ("a b",)}, "has 'a b', expected letters"),
        ({"untrained": ("judge",)}, "has 'judge', expected one of program.agents: agent"),
        ({"untrained": ("agent",)}, "names every agent"),
    ],
)
def test_the_agents_of_a_program(given, line):
    with pytest.raises(ImpossibleValue, match=line):
        settings.ProgramSettings(**given)


def test_heads_must_divide_the_width_of_a_model_from_nothing():
    with pytest.raises(ImpossibleValue, match="multiple of"):
        settings.ScratchSettings(hidden_size=100, num_heads=3, num_kv_heads=1)
