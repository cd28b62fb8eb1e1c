"""The APIs of a task under way, and the published check at the end of a turn."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from agentgym_envs.bfcl.data import Call, Task, api, load
from agentgym_envs.functions import Result

APIs = Mapping[str, Any]
"""Class name -> instance."""
_BOUNDS = {"precision": 1_000, "exponent": 1_000}
"""Parameters of the mathematical functions beyond which a call takes arbitrary time."""


class Turn(NamedTuple):
    """What the published solution leads to."""

    apis: APIs
    """After the turn; never changed."""
    answers: tuple[str, ...]
    """Of the calls of the turn."""


def begin(task: Task) -> dict[str, Any]:
    """The APIs at the start of a task."""
    from bfcl_eval.constants.executable_backend_config import STATELESS_CLASSES

    found = {}
    for name in task.classes:
        found[name] = api(name)()
        if name not in STATELESS_CLASSES:
            config = copy.deepcopy(task.config.get(name, {}))
            found[name]._load_scenario(config, long_context=task.long)
    return found


def run(
    apis: APIs, name: str, arguments: Mapping[str, Any], positional: Sequence[Any] = ()
) -> Result:
    """Call a function; its answer is text as the leaderboard's runner writes it."""
    owner = next((each for each in apis.values() if hasattr(each, name)), None)
    if owner is None or name.startswith("_"):
        return Result(f"Error during execution: name {name!r} is not defined", failed=True)
    for key, bound in _BOUNDS.items():
        value = arguments.get(key, 0)
        if isinstance(value, int | float) and abs(value) > bound:
            return Result(f"Error during execution: {key} must be at most {bound}", failed=True)
    try:
        found = getattr(owner, name)(*positional, **arguments)
        if isinstance(found, dict):
            try:
                return Result(json.dumps(found), "error" in found)
            except (TypeError, ValueError):
                pass
        return Result(found if isinstance(found, str) else str(found))
    except Exception as problem:
        # A function raises for arguments of a wrong type, as the runner reports it.
        return Result(f"Error during execution: {problem}", failed=True)


@lru_cache(maxsize=64)
def solved(category: str, id_: str, turn: int) -> Turn:
    """State and answers after a turn of the published solution."""
    task = load(category)[id_]
    apis = copy.deepcopy(dict(solved(category, id_, turn - 1).apis)) if turn else begin(task)
    return Turn(apis, tuple(_run(apis, call) for call in task.solution[turn]))


def passed(
    task: Task, turn: int, truth: Turn, apis: APIs, called: bool, answers: Sequence[str]
) -> bool:
    """Whether a turn counts: state and answers as in the leaderboard's ``multi_turn_checker``.

    Args:
        task: The task.
        turn: Its number.
        truth: The published solution of this turn.
        apis: As the agent left them.
        called: The agent called a function in this turn.
        answers: Of all calls of the agent so far.
    """
    from bfcl_eval.eval_checker.multi_turn_eval import multi_turn_checker as checker

    if not task.solution[turn]:
        return True
    return (
        called
        and checker.state_checker(apis, truth.apis)["valid"]
        and checker.response_checker(list(answers), list(truth.answers), turn)["valid"]
    )


def _run(apis: APIs, call: Call) -> str:
    return run(apis, call.name, dict(call.named), call.positional).text
