"""Plays episodes by running an agent program; stands where the usual player stands."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, NoReturn

from agentgym.errors import ConfigError
from agentgym.programs.process import Program, ProgramFailed
from agentgym.programs.server import ProgramServer
from agentgym.programs.session import Session
from agentgym.programs.trace import turns_of
from agentgym.programs.values import Access
from agentgym.programs.world import ProgramWorld
from agentgym.rollout.agent import ChatAgent
from agentgym.rollout.env_calls import EnvFailed, env_call
from agentgym.rollout.player import Player
from agentgym.settings import ProgramSettings
from agentgym.types import Stop, Task, Trajectory, Turn
from agentgym.utils.concurrency import cancel


@dataclass(kw_only=True)
class ProgramPlayer(Player):
    """A player that runs a program per episode.

    The program decides what the policy reads. Crashes, hangs and failures of the environment are
    attempts that do not count, as with any broken environment.
    """

    agent: ChatAgent
    program: Program
    server: ProgramServer
    settings: ProgramSettings = field(default_factory=ProgramSettings)

    @property
    def max_calls(self) -> int:
        """Calls of the model in an episode."""
        return self.settings.max_calls or self.limits.turns

    async def begin(self, task: Task, sample: int) -> NoReturn:
        """Refuse: a program cannot be copied in the middle of an episode.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(CANNOT_BRANCH)

    async def attempt(self, task: Task, sample: int) -> Trajectory:
        """Play one episode once."""
        session = Session(self, task, sample)
        env = None
        try:
            try:
                env = await env_call(self.executor.open(self.make_env, task))
                start = await env_call(env.reset(task))
            except EnvFailed as problem:
                return Trajectory(task, sample, "", "", (), problem.stop, error=str(problem))
            session.world = ProgramWorld(env, start, session.reward, session.fail_world)
            ending = await self._run(session)
            return self._trajectory(session, ending)
        finally:
            session.end()
            for call in session.calls:
                self.engine.finish(call.context)
            if env is not None:
                await env.close()

    async def _run(self, session: Session) -> _Ending:
        """Run the program until it ends, or until the episode cannot continue."""
        with self.server.granted(session, self.settings.agents) as keys:
            running = asyncio.ensure_future(self.program(self._access(session, keys)))
            first: set[asyncio.Future[Any]] = {session.over, running}
            allowed = self.limits.seconds
            patience = min(self.settings.timeout, allowed or self.settings.timeout)
            try:
                await asyncio.wait(first, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                finished = running.done()
            finally:
                session.end()
                await cancel([running])
        if session.failure is not None:
            return _failed(session.failure)
        if not finished:
            if allowed is not None and allowed <= self.settings.timeout:
                return _Ending(Stop.MAX_TIME)
            seconds = f"{self.settings.timeout:g} s (`--program.timeout`)"
            return _Ending(Stop.TOOL_TIMEOUT, f"the program did not end within {seconds}")
        return self._ended(session, running)

    def _ended(self, session: Session, running: asyncio.Future[float | None]) -> _Ending:
        """How a program ended by itself."""
        after = f" (after: {session.refusal})" if session.refusal else ""
        try:
            score = running.result()
        except ProgramFailed as problem:
            if session.limit is not None:
                return _Ending(session.limit)
            return _Ending(problem.stop, f"{problem}{after}")
        if score is not None:
            session.rate(score)
        if not session.calls and session.limit is None:
            return _Ending(Stop.ENV_ERROR, f"the program ended without a call of the model{after}")
        if self.settings.reward == "program" and session.score is None and session.limit is None:
            return _Ending(
                Stop.ENV_ERROR, "the program ended without a score, which `program.reward` names"
            )
        world = session.world
        assert world is not None
        cut = world.truncated and not world.terminated
        return _Ending(session.limit or (Stop.MAX_TURNS if cut else Stop.TERMINATED))

    def _trajectory(self, session: Session, ending: _Ending) -> Trajectory:
        world = session.world
        assert world is not None
        score, won = float(world.info.get("score", 0.0)), bool(world.info.get("won", False))
        rewards = list(session.rewards)
        self.usage.user_tokens += int(world.info.get("user_tokens", 0))
        played = Trajectory(
            task=session.task,
            sample=session.sample,
            goal=world.goal,
            opening=world.observation,
            turns=turns_of(session.calls, rewards, self.settings.trained),
            stop=ending.stop,
            score=score,
            won=won,
            task_type=str(world.info.get("task_type", "")),
            error=ending.error,
            manual=world.manual,
        )
        if self.settings.reward == "world" or not ending.stop.scored:
            return played
        return _rated(played, session.score or 0.0)

    def _access(self, session: Session, keys: dict[str, str]) -> Access:
        world = session.world
        assert world is not None
        return Access(
            base_url=f"{self.server.url}/v1",
            keys={name: keys[name] for name in self.settings.agents},
            world_url=f"{self.server.url}/worlds/{keys['']}",
            task=session.task.id,
            sample=session.sample,
            seed=session.task.seed,
            goal=world.goal,
            observation=world.observation,
            manual=world.manual,
            tools=world.tools,
        )


CANNOT_BRANCH = (
    "this algorithm forks running episodes, and an agent program cannot be copied in the middle of "
    "one: choose one that plays them from the start, such as grpo or gigpo"
)
"""Why an algorithm does not fit an agent program."""


class _Ending(NamedTuple):
    stop: Stop
    error: str = ""


def _failed(problem: BaseException) -> _Ending:
    """A failure of the environment is an ending; one of the engine concerns the whole run."""
    if isinstance(problem, EnvFailed):
        return _Ending(problem.stop, str(problem))
    raise problem


def _rated(played: Trajectory, score: float) -> Trajectory:
    """The episode with a score of its own instead of the environment's rewards."""
    turns: Sequence[Turn] = [replace(turn, reward=0.0) for turn in played.turns]
    turns = [*turns[:-1], *(replace(turn, reward=score) for turn in turns[-1:])]
    return replace(played, turns=tuple(turns), score=score, won=score >= 1.0)
