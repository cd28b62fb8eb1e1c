"""An environment that another's OpenEnv server plays, as one of ours: ``openenv:URL``."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from agentgym.env.base import Opening, unknown_split, unknown_task
from agentgym.errors import EnvError, MalformedAction
from agentgym.interop.foreign import ForeignEnv, Named, Reply
from agentgym.interop.openenv.client import OpenEnvWorld, facts, id_of
from agentgym.interop.openenv.connection import Refused
from agentgym.interop.openenv.form import Form
from agentgym.interop.openenv.own import OwnWorld
from agentgym.interop.openenv.plans import read_plans
from agentgym.interop.web import checked_url

_TOOLS = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
_SPLITS = {"valid": ("valid", "validation", "val", "dev")}
"""Names that others give to a split of ours."""


class OthersWorld(OpenEnvWorld, ForeignEnv):
    """An environment on any OpenEnv server.

    Tasks are those that the server lists, or else seeds. What the agent writes is the only text of
    an action, or else JSON; what it reads is the only text of an observation, or else JSON.
    """

    def __init__(
        self,
        target: str,
        *,
        action: str = "",
        observation: str = "",
        oracle: str = "",
        **kwargs: Any,
    ) -> None:
        """Ask the server what it serves; see ``OpenEnvWorld`` for further arguments.

        Args:
            target: Address of the server.
            action: Field of an action that takes the agent's text.
            observation: Field of an observation that the agent reads.
            oracle: JSON file with a list of winning actions by task id, for the checker.
            **kwargs: Those of ``OpenEnvWorld`` and ``ForeignEnv``.

        Raises:
            ConfigError: A value is out of range, the server lacks a field, or the file has no
                plans.
            EnvError: The server is not reached, or is no OpenEnv server.
        """
        super().__init__(target, **kwargs)
        self.plans = read_plans(oracle) if oracle else {}
        self.form = Form.of(self.get("/schema"), action=action, observation=observation)
        self._splits = self._list_splits()
        self.promises = replace(type(self).promises, panels=bool(self._splits))

    @classmethod
    def adapter(cls, target: str) -> type[Named]:
        """A server of ours tells more than any."""
        return cls if facts(checked_url(target, "openenv"), 60.0) is None else OwnWorld

    # ---- tasks -----------------------------------------------------------------------------------

    def tasks(self, split: str) -> Sequence[str]:
        """Those that the server lists, or seeds."""
        if not self._splits:
            return super().tasks(split)
        if split not in self._splits:
            raise unknown_split(self.name, split, tuple(self._splits))
        return [id_of(spec, split, n) for n, spec in enumerate(self.specs(self._splits[split]))]

    def _list_splits(self) -> dict[str, str]:
        """Our names of the server's splits to its own; empty where it lists no tasks."""
        route = self.tasks_route()
        found = self.get(f"{route}/splits") if route else None
        theirs = [each["name"] for each in found or () if isinstance(each, dict) and "name" in each]
        ours = {
            split: next((n for n in known if n in theirs), "") for split, known in _SPLITS.items()
        }
        return {**{name: name for name in theirs}, **{k: v for k, v in ours.items() if v}}

    def _split_of(self, task: str) -> str:
        for split in self._splits:
            if task in self.tasks(split):
                return split
        return self.split

    # ---- an episode ------------------------------------------------------------------------------

    def start(self, task: str, rng: np.random.Generator) -> Opening:
        """Begin a task."""
        if self._splits and task not in self.tasks(self._split_of(task)):
            raise unknown_task(self.name, task, self.tasks(self.split))
        return super().start(task, rng)

    def begin(self, task: str, seed: int) -> Opening:
        """Start a task."""
        answer = self._connection.ask("reset", {**self.reset_data(task, seed), "seed": seed})
        return Opening(self.form.read(answer.get("observation")), self.manual())

    def respond(self, action: str) -> Reply:
        """Carry out one action."""
        try:
            answer = self._connection.ask("step", self.form.write(action))
        except MalformedAction as problem:
            return Reply(str(problem), valid=False)
        except Refused as problem:
            if problem.code != "VALIDATION_ERROR":
                raise
            text = f"The action was refused ({problem}). Expected: {self.form.example()}"
            return Reply(text, valid=False)
        done, reward = answer.get("done", False), answer.get("reward")
        if not isinstance(done, bool):
            raise EnvError(f"{self.url} answered done={done!r:.80}, expected true or false")
        text = self.form.read(answer.get("observation"))
        return Reply(text, 0.0 if reward is None else reward, done)

    # ---- what it also answers --------------------------------------------------------------------

    def manual(self) -> str:
        """The server's description, and how actions are written."""
        if not self._manual:
            reported = self.get("/metadata")
            reported = reported if isinstance(reported, dict) else {}
            parts = [str(reported.get("description") or reported.get("name") or self.name)]
            parts.append(f"An action is {self.form.example()}.")
            self._manual = "\n\n".join(parts + self._tools())
        return self._manual

    def _tools(self) -> list[str]:
        """The tools of a server whose actions call tools."""
        if "tool_name" not in self.form.action_schema.get("properties", {}):
            return []
        try:
            answer = self._connection.ask("mcp", _TOOLS)
            tools = answer["result"]["tools"]
            return [f"{each['name']}: {each.get('description', '')}" for each in tools]
        except (EnvError, KeyError, TypeError):
            return []

    def oracle(self) -> tuple[str, ...] | None:
        """From the file of plans."""
        plan = self.plans.get(self.task_id)
        return None if plan is None else plan[len(self._played) :] or None

    def reset_data(self, task: str, seed: int) -> dict[str, Any]:
        """What ``reset`` sends for a task."""
        data: dict[str, Any] = {"seed": seed, "episode_id": str(uuid.uuid4())}
        if not self._splits:
            return {**data, "seed": self._seed_of(task, self.np_random)}
        split = self._split_of(task)
        index = list(self.tasks(split)).index(task)
        return {**data, "split": self._splits[split], "index": index, "task_id": task}

    def step_data(self, action: str) -> dict[str, Any] | None:
        """What ``step`` sends for an action; None where the action cannot be written."""
        try:
            return self.form.write(action)
        except MalformedAction:
            return None
