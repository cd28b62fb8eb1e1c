"""The environment of one episode as a program sees it: start, act, call a tool."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from agentgym.env.act import ACT
from agentgym.env.executor import EnvHandle, ResetResult, StepResult
from agentgym.programs.values import RequestRefused
from agentgym.rollout.env_calls import EnvFailed, env_call
from agentgym.rollout.tool_calls import ToolCall, hermes_text, results_of

_OVER = "The episode is over."


class ProgramWorld:
    """A running environment behind a lock: calls that a program makes at once take turns.

    Args:
        env: The environment, reset.
        start: What its reset returned.
        rewarded: Called with the reward of every step.
        failed: Called once when the environment fails.
    """

    def __init__(
        self,
        env: EnvHandle,
        start: ResetResult,
        rewarded: Callable[[float], None],
        failed: Callable[[EnvFailed], None],
    ) -> None:
        self.observation, self.info = start
        self.manual = str(self.info.get("manual", ""))
        self.goal = str(self.info.get("goal", ""))
        self.native_tools = tuple(self.info.get("tools", ()))
        self.tools: tuple[Mapping[str, Any], ...] = self.native_tools or (ACT,)
        """Schemas: those of the environment, or one that takes an action as text."""
        self.terminated = self.truncated = False
        self.steps = 0
        self._env, self._rewarded, self._failed = env, rewarded, failed
        self._lock = asyncio.Lock()

    @property
    def done(self) -> bool:
        """The environment has ended the episode."""
        return self.terminated or self.truncated

    def start(self) -> dict[str, Any]:
        """What a program is shown first."""
        about = {
            "goal": self.goal,
            "observation": self.observation,
            "manual": self.manual,
            "tools": list(self.tools),
        }
        return about | self._state()

    async def step(self, action: str) -> dict[str, Any]:
        """Act, and return the observation and the state.

        Raises:
            RequestRefused: The environment has failed.
        """
        async with self._lock:
            if self.done:
                return {"observation": _OVER, "reward": 0.0, "valid": False} | self._state()
            result = await self._call(self._env.step(action))
            self.terminated, self.truncated = result.terminated, result.truncated
            self.info = result.info
            self.steps += 1
            self._rewarded(float(result.reward))
            about = {
                "observation": result.observation,
                "reward": float(result.reward),
                "valid": bool(result.info.get("action_valid", True)),
            }
            return about | self._state()

    async def call(self, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Call one of ``tools``; the observation is its result.

        Raises:
            RequestRefused: There is no such tool, or the environment has failed.
        """
        names = [str(tool["function"]["name"]) for tool in self.tools]
        if name not in names:
            raise RequestRefused(
                f"the world has no tool {name!r:.80}, only {', '.join(names)}", 404, "not_found"
            )
        if not self.native_tools:
            return await self.step(str(arguments.get("action", "")))
        answer = await self.step(hermes_text([ToolCall(name, dict(arguments))]))
        return answer | {"observation": results_of(answer["observation"], 1)[0]}

    async def _call(self, result: Awaitable[StepResult]) -> StepResult:
        try:
            return await env_call(result)
        except EnvFailed as problem:
            self._failed(problem)
            raise RequestRefused(f"the world failed: {problem}", 500, "world_error") from problem

    def _state(self) -> dict[str, Any]:
        return {
            "done": self.done,
            "score": float(self.info.get("score", 0.0)),
            "won": bool(self.info.get("won", False)),
            "actions": list(self.info.get("admissible_commands", ())),
        }
