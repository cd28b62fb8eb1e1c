"""Samples from a chat endpoint: messages out, text back. For evaluation and data, not training."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NoReturn

from agentgym.engines import UNBOUNDED
from agentgym.engines.endpoint import Endpoint
from agentgym.engines.requests import check_sampling
from agentgym.errors import ConfigError, EngineError
from agentgym.types import Completion, Sampling

if TYPE_CHECKING:
    import torch

_ROLE = re.compile(r"<\|(system|user|assistant)\|>")


class ChatEngine:
    """Any service with OpenAI's chat completions.

    What such a service reads and writes is text; its tokens are its own. So the conversation is
    kept in tokens of a tokenizer of ours: a prompt is decoded to messages, an answer is encoded. A
    token is about a byte, and that is the unit of limits on the context; ``max_tokens`` is in the
    service's.

    A log-probability of the service's token is put on the first of our tokens that begin in it,
    others have 0, so a completion's sum is what the service says; all are NaN when it tells none,
    or none that fit its text. Entropies are NaN. The version is always 0.

    Args:
        model: Its name at the service.
        endpoint: The service, without ``/v1``.
        tokenizer: Of ``scratch.make_tokenizer``, with the template ``scratch.DIALOGUE``.
        extra: Further fields of every request; None removes one of ours.
    """

    def __init__(
        self,
        model: str,
        endpoint: Endpoint,
        tokenizer: Any,
        *,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.version = 0
        self.context = UNBOUNDED
        self._endpoint = endpoint
        self._tokenizer = tokenizer
        self._extra = dict(extra or {})
        self._marks = [*tokenizer.all_special_tokens]
        self._logprobs = True

    async def generate(self, prompt: Sequence[int], sampling: Sampling) -> Completion:
        """Send the conversation and encode the answer.

        Raises:
            ConfigError: A sampling parameter is out of range, or the prompt is no conversation.
            EngineError: The service refused the request, or gave no usable answer in time.
        """
        check_sampling(sampling)
        body = self._body(self._messages(prompt), sampling)
        read = partial(self._read, sampling=sampling)
        if self._logprobs:
            try:
                return await self._ask({**body, "logprobs": True}, read)
            except EngineError as problem:
                # Some services refuse a request for log-probabilities rather than leave them out.
                if "logprob" not in str(problem):
                    raise
                self._logprobs = False
        return await self._ask(body, read)

    def finish(self, context: Sequence[int]) -> None:
        """Nothing is kept."""

    def sleep(self) -> None:
        """There is no memory to give back."""

    def load(self, weights: Mapping[str, torch.Tensor], version: int) -> NoReturn:
        """Refused: nobody can give the service new weights.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            "a chat endpoint cannot be trained, only evaluated: train with the engine local, vllm "
            "or vllm-server"
        )

    async def _ask(self, body: dict[str, Any], read: Any) -> Completion:
        wanted = {**body, **self._extra}
        sent = {name: value for name, value in wanted.items() if value is not None}
        completion: Completion = await self._endpoint.post("/v1/chat/completions", sent, read)
        return completion

    def _body(self, messages: list[dict[str, str]], sampling: Sampling) -> dict[str, Any]:
        return {
            "model": self.model,
            "messages": messages,
            "seed": sampling.seed,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k or None,
            "max_tokens": sampling.max_tokens,
        }

    def _messages(self, prompt: Sequence[int]) -> list[dict[str, str]]:
        text = self._tokenizer.decode(list(prompt), skip_special_tokens=False)
        before, *parts = _ROLE.split(text)
        if before or not parts:
            raise ConfigError("a chat endpoint needs a prompt that a chat template has written")
        said = zip(parts[::2], parts[1::2], strict=True)
        messages = [{"role": role, "content": self._plain(content)} for role, content in said]
        # The last mark only opens the answer.
        return messages[:-1] if messages[-1] == {"role": "assistant", "content": ""} else messages

    def _plain(self, text: str) -> str:
        for mark in self._marks:
            text = text.replace(mark, "")
        return text

    def _read(self, answer: Any, *, sampling: Sampling) -> Completion:
        choice = answer["choices"][0]
        text = self._plain(choice["message"]["content"] or "")
        tokens = self._tokenizer.encode(text, add_special_tokens=False)
        told = (choice.get("logprobs") or {}).get("content")
        logprobs = self._spread(text, tokens, told)
        if choice["finish_reason"] == "stop" and sampling.stop:
            tokens, logprobs = [*tokens, sampling.stop[0]], [*logprobs, 0.0 if told else math.nan]
        return Completion(
            tuple(tokens),
            tuple(logprobs),
            (math.nan,) * len(tokens),
            self.version,
            "length" if choice["finish_reason"] == "length" else "stop",
        )

    def _spread(self, text: str, tokens: list[int], told: Any) -> list[float]:
        """The service's log-probabilities, each on the token of ours that holds its first byte."""
        nothing = [math.nan] * len(tokens)
        if not told or not tokens:
            return nothing
        pieces = [bytes(one.get("bytes") or one["token"].encode()) for one in told]
        if b"".join(pieces) != text.encode():
            return nothing
        ours = [len(self._tokenizer.decode([token]).encode()) for token in tokens]
        # Half of a character decodes to a replacement of three bytes: only whole ones are counted.
        if sum(ours) != len(text.encode()):
            return nothing
        begins = [0, *accumulate(ours)][:-1]
        logprobs = [0.0] * len(tokens)
        for start, one in zip([0, *accumulate(map(len, pieces))], told, strict=False):
            logprobs[bisect_right(begins, start) - 1] += float(one["logprob"])
        return logprobs
