"""Messages exchanged with an OpenEnv server, as they come, for checks."""

from __future__ import annotations

import json
import time
from typing import Any

from agentgym.interop.openenv.client import OpenEnvWorld
from agentgym.interop.openenv.connection import Connection
from agentgym.testing.harness import Harness
from agentgym.testing.remote import served
from agentgym.testing.steps import Exchange, Walk


def episodes_of(harness: Harness) -> list[tuple[Walk, list[Exchange]]]:
    """Two episodes as they came over the wire, played once in an audit."""
    if not harness.exchanged:
        env = served(harness)
        harness.exchanged = [(walk, messages_of(walk, env)) for walk in harness.some(2)]
    return harness.exchanged


def messages_of(walk: Walk, env: OpenEnvWorld) -> list[Exchange]:
    """The messages of an episode; the state is asked for after each."""
    session, found = env.session(), list[Exchange]()

    def ask(operation: str, data: dict[str, Any] | None) -> None:
        started = time.monotonic()
        answer = answer_to(session, operation, data)
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


def answer_to(session: Connection, kind: str, data: dict[str, Any] | None) -> dict[str, Any]:
    """The answer to a message of a kind."""
    message = {"type": kind} if data is None else {"type": kind, "data": data}
    answer = json.loads(session.raw(json.dumps(message)))
    return answer if isinstance(answer, dict) else {"type": answer}
