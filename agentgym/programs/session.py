"""One episode of a program: its calls of the model, its limits, its rewards."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from agentgym.errors import ConfigError, ContextTooLong
from agentgym.programs.dialogue import Conversations, Dialogue, Prompt
from agentgym.programs.values import Call, Request, RequestRefused
from agentgym.rollout.env_calls import EnvFailed
from agentgym.rollout.setup import Sampled
from agentgym.types import Stop, Task
from agentgym.utils.seeds import derive

if TYPE_CHECKING:
    from agentgym.programs.player import ProgramPlayer
    from agentgym.programs.world import ProgramWorld

LONGEST_TOKEN = 128
"""Characters of the longest token that tokenizers have."""


class Session:
    """What the endpoint does for one episode."""

    def __init__(self, player: ProgramPlayer, task: Task, sample: int) -> None:
        self.player, self.task, self.sample = player, task, sample
        self.calls: list[Call] = []
        """In the order in which they were answered."""
        self.rewards: list[float] = []
        """Of each call: what the environment paid from its answer to the next."""
        self.limit: Stop | None = None
        """The limit that the last request hit; None after a request that was served."""
        self.failure: BaseException | None = None
        """What ends the episode at once: a failure of the environment or of the engine."""
        self.refusal = ""
        """The last refusal, in a line."""
        self.score: float | None = None
        """What the program reports about itself."""
        self.world: ProgramWorld | None = None
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the episode cannot continue; see ``end``."""
        self._early = 0.0
        """Paid before the first answer."""
        self._dialogue = Dialogue(player.agent)
        self._conversations: dict[str, Conversations] = {}
        self._asked: Counter[bytes] = Counter()
        self._started = 0

    async def complete(self, agent: str, request: Request) -> Call:
        """Serve one call of the model.

        Raises:
            RequestRefused: The request does not fit, or a limit of the episode is reached.
        """
        try:
            return await self._complete(agent, request)
        except RequestRefused:
            raise
        except Exception as problem:
            # The engine failed, which concerns the whole run.
            self.fail(problem)
            raise RequestRefused(f"the engine failed: {problem}", 500, "engine_error") from problem

    async def _complete(self, agent: str, request: Request) -> Call:
        if self.over.done():
            raise RequestRefused("the episode is over", 410, "episode_over")
        player = self.player
        if self._started >= player.max_calls:
            self.limit = Stop.MAX_TURNS
            raise RequestRefused(
                f"the {player.max_calls} calls of this episode are used (`--program.max-calls`)",
                400,
                "max_calls",
            )
        self._check_size(request)
        conversations = self._conversations.setdefault(agent, Conversations(self._dialogue))
        prompt = conversations.prompt(request)
        tokens = min(player.sampling.max_tokens, request.max_tokens or player.sampling.max_tokens)
        self._check_length(len(prompt.tokens), tokens)
        self._started += 1
        seed = self._seed(agent, prompt.tokens)
        sampling = replace(player.sampling, seed=seed, max_tokens=tokens)
        try:
            sampled = await player.complete(list(prompt.tokens), sampling)
        except ContextTooLong as problem:
            self.limit = Stop.MAX_TOKENS
            raise RequestRefused(str(problem), 400, "context_length_exceeded") from problem
        except asyncio.CancelledError:
            self._started -= 1  # The program has withdrawn the request.
            raise
        call = self._recorded(agent, request, prompt, sampled)
        conversations.add(request, call)
        return call

    def _recorded(self, agent: str, request: Request, read: Prompt, sampled: Sampled) -> Call:
        prompt, shown = read
        completion, forced, seconds = sampled
        if request.stop:
            completion = self._dialogue.cut(completion, request.stop)
            forced = min(forced[0], len(completion.tokens)), min(forced[1], len(completion.tokens))
        reply = self._dialogue.reply(completion, prompt, request)
        first = sum(len(call.reply.calls) for call in self.calls)
        ids = tuple(f"call{first + k:05d}" for k in range(len(reply.calls)))
        thought = self.player.agent.count_thought_tokens(completion, prompt)
        reply = reply._replace(call_ids=ids)
        call = Call(agent, prompt, completion, reply, shown, forced, thought, seconds)
        self.calls.append(call)
        self.rewards.append(self._early)
        self._early, self.limit = 0.0, None
        self.player.usage.turns += 1
        return call

    def _check_size(self, request: Request) -> None:
        """Refuse what cannot fit before it is rendered, which takes long for a very long text."""
        room = min(self.player.limits.tokens, self.player.engine.context)
        characters = sum(len(message["content"]) for message in request.messages)
        if characters > LONGEST_TOKEN * room:
            self._check_length(characters // LONGEST_TOKEN, 1)

    def _check_length(self, prompt: int, completion: int) -> None:
        room = min(self.player.limits.tokens, self.player.engine.context)
        if prompt + completion <= room:
            return
        if not self.calls and not self.player.usage.turns:
            self.fail(
                ConfigError(
                    f"the first prompt of the program has {prompt} tokens, which with {completion} "
                    f"for a completion exceed the context of {room}: raise "
                    "`--rollout.max-context-tokens`, or take a model with a longer context"
                )
            )
        self.limit = Stop.MAX_TOKENS
        raise RequestRefused(
            f"the maximum context length is {room} tokens, but {prompt} are in the messages and "
            f"{completion} for the completion: reduce the length of the messages",
            400,
            "context_length_exceeded",
        )

    def _seed(self, agent: str, prompt: tuple[int, ...]) -> int:
        """A function of the prompt, so that calls made at once do not depend on their order."""
        asked = hashlib.blake2b(f"{agent}{prompt}".encode(), digest_size=16).digest()
        self._asked[asked] += 1
        task, times = self.task, self._asked[asked]
        names = self.player.stream, task.env, task.id, task.seed, self.sample, asked.hex(), times
        return derive(*names)

    # ---- rewards and failures ----------------------------------------------------------------

    def reward(self, amount: float) -> None:
        """Pay the call that was answered last, or the first one if there is none yet."""
        if self.rewards:
            self.rewards[-1] += amount
        else:
            self._early += amount

    def rate(self, score: float) -> None:
        """The program's own score; a later one replaces it.

        Raises:
            RequestRefused: It is not a number in [0, 1].
        """
        number = isinstance(score, int | float) and not isinstance(score, bool)
        if not (number and 0 <= score <= 1):
            raise RequestRefused(f"score: expected a number from 0 to 1, got {score!r:.40}")
        self.score = float(score)

    def fail(self, problem: BaseException) -> None:
        """End the episode, because the environment or the engine failed."""
        self.failure = self.failure or problem
        self.end()

    def end(self) -> None:
        """Refuse further calls, and end those that wait."""
        if not self.over.done():
            self.over.set_result(None)

    def fail_world(self, problem: EnvFailed) -> None:
        """End the episode, because the environment failed."""
        self.fail(problem)
