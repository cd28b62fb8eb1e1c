"""Serves the seeded defects, and servers with a fault of their own, by OpenEnv: PORT."""

import sys
from typing import Any

import gymnasium
import uvicorn
from defects import DEFECTS, Corridor, Drawers
from starlette.applications import Starlette
from starlette.routing import Mount

from agentgym.interop.openenv.served import Served
from agentgym.interop.openenv.server import Doors, openenv_app
from agentgym.interop.openenv.session import Session


class NamesAnotherEpisode(Session):
    def _state(self, data):
        answer = super()._state(data)
        answer["data"]["episode_id"] = "another"
        return answer


class CountsNoSteps(Session):
    def _state(self, data):
        answer = super()._state(data)
        answer["data"]["step_count"] = 0
        return answer


class BreaksItsSchema(Session):
    def _observed(self, shown, *rest):
        return super()._observed({**shown, "hint": "left"}, *rest)


class LeavesOutRewards(Session):
    def _observed(self, shown, reward, *rest):
        return super()._observed(shown, None, *rest)


class PaysAfterTheEnd(Session):
    def _step(self, data):
        if self._over and self.world is not None:
            return self._observed({"text": "Again!"}, 1.0, False, False, {})
        return super()._step(data)


class AcceptsAnything(Session):
    def answer(self, message):
        answer = super().answer(message)
        if answer["data"].get("code") in ("UNKNOWN_TYPE", "VALIDATION_ERROR"):
            return self._observed({"text": "Hm."}, 0.0, False, False, {})
        return answer


class ShowsTheOracle(Session):
    def _reset(self, data):
        answer = super()._reset(data)
        answer["data"]["metadata"]["solution"] = list(self.world.oracle() or ())
        return answer


class ListsAnew(Served):
    count = 0

    def tasks(self, split):
        ListsAnew.count += 1
        return super().tasks(split)[:: 1 if ListsAnew.count % 2 else -1]


class KeepsSessions(Doors):
    """Counts a session for ever, as when the end of a connection goes unnoticed."""

    async def websocket(self, socket):
        await super().websocket(socket)
        self.count += 50


class PaysForClaims(Drawers):
    def act(self, action):
        last = super().act(action)
        return last._replace(reward=1.0) if action == "success" else last


class PaysForNothing(Drawers):
    def act(self, action):
        return super().act(action)._replace(reward=0.5)


class PaysByChance(Drawers):
    wins = 0

    def outcome(self, text, valid=True):
        last = super().outcome(text, valid)
        PaysByChance.wins += last.won
        return last._replace(reward=last.reward / PaysByChance.wins) if last.won else last


FAULTY = (
    NamesAnotherEpisode,
    CountsNoSteps,
    BreaksItsSchema,
    LeavesOutRewards,
    PaysAfterTheEnd,
    AcceptsAnything,
    ShowsTheOracle,
)


def mounted(name, kind, session=Session, served=Served, doors=Doors):
    id_ = f"broken/{name}-v0"
    gymnasium.register(id_, kind, max_episode_steps=12)
    made = doors(served(env=id_, audit=True), session=session)
    return Mount(f"/{name}", openenv_app(made.sessions.served, doors=made))


def routes(which):
    server_faults = [mounted(kind.__name__, Drawers, session=kind) for kind in FAULTY]
    if which == "servers":
        return [
            *server_faults,
            mounted("ListsAnew", Drawers, served=ListsAnew),
            mounted("KeepsSessions", Drawers, doors=KeepsSessions),
            *(mounted(k.__name__, k) for k in (PaysForClaims, PaysForNothing, PaysByChance)),
            *(mounted(k.__name__, k) for k in (Corridor, Drawers)),
        ]
    kinds: list[Any] = [Corridor, Drawers, *(defect.world for defect in DEFECTS)]
    return [mounted(kind.__name__, kind) for kind in kinds]


if __name__ == "__main__":
    uvicorn.run(
        Starlette(routes=routes(sys.argv[2])),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        log_level="error",
    )
