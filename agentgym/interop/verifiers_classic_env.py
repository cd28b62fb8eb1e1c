"""Classic (v0) environments of verifiers: ``verifiers-v0:ID``, before its tasksets.

``SingleTurnEnv``, ``MultiTurnEnv``, ``ToolEnv`` and what is built on them, with their own rubrics.
verifiers has them up to 0.3.
"""

from __future__ import annotations

from threading import Lock
from typing import Any
from unittest.mock import patch

from agentgym.errors import ConfigError, MissingExtra
from agentgym.interop.bridge import Bridge
from agentgym.interop.bridged import BridgedEnv, Played, key_in_environment

_LOADING = Lock()


class ClassicVerifiersWorld(BridgedEnv):
    """What the ``load_environment`` of a module of verifiers returns."""

    kind = "verifiers-v0"

    def __init__(self, target: str, *, args: Any = None, **kwargs: Any) -> None:
        """Load the environment; see ``BridgedEnv`` for further arguments.

        Args:
            target: Id of the environment, which is its module.
            args: Arguments of its ``load_environment``, as a dictionary.
            **kwargs: Those of ``BridgedEnv``.

        Raises:
            ConfigError: There is no such environment, or it has no tasks.
            MissingExtra: verifiers is not installed, or is too new.
        """
        super().__init__(target, **kwargs)
        try:
            from verifiers.types import ClientConfig
            from verifiers.utils.env_utils import load_environment
        except ImportError:
            raise MissingExtra('pip install "verifiers<0.4", which has classic ones') from None
        self._client = ClientConfig
        try:
            # Its environments set handlers of signals, which are the run's, and fail in threads.
            with _LOADING, patch("signal.signal"):
                self._env = load_environment(target, **(args or {}))
            self._rows = self._env.get_dataset(n=self._num_tasks)
        except (ValueError, RuntimeError, TypeError) as problem:
            text = " ".join(str(problem).split())
            raise ConfigError(f"{self.name} cannot be loaded: {text:.300}") from problem
        self._count = len(self._rows)

    async def play(self, place: int, bridge: Bridge) -> Played:
        """One rollout, scored by the environment's rubric."""
        with key_in_environment(bridge) as name:
            client = self._client(api_base_url=bridge.url, api_key_var=name, max_retries=0)
            played = await self._env.run_rollout(self._rows[place], client, "agentgym", {})
        stop, error = str(played.get("stop_condition") or ""), played.get("error")
        return Played(float(played["reward"] or 0.0), stop, str(error) if error else "")
