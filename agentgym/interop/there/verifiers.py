"""Our environments in verifiers, as a taskset with the environment that plays it.

A module of your own exports both, and its name is the id that ``vf-eval`` takes::

    from agentgym.interop.there.verifiers import AgentGymEnv, AgentGymTaskset

    __all__ = ["AgentGymEnv", "AgentGymTaskset"]
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from agentgym.env.registry import world
from agentgym.errors import MissingExtra
from agentgym.interop.there.episode import EnvEpisode, task_ids

try:
    import verifiers.v1 as vf

    from agentgym.interop.verifiers_harness import ConverseConfig
except ImportError:
    raise MissingExtra("pip install verifiers") from None


class AgentGymData(vf.TaskData):  # type: ignore[misc]
    """What starts an episode."""

    env: str
    env_args: dict[str, Any]
    task: str
    seed: int


class AgentGymConfig(vf.TasksetConfig):  # type: ignore[misc]
    """Which environment, and which of its tasks."""

    env: str = "hotter"
    """Any name of an environment."""
    env_args: dict[str, Any] = {}  # noqa: RUF012 - pydantic copies it
    split: str = "train"
    count: int | None = None
    """The first tasks of the split; unset: all."""
    seed: int = 0


class AgentGymTask(vf.Task[AgentGymData]):  # type: ignore[misc]
    """One task of an environment."""


class AgentGymTaskset(vf.Taskset[AgentGymTask, AgentGymConfig]):  # type: ignore[misc]
    """The tasks of a split."""

    def load(self) -> Iterator[AgentGymTask]:
        """One task per id, with the manual as system prompt."""
        config = self.config
        bare = world(config.env, **config.env_args)
        manual = bare.manual()
        bare.close()
        for id_ in task_ids(config.env, config.split, config.count, config.env_args):
            data = AgentGymData(
                id=id_,
                name=id_,
                prompt=None,
                system_prompt=manual,
                env=config.env,
                env_args=config.env_args,
                task=id_,
                seed=config.seed,
            )
            yield AgentGymTask(data, config.task)


class AgentGymEnvConfig(vf.EnvConfig):  # type: ignore[misc]
    """One player, who converses and has no shell."""

    player: vf.AgentConfig = vf.AgentConfig(harness=ConverseConfig(), runtime=vf.SubprocessConfig())


class AgentGymEnv(vf.Env[AgentGymEnvConfig]):  # type: ignore[misc]
    """The environment answers each message of the player as the user of the conversation."""

    async def run(self, task: Any, agents: Any) -> None:
        """Play one task; its rewards are summed."""
        data = task.data
        episode = await asyncio.to_thread(EnvEpisode, data.env, data.env_args)
        try:
            _, shown = await asyncio.to_thread(episode.start, data.task, data.seed)
            async with agents.player.interaction(task) as interaction:
                segment = await interaction.turn(shown)
                while not segment.terminated:
                    shown, _ = await asyncio.to_thread(episode.act, segment.last_reply)
                    if episode.done:
                        break
                    segment = await interaction.turn(shown)
            trace = interaction.trace
            trace.record_reward("reward", episode.reward)
            trace.record_metric("won", float(episode.won))
            trace.record_metric("score", episode.score)
        finally:
            await asyncio.to_thread(episode.close)


__all__ = ["AgentGymEnv", "AgentGymTaskset"]
