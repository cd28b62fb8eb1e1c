"""The contract of an environment, as checks that name the likely cause of a violation."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from gymnasium.utils.env_checker import check_env

from agentgym.env import schemes
from agentgym.env.base import Promises
from agentgym.env.registry import full_id, world
from agentgym.errors import ConfigError
from agentgym.settings import CheckSettings
from agentgym.testing import (
    agents,
    answers,
    determinism,
    leaks,
    manuals,
    memory,
    panels,
    remote,
    second_process,
    wire,
    wire_sessions,
)
from agentgym.testing.crash import NOT_THE_ENV, Crash
from agentgym.testing.findings import Finding, Skipped, Verdict
from agentgym.testing.hanging import Hangs, calls_return_within
from agentgym.testing.harness import Harness

Check = Callable[[Harness], str]
"""Raises ``AssertionError`` for a violation and ``Skipped``; returns what it looked at."""


def passes_gymnasiums_checker(harness: Harness) -> str:
    """Gymnasium's own checker; its warnings concern arrays, not texts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            check_env(world(harness.id, **harness.kwargs))
        except Exception as problem:
            raise Crash(
                f"{harness.id} fails gymnasium.utils.env_checker.check_env: {problem}", problem
            ) from problem
    return ""


CHECKS: tuple[Check, ...] = (
    panels.splits_are_disjoint,
    panels.panels_are_stable,
    panels.task_ids_select_tasks,
    manuals.manual_documents_the_commands,
    determinism.episodes_are_reproducible,
    determinism.environments_do_not_interact,
    answers.malformed_actions_are_harmless,
    determinism.forks_are_exact_and_independent,
    determinism.groups_start_in_the_same_state,
    determinism.global_generators_are_not_used,
    answers.answers_are_plain_values,
    agents.oracle_wins,
    agents.turn_limit_truncates,
    agents.idle_agents_lose,
    agents.random_agents_lose,
    agents.order_of_actions_reveals_nothing,
    agents.repeating_agents_lose,
    leaks.openings_hide_the_solution,
    leaks.answers_hide_the_score,
    panels.seeds_draw_tasks,
    panels.seeds_change_episodes,
    passes_gymnasiums_checker,
    memory.resets_leak_no_memory,
    memory.files_are_closed,
    second_process.second_process_agrees,
)
"""In order: what breaks an earlier one would confuse the later ones."""


_ELSEWHERE: dict[Check, Check] = {
    determinism.global_generators_are_not_used: remote.global_generators_are_not_used_there,
    answers.answers_are_plain_values: remote.answers_are_plain_values_there,
    memory.resets_leak_no_memory: remote.resets_leak_no_memory_there,
    memory.files_are_closed: remote.files_are_closed_there,
    passes_gymnasiums_checker: remote.passes_gymnasiums_checker_there,
    second_process.second_process_agrees: remote.another_server_agrees,
}
"""Checks of the environment's process, and those that take their place where it is a server."""

SERVER_CHECKS: tuple[Check, ...] = (
    wire.server_describes_itself,
    *(_ELSEWHERE.get(check, check) for check in CHECKS),
    wire.observations_match_their_schema,
    wire.rewards_are_numbers,
    wire.state_follows_the_episode,
    wire_sessions.broken_messages_are_refused,
    wire_sessions.nothing_is_paid_outside_an_episode,
    wire_sessions.sessions_at_once_are_isolated,
    wire_sessions.ended_sessions_make_room,
    wire.tasks_are_as_declared,
    wire.the_oracle_is_not_shown,
    wire.answers_come_soon,
    remote.canaries_stay_at_the_floor,
    remote.returns_tell_agents_apart,
    remote.solutions_are_paid_alike,
)
"""The same for an OpenEnv server, and its side of the protocol."""

_NEEDS: dict[Check, Callable[[Promises], bool]] = {
    determinism.forks_are_exact_and_independent: lambda held: held.fork != "no",
    determinism.episodes_are_reproducible: lambda held: held.seeds,
    determinism.environments_do_not_interact: lambda held: held.seeds,
    determinism.groups_start_in_the_same_state: lambda held: held.seeds,
    second_process.second_process_agrees: lambda held: held.seeds,
    remote.another_server_agrees: lambda held: held.seeds,
    panels.seeds_draw_tasks: lambda held: held.seeds,
}
"""What a check looks at; it is skipped where the environment does not promise it."""


def checks_of(env_id: str) -> tuple[Check, ...]:
    """The checks of an environment, by its id."""
    foreign = schemes.split(env_id)
    return SERVER_CHECKS if foreign and foreign[0] == "openenv" else CHECKS


def check_environment(env_id: str, effort: CheckSettings | None = None, /, **kwargs: Any) -> None:
    """Check everything that training and evaluation rely on; stop at the first violation.

    Args:
        env_id: Id, short name, or ``file.py:ClassName``; see ``agentgym.env.registry.full_id``.
        effort: How long to look.
        **kwargs: Passed to the environment; small settings make the check quick.

    Raises:
        AssertionError: The environment breaks its contract; the message names the likely cause.
        ConfigError: There is no such environment, or it takes no such keyword.
        MissingExtra: The environment's own package is not installed.
        CacheError: The folder for prepared files cannot be written.

    Examples:
        >>> check_environment("agentgym/Hotter-v0")
    """
    for finding in findings(env_id, effort, **kwargs):
        if finding.verdict is Verdict.FAILED:
            raise AssertionError(finding.note)


def findings(
    env_id: str, effort: CheckSettings | None = None, /, **kwargs: Any
) -> Iterator[Finding]:
    """Run every check in order; one finding each.

    Arguments and errors are those of ``check_environment``, except that violations are findings.
    """
    effort = effort or CheckSettings()
    for name, least in (("steps", 1), ("resets", 1), ("episodes", 2)):
        if (value := getattr(effort, name)) < least:
            raise ConfigError(f"effort.{name} is {value}, expected at least {least}")
    id_ = full_id(env_id)
    with calls_return_within(effort.call_timeout):
        bare = world(id_, **kwargs)
        bare.close()
    checks = checks_of(id_)
    harness = Harness(id_, kwargs, effort, bare.promises, len(checks))
    return (_finding(check, harness) for check in checks)


def title(check: Check) -> str:
    """Name of a check in tables."""
    return check.__name__.replace("_", " ")


def _finding(check: Check, harness: Harness) -> Finding:
    started = time.monotonic()
    harness.begin_check()
    try:
        with calls_return_within(harness.effort.call_timeout):
            verdict, note = _judge(check, harness)
            harness.close()
    except Hangs as problem:
        verdict, note = Verdict.FAILED, f"{harness.id}: {problem}"
        harness.hangs = title(check)
    except AssertionError as violation:
        harness.abandon()
        verdict, note = _violation(violation, check, harness)
    cut = "; ".join(map(str, harness.cuts)) if verdict is Verdict.PASSED else ""
    return Finding(title(check), verdict, note, time.monotonic() - started, cut)


def _judge(check: Check, harness: Harness) -> tuple[Verdict, str]:
    if harness.hangs:
        return Verdict.SKIPPED, f"not run: see {harness.hangs!r}"
    if check in _NEEDS and not _NEEDS[check](harness.promises):
        lacking = ", ".join(harness.promises.lacking)
        return Verdict.SKIPPED, f"the environment does not promise: {lacking}"
    try:
        return Verdict.PASSED, check(harness)
    except Skipped as reason:
        return Verdict.SKIPPED, str(reason)
    except (AssertionError, *NOT_THE_ENV):
        raise
    except (Exception, SystemExit) as problem:
        raise Crash(
            f"{harness.id} raised {type(problem).__name__}: {problem} while it was checked that "
            f"{title(check)}",
            problem,
        ) from problem


def _violation(violation: AssertionError, check: Check, harness: Harness) -> tuple[Verdict, str]:
    """The finding; an error that an earlier check reported is not reported again."""
    if isinstance(violation, Crash):
        first = harness.crashes.setdefault(violation.place, title(check))
        if first != title(check):
            return Verdict.SKIPPED, f"stopped by the error that {first!r} reports"
    return Verdict.FAILED, " ".join(str(violation).split())
