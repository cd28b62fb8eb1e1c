"""tau2-bench against the evaluators of its package, which replay an episode and hash databases."""

import numpy as np
import pytest

pytest.importorskip("pandas")
pytest.importorskip("tau2")

from agentgym.tools import HermesCalls
from agentgym_envs.tau2 import package
from agentgym_envs.tau2.domains import DOMAINS
from agentgym_envs.tau2.env import Tau2


def called(action):
    return [(call.name, dict(call.arguments)) for call in HermesCalls().parse(action, ())]


def disturbed(plan, rng):
    """A solution with an action left out, made twice or changed; `done` stays the last."""
    plan, end = list(plan[:-1]), plan[-1]
    if plan:
        place, kind = int(rng.integers(len(plan))), int(rng.integers(4))
        if kind == 0:
            del plan[place]
        elif kind == 1:
            plan.insert(place, plan[place])
        elif kind == 2:
            for name, arguments in called(plan[place]):
                changed = {key: "x" if isinstance(v, str) else v for key, v in arguments.items()}
                plan[place] = Tau2().written(name, changed)
    return [*plan, end]


def played(env, plan):
    """Play, and the messages of the package for it."""
    messages = package.module("data_model.message")
    trajectory = []
    for number, action in enumerate(plan):
        text, *_, info = env.step(action)
        calls = [each for each in called(action) if each[0] != "done"]
        if not calls:
            reply = None if called(action) else action
            if reply:
                trajectory.append(messages.AssistantMessage(role="assistant", content=reply))
            continue
        made = [
            messages.ToolCall(id=f"{number}-{place}", name=name, arguments=arguments)
            for place, (name, arguments) in enumerate(calls)
        ]
        trajectory.append(messages.AssistantMessage(role="assistant", tool_calls=made))
        result = text.removeprefix("<tool_response>\n").removesuffix("\n</tool_response>")
        trajectory.append(
            messages.ToolMessage(id=made[0].id, role="tool", content=result, requestor="assistant")
        )
    return bool(info["won"]), trajectory


def judged(env, task, trajectory):
    """The verdict of the package: its evaluators for what the task's reward is based on."""
    where, solo = env.domain._module, env.domain.solo
    basis = {each.value for each in task.evaluation_criteria.reward_basis}
    states = package.module("evaluator.evaluator_env").EnvironmentEvaluator

    def constructor(solo_mode=False):
        return where.get_environment(**({"solo_mode": solo_mode} if solo else {}))

    reward = states.calculate_reward(constructor, task, trajectory, solo_mode=solo).reward
    if "ACTION" in basis:
        actions = package.module("evaluator.evaluator_action").ActionEvaluator
        reward *= actions.calculate_reward(task, trajectory).reward
    if "COMMUNICATE" in basis:
        reported = package.module("evaluator.evaluator_communicate").CommunicateEvaluator
        reward *= reported.calculate_reward(task, trajectory).reward
    return reward == 1.0


@pytest.mark.parametrize("domain", DOMAINS)
def test_verdicts_and_results_are_those_of_the_package(domain):
    """The evaluator replays all calls and refuses results that differ from those it gets."""
    env, rng, verdicts = Tau2(domain=domain), np.random.default_rng(0), []
    for task in rng.choice(env.tasks("base"), 16, replace=False):
        env.reset(seed=0, options={"task": str(task)})
        plan = disturbed(env.oracle(), rng)
        won, trajectory = played(env, plan)
        assert won == judged(env, env._task, trajectory), task
        verdicts.append(won)
    assert 4 < sum(verdicts) < 16
