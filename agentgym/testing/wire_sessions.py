"""Checks of the sessions of an OpenEnv server: many at once, ended ones, and broken messages."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

from agentgym.errors import AgentGymError, EnvError, EnvLost
from agentgym.interop.openenv.connection import Connection
from agentgym.testing.exchange import answer_to, episodes_of, messages_of
from agentgym.testing.harness import Harness
from agentgym.testing.remote import served

_TOGETHER = 8
"""Sessions that play at the same time."""
_OPENED = 40
"""Sessions that are opened and ended, one after the other."""
_FEW = 12
"""Steps that eight sessions play of a long episode in a slow environment."""
_SOON = 0.05
"""Seconds for a session and its first reset, where many can be opened whatever the budget."""
_BROKEN = (
    "{",
    "[]",
    "null",
    '"reset"',
    '{"type": "dance"}',
    '{"type": ["step"]}',
    '{"type": "step"}',
    '{"type": "step", "data": []}',
    '{"type": "step", "data": {"no-such-field": 1}}',
    '{"type": "reset", "data": 3}',
    '{"type": "state", "data": "x"}',
    "\ud800".encode("utf-8", "replace").decode() + "{" * 2000,
)
"""Messages that are none."""


def broken_messages_are_refused(harness: Harness) -> str:
    """What is no message gets an error, and afterwards episodes are played as before."""
    env, walk = served(harness), harness.recorded()[0]
    session = env.session()
    try:
        for text in _BROKEN:
            try:
                answer = json.loads(_answered(session, text))
            except (AgentGymError, ValueError) as problem:
                raise AssertionError(
                    f"{harness.id}: the message {text[:60]!r} ended the session ({problem}): "
                    f"answer with an error"
                ) from problem
            accepted = isinstance(answer, dict) and answer.get("type") == "observation"
            harness.require(
                not accepted or '"reset"' in text,
                f"the message {text[:60]!r} was accepted, it must be refused",
            )
        session.close()
        opening = answer_to(session, "reset", env.reset_data(walk.task, walk.seed))
        harness.require(
            opening.get("type") == "observation",
            f"after broken messages, reset was answered {opening!r:.120}",
        )
    finally:
        session.close()
    return f"{len(_BROKEN)} messages"


def _answered(session: Connection, text: str) -> str | bytes:
    """The answer to a message; in a new session where the one before it ended the last."""
    try:
        return session.raw(text)
    except EnvLost:
        return session.raw(text)


def nothing_is_paid_outside_an_episode(harness: Harness) -> str:
    """A step before the first reset, or after the end, is refused or changes nothing."""
    env, session = served(harness), served(harness).session()
    text = env.step_data("look") or {}
    try:
        early = answer_to(session, "step", text)
        _refused_or_free(harness, early, "before the first reset")
        env2 = harness.make()
        for task in harness.few(env2, 1)[:1]:
            plan = harness.opened(env2, task).plan
            if not plan:
                return "before the first reset; no oracle is known that ends an episode"
            answer_to(session, "reset", env.reset_data(task, 0))
            for action in plan:
                last = answer_to(session, "step", env.step_data(action) or {})
            harness.require(
                bool(last.get("data", {}).get("done")),
                f"task {task!r}: the episode continues after the oracle's plan: set `done`",
            )
            again = answer_to(session, "step", env.step_data(plan[-1]) or {})
            _refused_or_free(harness, again, "after the end of the episode", over=True)
    finally:
        session.close()
    return "before the first reset and after the end"


def _refused_or_free(
    harness: Harness, answer: dict[str, Any], when: str, over: bool = False
) -> None:
    if answer.get("type") == "error":
        return
    data = answer.get("data") if isinstance(answer.get("data"), dict) else {}
    assert isinstance(data, dict)
    harness.require(
        not data.get("reward") and (bool(data.get("done")) or not over),
        f"a step {when} was answered with reward {data.get('reward')!r} and done "
        f"{data.get('done')!r}: refuse it, or pay nothing and stay done",
    )


def sessions_at_once_are_isolated(harness: Harness) -> str:
    """Sessions at the same time play the same episode alike, or are refused as too many."""
    env, (walk, messages) = served(harness), episodes_of(harness)[0]
    together = _TOGETHER
    if _TOGETHER * sum(each.seconds for each in messages) > harness.budget.share:
        harness.tried(_FEW, len(walk.actions), "steps at once")
        walk, together = walk._replace(actions=walk.actions[:_FEW]), _TOGETHER // 2
    results: list[Any] = [None] * together

    def play(number: int) -> None:
        try:
            results[number] = [
                each.answer for each in messages_of(walk, env) if each.operation != "state"
            ]
        except AgentGymError as problem:
            results[number] = problem

    threads = [threading.Thread(target=play, args=(n,), daemon=True) for n in range(together)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(env.timeout * 2)
    harness.require(all(each is not None for each in results), "a session did not end in time")
    played = [each for each in results if isinstance(each, list) and not _at_capacity(each)]
    harness.require(bool(played), f"none of {together} sessions could play: {results[0]}")
    for each in played[1:]:
        harness.require(
            each == played[0],
            f"task {walk.task!r} went differently while {len(played)} sessions played it: share "
            f"nothing that changes between sessions",
        )
    failed = [each for each in results if isinstance(each, EnvError)]
    harness.require(not failed, f"a session failed beside others: {''.join(map(str, failed[:1]))}")
    return f"{len(played)} of {together} sessions; the others were refused as too many"


def _at_capacity(answers: list[dict[str, Any]]) -> bool:
    data = answers[0].get("data") if answers else None
    return isinstance(data, dict) and data.get("code") == "CAPACITY_REACHED"


def ended_sessions_make_room(harness: Harness) -> str:
    """Sessions that were ended count no longer: many can follow one another."""
    env, walk, late = served(harness), harness.recorded()[0], harness.hurry()
    fastest = float("inf")
    for number in range(_OPENED):
        session, started = env.session(), time.monotonic()
        try:
            answer = answer_to(session, "reset", env.reset_data(walk.task, walk.seed))
        finally:
            session.close()
        harness.require(
            answer.get("type") == "observation",
            f"session {number + 1} of those opened and ended in turn was answered {answer!r:.120}: "
            f"free a session when its connection ends",
        )
        fastest = min(fastest, time.monotonic() - started)
        if fastest > _SOON and late():
            harness.tried(number + 1, _OPENED, "sessions")
            break
    return f"{number + 1} sessions"
