"""An environment that a server of ours plays: it promises all that the environment does."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import gymnasium
import numpy as np

from agentgym.env.base import AnyText, Opening, Outcome, Promises
from agentgym.errors import EnvError
from agentgym.interop.openenv.client import OpenEnvWorld, facts, id_of
from agentgym.interop.web import checked_url


class OwnWorld(OpenEnvWorld):
    """An environment on a server of ours. What it answers is passed on as it came."""

    def __init__(self, target: str, **kwargs: Any) -> None:
        """Ask the server what it serves; see ``OpenEnvWorld`` for further arguments.

        Args:
            target: Address of the server.
            **kwargs: Those of ``OpenEnvWorld``.

        Raises:
            EnvError: The server is not reached, or is none of ours.
        """
        super().__init__(target, **kwargs)
        reported = facts(self.url, self.timeout)
        if reported is None:
            raise EnvError(f"{self.url} is no server of `agentgym serve` any more: start again")
        self.audited = bool(reported["audit"])
        self.stochastic = reported["stochastic"]
        self.admissible_exact = reported["admissible_exact"]
        names = ("fork", "seeds", "panels", "success", "validity")
        self.promises = Promises(**{name: reported[name] for name in names})
        if reported["examples"]:
            self.action_space = AnyText(reported["examples"])
        self._info_there: dict[str, Any] = {}
        self._episode = ""

    @classmethod
    def turn_limit(cls, target: str) -> int | None:
        """That of the served environment."""
        found = facts(checked_url(target, "openenv"), 60.0)
        return cls.max_turns if found is None else found["max_turns"]

    def tasks(self, split: str) -> Sequence[str]:
        """Those that the server lists."""
        if self.audited:
            return list(self._audit("tasks", split=split))
        return [id_of(spec, split, n) for n, spec in enumerate(self.specs(split))]

    # ---- an episode ------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Start a task; the server draws one itself where none is given."""
        gymnasium.Env.reset(self, seed=seed)
        number = int(self.np_random.integers(2**31)) if seed is None else seed
        opening = self._begin((options or {}).get("task"), number)
        self._opening, self._last = opening, Outcome(opening.observation)
        return opening.observation, {**self._info(), "manual": self._manual}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Act."""
        self._last = last = self.act(action)
        ended = self._info_there
        return last.observation, last.reward, ended["terminated"], ended["truncated"], self._info()

    def start(self, task: str, rng: np.random.Generator) -> Opening:
        """Begin a task."""
        return self._begin(task, int(rng.integers(2**31)))

    def act(self, action: str) -> Outcome:
        """Carry out one action."""
        answer = self._connection.ask("step", {"text": action})
        self._keep(answer)
        reported = self._info_there
        return Outcome(
            _text(answer),
            answer.get("reward"),  # type: ignore[arg-type]  # The checker wants it as it came.
            reported.get("score"),  # type: ignore[arg-type]
            reported.get("won"),  # type: ignore[arg-type]
            answer.get("done"),  # type: ignore[arg-type]
            reported.get("action_valid"),  # type: ignore[arg-type]
        )

    def fork(self) -> Self:
        """Another session in the same state, copied on the server."""
        twin = self.made_again()
        twin._np_random = self.shallow_copy()._np_random
        twin._copy_from(self)
        return twin

    def _copy_from(self, other: Self) -> None:
        self.task_id, self._opening, self._last = other.task_id, other._opening, other._last
        self._info_there, self._manual = dict(other._info_there), other._manual
        if other._episode:
            self._episode = str(uuid.uuid4())
            data = {"fork_of": other._episode, "episode_id": self._episode, "max_turns": 0}
            self._connection.ask("reset", data)

    # ---- what it also answers --------------------------------------------------------------------

    def manual(self) -> str:
        """That of the environment."""
        if self.audited:
            return str(self._audit("manual"))
        if not self._manual:
            reported = self.get("/metadata")
            found = reported.get("description", "") if isinstance(reported, dict) else ""
            self._manual = str(found)
        return self._manual

    def oracle(self) -> tuple[str, ...] | None:
        """From a server that was started for a check."""
        found = self._audit("oracle") if self.audited else None
        return None if found is None else tuple(found)

    def admissible(self) -> tuple[str, ...]:
        """What can be done now."""
        if self.audited:
            return tuple(self._audit("admissible"))
        return tuple(self._info_there.get("admissible_commands", ()))

    def readings(self, *, memory: bool = False) -> dict[str, Any]:
        """Of the server's process."""
        if not self.audited:
            return super().readings(memory=memory)
        found = self._audit("readings", memory=memory)
        return {**found, "process": Path("/proc") / str(found["process"])}

    def gymnasium(self) -> str:
        """What Gymnasium's checker objects to, asked of the server."""
        return str(self._audit("gymnasium"))

    def reset_data(self, task: str, seed: int) -> dict[str, Any]:
        """What ``reset`` sends for a task."""
        data: dict[str, Any] = {"seed": seed, "episode_id": str(uuid.uuid4())}
        return {**data, "task": task, "max_turns": 0, "split": self.split}

    def step_data(self, action: str) -> dict[str, Any]:
        """What ``step`` sends for an action."""
        return {"text": action}

    # ---- parts -----------------------------------------------------------------------------------

    def _begin(self, task: str | None, seed: int) -> Opening:
        self._episode = str(uuid.uuid4())
        data: dict[str, Any] = {"seed": seed, "episode_id": self._episode, "max_turns": 0}
        data |= {"split": self.split, "admissible": self.with_admissible or None}
        if task is not None:
            data["task"] = task
        answer = self._connection.ask("reset", data)
        self._keep(answer)
        reported = self._info_there
        self._manual = answer["observation"].get("manual", "")
        self.task_id = str(reported.get("task_id", ""))
        goal, kind = (str(reported.get(name, "")) for name in ("goal", "task_type"))
        return Opening(_text(answer), goal, kind)

    def _keep(self, answer: dict[str, Any]) -> None:
        info, shown = answer.get("metadata"), answer.get("observation")
        if not isinstance(info, dict) or not isinstance(shown, dict):
            raise EnvError(f"{self.url} answered {answer!r:.80}, expected observation and metadata")
        for name in ("terminated", "truncated"):
            info.setdefault(name, False)
        self._info_there = info

    def _info(self) -> dict[str, Any]:
        ended = ("terminated", "truncated")
        info = {name: value for name, value in self._info_there.items() if name not in ended}
        if "admissible_commands" in info:
            info["admissible_commands"] = tuple(info["admissible_commands"])
        return info

    def _audit(self, what: str, **more: Any) -> Any:
        return self._connection.ask("audit", {"what": what, **more}).get("value")


def _text(answer: dict[str, Any]) -> Any:
    return answer["observation"].get("text")
