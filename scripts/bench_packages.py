"""The packages that worlds stand for, each as it plays a task: the other side of `bench worlds`."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
from miniwob_package import PackageTask

from agentgym.env.registry import world
from agentgym.errors import MissingExtra

PAGES = ("click-test-2", "enter-text", "login-user", "enter-password")
"""Pages of MiniWoB++ that are played: what their oracle does, both sides can do."""
NO_TEXT = (
    "agentgym/AgentDojo-v0",
    "agentgym/BFCL-v0",
    "agentgym/BabyAI-v0",
    "agentgym/MiniWoB-v0",
    "agentgym/Tau2-v0",
)
"""Environments with a library that takes no text: only what the oracle does is played."""
BETWEEN = ("look", "inventory", "xyzzy")
LONGEST = 160
"""Lines of an episode that are played."""


class Player(NamedTuple):
    """What both sides are reduced to."""

    begin: Callable[[], object]
    step: Callable[[str], object]
    close: Callable[[], object]


Library = Callable[[str, bool], Player]
"""The library's own class on a task, asked for the admissible actions or not."""


def lines_of(name: str, task: str) -> list[str]:
    """The actions of an episode, to its end."""
    env = world(name)
    env.reset(seed=0, options={"task": task})
    between = () if name in NO_TEXT else BETWEEN
    actions = [line for action in env.oracle() or () for line in (*between, action)]
    env.close()
    return actions[:LONGEST] or list(BETWEEN)


def textworld(task: str, listing: bool) -> Player:
    """The interpreter, asked for what the world needs to know."""
    from textworld import EnvInfos, start

    from agentgym_envs.textworld.games import ensure

    asked = EnvInfos(
        facts=True, score=True, won=True, lost=True, max_score=True, admissible_commands=listing
    )
    env = start(str(ensure(task)), asked)
    return Player(env.reset, env.step, env.close)


def alfworld(task: str, listing: bool) -> Player:
    """TextWorld's PDDL engine; it lists what is admissible at every step."""
    from agentgym_envs.alfworld import files
    from agentgym_envs.alfworld.reference import Reference

    folder = tempfile.TemporaryDirectory()
    game = Reference(files.write(Path(folder.name), "train", task) / files.GAME)
    return Player(game.reset, game.step, folder.cleanup)


def scienceworld(task: str, listing: bool) -> Player:
    """The simulator's own class, with sets in our order; it lists the actions at every step."""
    from agentgym_envs.scienceworld import jvm, tasks

    if lacking := jvm.missing():
        raise MissingExtra(lacking)
    os.environ["JAVA_TOOL_OPTIONS"] = " ".join(jvm.ORDER_OPTIONS)
    from scienceworld import ScienceWorldEnv

    spec, env = tasks.parse(task), ScienceWorldEnv()
    del os.environ["JAVA_TOOL_OPTIONS"]

    def begin() -> None:
        env.load(spec.name, spec.variation, spec.simplifications)
        env.reset()

    return Player(begin, env.step, env.close)


def babyai(task: str, listing: bool) -> Player:
    """The package's environment, with its image; it lists no actions."""
    from agentgym_envs.babyai import levels
    from agentgym_envs.babyai.env import COMMANDS

    levels.require()
    name, _, seed = task.rpartition("-")
    levels.registered()
    env = gymnasium.make(f"BabyAI-{name}-v0", disable_env_checker=True).unwrapped
    return Player(
        lambda: env.reset(seed=int(seed)), lambda line: env.step(COMMANDS.index(line)), env.close
    )


def bfcl(task: str, listing: bool) -> Player:
    """The leaderboard's runner, which is given calls as Python; it checks nothing on the way."""
    from agentgym_envs.bfcl import data

    data.require()
    from bfcl_eval.eval_checker.multi_turn_eval import multi_turn_utils as runner

    one = data.load(task.removeprefix("multi_turn_").rpartition("_")[0])[task]
    names = count()
    model = ""

    def begin() -> None:
        nonlocal model
        for key in [key for key in vars(runner) if model and key.startswith(model)]:
            del vars(runner)[key]
        model = f"model{next(names)}x"
        step(())

    def step(calls: Sequence[str]) -> None:
        runner.execute_multi_turn_func_call(
            list(calls), one.config, list(one.classes), model, task, one.long
        )

    texts = {line: as_python(line) for line in lines_of("agentgym/BFCL-v0", task)}
    return Player(begin, lambda line: step(texts[line]), lambda: None)


def as_python(line: str) -> list[str]:
    """The calls of an action as Python text."""
    return [f"{name}(**{arguments!r})" for name, arguments in as_calls(line)]


def as_calls(line: str) -> list[tuple[str, dict[str, object]]]:
    """The calls of an action: names and arguments."""
    from agentgym.tools import HermesCalls

    return [(call.name, dict(call.arguments)) for call in HermesCalls().parse(line, ())]


def agentdojo(task: str, listing: bool) -> Player:
    """The package's executor of calls and its checks, as ``run_task_with_pipeline`` uses them."""
    from agentgym_envs.agentdojo import package, suites

    package.require()
    case = suites.parse(task)
    assert case is not None
    modules, one = package.load(), suites.suite(case.suite)
    executor, runtime = modules["tool_execution"].ToolsExecutor(), suites.runtime(case.suite)
    texts = {line: as_calls(line) for line in lines_of("agentgym/AgentDojo-v0", task)}
    before, data, made = None, None, []

    def begin() -> None:
        nonlocal before, data
        found = type(one).load_and_inject_default_environment(one, suites._injected(case))
        data = one.user_tasks[case.user].init_environment(found)
        before = data.model_copy(deep=True)
        made.clear()

    def step(line: str) -> None:
        call = modules["functions_runtime"].FunctionCall
        calls = [call(function=name, args=arguments) for name, arguments in texts[line]]
        made.extend(calls)
        if calls:
            message = {"role": "assistant", "content": None, "tool_calls": calls}
            executor.query("", runtime, data, [message])
            return
        answer = [{"type": "text", "content": line}]
        checked = [one.user_tasks[case.user]]
        checked += [one.injection_tasks[case.injection]] if case.injection else []
        for each in checked:
            one._check_task_result(each, answer, before, data, made)

    return Player(begin, step, lambda: None)


def tau2(task: str, listing: bool) -> Player:
    """The package's environment in solo mode, calls as JSON, and its assertions at the end."""
    from agentgym_envs.tau2 import package
    from agentgym_envs.tau2.domains import DONE, domain

    package.require()
    where = domain("telecom")
    one = where.task(task.removeprefix("telecom-"))
    call = package.module("data_model.message").ToolCall
    texts = {
        line: [json.dumps(each) for each in as_calls(line)]
        for line in lines_of("agentgym/Tau2-v0", task)
    }
    env: Any = None

    def begin() -> None:
        nonlocal env
        env = where._module.get_environment(solo_mode=True)
        state = one.initial_state
        env.set_state(state.initialization_data, state.initialization_actions, [])

    def step(line: str) -> None:
        for text in texts[line]:
            name, arguments = json.loads(text)
            if name != DONE:
                env.get_response(call(name=name, arguments=arguments))
                continue
            for each in one.evaluation_criteria.env_assertions or ():
                env.run_env_assertion(each, raise_assertion_error=False)

    return Player(begin, step, lambda: None)


def miniwob(task: str, listing: bool) -> Player:
    """The package's environment: a browser of its own, driven through Selenium."""
    try:
        package = PackageTask(task)
    except ImportError as problem:
        raise MissingExtra(str(problem)) from problem
    ours = world("agentgym/MiniWoB-v0")
    package.match(ours.reset(seed=0, options={"task": task})[0])
    ours.close()
    return Player(package.begin, package.step, package.close)


LIBRARIES: dict[str, Library] = {
    "agentgym/AgentDojo-v0": agentdojo,
    "agentgym/BFCL-v0": bfcl,
    "agentgym/ALFWorld-v0": alfworld,
    "agentgym/BabyAI-v0": babyai,
    "agentgym/MiniWoB-v0": miniwob,
    "agentgym/ScienceWorld-v0": scienceworld,
    "agentgym/Tau2-v0": tau2,
    "agentgym/TextWorld-v0": textworld,
}
