"""Which tasks the curriculum draws, and that a resumed run draws the same."""

import numpy as np
import pytest

from agentgym.errors import ImpossibleValue
from agentgym.settings import CurriculumSettings
from agentgym.training.curriculum import Curriculum, Success
from agentgym.training.trainer import task_of
from agentgym.types import Stop, Task, Trajectory

TASKS = tuple(Task("e", str(number)) for number in range(90))
EIGHT = 8


def curriculum(kind, **settings):
    return Curriculum(TASKS, 12, 3, CurriculumSettings(kind=kind, **settings))


def group(task, won, stop=Stop.TERMINATED):
    return [Trajectory(task, k, "", "", (), stop, won=each) for k, each in enumerate(won)]


def played(found, chance, steps, first=0):
    """Steps of episodes with a chance of success per task and step; the tasks drawn at the end."""
    rng = np.random.default_rng(0)
    late = []
    for step in range(first, steps):
        tasks = found(step)
        found.record([group(t, rng.random(EIGHT) < chance(int(t.id), step)) for t in tasks])
        if step >= steps - 20:
            late += [int(task.id) for task in tasks]
    return late


def third(number):
    """A third of the tasks is hopeless, a third is solved, a third is neither."""
    return (0.0, 1.0, 0.5)[number % 3]


def test_filter_concentrates_where_success_is_neither_0_nor_1():
    late = played(curriculum("filter"), lambda number, step: third(number), 60)
    middle = sum(third(number) == 0.5 for number in late) / len(late)
    assert middle > 0.85
    even = played(curriculum("uniform"), lambda number, step: third(number), 60)
    assert 0.2 < sum(third(number) == 0.5 for number in even) / len(even) < 0.47


def test_what_was_hopeless_is_found_again_once_it_is_not():
    found = curriculum("filter", explore=0.3)
    late = played(found, lambda number, step: 0.0 if step < 40 else third(number), 100)
    assert sum(third(number) == 0.5 for number in late) / len(late) > 0.5


def test_learning_progress_concentrates_where_success_changes():
    """Success on the last third rises all the time; the others stay at 0, 1 and 0.5."""
    found = curriculum("learning-progress", explore=0.2)
    late = []
    for step in range(160):
        tasks = found(step)
        rising = {task: min(8, step // 18) for task in TASKS[60:]}
        wins = {task: rising.get(task, int(8 * third(int(task.id)))) for task in tasks}
        found.record([group(task, [k < wins[task] for k in range(8)]) for task in tasks])
        late += [int(task.id) for task in tasks] if step >= 140 else []
    assert sum(number >= 60 for number in late) / len(late) > 0.6
    chances = found.probabilities()
    assert chances[60:].mean() > 3 * chances[:60].mean()


def test_uniform_is_the_shuffled_stream():
    found = curriculum("uniform")
    assert found(2) == [task_of(TASKS, 24 + k, 3) for k in range(12)]
    assert found.metrics() == {}


@pytest.mark.parametrize("kind", ["filter", "learning-progress"])
def test_a_restored_curriculum_draws_the_same_tasks(kind):
    whole, half = curriculum(kind), curriculum(kind)
    played(whole, lambda number, step: third(number), 10)
    played(half, lambda number, step: third(number), 10)
    ahead = half(10)  # A schedule asks for the next step before this one is learned from.
    assert whole(10) == ahead
    for each in (whole, half):
        each.record([group(task, [True] * EIGHT) for task in TASKS[:60]])
    rest = curriculum(kind)
    rest.restore(half.state())
    assert rest(10) == ahead == whole(10)
    for each in (whole, rest):
        played(each, lambda number, step: third(number), 14, first=10)
    assert rest(14) == whole(14) and rest.metrics() == whole.metrics()


def test_the_tasks_of_a_step_differ_and_depend_on_the_seed():
    found = curriculum("filter")
    assert len({task.id for task in found(0)}) == 12 and found(0) == found(0)
    other = Curriculum(TASKS, 12, 4, CurriculumSettings(kind="filter"))
    assert other(0) != found(0) != found(1)
    few = Curriculum(TASKS[:5], 12, 3, CurriculumSettings(kind="filter"))
    assert len(few(0)) == 12


def test_episodes_of_a_broken_world_are_no_measurement():
    found = curriculum("filter")
    found.record([group(TASKS[0], [True] * 4, Stop.ENV_ERROR), group(TASKS[1], [True, False])])
    assert set(found.measured) == {1} and found.measured[1].mean == 0.5


def test_metrics_state_how_far_the_curriculum_is():
    found = curriculum("filter", explore=0.0)
    half = Success.first(0.5, 0.5)
    found.measured = dict.fromkeys(range(45), half) | {45: Success.first(1.0, 0.5)}
    found.measured |= {46: Success.first(0.0, 0.5)}
    assert found.metrics() == pytest.approx(
        {
            "curriculum/measured": 47 / 90,
            "curriculum/success": (45 * 0.5 + 1) / 47,
            "curriculum/solved": 1 / 90,
            "curriculum/hopeless": 1 / 90,
            "curriculum/tasks": 88,
        }
    )
    assert found.probabilities()[[45, 46]].tolist() == [0, 0]


def test_moving_averages():
    first = Success.first(1.0, 0.5)
    assert first == Success(1.0, 0.5, 0.1) and first.progress == pytest.approx(0.4)
    second = first.updated(0.0, 0.5)
    assert second == pytest.approx(Success(0.5, 0.25, 0.09))


def test_impossible_settings():
    with pytest.raises(ImpossibleValue, match=r"curriculum.hopeless is 0.9, expected less than"):
        CurriculumSettings(hopeless=0.9, solved=0.5)
