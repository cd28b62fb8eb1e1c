"""The world of a program's episode for OpenEnv's clients: one session, one episode."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from agentgym.errors import AgentGymError
from agentgym.interop.openenv.plain import to_json
from agentgym.interop.openenv.session import Answer, error

if TYPE_CHECKING:
    from starlette.websockets import WebSocket

    from agentgym.programs.session import Session


async def converse(session: Session, socket: WebSocket) -> None:
    """Answer reset, step and state until the client closes the connection.

    The episode was chosen by the run and has begun: the first reset shows how it starts, whatever
    task it names, and is refused after the first step.
    """
    from starlette.websockets import WebSocketDisconnect

    await socket.accept()
    try:
        while (message := _read(await socket.receive_text())).get("type") != "close":
            await socket.send_text(to_json(await _answer(session, message)))
        await socket.close()
    except (WebSocketDisconnect, RuntimeError):  # The client is gone.
        pass


def _read(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {"type": "no JSON"}
    return found if isinstance(found, dict) else {"type": "no object"}


async def _answer(session: Session, message: dict[str, Any]) -> Answer:
    world, kind, data = session.world, message.get("type"), message.get("data")
    assert world is not None, "keys are given out after the reset"
    if kind == "state":
        state = {"episode_id": f"{session.task.id}-{session.sample}", "step_count": world.steps}
        return {"type": "state", "data": state}
    if kind == "reset":
        if world.steps:
            return error("the episode has begun: a program plays one", "EXECUTION_ERROR")
        start = world.start()
        shown = {"text": start["observation"], "goal": start["goal"], "manual": start["manual"]}
        return _observation(shown, start, None)
    if kind != "step":
        return error(f"got {kind!r:.40}, expected reset, step, state or close", "UNKNOWN_TYPE")
    if not isinstance(data, dict) or not isinstance(data.get("text"), str):
        return error('an action is {"text": "..."}', "VALIDATION_ERROR")
    try:
        result = await world.step(data["text"])
    except AgentGymError as problem:
        return error(str(problem), "EXECUTION_ERROR")
    return _observation({"text": result["observation"]}, result, result["reward"])


def _observation(shown: dict[str, str], state: dict[str, Any], reward: float | None) -> Answer:
    known = {name: state[name] for name in ("score", "won", "actions")}
    data = {"observation": shown, "reward": reward, "done": state["done"], "metadata": known}
    return {"type": "observation", "data": data}
