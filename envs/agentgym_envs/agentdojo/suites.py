"""Suites of AgentDojo: tasks and their splits, data with and without injections, functions."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from typing import Any, NamedTuple

from agentgym.errors import ConfigError, did_you_mean
from agentgym_envs.agentdojo import package
from agentgym_envs.functions import Function

SUITES = ("workspace", "travel", "banking", "slack")
IDLE = frozenset({"user_task_5", "user_task_6", "user_task_8", "user_task_9", "user_task_10"})
"""User tasks of ``banking`` that the published check counts as done when nothing was done."""
_SPLITS = ("train", "valid", "test")


class Case(NamedTuple):
    """What a task id names."""

    suite: str
    user: str
    """Such as ``user_task_3``."""
    injection: str = ""
    """Such as ``injection_task_1``; empty: nothing is injected."""
    attack: str = ""
    """Name of the attack, by which the injection is worded."""

    @property
    def id(self) -> str:
        """The task id."""
        return "-".join(filter(None, self))


@cache
def suite(name: str) -> Any:
    """A suite: the package's own object, with faster loading of its data."""
    found = package.load()["task_suite"].get_suite(package.VERSION, name)
    # The package parses YAML in Python, which takes a third of a second.
    found.load_and_inject_default_environment = lambda injections: loaded(name, _frozen(injections))
    return found


@cache
def attacks() -> tuple[str, ...]:
    """Names of the attacks with a fixed wording and a goal."""
    package.load()
    from agentdojo.attacks.attack_registry import ATTACKS

    return tuple(
        sorted(
            name for name, kind in ATTACKS.items() if name != "manual" and not kind.is_dos_attack
        )
    )


def cases(suites: tuple[str, ...], split: str, attack: str) -> Iterator[Case]:
    """The cases of a split: each user task alone, then with each injection.

    ``benign`` and ``under_attack`` are the published ones. The others divide user tasks and
    injections: of ten user tasks six are for training, one for validation and three for tests,
    and of the injections every second one. They leave out the tasks in ``IDLE``.
    """
    for name in suites:
        users, injections = list(suite(name).user_tasks), list(suite(name).injection_tasks)
        if split in _SPLITS:
            users = [user for user in users if name != "banking" or user not in IDLE]
            users = [user for place, user in enumerate(users) if _SPLITS[_share(place)] == split]
            injections = injections[split != "train" :: 2]
        for user in users:
            if split != "under_attack":
                yield Case(name, user)
            if split != "benign" and attack:
                yield from (Case(name, user, injection, attack) for injection in injections)


def parse(task: str) -> Case | None:
    """The case of a task id; None if there is no such task."""
    case = Case(*task.split("-")) if task.count("-") in (1, 3) else None
    if case is None or case.suite not in SUITES or case.user not in suite(case.suite).user_tasks:
        return None
    if case.injection or case.attack:
        known = suite(case.suite).injection_tasks
        return case if case.injection in known and case.attack in attacks() else None
    return case


def check_attack(name: str) -> None:
    """Refuse an attack that is not known.

    Raises:
        ConfigError: Names the attacks.
    """
    if name and name not in attacks():
        raise ConfigError(
            f"attack: got {name!r}, expected one of {', '.join(attacks())}, or nothing."
            f"{did_you_mean(name, attacks())}"
        )


def begin(case: Case) -> Any:
    """The data at the start of a case, for the agent to change."""
    return pickle.loads(_start(case))


@lru_cache(maxsize=256)
def _start(case: Case) -> bytes:
    """The data at the start, as a pickle: copying it takes half the time of a deep copy."""
    one = suite(case.suite)
    data = loaded(case.suite, _frozen(_injected(case)))
    return pickle.dumps(one.user_tasks[case.user].init_environment(data), protocol=5)


@lru_cache(maxsize=256)
def _injected(case: Case) -> dict[str, str]:
    """Placeholder -> text: the attack at all places that the solution reads."""
    if not case.injection:
        return {}
    one = suite(case.suite)
    return dict(  # One attack per suite: it remembers the places of each user task.
        _attack(case.suite, case.attack).attack(
            one.user_tasks[case.user], one.injection_tasks[case.injection]
        )
    )


@cache
def _attack(suite_name: str, attack: str) -> Any:
    from agentdojo.attacks.attack_registry import load_attack

    return load_attack(attack, suite(suite_name), _Target())


class _Target:
    """The agent that an attack addresses: attacks ask for the name of its model."""

    name = "local"


def loaded(suite_name: str, injections: tuple[tuple[str, str], ...]) -> Any:
    """The data of a suite with injections, equal to what the package loads."""
    import yaml
    from agentdojo.task_suite.task_suite import read_suite_file

    one = suite(suite_name)
    text = read_suite_file(suite_name, "environment.yaml", one.data_path)
    filled = text.format(**{**_defaults(suite_name), **dict(injections)})
    found = yaml.load(filled, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return one.environment_type.model_validate(found)


@cache
def _defaults(suite_name: str) -> Mapping[str, str]:
    return suite(suite_name).get_injection_vector_defaults()  # type: ignore[no-any-return]


@cache
def functions(suite_name: str) -> tuple[Function, ...]:
    """The functions of a suite."""
    return tuple(
        Function(each.name, each.description, _schema(each.parameters.model_json_schema()))
        for each in suite(suite_name).tools
    )


@cache
def runtime(suite_name: str) -> Any:
    """The package's runtime, which keeps no state."""
    return package.load()["functions_runtime"].FunctionsRuntime(suite(suite_name).tools)


def dumped(value: Any) -> str:
    """YAML as the package writes it, by the emitter in C."""
    import yaml

    return str(yaml.dump(value, Dumper=_dumper()))


@cache
def _dumper() -> Any:
    """Which also writes the package's enumerations; the emitter in C takes plain texts alone."""
    import yaml
    from agentdojo.strenum import StrEnum

    found = type("Dumper", (getattr(yaml, "CSafeDumper", yaml.SafeDumper),), {})
    found.add_multi_representer(StrEnum, lambda dumper, value: dumper.represent_str(str(value)))  # type: ignore[attr-defined]
    return found


def _schema(schema: dict[str, Any]) -> dict[str, Any]:
    from agentgym.tools.tool import without_titles

    return without_titles(schema)


def _frozen(injections: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(injections.items()))


def _share(place: int) -> int:
    """Which split a user task belongs to."""
    return 0 if place % 10 < 6 else 1 if place % 10 == 6 else 2
