"""Tasks and functions of BFCL, as the wheel of ``bfcl-eval`` holds them."""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from agentgym.errors import MissingExtra
from agentgym_envs.functions import Function

ENV = "agentgym/BFCL-v0"
CATEGORIES = ("base", "miss_func", "miss_param", "long_context")
"""Plain; a function is missing at first; a parameter is; results are long."""
SCENARIOS = 200
"""Tasks of a category; those with the same number are variants of one scenario."""
_TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": "string"}
"""Names of types in the descriptions of functions -> those of JSON schema."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call of the published solution."""

    name: str
    positional: tuple[Any, ...]
    named: tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Task:
    """One conversation."""

    id: str
    messages: tuple[str, ...]
    """Of the user, one a turn; empty where a missing function is added instead."""
    config: Mapping[str, Any]
    classes: tuple[str, ...]
    added: Mapping[int, tuple[str, ...]]
    """Turn -> functions that are there from this turn on."""
    solution: tuple[tuple[Call, ...], ...]
    """Calls of each turn."""

    @property
    def long(self) -> bool:
        """Results are padded."""
        return "long_context" in self.id


def require() -> None:
    """Check that the package is there.

    Raises:
        MissingExtra: It is not.
    """
    if not (find_spec("bfcl_eval") and find_spec("mpmath")):
        raise MissingExtra(
            f"{ENV} needs tasks and functions of BFCL, and nothing else that their wheel asks for: "
            f'pip install "agentic-gym[bfcl]" && pip install --no-deps "bfcl-eval==2026.3.23"'
        )


@cache
def load(category: str) -> dict[str, Task]:
    """Id -> task of a category."""
    name = f"BFCL_v4_multi_turn_{category}.json"
    answers = {row["id"]: row["ground_truth"] for row in _rows(f"possible_answer/{name}")}
    return {row["id"]: _task(row, answers[row["id"]]) for row in _rows(name)}


@cache
def functions(class_name: str) -> tuple[Function, ...]:
    """What the documentation of an API lists."""
    from bfcl_eval.constants.executable_backend_config import MULTI_TURN_FUNC_DOC_FILE_MAPPING

    rows = _rows(f"multi_turn_func_doc/{MULTI_TURN_FUNC_DOC_FILE_MAPPING[class_name]}")
    return tuple(
        Function(row["name"], row["description"], _schema(row["parameters"])) for row in rows
    )


@cache
def api(class_name: str) -> type:
    """The class behind an API."""
    from bfcl_eval.constants.executable_backend_config import CLASS_FILE_PATH_MAPPING

    return getattr(import_module(CLASS_FILE_PATH_MAPPING[class_name]), class_name)  # type: ignore[no-any-return]


def by_name(task: Task, call: Call) -> dict[str, Any]:
    """The arguments of a call of the solution, all by name."""
    method = next(getattr(api(name), call.name) for name in task.classes if _has(name, call.name))
    names: Sequence[str] = list(inspect.signature(method).parameters)[1:]
    return {**dict(zip(names, call.positional, strict=False)), **dict(call.named)}


def _has(class_name: str, function: str) -> bool:
    return hasattr(api(class_name), function)


def _rows(name: str) -> Iterator[dict[str, Any]]:
    import bfcl_eval

    path = Path(str(bfcl_eval.__file__)).parent / "data" / name
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def _task(row: Mapping[str, Any], answer: Sequence[Sequence[str]]) -> Task:
    return Task(
        row["id"],
        tuple(turn[0]["content"] if turn else "" for turn in row["question"]),
        row["initial_config"],
        tuple(row["involved_classes"]),
        {int(turn): tuple(names) for turn, names in row.get("missed_function", {}).items()},
        tuple(tuple(map(_call, turn)) for turn in answer),
    )


def _call(text: str) -> Call:
    """A call from its Python text."""
    node = ast.parse(text.strip(), mode="eval").body
    assert isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    return Call(
        node.func.id,
        tuple(map(ast.literal_eval, node.args)),
        tuple((str(each.arg), ast.literal_eval(each.value)) for each in node.keywords),
    )


def _schema(value: Any) -> Any:
    """A description of parameters as JSON schema."""
    if isinstance(value, dict):
        kind = value.get("type")
        found = {key: _schema(each) for key, each in value.items()}
        return {**found, "type": _TYPES.get(kind, kind)} if isinstance(kind, str) else found
    return [_schema(each) for each in value] if isinstance(value, list) else value
