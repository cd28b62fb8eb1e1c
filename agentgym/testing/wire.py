"""Checks of a server's side of OpenEnv's protocol, on the messages as they come."""

from __future__ import annotations

import json
import math
import re
import statistics
import threading
import time
from typing import Any

from agentgym.errors import AgentGymError, EnvError, EnvLost
from agentgym.interop.openenv.client import OpenEnvWorld
from agentgym.interop.openenv.connection import Connection, get_json
from agentgym.testing.findings import Skipped
from agentgym.testing.harness import Harness
from agentgym.testing.remote import served
from agentgym.testing.steps import Exchange, Walk

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


def _episode(harness: Harness, walk: Walk, env: OpenEnvWorld) -> list[Exchange]:
    """The messages of an episode; the state is asked for after each."""
    session, found = env.session(), list[Exchange]()

    def ask(operation: str, data: dict[str, Any] | None) -> None:
        started = time.monotonic()
        answer = _raw(session, operation, data)
        found.append(Exchange(operation, data or {}, answer, time.monotonic() - started))

    try:
        ask("reset", env.reset_data(walk.task, walk.seed))
        ask("state", None)
        for action in walk.actions:
            if (data := env.step_data(action)) is not None:
                ask("step", data)
                ask("state", None)
    finally:
        session.close()
    return found


def _episodes(harness: Harness) -> list[tuple[Walk, list[Exchange]]]:
    """Two episodes as they came over the wire, played once in an audit."""
    if not harness.exchanged:
        env = served(harness)
        harness.exchanged = [(walk, _episode(harness, walk, env)) for walk in harness.some(2)]
    return harness.exchanged


def _raw(session: Connection, kind: str, data: dict[str, Any] | None) -> dict[str, Any]:
    message = {"type": kind} if data is None else {"type": kind, "data": data}
    answer = json.loads(session.raw(json.dumps(message)))
    return answer if isinstance(answer, dict) else {"type": answer}


def server_describes_itself(harness: Harness) -> str:
    """Health, metadata and schemas are answered as OpenEnv defines them."""
    env = served(harness)
    health, metadata, schema = (
        get_json(env.url, path, timeout=env.timeout) for path in ("/health", "/metadata", "/schema")
    )
    harness.require(
        isinstance(health, dict) and health.get("status") == "healthy",
        f"/health answers {health!r:.80}, expected the status 'healthy'",
    )
    harness.require(
        isinstance(metadata, dict)
        and all(isinstance(metadata.get(key), str) for key in ("name", "description")),
        f"/metadata answers {metadata!r:.80}, expected the texts name and description",
    )
    harness.require(
        isinstance(schema, dict)
        and all(isinstance(schema.get(key), dict) for key in ("action", "observation", "state")),
        f"/schema answers {schema!r:.80}, expected the schemas of action, observation and state",
    )
    return str(metadata["name"])


def observations_match_their_schema(harness: Harness) -> str:
    """Each observation, with its reward and done, is what ``/schema`` promises."""
    try:
        from jsonschema import Draft202012Validator
    except ImportError:
        raise Skipped("needs the package jsonschema") from None
    env, count = served(harness), 0
    schema = get_json(env.url, "/schema", timeout=env.timeout)
    harness.require("$ref" not in json.dumps(schema) or _local(schema), "a schema refers elsewhere")
    check = Draft202012Validator(schema["observation"])
    first = Draft202012Validator(schema.get("reset_observation") or schema["observation"])
    for walk, messages in _episodes(harness):
        for operation, _, answer, _ in messages:
            if operation == "state":
                continue
            data = answer.get("data")
            right = (
                answer.get("type") == "observation"
                and isinstance(data, dict)
                and isinstance(data.get("observation"), dict)
                and isinstance(data.get("done"), bool)
                and "reward" in data
            )
            harness.require(
                right,
                f"task {walk.task!r}: {operation} was answered {answer!r:.120}, expected "
                f"observation, reward and done",
            )
            assert isinstance(data, dict)
            whole = {**data["observation"], "reward": data["reward"], "done": data["done"]}
            problem = next((first if operation == "reset" else check).iter_errors(whole), None)
            harness.require(
                problem is None,
                f"task {walk.task!r}: an answer to {operation} breaks the schema of observations "
                f"at {getattr(problem, 'json_path', '')}: {getattr(problem, 'message', '')!s:.120}",
            )
            count += 1
    return f"{count} observations"


def _local(schema: Any) -> bool:
    if isinstance(schema, dict):
        here = str(schema.get("$ref", "#")).startswith("#")
        return here and all(map(_local, schema.values()))
    return all(map(_local, schema)) if isinstance(schema, list) else True


def rewards_are_numbers(harness: Harness) -> str:
    """Each step has a reward: a finite number, no boolean, and not left out."""
    count = 0
    for walk, messages in _episodes(harness):
        for operation, _, answer, _ in messages:
            data = answer.get("data")
            if operation != "step" or answer.get("type") == "error" or not isinstance(data, dict):
                continue
            reward = data.get("reward")
            number = isinstance(reward, int | float) and not isinstance(reward, bool)
            harness.require(
                number and math.isfinite(reward or 0),
                f"task {walk.task!r}: a step has the reward {reward!r}, expected a finite number",
            )
            count += 1
    return f"{count} rewards"


def state_follows_the_episode(harness: Harness) -> str:
    """``state`` names the episode that ``reset`` was given, and counts the steps."""
    count = 0
    for _, messages in _episodes(harness):
        asked, steps = messages[0].sent["episode_id"], 0
        for operation, _, answer, _ in messages[1:]:
            steps += operation == "step"
            if operation == "step":
                continue
            data = answer.get("data")
            state = data if isinstance(data, dict) else {}
            harness.require(
                state.get("episode_id") == asked,
                f"state has the episode_id {state.get('episode_id')!r}, reset was given "
                f"{asked!r}: keep it",
            )
            harness.require(
                state.get("step_count") == steps and not isinstance(state["step_count"], bool),
                f"state has step_count {state.get('step_count')!r} after {steps} steps",
            )
            count += 1
    return f"{count} states"


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
        opening = _raw(session, "reset", env.reset_data(walk.task, walk.seed))
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
        early = _raw(session, "step", text)
        _refused_or_free(harness, early, "before the first reset")
        env2 = harness.make()
        for task in harness.few(env2, 1)[:1]:
            plan = harness.opened(env2, task).plan
            if not plan:
                return "before the first reset; no oracle is known that ends an episode"
            _raw(session, "reset", env.reset_data(task, 0))
            for action in plan:
                last = _raw(session, "step", env.step_data(action) or {})
            harness.require(
                bool(last.get("data", {}).get("done")),
                f"task {task!r}: the episode continues after the oracle's plan: set `done`",
            )
            again = _raw(session, "step", env.step_data(plan[-1]) or {})
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
    env, (walk, messages) = served(harness), _episodes(harness)[0]
    together = _TOGETHER
    if _TOGETHER * sum(each.seconds for each in messages) > harness.budget.share:
        harness.tried(_FEW, len(walk.actions), "steps at once")
        walk, together = walk._replace(actions=walk.actions[:_FEW]), _TOGETHER // 2
    results: list[Any] = [None] * together

    def play(number: int) -> None:
        try:
            results[number] = [
                each.answer for each in _episode(harness, walk, env) if each.operation != "state"
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
            answer = _raw(session, "reset", env.reset_data(walk.task, walk.seed))
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


def tasks_are_as_declared(harness: Harness) -> str:
    """Lists, counts, slices and single tasks agree, and a task chosen by index is played."""
    env, count = served(harness), 0
    names = get_json(env.url, "/list_environments", timeout=env.timeout)
    route = f"/{names[0]}" if isinstance(names, list) and names else ""
    splits = route and get_json(env.url, f"{route}/splits", timeout=env.timeout)
    if not splits:
        raise Skipped("the server lists no tasks (OpenEnv's TaskProvider)")
    for split in [each["name"] for each in splits]:

        def ask(path: str, split: str = split, **more: Any) -> Any:
            body = {"split": split, **more}
            return get_json(env.url, f"{route}/{path}", timeout=env.timeout, body=body)

        tasks, total = ask("tasks")["tasks"], ask("num_tasks")["num_tasks"]
        harness.require(
            len(tasks) <= total,
            f"{split!r} lists {len(tasks)} tasks, num_tasks is {total}",
        )
        harness.require(
            tasks == ask("tasks")["tasks"], f"{split!r} is listed differently when asked again"
        )
        last = len(tasks) - 1
        for index in {0, last}:
            harness.require(
                ask("task", index=index)["task"] == tasks[index],
                f"task {index} of {split!r} is another than in the list",
            )
        harness.require(
            ask("task_range", start=0, stop=2)["tasks"] == tasks[:2],
            f"task_range 0 to 2 of {split!r} is another part than of the list",
        )
        for index in (len(tasks) + 10**6, -(10**6)):
            try:
                found = ask("task", index=index)
            except AgentGymError:
                continue
            raise AssertionError(
                f"{harness.id}: task {index} of {split!r} is answered {found!r:.80}"
            )
        count += len(tasks)
    return f"{count} tasks in {len(splits)} splits"


def the_oracle_is_not_shown(harness: Harness) -> str:
    """Neither the metadata of an answer nor the state holds the solution."""
    env, seen = served(harness), 0
    for task in harness.few(env, 2)[:4]:
        plan = harness.opened(env, task).plan
        if not plan or len(set(plan)) < 2 or len(plan) < 3:
            continue
        session = env.session()
        try:
            opening = _raw(session, "reset", env.reset_data(task, 0))
            state = _raw(session, "state", None)
        finally:
            session.close()
        for where, value in (("the metadata of reset", _metadata(opening)), ("the state", state)):
            text = json.dumps(value, ensure_ascii=False)
            harness.require(
                not _spelled(text, plan),
                f"task {task!r}: {where} holds the oracle's plan, {plan!r:.120}",
            )
        seen += 1
    if not seen:
        raise Skipped("no plan of several different actions is known")
    return f"{seen} tasks"


def _metadata(answer: dict[str, Any]) -> Any:
    """Without the admissible actions, among which every solution is."""
    data = answer.get("data")
    metadata = data.get("metadata") if isinstance(data, dict) else None
    return {**metadata, "admissible_commands": ()} if isinstance(metadata, dict) else metadata


def _spelled(text: str, plan: tuple[str, ...]) -> bool:
    place = 0
    for action in plan:
        found = re.compile(rf"(?<!\w){re.escape(action)}(?!\w)").search(text, place)
        if found is None:
            return False
        place = found.end()
    return True


def answers_come_soon(harness: Harness) -> str:
    """The first observation and every step come within the time for a call."""
    limit, messages = harness.effort.call_timeout, _episodes(harness)[0][1]
    first = messages[0].seconds
    times = [0.0, *(each.seconds for each in messages if each.operation == "step")]
    harness.require(
        max(first, *times) <= limit, f"an answer took {max(first, *times):.0f} s, limit {limit:g} s"
    )
    middle, longest = statistics.median(times) * 1e3, max(times) * 1e3
    return f"first after {first * 1e3:.0f} ms, a step {middle:.1f} ms, the longest {longest:.0f} ms"
