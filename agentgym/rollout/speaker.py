"""An engine as the speaker behind a simulated user (``agentgym.tools.user``)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from agentgym.engines import Engine
from agentgym.errors import EnvError, EnvTimeout
from agentgym.rollout.chat_template import ChatTemplate
from agentgym.rollout.env_calls import one_line
from agentgym.tools.limits import event_loop
from agentgym.tools.speakers import Message, Reply
from agentgym.types import Sampling

if TYPE_CHECKING:
    from agentgym.models.protocols import Tokenizer


class EngineSpeaker:
    """Speaks with an engine of its own and constant weights.

    The engine runs in the event loop of the async tools, so it must not be that of the agent.
    Thoughts are not part of the reply.

    Args:
        engine: Such as a ``LocalEngine``.
        tokenizer: Of its model, with a chat template.
        sampling: How a message is sampled; seed and stop tokens are set here.
        timeout: Seconds for one message.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        *,
        sampling: Sampling | None = None,
        timeout: float = 120.0,
    ) -> None:
        self.engine, self.tokenizer, self.timeout = engine, tokenizer, timeout
        self.template = ChatTemplate(tokenizer)
        stop = self.template.stop_tokens()
        self.sampling = replace(sampling or Sampling(max_tokens=128), stop=stop)

    def __call__(self, messages: Sequence[Message], seed: int) -> Reply:
        """The next message.

        Raises:
            EnvTimeout: There is none in time.
            EnvError: The engine failed.
        """
        prompt = self.template.encode(self.template.render(list(messages)))
        future = asyncio.run_coroutine_threadsafe(self._generate(prompt, seed), event_loop())
        try:
            completion = future.result(self.timeout)
        except TimeoutError:
            future.cancel()
            raise EnvTimeout(
                f"the user's engine did not answer within {self.timeout:g} s"
            ) from None
        except Exception as problem:
            raise EnvError(f"the user's engine failed: {one_line(problem)}") from problem
        tokens = [token for token in completion.tokens if token not in self.sampling.stop]
        text = self.tokenizer.decode(tokens, skip_special_tokens=False)
        opened = self.template.opens_thought
        _, spoken, closed = self.template.thoughts.split(text, opened=opened)
        return Reply(spoken.strip() if closed else "", len(prompt), len(completion.tokens))

    async def _generate(self, prompt: Sequence[int], seed: int) -> Any:
        completion = await self.engine.generate(prompt, replace(self.sampling, seed=seed))
        self.engine.finish([*prompt, *completion.tokens])
        return completion
