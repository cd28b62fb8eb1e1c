"""Environments of verifiers: ``verifiers:ID``, the id of a taskset.

verifiers plays the episode itself, with its own harness, tools and scoring. Its model is our agent,
behind an endpoint on loopback.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from agentgym.env.base import Opening, Promises, unknown_task
from agentgym.errors import ConfigError, EnvError, MissingExtra
from agentgym.interop.bridge import Asked, Bridge
from agentgym.interop.foreign import ForeignEnv, Reply
from agentgym.interop.rows import split_rows

_KEY = "AGENTGYM_BRIDGE_KEY"
"""Environment variable from which verifiers reads the endpoint's key."""


class VerifiersWorld(ForeignEnv):
    """A taskset of verifiers' ``v1`` with the environment that belongs to it."""

    kind = "verifiers"
    promises = Promises(fork="no", seeds=False, success=False, validity=False)

    def __init__(
        self,
        target: str,
        *,
        taskset: Any = None,
        env: Any = None,
        timeout: float = 300.0,
        **kwargs: Any,
    ) -> None:
        """Load the taskset; see ``ForeignEnv`` for further arguments.

        Args:
            target: Id of the taskset, which is the module that exports it.
            taskset: Its configuration, as a dictionary.
            env: Configuration of the environment, such as its harness, as a dictionary.
            timeout: Seconds in which the next request of the model must come.
            **kwargs: Those of ``ForeignEnv``.

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
        self.timeout = timeout
        try:
            config = resolve_env_config(
                {**(env or {}), "taskset": {**(taskset or {}), "id": target}}
            )
            _without_shell(config, given=env or {})
            self._env = load_environment(config)
            found = itertools.islice(self._env.taskset, self._num_tasks)
            self._tasks = list(found)
        except (ImportError, ValueError, TypeError, AttributeError) as problem:
            text = " ".join(str(problem).split())
            raise ConfigError(f"{self.name} cannot be loaded: {text:.300}") from problem
        self._loop: asyncio.AbstractEventLoop | None = None
        self._bridge: Bridge | None = None
        self._running: Future[Any] = Future()
        self._seen = 0

    def tasks(self, split: str) -> Sequence[str]:
        """Places in the taskset; of ten, eight train, one validates, one tests."""
        rows = [{"n": number} for number in range(len(self._tasks))]
        return split_rows(rows, self.name, split)

    def begin(self, task: str, seed: int) -> Opening:
        """Let verifiers start the episode, up to the first request of its model."""
        known = [f"row-{number}" for number in range(len(self._tasks))]
        if task not in known:
            raise unknown_task(self.name, task, known)
        self._leave()
        self._bridge, self._seen = Bridge(), 0
        self._running = self._start(self._tasks[known.index(task)], self._bridge)
        asked = self._bridge.next(self._running, self.timeout)
        if asked is None:
            raise EnvError(f"{self.name} asked its model nothing: {self._outcome()[1]}")
        return Opening(self._shown(asked), "Do what the conversation asks.")

    def respond(self, action: str) -> Reply:
        """Hand the action to verifiers as the model's completion."""
        if self._bridge is None:
            raise EnvError("the episode is over: reset starts another")
        self._bridge.answer(action)
        asked = self._bridge.next(self._running, self.timeout)
        if asked is not None:
            return Reply(self._shown(asked))
        reward, reported = self._outcome()
        self._leave()
        return Reply(reported, reward, True)

    def manual(self) -> str:
        """The conversation holds the instructions."""
        return (
            f"You play {self.target} of verifiers: follow the conversation. Where it offers tools, "
            f'call one by <tool_call>{{"name": "...", "arguments": {{...}}}}</tool_call>.'
        )

    def close(self) -> None:
        """Leave the episode and end the event loop."""
        self._leave()
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)

    def _start(self, task: Any, bridge: Bridge) -> Future[Any]:
        from verifiers.v1.clients import EvalClientConfig, ModelContext
        from verifiers.v1.env import RunSlot

        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=_forever, args=(self._loop,), daemon=True).start()
        name = f"{_KEY}_{id(bridge)}"
        os.environ[name] = bridge.key
        client = EvalClientConfig(base_url=bridge.url, api_key_var=name)
        context = ModelContext(client=client, model="agentgym", sampling=self._vf.SamplingConfig())

        async def play() -> Any:
            try:
                async with self._env.serving():
                    return await self._env.run_slot(RunSlot(task=task), context)
            finally:
                os.environ.pop(name, None)

        return asyncio.run_coroutine_threadsafe(play(), self._loop)

    def _outcome(self) -> tuple[float, str]:
        """The reward of the episode, and what ended it.

        Raises:
            EnvError: verifiers reports an error.
        """
        try:
            episode = self._running.result(self.timeout)
        except Exception as problem:
            raise EnvError(f"{self.name} failed: {type(problem).__name__}: {problem}") from problem
        errors = [*(episode.errors or ()), *(e for t in episode.traces for e in t.errors or ())]
        if errors:
            text = " ".join(str(errors[0].message).split())
            raise EnvError(f"{self.name} failed: {errors[0].type}: {text:.300}")
        traces = list(episode.traces)
        stop = getattr(traces[0], "stop_condition", None) if traces else None
        return float(sum(trace.reward for trace in traces)), str(stop or "")

    def _shown(self, asked: Asked) -> str:
        """The messages since the last request, and the tools at the first."""
        new = [
            message
            for message in asked.messages[self._seen :]
            if message.get("role") != "assistant"
        ]
        self._seen = len(asked.messages) + 1  # The answer will be there, too.
        parts = [_text(message.get("content")) for message in new]
        if not self._played and asked.tools:
            parts.append(f"Tools: {asked.tools}")
        return "\n\n".join(filter(None, parts))

    def _leave(self) -> None:
        bridge, self._bridge = self._bridge, None
        if bridge is not None:
            bridge.close()
        if not self._running.done():
            self._running.cancel()


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


def _forever(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
    loop.close()


def _text(content: Any) -> str:
    if isinstance(content, str) or content is None:
        return content or ""
    return "\n".join(str(part.get("text", "")) for part in content)
