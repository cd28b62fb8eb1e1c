"""Samples from a chat endpoint: messages out, text back. For evaluation and data, not training."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NoReturn

from agentgym.engines import UNBOUNDED
from agentgym.engines.chat_messages import conversation_of, make_tokenizer, text_of, without
from agentgym.engines.endpoint import Endpoint
from agentgym.engines.requests import check_sampling
from agentgym.engines.stats import ChatUsage
from agentgym.errors import ConfigError, ContextTooLong, RequestRejected
from agentgym.models.protocols import Tokenizer
from agentgym.types import Completion, Sampling

if TYPE_CHECKING:
    import torch

_SEEDS = 2**31
"""Some services read seeds as signed integers of 32 bits."""
_TOO_LONG = re.compile(
    r"context.{0,10}(length|window|size|limit)|maximum context|(prompt|input).{0,40}too long"
    r"|too many (input )?tokens|exceeds?.{0,40}(tokens|context)|reduce the length",
    re.IGNORECASE,
)


class ChatEngine:
    """Any service with OpenAI's chat completions.

    Such a service reads and writes text; its tokens are its own. So the conversation is kept in
    tokens of a local tokenizer, ``chat_messages.make_tokenizer``: a prompt is decoded to messages
    and tools, an answer is encoded. Such a token is about a byte, and that is the unit of limits on
    the context; ``max_tokens`` is in the service's tokens.

    Tools of the prompt are sent as ``tools``; calls come back as text, see ``chat_messages``. A
    service that refuses them gets them in the system prompt instead.

    A log-probability of a service's token is assigned to the local token that holds its first byte,
    others have 0, so the sum over a completion is the service's (that of the end of the turn is on
    the stop token); all are NaN if the service
    reports none, or none that match its text. Entropies are NaN. The version is always 0.

    A request field that a service refuses is replaced (``max_completion_tokens`` for
    ``max_tokens``) or left out if that does not change what is sampled: ``logprobs``, ``seed``,
    and a temperature of 1.

    Args:
        model: Its name at the service.
        endpoint: The service.
        tokenizer: Of the conversation; ``chat_messages.make_tokenizer()`` unless given.
        extra: Further fields of every request; None removes a default field.
        report: Called with one line when the service takes no tools; default: silent.
    """

    takes_adapters = False

    def __init__(
        self,
        model: str,
        endpoint: Endpoint,
        tokenizer: Tokenizer | None = None,
        *,
        extra: Mapping[str, Any] | None = None,
        report: Callable[[str], None] | None = None,
    ) -> None:
        self.model = model
        self.version = 0
        self.context = UNBOUNDED
        self.usage = ChatUsage()
        self._endpoint = endpoint
        self._path = f"{api_root(endpoint.url)}/chat/completions"
        self._tokenizer = tokenizer or make_tokenizer()
        self._extra = dict(extra or {})
        self._report = report
        self._marks = [*self._tokenizer.all_special_tokens]
        self._limit = "max_tokens"
        """Name of the field that limits a completion."""
        self._left_out: set[str] = set()
        """Fields that the service refuses."""
        self._native = True
        """The service has not refused ``tools``."""
        self._thinks = False
        """The service has returned thoughts apart from contents."""

    async def reach(self) -> None:
        """Wait until the service answers at all.

        Raises:
            EngineError: Nothing answered in time.
        """
        await self._endpoint.reach()

    async def generate(self, prompt: Sequence[int], sampling: Sampling) -> Completion:
        """Send the conversation and encode the answer.

        Raises:
            ConfigError: A sampling parameter is out of range, or the prompt is not a conversation.
            ContextTooLong: The conversation does not fit the model's context.
            EngineError: The service refused the request, or gave no usable answer in time.
        """
        check_sampling(sampling)
        parse = partial(self._parse, sampling=sampling)
        while True:
            body = self._body(prompt, sampling)
            try:
                completion, usage = await self._endpoint.post(self._path, body, parse)
            except RequestRejected as problem:
                if not self._adapt(problem, body, sampling):
                    raise _typed(problem) from problem
            else:
                self.usage = self.usage.plus(usage)
                return completion

    def finish(self, context: Sequence[int]) -> None:
        """Nothing is kept."""

    def sleep(self) -> None:
        """There is no memory to free."""

    def load(self, weights: Mapping[str, torch.Tensor], version: int) -> NoReturn:
        """Refuse: the weights of a service cannot be replaced.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            "a chat endpoint cannot be trained, only evaluated: train with the engine local, vllm "
            "or vllm-server"
        )

    # ---- requests ----------------------------------------------------------------------------

    def _body(self, prompt: Sequence[int], sampling: Sampling) -> dict[str, Any]:
        text = self._tokenizer.decode(list(prompt), skip_special_tokens=False)
        found = conversation_of(text, self._marks, native=self._native, drop_thoughts=self._thinks)
        body = {
            "model": self.model,
            "messages": found.messages,
            "tools": found.tools or None,
            "seed": sampling.seed % _SEEDS,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p if sampling.top_p < 1.0 else None,
            "top_k": sampling.top_k or None,
            self._limit: sampling.max_tokens,
            "logprobs": True,
        }
        body = {name: value for name, value in body.items() if name not in self._left_out}
        return {name: value for name, value in (body | self._extra).items() if value is not None}

    def _adapt(self, problem: RequestRejected, body: dict[str, Any], sampling: Sampling) -> bool:
        """Whether the same request can be sent in another form that the service may accept."""
        text = f"{problem.param} {problem}"
        limits = "max_tokens", "max_completion_tokens"
        if all(name in text for name in limits) and limits[0] in body:
            self._limit = limits[1]
            return True
        optional = ["logprobs", "seed"] + ["temperature"] * (sampling.temperature == 1.0)
        for name in optional:
            # "logprob is not supported" is found, too.
            if name.rstrip("s") in text and name in body and name not in self._extra:
                self._left_out.add(name)
                return True
        if "tools" in body and "tools" not in self._extra and "tool" in text.lower():
            self._native = False
            if self._report is not None:
                self._report(f"tools are described in the system prompt: {problem}")
            return True
        return False

    # ---- answers -----------------------------------------------------------------------------

    def _parse(self, answer: Any, *, sampling: Sampling) -> tuple[Completion, ChatUsage]:
        choice = answer["choices"][0]
        usage = _usage_of(answer.get("usage") or {})
        reason = choice.get("finish_reason")
        cut = reason in ("length", "max_tokens") or (
            reason is None and usage.completion_tokens >= sampling.max_tokens
        )
        message = choice["message"]
        self._thinks = self._thinks or bool(
            message.get("reasoning_content") or message.get("reasoning")
        )
        text = without(text_of(message, cut=cut), self._marks)
        tokens = self._tokenizer.encode(text, add_special_tokens=False)
        reported = (choice.get("logprobs") or {}).get("content")
        logprobs, end = self._spread(text, tokens, reported)
        if not cut and sampling.stop:
            tokens = [*tokens, sampling.stop[0]]
            logprobs = [*logprobs, end]
        completion = Completion(
            tuple(tokens),
            tuple(logprobs),
            (math.nan,) * len(tokens),
            self.version,
            "length" if cut else "stop",
        )
        return completion, usage._replace(cut=int(cut))

    def _spread(self, text: str, tokens: list[int], reported: Any) -> tuple[list[float], float]:
        """The service's log-probabilities, each on the local token that holds its first byte.

        Returns:
            One per token, and that of the end of the turn, which some services report after the
            text, else 0.
        """
        nothing = [math.nan] * len(tokens), math.nan
        if not reported or not tokens:
            return nothing
        pieces = [bytes(one.get("bytes") or one["token"].encode()) for one in reported]
        size = len(text.encode())
        whole = b"".join(pieces)
        if whole[:size] != text.encode() or len(whole) - len(pieces[-1]) > size:
            return nothing
        lengths = [len(self._tokenizer.decode([token]).encode()) for token in tokens]
        # Part of a character decodes to a replacement of three bytes: the sum differs then.
        if sum(lengths) != size:
            return nothing
        begins = [0, *accumulate(lengths)][:-1]
        logprobs, end = [0.0] * len(tokens), 0.0
        for start, one in zip([0, *accumulate(map(len, pieces))], reported, strict=False):
            if start >= size:
                end += float(one["logprob"])
            else:
                logprobs[bisect_right(begins, start) - 1] += float(one["logprob"])
        return logprobs, end


def api_root(url: str) -> str:
    """Path of the API at an address: none if the address names a version itself, else ``/v1``.

    Examples:
        >>> api_root("http://127.0.0.1:8000"), api_root("https://host.example/v1beta/openai")
        ('/v1', '')
    """
    return "" if re.search(r"/v\d+[a-z]*\d*(/|$)", url) else "/v1"


def _typed(problem: RequestRejected) -> Exception:
    """The rejection as ``ContextTooLong`` if that is its reason."""
    too_long = problem.code == "context_length_exceeded" or (
        problem.status in (400, 413, 422) and _TOO_LONG.search(str(problem))
    )
    return ContextTooLong(str(problem)) if too_long else problem


def _usage_of(found: Mapping[str, Any]) -> ChatUsage:
    """Usage as the service counts it; missing numbers are 0."""
    prompt = found.get("prompt_tokens_details") or {}
    completion = found.get("completion_tokens_details") or {}
    return ChatUsage(
        requests=1,
        prompt_tokens=int(found.get("prompt_tokens") or 0),
        cached_tokens=int(prompt.get("cached_tokens") or 0),
        completion_tokens=int(found.get("completion_tokens") or 0),
        reasoning_tokens=int(completion.get("reasoning_tokens") or 0),
        dollars=float(found.get("cost") or 0.0),
    )
