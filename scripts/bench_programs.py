"""What the endpoint of agent programs costs: tokens per second against the native agent.

    scripts/bench programs [--episodes 64] [--turns 6] [--completion 32] [--model default]

The native agent and a program play the same conversations on the same engine, in turn, several
times; figures are medians. The program runs in one process of its own, as programs do, and calls
the model and the world over HTTP. CPU per turn is that of the process of the run, for one call of
the model and one of the world; what the program's process spends, its HTTP client above all, stands
beside it and is part of the wall-clock time alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import tyro
from made import Size, made

from agentgym import Opening, Outcome, Task, TextEnv
from agentgym.engines.local.engine import LocalEngine
from agentgym.engines.scripted import ScriptedEngine
from agentgym.models.loading import load_model, load_tokenizer
from agentgym.programs.player import ProgramPlayer
from agentgym.programs.process import Function
from agentgym.programs.server import ProgramServer
from agentgym.programs.values import Access
from agentgym.rollout.action_formats import NativeCalls, Plain
from agentgym.rollout.agent import ChatAgent
from agentgym.rollout.player import Player
from agentgym.rollout.setup import EpisodeLimits
from agentgym.types import Sampling, Trajectory

WORDS = "Higher. Lower. Guess. Find the number. Found."


@dataclass(frozen=True, kw_only=True)
class Options:
    """How much is played."""

    episodes: int = 64
    """At once."""
    turns: int = 6
    completion: int = 32
    """Tokens of a turn."""
    observation: int = 12
    """Words that the world answers with."""
    repetitions: int = 3
    model: Size = "default"
    """One that is made here; a model of any use is larger than the default."""
    pretrained: Path | None = None
    """A Hugging Face folder instead; `scripts/pretrained` makes one."""


class Talk(TextEnv):
    """Answers with random words, so many times."""

    def __init__(self, turns: int, words: int) -> None:
        super().__init__()
        self.turns, self.words = turns, words

    def tasks(self, split: str) -> tuple[str, ...]:
        """One task."""
        return ("talk",)

    def start(self, task: str, rng: np.random.Generator) -> Opening:
        """Begin to count."""
        self.left, self.rng = self.turns, rng
        return Opening(self._say(), "Talk.")

    def act(self, action: str) -> Outcome:
        """Answer, whatever the message."""
        self.left -= 1
        return Outcome(self._say(), done=self.left == 0)

    def _say(self) -> str:
        return " ".join(self.rng.choice(WORDS.split(), self.words))


CLIENT = """
import asyncio, json, sys

async def post(streams, url, key, body):
    host, _, path = url.removeprefix("http://").partition("/")
    reader, writer = streams
    data = json.dumps(body).encode()
    head = f"POST /{path} HTTP/1.1\\r\\nHost: {host}\\r\\nAuthorization: Bearer {key}\\r\\n"
    writer.write(f"{head}Content-Length: {len(data)}\\r\\n\\r\\n".encode() + data)
    size = 0
    while (line := await reader.readline()).strip():
        if line.lower().startswith(b"content-length"):
            size = int(line.split(b":")[1])
    return json.loads(await reader.readexactly(size))

async def play(e, out):
    port = int(e["model"].split(":")[2].split("/")[0])
    streams = await asyncio.open_connection("127.0.0.1", port)
    first = e["goal"] + "\\n" + e["observation"]
    messages, done = [{"role": "user", "content": first}], False
    while not done:
        answer = await post(streams, e["model"] + "/chat/completions", e["key"],
                            {"messages": messages})
        answer = answer["choices"][0]["message"]
        result = await post(streams, e["world"] + "/step", "", {"action": answer["content"]})
        messages += [answer, {"role": "user", "content": result["observation"]}]
        done = result["done"]
    streams[1].close()
    print(e["number"], flush=True)

async def main():
    loop, running = asyncio.get_running_loop(), set()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        running.add(asyncio.ensure_future(play(json.loads(line), None)))

asyncio.run(main())
"""


class Elsewhere:
    """Plays all episodes in one other process."""

    async def start(self) -> None:
        """Start the process."""
        pipe = asyncio.subprocess.PIPE
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CLIENT, stdin=pipe, stdout=pipe
        )
        self.waiting: dict[int, asyncio.Future[None]] = {}
        self.listening = asyncio.create_task(self._listen())

    async def __call__(self, access: Access) -> None:
        """Have one episode played."""
        assert self.process.stdin is not None
        number = len(self.waiting)
        self.waiting[number] = asyncio.get_running_loop().create_future()
        about = {
            "number": number,
            "model": access.base_url,
            "key": access.api_key,
            "world": access.world_url,
            "goal": access.goal,
            "observation": access.observation,
        }
        self.process.stdin.write(json.dumps(about).encode() + b"\n")
        await self.waiting[number]

    def cpu(self) -> float:
        """CPU seconds of the process so far; 0 where the system does not tell."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def _listen(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.waiting[int(line)].set_result(None)

    async def stop(self) -> None:
        """End the process."""
        self.listening.cancel()
        self.process.kill()
        await self.process.wait()


Play = Callable[[Task, int], Awaitable[Trajectory]]


async def timed(play: Play, options: Options) -> tuple[float, float, int, int]:
    """Wall-clock and CPU seconds, sampled tokens and turns of one round."""
    wall, cpu = time.perf_counter(), time.process_time()
    task = Task("talk", "talk")
    played = await asyncio.gather(*(play(task, sample) for sample in range(options.episodes)))
    assert all(episode.stop.scored for episode in played), [e.error for e in played]
    turns = [turn for episode in played for turn in episode.turns]
    tokens = sum(len(turn.completion.tokens) for turn in turns)
    return time.perf_counter() - wall, time.process_time() - cpu, tokens, len(turns)


async def compare(options: Options) -> None:
    """Both comparisons."""
    room = 256 + options.turns * (options.completion + 8 * options.observation)
    if options.pretrained:
        path = str(options.pretrained)
        tokenizer, model = load_tokenizer(path), load_model(path)
    else:
        tokenizer, model = made(options.model, context=room)
    fixed: Sequence[int] = tokenizer.encode(WORDS * 20)[: options.completion - 1]
    free = ScriptedEngine(lambda prompt, sampling: (*fixed, *sampling.stop[:1]))
    elsewhere = Elsewhere()
    await elsewhere.start()
    async with ProgramServer() as server:
        shared: dict[str, Any] = {
            "make_env": lambda task: Talk(options.turns, options.observation),
            "limits": EpisodeLimits(turns=options.turns, tokens=room),
            "sampling": Sampling(max_tokens=options.completion),
            "concurrency": options.episodes,
        }

        def ways(engine: Any) -> dict[str, Play]:
            native = Player(
                agent=ChatAgent(tokenizer, action_format=Plain(), system_prompt=""),
                engine=engine,
                **shared,
            )
            program = ProgramPlayer(
                agent=ChatAgent(tokenizer, action_format=NativeCalls()),
                engine=engine,
                program=Function(elsewhere),
                server=server,
                **shared,
            )
            return {"native agent": native, "agent program": program}

        engine = LocalEngine(model, slots=options.episodes, context=room)
        for name, one in (("", engine), ("with an engine that costs nothing\n", free)):
            before = elsewhere.cpu()
            print(name, end="")
            await report(ways(one), options)
            turns = options.episodes * options.turns * (options.repetitions + 1)
            spent = 1000 * (elsewhere.cpu() - before) / turns
            print(f"  the program's own process spends {spent:.2f} ms CPU per turn")
    await elsewhere.stop()


async def report(ways: dict[str, Play], options: Options) -> None:
    """A line per way."""
    found: dict[str, list[tuple[float, float, int, int]]] = {name: [] for name in ways}
    for round_ in range(options.repetitions + 1):
        for name, play in ways.items():
            one = await timed(play, options)
            if round_:  # The first warms up.
                found[name].append(one)
    speeds = {name: median(t / w for w, _, t, _ in rounds) for name, rounds in found.items()}
    first = next(iter(speeds.values()))
    for name, rounds in found.items():
        cpu = median(1000 * c / n for _, c, _, n in rounds)
        print(
            f"  {name:15} {speeds[name]:8.0f} tokens/s {speeds[name] / first:6.1%}"
            f"  {cpu:6.2f} ms CPU per turn",
            flush=True,
        )


def main(options: Options) -> None:
    """Print both comparisons."""
    print(f"{options.episodes} episodes of {options.turns} turns, {options.completion} tokens each")
    asyncio.run(compare(options))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
