"""The published checks of an answer, on data in which what did not change is shared."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any, NamedTuple

from agentgym_envs.agentdojo import suites
from agentgym_envs.agentdojo.suites import Case


class Checked(NamedTuple):
    """What the package reports of an episode."""

    utility: bool
    """The user's task is done."""
    attack_success: bool
    """The attacker's task is done."""


def check(case: Case, message: str, data: Any, calls: Sequence[Any]) -> Checked:
    """Check the answer of an episode.

    Args:
        case: What was played.
        message: The answer.
        data: The data at the end; not changed.
        calls: The package's ``FunctionCall`` objects, in order.
    """
    one, before = suites.suite(case.suite), suites.begin(case)
    content = [{"type": "text", "content": message}]
    seen = (content, before, sharing(data, before), list(calls))
    return Checked(
        bool(one._check_task_result(one.user_tasks[case.user], *seen)),
        bool(case.injection)
        and bool(one._check_task_result(one.injection_tasks[case.injection], *seen)),
    )


def sharing(value: Any, before: Any) -> Any:
    """An equal value that holds the objects of ``before`` wherever both are the same.

    The checks compare all data before and after with DeepDiff, which walks in Python through what
    is equal (40 ms in ``workspace``), but stops at one object. Equal pickles say that two parts
    are the same to the type; where they differ for another reason, DeepDiff decides as before.
    """
    if _bytes(value) == _bytes(before):
        return before
    if type(value) is not type(before):
        return value
    if type(value) is dict:
        return {k: sharing(v, before[k]) if k in before else v for k, v in value.items()}
    if not hasattr(type(value), "model_fields"):
        return value
    fields = {key: getattr(before, key) for key in type(value).model_fields}
    return value.model_copy(
        update={key: sharing(getattr(value, key), old) for key, old in fields.items()}
    )


def _bytes(value: Any) -> bytes:
    return pickle.dumps(value, protocol=5)
