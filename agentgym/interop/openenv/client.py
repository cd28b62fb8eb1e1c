"""An environment that an OpenEnv server plays, as one of ours: ``openenv:URL``."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import gymnasium
import numpy as np

from agentgym.env.base import AnyText, Opening, Outcome, Promises, unknown_split, unknown_task
from agentgym.errors import ConfigError, EnvError, MalformedAction
from agentgym.interop.foreign import ForeignEnv, Reply
from agentgym.interop.openenv.audit import listening_process
from agentgym.interop.openenv.connection import Connection, Refused, get_json
from agentgym.interop.openenv.form import Form
from agentgym.interop.openenv.plans import read_plans
from agentgym.interop.web import checked_url

_FRESH = 5
"""Seconds for which what a server states about itself is kept."""
_TOOLS = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
_SPLITS = {"valid": ("valid", "validation", "val", "dev")}
"""Names that others give to a split of ours."""


class OpenEnvWorld(ForeignEnv):
    """Any OpenEnv server; one of ours promises everything that its environment does.

    Of others, tasks are those that the server lists, or else seeds. What the agent writes is the
    only text of an action, or else JSON; what it reads is the only text of an observation, or else
    JSON.
    """

    kind = "openenv"

    def __init__(
        self,
        target: str,
        *,
        timeout: float = 60.0,
        action: str = "",
        observation: str = "",
        oracle: str = "",
        replica: str = "",
        **kwargs: Any,
    ) -> None:
        """Ask the server what it serves; see ``ForeignEnv`` for further arguments.

        Args:
            target: Address of the server.
            timeout: Seconds in which each answer must come.
            action: Field of an action that takes the agent's text.
            observation: Field of an observation that the agent reads.
            oracle: JSON file with a list of winning actions by task id, for the checker.
            replica: Address of another server of the same environment, for the checker.
            **kwargs: Those of ``ForeignEnv``.

        Raises:
            ConfigError: A value is out of range, or the server lacks a field.
            EnvError: The server is not reached, or is no OpenEnv server.
        """
        super().__init__(target, **kwargs)
        if not timeout > 0:
            raise ConfigError(f"timeout is {timeout}, expected seconds above 0")
        self.url = checked_url(target, "openenv")
        self.timeout = timeout
        self.replica = replica
        self.plans = read_plans(oracle) if oracle else {}
        self.facts = facts(self.url, timeout)
        self.form: Form | None = None
        self._info_there: dict[str, Any] = {}
        self._manual = ""
        self._episode = ""
        self._connection = Connection(self.url, timeout)
        if self.facts is None:
            schema = get_json(self.url, "/schema", timeout=timeout)
            self.form = Form.of(schema, action=action, observation=observation)
            self._listed = self._list_splits()
            self.promises = replace(type(self).promises, panels=bool(self._listed))
        else:
            reported = self.facts
            self.stochastic, self.admissible_exact = (
                reported["stochastic"],
                reported["admissible_exact"],
            )
            names = ("fork", "seeds", "panels", "success", "validity")
            self.promises = Promises(**{name: reported[name] for name in names})
            if reported["examples"]:
                self.action_space = AnyText(reported["examples"])

    @classmethod
    def turn_limit(cls, target: str) -> int | None:
        """That of the served environment; others state none."""
        found = facts(checked_url(target, "openenv"), 60.0)
        return cls.max_turns if found is None else found["max_turns"]

    # ---- tasks -----------------------------------------------------------------------------------

    def tasks(self, split: str) -> Sequence[str]:
        """Those that the server lists, or seeds."""
        if self.facts is not None and self.facts["audit"]:
            return list(self._audit("tasks", split=split))
        if self.facts is None and not self._listed:
            return super().tasks(split)
        return [_task_id(spec, split, n) for n, spec in enumerate(self._specs(split))]

    def _list_splits(self) -> dict[str, str]:
        """Our names of the server's splits to its own; empty where it lists no tasks."""
        names = get_json(self.url, "/list_environments", timeout=self.timeout)
        if not isinstance(names, list) or not names:
            return {}
        self._route = f"/{names[0]}"
        found = get_json(self.url, f"{self._route}/splits", timeout=self.timeout)
        theirs = [each["name"] for each in found or () if isinstance(each, dict) and "name" in each]
        ours = {
            split: next((n for n in known if n in theirs), "") for split, known in _SPLITS.items()
        }
        return {**{name: name for name in theirs}, **{k: v for k, v in ours.items() if v}}

    def _specs(self, split: str) -> list[Any]:
        body = {"split": split}
        if self.facts is None:
            if split not in self._listed:
                raise unknown_split(self.name, split, tuple(self._listed))
            body = {"split": self._listed[split]}
            route = self._route
        else:
            names = get_json(self.url, "/list_environments", timeout=self.timeout)
            route = f"/{names[0]}"
        found = get_json(self.url, f"{route}/tasks", timeout=self.timeout, body=body)
        listed = found.get("tasks") if isinstance(found, dict) else None
        if not isinstance(listed, list):
            raise EnvError(
                f"{self.url}{route}/tasks answered {found!r:.80}, expected a list of tasks"
            )
        return listed

    # ---- an episode ------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Start a task; a server of ours draws one itself where none is given."""
        if self.facts is None:
            return super().reset(seed=seed, options=options)
        gymnasium.Env.reset(self, seed=seed)
        number = int(self.np_random.integers(2**31)) if seed is None else seed
        opening = self._begin_there((options or {}).get("task"), number)
        self._opening, self._last = opening, Outcome(opening.observation)
        return opening.observation, {**self._info(), "manual": self._manual}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Act; what a server of ours answers is passed on as it came."""
        if self.facts is None:
            return super().step(action)
        last = self.act(action)
        self._last = last
        reported = self._info_there
        return (
            last.observation,
            last.reward,
            reported["terminated"],
            reported["truncated"],
            self._info(),
        )

    def start(self, task: str, rng: np.random.Generator) -> Opening:
        """Begin a task."""
        if self.facts is None:
            if self._listed and task not in self.tasks(self._split_of(task)):
                raise unknown_task(self.name, task, self.tasks(self.split))
            return super().start(task, rng)
        return self._begin_there(task, int(rng.integers(2**31)))

    def begin(self, task: str, seed: int) -> Opening:
        """Start a task of another's server."""
        assert self.form is not None
        answer = self._connection.ask("reset", {**self.reset_data(task, seed), "seed": seed})
        return Opening(self.form.read(answer.get("observation")), self._described())

    def respond(self, action: str) -> Reply:
        """Carry out one action on another's server."""
        assert self.form is not None
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

    def act(self, action: str) -> Outcome:
        """Carry out one action."""
        if self.facts is None:
            return super().act(action)
        answer = self._connection.ask("step", {"text": action})
        self._keep(answer)
        reported, text = self._info_there, _text(answer)
        return Outcome(
            text,
            answer.get("reward"),  # type: ignore[arg-type]  # The checker wants it as it came.
            reported.get("score"),  # type: ignore[arg-type]
            reported.get("won"),  # type: ignore[arg-type]
            answer.get("done"),  # type: ignore[arg-type]
            reported.get("action_valid"),  # type: ignore[arg-type]
        )

    def fork(self) -> Self:
        """Another session in the same state: a copy on a server of ours, else by replay."""
        if self.facts is None:
            return super().fork()
        args, kwargs = self._made_with
        twin = type(self)(*args, **kwargs)
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

    def close(self) -> None:
        """End the session."""
        self._connection.close()

    # ---- what a server of ours also answers ------------------------------------------------------

    def manual(self) -> str:
        """That of the environment; of others, their description and how actions are written."""
        if self.facts is None:
            return self._described()
        if self.facts["audit"]:
            return str(self._audit("manual"))
        if not self._manual:
            reported = get_json(self.url, "/metadata", timeout=self.timeout)
            self._manual = (
                str(reported.get("description", "")) if isinstance(reported, dict) else ""
            )
        return self._manual

    def oracle(self) -> tuple[str, ...] | None:
        """From a server of ours that was started for a check, or from the file of plans."""
        if self.facts is not None and self.facts["audit"]:
            found = self._audit("oracle")
            return None if found is None else tuple(found)
        plan = self.plans.get(self.task_id)
        return None if plan is None else plan[len(self._played) :] or None

    def admissible(self) -> tuple[str, ...]:
        """From a server of ours."""
        if self.facts is not None and self.facts["audit"]:
            return tuple(self._audit("admissible"))
        return tuple(self._info_there.get("admissible_commands", ()))

    def readings(self, *, memory: bool = False) -> dict[str, Any]:
        """Of the server's process, for the checker: empty where it cannot be looked at.

        Args:
            memory: Also how much Python holds. The server watches that, which makes it slower,
                until it is asked without.
        """
        if self.facts is not None and self.facts["audit"]:
            found = self._audit("readings", memory=memory)
            return {**found, "process": Path("/proc") / str(found["process"])}
        parts = urlsplit(self.url)
        if parts.hostname not in ("127.0.0.1", "localhost", "::1"):
            return {}
        process = listening_process(parts.port or 80)
        return {} if process is None else {"process": process}

    def gymnasium(self) -> str:
        """What Gymnasium's checker objects to, asked of a server of ours."""
        return str(self._audit("gymnasium"))

    def session(self) -> Connection:
        """Another session of the server, for messages as they are."""
        return Connection(self.url, self.timeout)

    def reset_data(self, task: str, seed: int) -> dict[str, Any]:
        """What ``reset`` sends for a task."""
        data: dict[str, Any] = {"seed": seed, "episode_id": str(uuid.uuid4())}
        if self.facts is not None:
            return {**data, "task": task, "max_turns": 0, "split": self.split}
        if not self._listed:
            return {**data, "seed": self._seed_of(task, self.np_random)}
        split = self._split_of(task)
        index = list(self.tasks(split)).index(task)
        return {**data, "split": self._listed[split], "index": index, "task_id": task}

    def step_data(self, action: str) -> dict[str, Any] | None:
        """What ``step`` sends for an action; None where the action cannot be written."""
        if self.form is None:
            return {"text": action}
        try:
            return self.form.write(action)
        except MalformedAction:
            return None

    # ---- parts -----------------------------------------------------------------------------------

    def _begin_there(self, task: str | None, seed: int) -> Opening:
        self._episode = str(uuid.uuid4())
        data: dict[str, Any] = {"seed": seed, "episode_id": self._episode, "max_turns": 0}
        data |= {"split": self.split, "admissible": self.with_admissible or None}
        if task is not None:
            data["task"] = task
        answer = self._connection.ask("reset", data)
        self._keep(answer)
        shown, reported = answer["observation"], self._info_there
        self._manual = shown.get("manual", "")
        self.task_id = str(reported.get("task_id", ""))
        return Opening(
            _text(answer), str(reported.get("goal", "")), str(reported.get("task_type", ""))
        )

    def _keep(self, answer: dict[str, Any]) -> None:
        info, shown = answer.get("metadata"), answer.get("observation")
        if not isinstance(info, dict) or not isinstance(shown, dict):
            raise EnvError(f"{self.url} answered {answer!r:.80}, expected observation and metadata")
        for name in ("terminated", "truncated"):
            info.setdefault(name, False)
        self._info_there = info

    def _info(self) -> dict[str, Any]:
        if self.facts is None:
            return super()._info()
        info = dict(self._info_there)
        for name in ("terminated", "truncated"):
            info.pop(name, None)
        if "admissible_commands" in info:
            info["admissible_commands"] = tuple(info["admissible_commands"])
        return info

    def _split_of(self, task: str) -> str:
        for split in self._listed:
            if task in self.tasks(split):
                return split
        return self.split

    def _described(self) -> str:
        if not self._manual:
            assert self.form is not None
            reported = get_json(self.url, "/metadata", timeout=self.timeout)
            reported = reported if isinstance(reported, dict) else {}
            parts = [str(reported.get("description") or reported.get("name") or self.name)]
            parts.append(f"An action is {self.form.example()}.")
            self._manual = "\n\n".join(parts + self._tools())
        return self._manual

    def _tools(self) -> list[str]:
        """The tools of a server whose actions call tools."""
        assert self.form is not None
        if "tool_name" not in self.form.action_schema.get("properties", {}):
            return []
        try:
            answer = self._connection.ask("mcp", _TOOLS)
            tools = answer["result"]["tools"]
            return [f"{each['name']}: {each.get('description', '')}" for each in tools]
        except (EnvError, KeyError, TypeError):
            return []

    def _audit(self, what: str, **more: Any) -> Any:
        return self._connection.ask("audit", {"what": what, **more}).get("value")


def facts(url: str, timeout: float) -> dict[str, Any] | None:
    """What a server of ours states about itself; None for another's. Kept for some seconds."""
    return _facts(url, timeout, int(time.monotonic() / _FRESH))


@lru_cache(maxsize=256)
def _facts(url: str, timeout: float, tick: int) -> dict[str, Any] | None:
    reported = get_json(url, "/agentgym", timeout=timeout)
    return reported if isinstance(reported, dict) and "max_turns" in reported else None


def _text(answer: dict[str, Any]) -> Any:
    return answer["observation"].get("text")


def _task_id(spec: Any, split: str, index: int) -> Any:
    """The id in a task's specification, else its place."""
    if isinstance(spec, dict):
        for name in ("id", "task_id", "name"):
            if name in spec:
                return spec[name]
    return spec if isinstance(spec, str) else f"{split}-{index}"
