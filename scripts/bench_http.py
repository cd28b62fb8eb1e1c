"""What a completion over HTTP costs this process, by the number of requests in flight.

    scripts/bench http [--in-flight 8 64 512 2048] [--repetitions 3]

A server in another process answers every request with the same completion, so what is measured is
the client: body, connection, decoding, parsing. The numbers in flight take turns, figures are
medians of CPU milliseconds per completion, and their ratio to the first. The last line is what
writing and reading JSON alone cost.
"""

from __future__ import annotations

import asyncio
import json
import math
import multiprocessing
import time
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

import tyro

from agentgym.engines.endpoint import Endpoint
from agentgym.engines.vllm.answers import parse_answer
from agentgym.types import Completion, Sampling


@dataclass(frozen=True, kw_only=True)
class Options:
    """How much is asked."""

    in_flight: tuple[int, ...] = (8, 64, 512, 2048)
    """Requests in flight."""
    prompt: int = 3000
    """Tokens of a prompt."""
    completion: int = 100
    """Tokens of a completion."""
    requests: int = 1024
    """Per measurement, at least; all that are in flight at once are asked."""
    repetitions: int = 3
    """Of every number in flight."""

    @property
    def sampling(self) -> Sampling:
        """What is asked for."""
        return Sampling(max_tokens=self.completion + 1, stop=(self.completion - 1,))

    def body(self) -> dict[str, Any]:
        """A request, with the fields that the engine sends to a vLLM server."""
        return {
            "model": "policy",
            "prompt": list(range(5000, 5000 + self.prompt)),
            "seed": 2**62,
            "temperature": 1.0,
            "max_tokens": self.completion + 1,
            "stop_token_ids": [self.completion - 1],
            "logprobs": 1,
        }

    def answer(self) -> dict[str, Any]:
        """A completion as a vLLM server with our extension writes it."""
        tokens = [f"token_id:{token}" for token in range(self.completion)]
        entropies = [f"token_id:{token + 1}" for token in range(self.completion)]
        logprobs = {
            "tokens": tokens,
            "token_logprobs": [-1.2345678] * self.completion,
            "top_logprobs": [
                {token: -1.2345678, other: 1.7654321}
                for token, other in zip(tokens, entropies, strict=True)
            ],
        }
        ids = list(range(self.completion))
        return {"choices": [{"finish_reason": "stop", "token_ids": ids, "logprobs": logprobs}]}


def serve(answer: bytes, address: Connection) -> None:
    """Answer every request alike, on a free port that is sent back."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    whole = head % len(answer) + answer

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                asked = (await reader.readuntil(b"\r\n\r\n")).lower()
            except asyncio.IncompleteReadError:
                return
            await reader.readexactly(int(asked.partition(b"content-length:")[2].split()[0]))
            writer.write(whole)
            await writer.drain()

    async def run() -> None:
        server = await asyncio.start_server(client, "127.0.0.1", 0, backlog=4096)
        address.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


async def milliseconds(endpoint: Endpoint, options: Options, in_flight: int) -> float:
    """CPU time of this process per completion."""
    body = options.body()
    parse = partial(parse_answer, sampling=options.sampling, version=0)
    gate = asyncio.Semaphore(in_flight)

    async def one() -> Completion:
        async with gate:
            return (await endpoint.post("/v1/completions", body, parse)).completion

    count = max(options.requests, in_flight)
    started = time.process_time()
    found = await asyncio.gather(*(one() for _ in range(count)))
    spent = time.process_time() - started
    assert all(len(completion.tokens) == options.completion for completion in found)
    return 1000 * spent / count


def json_alone(options: Options) -> float:
    """CPU milliseconds of encoding the request, decoding the answer and parsing it."""
    body, answer = options.body(), json.dumps(options.answer())
    started = time.process_time()
    for _ in range(options.requests):
        json.dumps(body).encode()
        parse_answer(json.loads(answer), sampling=options.sampling, version=0)
    return 1000 * (time.process_time() - started) / options.requests


def main(options: Options) -> None:
    """A line per number in flight."""
    ours, theirs = multiprocessing.Pipe()
    answer = json.dumps(options.answer()).encode()
    context = multiprocessing.get_context("spawn")
    server = context.Process(target=serve, args=(answer, theirs), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{ours.recv()}"
    found: dict[int, list[float]] = {count: [] for count in options.in_flight}
    for _ in range(options.repetitions):
        for count, values in found.items():
            values.append(asyncio.run(milliseconds(Endpoint(url), options, count)))
    server.kill()
    print(f"prompts of {options.prompt} tokens, completions of {options.completion}")
    first = math.nan
    for count, values in found.items():
        first = median(values) if math.isnan(first) else first
        print(
            f"  {count:5} in flight {median(values):6.2f} ms ({min(values):.2f}-{max(values):.2f})"
            f"  {median(values) / first:5.2f} x"
        )
    print(f"  JSON alone      {json_alone(options):6.2f} ms")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
