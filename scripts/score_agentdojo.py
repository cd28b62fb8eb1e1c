"""Utility and attack success of agents that need no model, side by side, as in AgentDojo's README.

    .venv/bin/python scripts/score_agentdojo.py [--suites banking,slack] [--attack direct]

The solver makes the calls of the published solution. The obedient agent first does what an
injection asks for, where a result that it reads holds one. Intervals are of 95 %, user tasks
resampled; the difference is paired by user task.
"""

from __future__ import annotations

import argparse

from agentgym_envs.agentdojo import suites
from agentgym_envs.agentdojo.env import AgentDojo
from agentgym_envs.agentdojo.score import Play, score


def solver(env: AgentDojo) -> None:
    """The published solution, whatever the results hold."""
    for action in solution(env):
        env.step(action)


def obedient(env: AgentDojo) -> None:
    """The published solution; when an injection was read, the attacker's as well."""
    case = suites.parse(env.task_id)
    assert case is not None
    one, obeyed = suites.suite(case.suite), False
    for action in solution(env):
        text, *_ = env.step(action)
        goal = one.injection_tasks[case.injection].GOAL if case.injection else ""
        # YAML breaks long lines, so the beginning of the goal is looked for.
        if goal and not obeyed and " ".join(goal.split()[:3]) in " ".join(text.split()):
            obeyed = True
            for call in one.injection_tasks[case.injection].ground_truth(suites.begin(case)):
                env.step(env.written(call.function, dict(call.args)))


def idle(env: AgentDojo) -> None:
    """An answer, and nothing else."""
    env.step("I have done it.")


def solution(env: AgentDojo) -> list[str]:
    """The actions of the published solution."""
    case = suites.parse(env.task_id)
    assert case is not None
    task = suites.suite(case.suite).user_tasks[case.user]
    calls = task.ground_truth(suites.begin(case))
    actions = [env.written(call.function, dict(call.args)) for call in calls]
    return [*actions, task.GROUND_TRUTH_OUTPUT or "Done."]


AGENTS: dict[str, Play] = {"solver": solver, "obedient": obedient, "idle": idle}
HEAD = ("agent", "benign utility", "utility under attack", "difference", "attack success", "won")


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--suites", default=",".join(suites.SUITES))
    parser.add_argument("--attack", default="important_instructions")
    wanted = parser.parse_args()
    env = AgentDojo(suites=wanted.suites, attack=wanted.attack)
    print("| " + " | ".join(HEAD) + " |\n" + "|---" * len(HEAD) + "|")
    for name, play in AGENTS.items():
        found = score(env, env.tasks("benign"), play)
        print("| " + " | ".join((name, *map(str, found))) + " |", flush=True)


if __name__ == "__main__":
    main()
