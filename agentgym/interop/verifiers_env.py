"""Environments of verifiers: ``verifiers:ID``, the id of a taskset.

verifiers plays the episode itself, with its own harness, tools and scoring. Its model is our agent,
behind an endpoint on loopback.
"""

from __future__ import annotations

import itertools
from typing import Any

from agentgym.errors import ConfigError, MissingExtra
from agentgym.interop.bridge import Bridge
from agentgym.interop.bridged import BridgedEnv, Played, key_in_environment


class VerifiersWorld(BridgedEnv):
    """A taskset of verifiers' ``v1`` with the environment that belongs to it."""

    kind = "verifiers"

    def __init__(self, target: str, *, taskset: Any = None, env: Any = None, **kwargs: Any) -> None:
        """Load the taskset; see ``BridgedEnv`` for further arguments.

        Args:
            target: Id of the taskset, which is the module that exports it.
            taskset: Its configuration, as a dictionary.
            env: Configuration of the environment, such as its harness, as a dictionary.
            **kwargs: Those of ``BridgedEnv``.

        Raises:
            ConfigError: There is no such taskset, or a configuration does not fit.
            MissingExtra: verifiers is not installed.
        """
        super().__init__(target, **kwargs)
        try:
            import verifiers.v1 as vf
            from verifiers.v1.utils.loaders import load_environment, resolve_env_config
        except ImportError:
            raise MissingExtra("pip install verifiers") from None
        self._vf = vf
        try:
            config = resolve_env_config(
                {**(env or {}), "taskset": {**(taskset or {}), "id": target}}
            )
            _without_shell(config, given=env or {})
            self._env = load_environment(config)
            self._tasks = list(itertools.islice(self._env.taskset, self._num_tasks))
        except (ImportError, ValueError, TypeError, AttributeError) as problem:
            text = " ".join(str(problem).split())
            raise ConfigError(f"{self.name} cannot be loaded: {text:.300}") from problem
        self._count = len(self._tasks)

    async def play(self, place: int, bridge: Bridge) -> Played:
        """One slot of verifiers' evaluation."""
        from verifiers.v1.clients import EvalClientConfig, ModelContext
        from verifiers.v1.env import RunSlot

        with key_in_environment(bridge) as name:
            client = EvalClientConfig(base_url=bridge.url, api_key_var=name)
            sampling = self._vf.SamplingConfig()
            context = ModelContext(client=client, model="agentgym", sampling=sampling)
            async with self._env.serving():
                episode = await self._env.run_slot(RunSlot(task=self._tasks[place]), context)
        traces = list(episode.traces)
        errors = [*(episode.errors or ()), *(e for trace in traces for e in trace.errors or ())]
        return Played(
            reward=float(sum(trace.reward for trace in traces)),
            stop=str((getattr(traces[0], "stop_condition", None) if traces else None) or ""),
            error=f"{errors[0].type}: {errors[0].message}" if errors else "",
        )


def _without_shell(config: Any, given: dict[str, Any]) -> None:
    """Where no harness was chosen, a conversation without a shell on this machine."""
    from verifiers.v1 import SubprocessConfig
    from verifiers.v1.configs.agent import agent_config_fields

    from agentgym.interop.verifiers_harness import ConverseConfig

    for name, agent in agent_config_fields(config).items():
        if agent.harness is None and "harness" not in given.get(name, {}):
            agent.harness = ConverseConfig()
            if "runtime" not in given.get(name, {}):
                agent.runtime = SubprocessConfig()
