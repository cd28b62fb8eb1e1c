"""What a server answers to a checker alone: the oracle, and readings of its own process."""

from __future__ import annotations

import gc
import os
import random
import tracemalloc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.utils.env_checker import check_env

from agentgym.env.base import TextEnv
from agentgym.errors import ConfigError
from agentgym.interop.openenv.plain import to_json
from agentgym.utils.places import place_of


class Auditor:
    """Watches the calls of one session into its environment."""

    def __init__(self) -> None:
        self._generators_used = False
        self._handed_out = ""
        self._last: tuple[dict[str, Any], dict[str, str]] | None = None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Around a call: note whether it uses or seeds the global generators."""
        # Drawing first makes a call visible that seeds with the same number every time.
        random.random()
        np.random.random()
        before = _generators()
        try:
            yield
        finally:
            self._generators_used |= _generators() != before

    def given(self, info: dict[str, Any]) -> None:
        """Note an answer, and whether the one before changed meanwhile or shares its values."""
        if self._last is not None and not self._handed_out:
            earlier, kept = self._last
            now = {key: _json(value) for key, value in earlier.items()}
            changed = sorted(
                key for key in now.keys() | kept.keys() if now.get(key) != kept.get(key)
            )
            shared = [key for key in info if _mutable(info[key]) and info[key] is earlier.get(key)]
            if changed:
                self._handed_out = (
                    f"info changed after it was given ({', '.join(changed)}): return a new "
                    f"dictionary, copy its lists"
                )
            elif shared:
                self._handed_out = (
                    f"a reader that emptied the lists in info would change a later answer "
                    f"({', '.join(shared)}): the world hands out its own state; return copies"
                )
        self._last = info, {key: _json(value) for key, value in info.items()}

    def place(self, problem: BaseException) -> str:
        """File and line in the environment's code where it failed."""
        return place_of(problem)

    def answer(self, world: TextEnv, data: dict[str, Any]) -> Any:
        """The value that a checker asked for.

        Raises:
            ConfigError: There is no such value.
        """
        match data.get("what"):
            case "oracle":
                return world.oracle()
            case "admissible":
                return world.admissible()
            case "manual":
                return world.manual()
            case "tasks":
                return list(world.tasks(str(data.get("split"))))
            case "readings":
                return self._readings(memory=data.get("memory") is True)
            case "gymnasium":
                return _gymnasium(world)
        raise ConfigError(f"an audit has no value {data.get('what')!r}")

    def _readings(self, *, memory: bool) -> dict[str, Any]:
        found = {
            "generators_used": self._generators_used,
            "handed_out": self._handed_out,
            "process": os.getpid(),
        }
        if not memory:
            tracemalloc.stop()
            return found
        if not tracemalloc.is_tracing():
            tracemalloc.start()
        gc.collect()
        return {**found, "python": tracemalloc.get_traced_memory()[0]}


def _generators() -> tuple[object, ...]:
    state = np.random.get_state(legacy=False)
    return random.getstate(), repr(state["state"]["pos"]), state["state"]["key"].tobytes()


def _json(value: Any) -> str:
    try:
        return to_json({"value": value})
    except Exception:
        return repr(value)


def _mutable(value: Any) -> bool:
    return isinstance(value, list | dict | set)


def _gymnasium(world: TextEnv) -> str:
    """What Gymnasium's own checker objects to in an environment; empty when to nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            check_env(world)
        except Exception as problem:
            place = place_of(problem)
            return f"{problem} ({place})" if place else str(problem)
    return ""


def listening_process(port: int) -> Path | None:
    """The folder in ``/proc`` of the process that listens on a port of this machine, or None."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with_lines = Path(table)
        if with_lines.exists():
            for line in with_lines.read_text().splitlines()[1:]:
                columns = line.split()
                if columns[3] == "0A" and int(columns[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{columns[9]}]")
    for folder in Path("/proc").glob("[0-9]*/fd"):
        try:
            if any(os.readlink(each) in inodes for each in folder.iterdir()):
                return folder.parent
        except OSError:
            continue
    return None
