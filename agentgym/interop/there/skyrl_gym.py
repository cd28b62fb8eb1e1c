"""Our environments in SkyRL-Gym: ``register("hotter")`` gives the id for its configuration."""

from __future__ import annotations

from typing import Any

from agentgym.env.registry import full_id
from agentgym.errors import MissingExtra
from agentgym.interop.there.episode import EnvEpisode, task_ids

try:
    from skyrl_gym import register as _register
    from skyrl_gym.envs.base_text_env import BaseTextEnv, BaseTextEnvStepOutput
except ImportError:
    raise MissingExtra("pip install skyrl-gym") from None


class AgentGymEnv(BaseTextEnv):  # type: ignore[misc]
    """An environment of ours; ``extras`` name the task and the seed of a row."""

    def __init__(self, env_config: Any = None, extras: dict[str, Any] | None = None) -> None:
        """Make the environment; ``extras["env"]`` names it, where ``register`` did not."""
        super().__init__()
        given = dict(extras or {})
        self.task, self.seed = given.get("task"), int(given.get("seed", 0))
        self.episode = EnvEpisode(given["env"], given.get("env_args") or {})
        self.max_turns = self.episode.env.spec.max_episode_steps or 50  # type: ignore[union-attr]

    def init(self, prompt: Any) -> tuple[list[dict[str, str]], dict[str, Any]]:
        """The manual as system message, the goal and first observation as user message."""
        manual, shown = self.episode.start(self.task, self.seed)
        first = {"role": "system", "content": manual}
        return [first, *(prompt or []), {"role": "user", "content": shown}], {}

    def step(self, action: str) -> BaseTextEnvStepOutput:
        """Act with what the model wrote."""
        self.turns += 1
        text, reward = self.episode.act(action)
        done = self.episode.done
        seen = [] if done else [{"role": "user", "content": text}]
        return BaseTextEnvStepOutput(
            observations=seen, reward=reward, done=done, metadata={"observation": text}
        )

    def get_metrics(self) -> dict[str, Any]:
        """Score and success."""
        return {"score": self.episode.score, "won": float(self.episode.won)}

    def close(self) -> None:
        """Close the environment."""
        self.episode.close()


def register(env: str, **env_args: Any) -> str:
    """Make an environment known to SkyRL-Gym; returns the id that its configuration names."""
    name = f"agentgym-{full_id(env).rpartition('/')[2]}"

    def entry_point(env_config: Any = None, extras: dict[str, Any] | None = None) -> AgentGymEnv:
        return AgentGymEnv(env_config, {"env": env, "env_args": env_args, **(extras or {})})

    _register(id=name, entry_point=entry_point)
    return name


def rows(env: str, split: str = "train", count: int | None = None, **env_args: Any) -> list[Any]:
    """Rows of a dataset for SkyRL: one per task, with an empty prompt."""
    name = f"agentgym-{full_id(env).rpartition('/')[2]}"
    return [
        {"prompt": [], "env_class": name, "task": task}
        for task in task_ids(env, split, count, env_args)
    ]
