"""Agent programs as people have them: three agent frameworks, and the clients of two services.

The endpoint, the frameworks and the training steps are real. What the policy writes is decided by
the test, with the log-probabilities that a small model gives to it.
"""

import asyncio
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

pytest.importorskip("openai")

import torch

from agentgym import Task
from agentgym.batch.collate import collate
from agentgym.engines.requests import make_completion
from agentgym.env.registry import EnvFactory, world
from agentgym.models import from_scratch
from agentgym.models.policy import Policy
from agentgym.programs.player import ProgramPlayer
from agentgym.programs.process import load_program
from agentgym.programs.server import ProgramServer
from agentgym.rollout.action_formats import NativeCalls
from agentgym.rollout.agent import ChatAgent
from agentgym.rollout.setup import EpisodeLimits
from agentgym.settings import OptimizerSettings, ProgramSettings, ScratchSettings
from agentgym.training.learner import Learner
from agentgym.training.trainer import Trainer
from agentgym.types import Sampling
from agentgym_trainers.grpo import GRPO

pytestmark = pytest.mark.filterwarnings("ignore")
ENV = "agentgym/DeepSearch-v0"
KWARGS = {"size": 200, "hops": 1}
PAGE = Path(__file__).parents[2] / "docs/how-to/agent-programs.md"


class Forced:
    """An engine whose tokens a function chooses, with the log-probabilities of a model."""

    takes_adapters = False

    def __init__(self, model, respond):
        self.model, self.respond, self.version, self.context = model, respond, 0, 8192

    async def generate(self, prompt, sampling):
        tokens = list(self.respond(prompt, sampling))
        with torch.no_grad():
            read = torch.tensor([[*prompt, *tokens]])
            logits = self.model(read).logits[0, len(prompt) - 1 : -1].float()
        found = torch.log_softmax(logits / sampling.temperature, -1)
        chosen = found.gather(1, torch.tensor(tokens)[:, None])[:, 0]
        entropies = -(found.exp() * found).sum(-1)
        columns = tokens, chosen.tolist(), entropies.tolist(), [self.version] * len(tokens)
        return make_completion(*columns, "stop")

    def finish(self, context):
        pass

    def sleep(self):
        pass

    def load(self, weights, version):
        self.model.load_state_dict(weights, strict=False)
        self.version = version


class World:
    """The tools of the environment, as a program reaches them over HTTP."""

    def __init__(self, access):
        self.url = access.world_url

    async def call(self, name, **arguments):
        async with httpx.AsyncClient(timeout=60) as client:
            return self._read(
                await client.post(f"{self.url}/call", json=self._body(name, arguments))
            )

    def call_now(self, name, **arguments):
        body = self._body(name, arguments)
        return self._read(httpx.post(f"{self.url}/call", json=body, timeout=60))

    @staticmethod
    def _body(name, arguments):
        return {"name": name, "arguments": arguments}

    @staticmethod
    def _read(response):
        assert response.status_code == 200, response.text
        return response.json()["observation"]


async def openai_agents(access):
    from agents import Agent, OpenAIResponsesModel, RunConfig, Runner, function_tool
    from openai import AsyncOpenAI

    there = World(access)

    @function_tool
    async def search(query: str) -> str:
        """Find pages."""
        return await there.call("search", query=query)

    @function_tool
    async def answer(result: str) -> str:
        """Answer the question."""
        return await there.call("answer", result=result)

    async with AsyncOpenAI(base_url=access.base_url, api_key=access.api_key) as client:
        model = OpenAIResponsesModel(model="policy", openai_client=client)
        agent = Agent(
            name="searcher", instructions="Use tools.", tools=[search, answer], model=model
        )
        await Runner.run(agent, access.goal, run_config=RunConfig(tracing_disabled=True))


async def langgraph(access):
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI
    from langgraph.prebuilt import create_react_agent

    there = World(access)

    @tool
    async def search(query: str) -> str:
        """Find pages."""
        return await there.call("search", query=query)

    @tool
    async def answer(result: str) -> str:
        """Answer the question."""
        return await there.call("answer", result=result)

    model = ChatOpenAI(
        model="policy", base_url=access.base_url, api_key=access.api_key, streaming=True
    )
    graph = create_react_agent(model, [search, answer])
    await graph.ainvoke({"messages": [("user", access.goal)]})


def smolagents(access):
    from smolagents import OpenAIServerModel, ToolCallingAgent, tool

    there = World(access)

    @tool
    def search(query: str) -> str:
        """Find pages.

        Args:
            query: Words.
        """
        return there.call_now("search", query=query)

    @tool
    def answer(result: str) -> str:
        """Answer the question.

        Args:
            result: The answer.
        """
        return there.call_now("answer", result=result)

    model = OpenAIServerModel("policy", api_base=access.base_url, api_key=access.api_key)
    agent = ToolCallingAgent(tools=[search, answer], model=model, max_steps=4, verbosity_level=0)
    agent.run(access.goal)


@pytest.fixture(scope="module")
def tokenizer():
    texts = ["Answer this question from the encyclopaedia. search answer Done. system user"] * 20
    made = from_scratch.make_tokenizer(texts, 400)
    made.chat_template = from_scratch.DIALOGUE
    return made


def small(tokenizer):
    shape = ScratchSettings(
        hidden_size=32, num_layers=1, num_heads=2, num_kv_heads=1, intermediate_size=64
    )
    return from_scratch.make_model(tokenizer, shape, context=8192, seed=1)


def right_answers():
    """The answer of each question, which the scripted policy gives now and then."""
    bare = world(ENV, **KWARGS)
    found = {}
    for task in bare.tasks("train")[:2]:
        _, info = bare.reset(seed=0, options={"task": task})
        last = bare.oracle()[-1]
        question = info["goal"].split("\n\n")[1]
        found[question] = re.search(r"<answer>(.*)</answer>", last)[1]
    return found


def policy(tokenizer):
    """Searches, answers rightly or wrongly as the seed says, then ends."""
    answers = right_answers()

    def say(prompt, sampling):
        text = tokenizer.decode(prompt)
        question = next(q for q in answers if q in text)
        step = text.count("<|assistant|>") - 1
        given = answers[question] if sampling.seed % 2 else "nobody"
        calls = (
            ("search", {"query": "town"}),
            ("answer", {"result": given}),
            ("final_answer", {"answer": "done"}),
        )
        if step > 1 and "final_answer" not in text:
            written = "Done."
        else:
            name, arguments = calls[min(step, 2)]
            pairs = json.dumps(arguments)
            written = f'<tool_call>{{"name": "{name}", "arguments": {pairs}}}</tool_call>'
        return (*tokenizer.encode(written), *agent_stop(tokenizer))

    return say


def agent_stop(tokenizer):
    return ChatAgent(tokenizer, action_format=NativeCalls()).stop[:1]


ROWS = {"openai_agents": 1, "langgraph": 1, "smolagents": 3}
"""Rows of an episode: smolagents rewrites what the model wrote, so each call starts a new row."""


@pytest.mark.parametrize("name", ROWS)
def test_a_framework_is_trained_by_grpo(tokenizer, name):
    model = small(tokenizer)
    engine = Forced(small(tokenizer), policy(tokenizer))
    tasks = [Task(ENV, task) for task in world(ENV, **KWARGS).tasks("train")[:2]]

    async def run():
        async with ProgramServer() as server:
            player = ProgramPlayer(
                agent=ChatAgent(tokenizer, action_format=NativeCalls()),
                engine=engine,
                make_env=EnvFactory(env=ENV, kwargs=KWARGS, max_turns=8),
                program=load_program(globals()[name]),
                server=server,
                settings=ProgramSettings(timeout=120),
                limits=EpisodeLimits(turns=8, tokens=8192),
                sampling=Sampling(max_tokens=96),
                retries=0,
            )
            learner = Learner(Policy(model), OptimizerSettings(), seed=0, horizon=2)
            trainer = Trainer(GRPO(group_size=4).build(), learner, player)
            return [await trainer.run_step(tasks) for _ in range(2)]

    for step in asyncio.run(run()):
        episodes = [episode for group in step.groups for episode in group]
        assert all(episode.stop.scored for episode in episodes), [e.error for e in episodes]
        assert {len(list(episode.rows())) for episode in episodes} == {ROWS[name]}
        assert {len(episode.turns) for episode in episodes} == {3}
        assert {episode.reward for episode in episodes} == {0.0, 1.0}
        assert step.metrics["policy/mismatch"] < 1e-4
        assert step.metrics["update/grad_norm"] > 0
    batch = collate(step.groups)
    sampled = sum(len(t.completion.tokens) for e in episodes for t in e.turns)
    assert int(batch.mask.sum()) == sampled


async def ask_everyone(access):
    """The same question through every client and form, whole and as a stream."""
    from anthropic import AsyncAnthropic
    from openai import AsyncOpenAI

    tool = {"name": "search", "description": "", "parameters": {"type": "object"}}
    question = [{"role": "user", "content": "Go."}]
    found = {}
    async with AsyncOpenAI(base_url=access.base_url, api_key=access.api_key) as client:
        chat = {
            "model": "m",
            "messages": question,
            "tools": [{"type": "function", "function": tool}],
        }
        answer = await client.chat.completions.create(**chat)
        (call,) = answer.choices[0].message.tool_calls
        found["chat"] = call.function.name, call.function.arguments
        async with client.chat.completions.stream(**chat) as stream:
            answer = await stream.get_final_completion()
        (call,) = answer.choices[0].message.tool_calls
        found["chat stream"] = call.function.name, call.function.arguments
        items = {"model": "m", "input": "Go.", "tools": [{"type": "function", **tool}]}
        answer = await client.responses.create(**items)
        found["responses"] = answer.output[-1].name, answer.output[-1].arguments
        async with client.responses.stream(**items) as stream:
            answer = await stream.get_final_response()
        found["responses stream"] = answer.output[-1].name, answer.output[-1].arguments
        found["models"] = [each.id async for each in client.models.list()]
    url = access.base_url.removesuffix("/v1")
    async with AsyncAnthropic(base_url=url, api_key=access.api_key) as client:
        schema = {"name": "search", "input_schema": {"type": "object"}}
        asked = {"model": "m", "max_tokens": 64, "messages": question, "tools": [schema]}
        answer = await client.messages.create(**asked)
        found["anthropic"] = answer.content[-1].name, answer.content[-1].input
        async with client.messages.stream(**asked) as stream:
            answer = await stream.get_final_message()
        found["anthropic stream"] = answer.content[-1].name, answer.content[-1].input
    FOUND.update(found)


FOUND = {}


def test_every_client_reads_the_same_call(tokenizer):
    agent = ChatAgent(tokenizer, action_format=NativeCalls())
    call = '<tool_call>{"name": "search", "arguments": {"query": "town"}}</tool_call>'
    engine = Forced(small(tokenizer), lambda p, s: (*tokenizer.encode(call), *agent.stop[:1]))

    async def run():
        async with ProgramServer() as server:
            player = ProgramPlayer(
                agent=agent,
                engine=engine,
                make_env=EnvFactory(env="agentgym/Hotter-v0"),
                program=load_program(ask_everyone),
                server=server,
                sampling=Sampling(max_tokens=64),
                retries=0,
            )
            return await player(Task("agentgym/Hotter-v0", "hotter-1"), 0)

    episode = asyncio.run(run())
    assert episode.stop.scored, episode.error
    assert FOUND.pop("models") == ["policy"]
    text = {name: found for name, found in FOUND.items() if "anthropic" not in name}
    assert set(text.values()) == {("search", '{"query": "town"}')} and len(text) == 4
    assert FOUND["anthropic"] == FOUND["anthropic stream"] == ("search", {"query": "town"})
    assert len(episode.turns) == 6 and len({t.completion.tokens for t in episode.turns}) == 1


def test_the_program_of_the_documentation_plays(tokenizer, tmp_path):
    text = re.search(r"```python\n(# my_agent\.py\n.*?)```", PAGE.read_text(), re.DOTALL)[1]
    assert len(text.splitlines()) <= 24
    (tmp_path / "my_agent.py").write_text(text)
    agent = ChatAgent(tokenizer, action_format=NativeCalls())
    engine = Forced(small(tokenizer), lambda p, s: (*tokenizer.encode("50"), *agent.stop[:1]))

    async def run():
        async with ProgramServer() as server:
            player = ProgramPlayer(
                agent=agent,
                engine=engine,
                make_env=EnvFactory(env="agentgym/Hotter-v0", max_turns=3),
                program=load_program(f"{sys.executable} {tmp_path / 'my_agent.py'}"),
                server=server,
                sampling=Sampling(max_tokens=64),
                retries=0,
            )
            return await player(Task("agentgym/Hotter-v0", "hotter-1"), 0)

    episode = asyncio.run(run())
    assert episode.stop.scored, episode.error
    assert [t.fresh for t in episode.turns] == [True, False, False]
    assert replace(episode.turns[0], reward=0.0).action == "50"
