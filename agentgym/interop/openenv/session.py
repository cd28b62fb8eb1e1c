"""One session of a served environment: messages in, answers out; knows nothing of the network."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any

from agentgym.env.base import TextEnv
from agentgym.env.registry import spec
from agentgym.errors import AgentGymError, ConfigError, EnvError
from agentgym.interop.openenv.audit import Auditor
from agentgym.interop.openenv.served import Served

Answer = dict[str, Any]
"""``{"type": ..., "data": ...}``, as OpenEnv's messages are."""


class BadMessage(Exception):
    """A message that does not keep OpenEnv's protocol; with the error code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Sessions:
    """The sessions of a server, found by the id of their episode, which a fork names."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self._by_episode: dict[str, Session] = {}

    def find(self, episode: str) -> Session:
        """The session that plays an episode.

        Raises:
            EnvError: There is none.
        """
        if episode not in self._by_episode:
            raise EnvError(f"no session plays the episode {episode[:80]!r}")
        return self._by_episode[episode]

    def enter(self, session: Session, episode: str) -> None:
        """Note that a session plays an episode, and no longer its last one."""
        self._by_episode.pop(session.episode, None)
        self._by_episode[episode] = session

    def leave(self, session: Session) -> None:
        """Forget a session."""
        if self._by_episode.get(session.episode) is session:
            del self._by_episode[session.episode]


class Session:
    """An environment and its running episode."""

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions
        self.served = sessions.served
        self.episode = ""
        """Id of the episode; empty before the first."""
        self.world: TextEnv | None = None
        self.lock = threading.Lock()
        """Held during a call into the environment."""
        self._options: dict[str, Any] = {}
        self._seed: int | None = None
        self._steps = 0
        self._limit: int | None = None
        self._over = True
        self._auditor = Auditor() if self.served.audit else None
        self._answers: dict[str, Callable[[dict[str, Any]], Answer]] = {
            "reset": self._reset,
            "step": self._step,
            "state": self._state,
            "audit": self._audit,
        }

    def answer(self, message: Any) -> Answer:
        """The answer to a message; an error is an answer, too."""
        try:
            if not isinstance(message, dict) or not isinstance(message.get("data", {}), dict):
                raise BadMessage("VALIDATION_ERROR", "expected an object with `type` and `data`")
            kind = message.get("type")
            if not isinstance(kind, str) or kind not in self._answers:
                raise BadMessage("UNKNOWN_TYPE", f"Unknown message type: {kind!r:.80}")
            with self.lock:
                return self._answers[kind](message.get("data", {}))
        except BadMessage as problem:
            return error(str(problem), problem.code)
        except AgentGymError as problem:
            return self._failure(str(problem), problem)
        except BaseException as problem:  # An environment is foreign code: SystemExit included.
            return self._failure(f"{type(problem).__name__}: {problem}", problem)

    def close(self) -> str:
        """Free the environment; returns what it raised, if anything."""
        self.sessions.leave(self)
        world, self.world = self.world, None
        try:
            if world is not None:
                with self.lock:
                    world.close()
                    if self.served.audit:
                        world.close()  # The contract: at any time, and twice.
        except BaseException as problem:
            return f"close() raised {type(problem).__name__}: {problem}"
        return ""

    # ---- messages --------------------------------------------------------------------------------

    def _reset(self, data: dict[str, Any]) -> Answer:
        self._over = True
        if "fork_of" in data:
            return self._fork(data)
        options = {key: data[key] for key in ("split", "admissible") if data.get(key) is not None}
        if self.world is None or options != self._options:
            self._make(options)
        assert self.world is not None
        seed = _optional(data, "seed", int)
        task = _optional(data, "task", str)
        if task is None and data.get("index") is not None:
            task = self._indexed(options.get("split", self.world.split), data["index"])
        chosen = {} if task is None else {"task": task}
        with self._watched():
            observation, info = self.world.reset(seed=seed, options=chosen or None)
        limit = spec(self.served.env).max_episode_steps if "max_turns" not in data else None
        self._limit = _optional(data, "max_turns", int) or limit
        self._begin(data, seed)
        shown = {"text": observation, "goal": info.get("goal"), "manual": info.pop("manual", "")}
        return self._observed(shown, None, False, False, info)

    def _step(self, data: dict[str, Any]) -> Answer:
        text = data.get("text")
        if not isinstance(text, str) or set(data) - {"text", "metadata"}:
            raise BadMessage("VALIDATION_ERROR", 'an action is {"text": "..."} and nothing else')
        if self.world is None or self._over:
            raise EnvError("no episode is running: reset starts one")
        try:
            with self._watched():
                observation, reward, terminated, truncated, info = self.world.step(text)
        except BaseException:
            self._over = True
            raise
        self._steps += 1
        if self._limit is not None and self._steps >= self._limit and not terminated:
            truncated = True
        self._over = bool(terminated or truncated)
        return self._observed({"text": observation}, reward, terminated, truncated, info)

    def _state(self, data: dict[str, Any]) -> Answer:
        task = self.world.task_id if self.world is not None else ""
        state = {"episode_id": self.episode or None, "step_count": self._steps}
        return {"type": "state", "data": {**state, "task_id": task, "seed": self._seed}}

    def _audit(self, data: dict[str, Any]) -> Answer:
        if self._auditor is None:
            raise ConfigError("this server answers no audit: start it with `--audit`")
        if self.world is None:
            self._make({})
        assert self.world is not None
        return {"type": "audit", "data": {"value": self._auditor.answer(self.world, data)}}

    # ---- parts -----------------------------------------------------------------------------------

    def _make(self, options: dict[str, Any]) -> None:
        if self.world is not None:
            self.world.close()
            self.world = None
        with self._watched():
            self.world = self.served.make(**options)
        self._options = options

    def _fork(self, data: dict[str, Any]) -> Answer:
        other = self.sessions.find(str(data["fork_of"]))
        with other.lock if other is not self else threading.Lock():
            if other.world is None:
                raise EnvError("that session has no environment")
            copied = other.world.fork()
            if copied is other.world:
                raise EnvError("fork() gave the environment itself, not a copy")
            with suppress(Exception):
                if self.world is not None:
                    self.world.close()
            self.world, self._options, self._limit = copied, other._options, other._limit
            over, steps, seed = other._over, other._steps, other._seed
        self._begin(data, seed)
        self._over, self._steps = over, steps
        return self._observed({"text": copied._last.observation}, None, False, False, {})

    def _begin(self, data: dict[str, Any], seed: int | None) -> None:
        episode = _optional(data, "episode_id", str) or str(uuid.uuid4())
        self.sessions.enter(self, episode)
        self.episode, self._seed = episode, seed
        self._steps, self._over = 0, False

    def _indexed(self, split: str, index: Any) -> str:
        assert self.world is not None
        known = self.world.tasks(split)
        if not isinstance(index, int) or not 0 <= index < len(known):
            raise ConfigError(f"index is {index!r}, expected 0 to {len(known) - 1} in {split!r}")
        return known[index]

    def _observed(
        self, shown: Answer, reward: Any, terminated: Any, truncated: Any, info: Answer
    ) -> Answer:
        if self._auditor is not None:
            self._auditor.given(info)
        data = {
            "observation": shown,
            "reward": reward,
            "done": bool(terminated or truncated),
            "metadata": {**info, "terminated": terminated, "truncated": truncated},
        }
        return {"type": "observation", "data": data}

    def _watched(self) -> Any:
        return self._auditor.watched() if self._auditor is not None else nullcontext()

    def _failure(self, message: str, problem: BaseException) -> Answer:
        place = self._auditor.place(problem) if self._auditor is not None else ""
        text = f"{message} ({place})" if place and place not in message else message
        return error(text, "EXECUTION_ERROR", type(problem).__name__)


def error(message: str, code: str, kind: str = "") -> Answer:
    """An error, with one of OpenEnv's codes; ``kind`` is the exception's class, for our client."""
    reported = {"kind": kind} if kind else {}
    return {
        "type": "error",
        "data": {"message": " ".join(message.split()), "code": code, **reported},
    }


def _optional(data: dict[str, Any], name: str, kind: type) -> Any:
    value = data.get(name)
    if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
        raise BadMessage(
            "VALIDATION_ERROR", f"{name} is {value!r:.80}, expected {kind.__name__} or null"
        )
    return value
