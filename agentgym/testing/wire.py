"""Checks of what an OpenEnv server answers, on the messages as they come."""

from __future__ import annotations

import json
import math
import re
import statistics
from typing import Any

from agentgym.errors import AgentGymError
from agentgym.interop.openenv.connection import get_json
from agentgym.testing.exchange import answer_to, episodes_of
from agentgym.testing.findings import Skipped
from agentgym.testing.harness import Harness
from agentgym.testing.remote import served


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
    for walk, messages in episodes_of(harness):
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
    for walk, messages in episodes_of(harness):
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
    for _, messages in episodes_of(harness):
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
            opening = answer_to(session, "reset", env.reset_data(task, 0))
            state = answer_to(session, "state", None)
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
    limit, messages = harness.effort.call_timeout, episodes_of(harness)[0][1]
    first = messages[0].seconds
    times = [0.0, *(each.seconds for each in messages if each.operation == "step")]
    harness.require(
        max(first, *times) <= limit, f"an answer took {max(first, *times):.0f} s, limit {limit:g} s"
    )
    middle, longest = statistics.median(times) * 1e3, max(times) * 1e3
    return f"first after {first * 1e3:.0f} ms, a step {middle:.1f} ms, the longest {longest:.0f} ms"
