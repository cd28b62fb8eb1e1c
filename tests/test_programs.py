"""Agent programs as the player: a real endpoint over HTTP, real processes, exact tokens."""

import asyncio
import json
import random
import re
import socket
import sys
from dataclasses import fields

import httpx
import pytest
from processes import alive

from agentgym import Stop, Task, make
from agentgym.engines.scripted import ScriptedEngine
from agentgym.errors import ConfigError, ContextTooLong, MalformedAction, MissingExtra
from agentgym.programs import reading
from agentgym.programs.marks import Marks
from agentgym.programs.player import ProgramPlayer
from agentgym.programs.process import load_program
from agentgym.programs.server import ProgramServer
from agentgym.programs.values import Request
from agentgym.rollout.action_formats import NativeCalls, Tags
from agentgym.rollout.agent import ChatAgent
from agentgym.rollout.player import Player
from agentgym.rollout.setup import EpisodeLimits
from agentgym.settings import ProgramSettings
from agentgym.types import Sampling

TASK = Task("agentgym/Hotter-v0", "hotter-3")


@pytest.fixture
def native(tokenizer):
    return ChatAgent(tokenizer, action_format=NativeCalls())


def bisect(agent):
    """A perfect player that reads the context as text."""

    def say(prompt, sampling):
        low, high = 1, 100
        text = agent.tokenizer.decode(prompt)
        for guess, hint in re.findall(r"<action>(\d+)</action>.*?(Higher|Lower)\.", text):
            low, high = (int(guess) + 1, high) if hint == "Higher" else (low, int(guess) - 1)
        return agent.encode_action(str((low + high) // 2))

    return say


def play(agent, program, say, *, samples=1, task=TASK, settings=None, world=None, **kwargs):
    """Episodes of one task, side by side."""

    async def run():
        async with ProgramServer() as server:
            player = ProgramPlayer(
                agent=agent,
                engine=say if not callable(say) else ScriptedEngine(say),
                make_env=world or (lambda t: make(t.env)),
                program=load_program(program),
                server=server,
                settings=settings or ProgramSettings(),
                **kwargs,
            )
            return await asyncio.gather(*(player(task, k) for k in range(samples)))

    return asyncio.run(run())


class Client:
    """What a program does by hand."""

    def __init__(self, access, agent=None):
        key = access.api_key if agent is None else access.keys[agent]
        headers = {"Authorization": f"Bearer {key}"}
        self.model = httpx.AsyncClient(base_url=access.base_url, headers=headers, timeout=60)
        self.world = httpx.AsyncClient(base_url=access.world_url, timeout=60)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *raised):
        await self.model.aclose()
        await self.world.aclose()

    async def ask(self, messages, **more):
        body = {"model": "policy", "messages": messages, **more}
        response = await self.model.post("/chat/completions", json=body)
        assert response.status_code == 200, response.text
        return response.json()["choices"][0]["message"]

    async def step(self, action):
        response = await self.world.post("/step", json={"action": action})
        assert response.status_code == 200, response.text
        return response.json()


async def guesser(access):
    """The native loop, written as a program."""
    start = f"{access.goal}\n{access.observation}"
    messages = [{"role": "system", "content": access.manual}, {"role": "user", "content": start}]
    async with Client(access) as client:
        while True:
            answer = await client.ask(messages)
            messages.append({"role": "assistant", "content": answer["content"]})
            try:
                result = await client.step(Tags().parse(answer["content"]))
            except MalformedAction as problem:
                result = {"observation": str(problem), "done": False}
            if result["done"]:
                return
            messages.append({"role": "user", "content": result["observation"]})


def test_a_program_plays_an_episode_as_one_row(agent, native):
    (episode,) = play(native, guesser, bisect(agent))
    assert (episode.stop, episode.won, episode.score, episode.reward) == (
        Stop.TERMINATED,
        True,
        1.0,
        1.0,
    )
    assert len(list(episode.rows())) == 1
    assert episode.turns[-1].reward == 1.0 and episode.turns[0].action.startswith("<action>")
    assert episode.turns[0].observation in ("Higher.", "Lower.")


TASKS = [Task(TASK.env, f"hotter-{number}") for number in (3, 4, 5, 6)]
FOUR = EpisodeLimits(turns=4)


@pytest.fixture
def both(agent, native):
    """The same transcripts, played by the native agent and by a program; some win in four turns."""
    say = bisect(agent)
    player = Player(
        agent=agent, engine=ScriptedEngine(say), make_env=lambda t: make(t.env), limits=FOUR
    )

    async def run():
        return await asyncio.gather(*(player(task, 0) for task in TASKS))

    theirs = [play(native, guesser, say, task=task, limits=FOUR)[0] for task in TASKS]
    return asyncio.run(run()), theirs


def test_the_batch_of_a_program_is_that_of_the_native_agent(both):
    import torch

    from agentgym.batch.collate import collate

    one, other = (collate([episodes]) for episodes in both)
    assert 0 < one.reward.sum() < len(TASKS)
    for field in fields(one):
        if field.name not in ("extra", "ending_hash"):
            assert torch.equal(getattr(one, field.name), getattr(other, field.name)), field.name


def test_the_gradient_of_a_program_is_that_of_the_native_agent(agent, tokenizer, both):
    """One step of GRPO from the same weights: the weights after it are equal in every bit."""
    import torch

    from agentgym.models import from_scratch
    from agentgym.models.policy import Policy
    from agentgym.settings import AlarmSettings, OptimizerSettings, ScratchSettings
    from agentgym.training.learner import Learner
    from agentgym.training.trainer import Trainer
    from agentgym_trainers.grpo import GRPO

    shape = ScratchSettings(
        hidden_size=32, num_layers=1, num_heads=2, num_kv_heads=1, intermediate_size=64
    )
    player = Player(agent=agent, engine=ScriptedEngine(bisect(agent)), make_env=make)

    def learned(episodes):
        model = from_scratch.make_model(tokenizer, shape, context=512, seed=0)
        learner = Learner(Policy(model), OptimizerSettings(warmup_steps=0), seed=0, horizon=1)
        alarms = AlarmSettings(max_mismatch=100.0)  # The script has no log-probabilities.
        trainer = Trainer(GRPO(group_size=4).build(), learner, player, alarms=alarms)
        step = asyncio.run(trainer.learn([list(episodes)], 0.0))
        return step.metrics["update/grad_norm"], model.state_dict()

    (ours, mine), (theirs, other) = map(learned, both)
    assert ours == theirs > 0
    assert all(torch.equal(mine[name], other[name]) for name in mine)


def test_a_seed_depends_on_the_prompt_and_not_on_the_order_of_calls(native):
    """Two agents that call at once: the same seeds, whichever is first."""

    def seeds(order):
        async def both(access):
            async with Client(access) as client:

                async def ask(number):
                    await asyncio.sleep(0.05 * order.index(number))
                    await client.ask([{"role": "user", "content": f"number {number}"}])

                await asyncio.gather(*map(ask, (0, 1)))

        seen = {}

        def say(prompt, sampling):
            seen[tuple(prompt)] = sampling.seed
            return native.encode_action("1")

        (episode,) = play(native, both, say)
        assert len(list(episode.rows())) == 2
        return seen

    assert seeds([0, 1]) == seeds([1, 0])


def test_tool_calls_are_read_and_their_results_continue_the_row(native):
    guess = {"type": "function", "function": {"name": "guess", "parameters": {"type": "object"}}}
    guess["function"]["parameters"]["properties"] = {"number": {"type": "integer"}}

    async def program(access):
        messages = [{"role": "user", "content": "Guess."}]
        async with Client(access) as client:
            for _ in range(2):
                answer = await client.ask(messages, tools=[guess])
                (call,) = answer["tool_calls"]
                assert call["function"] == {"name": "guess", "arguments": '{"number": 5}'}
                result = await client.step("5")
                reported = {"role": "tool", "tool_call_id": call["id"]}
                messages += [answer, {**reported, "content": result["observation"]}]

    def say(prompt, sampling):
        call = '<tool_call>{"name": "guess", "arguments": {"number": "5"}}</tool_call>'
        return (*native.tokenizer.encode(call), *native.stop)

    (episode,) = play(native, program, say)
    assert [t.fresh for t in episode.turns] == [True, False]
    text = native.tokenizer.decode(episode.turns[1].prompt)
    assert "<tool_response>\n" + episode.turns[0].observation in text
    assert "guess" in episode.turns[0].action


def test_an_edited_history_and_a_malformed_call_start_other_rows(native):
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}

    async def program(access):
        first = {"role": "user", "content": "Hello."}
        async with Client(access) as client:
            answer = await client.ask([first], tools=[tool])
            edited = {"role": "assistant", "content": "no"}
            await client.ask([first, edited, {"role": "user", "content": "And?"}], tools=[tool])
            await client.ask([first, answer, {"role": "user", "content": "And?"}])

    def say(prompt, sampling):
        return (*native.tokenizer.encode("<tool_call>{nothing}</tool_call>"), *native.stop)

    (episode,) = play(native, program, say)
    assert [t.fresh for t in episode.turns] == [True, True, True]
    assert [t.parsed for t in episode.turns] == [False, False, True]


def test_a_row_keeps_the_tokens_that_were_sampled(native):
    """Spelled as no tokenizer does, and with a thought that the program does not send back."""
    spelled = [
        t for part in ("<think>hm", "</think>", "F", "o", "und") for t in encode(native, part)
    ]
    assert spelled != encode(native, "<think>hm</think>Found")

    async def program(access):
        messages = [{"role": "user", "content": "Say it."}]
        async with Client(access) as client:
            answer = await client.ask(messages)
            assert (answer["content"], answer["reasoning_content"]) == ("Found", "hm")
            reply = {"role": "assistant", "content": "Found"}
            await client.ask([*messages, reply, {"role": "user", "content": "Again."}])

    (episode,) = play(native, program, lambda p, s: (*spelled, *native.stop), retries=0)
    assert episode.error == "" and [t.fresh for t in episode.turns] == [True, False]
    assert native.tokenizer.decode(episode.turns[1].prompt) == "<|user|>Again.<|assistant|>"


def encode(agent, text):
    return agent.tokenizer.encode(text)


def test_two_answers_with_one_text_and_other_tokens_are_not_guessed_between(native):
    spelled = [native.tokenizer.encode("Found"), native.tokenizer.encode("F")]
    spelled[1] = [*spelled[1], *native.tokenizer.encode("o"), *native.tokenizer.encode("und")]
    assert spelled[0] != spelled[1]

    async def program(access):
        messages = [{"role": "user", "content": "Say it."}]
        async with Client(access) as client:
            answers = [await client.ask(messages) for _ in range(2)]
            assert answers[0]["content"] == answers[1]["content"] == "Found"
            await client.ask([*messages, answers[0], {"role": "user", "content": "Again."}])

    def say(prompt, sampling):
        return (*spelled.pop(0), *native.stop) if spelled else native.encode_action("1")

    (episode,) = play(native, program, say)
    assert [t.fresh for t in episode.turns] == [True, True, True]


def test_the_agents_of_a_program_are_kept_apart_by_their_keys(native):
    settings = ProgramSettings(agents=("solver", "judge"), untrained=("judge",))

    async def program(access):
        messages = [{"role": "user", "content": "Hello."}]
        for agent in ("solver", "judge", "solver"):
            async with Client(access, agent) as client:
                await client.ask(messages)

    from agentgym.batch.collate import collate

    (episode,) = play(native, program, lambda p, s: native.encode_action("1"), settings=settings)
    assert [t.learn for t in episode.turns] == [True, False, True]
    batch = collate([[episode]])
    assert batch.turn[batch.mask].unique().tolist() == [0, 2]


def test_a_stop_text_cuts_the_completion_at_a_token(native):
    async def program(access):
        async with Client(access) as client:
            answer = await client.ask([{"role": "user", "content": "Go."}], stop=["Higher"])
            assert answer["content"] == "Lower. "

    def say(prompt, sampling):
        return (*native.tokenizer.encode("Lower. Higher. Lower."), *native.stop)

    (episode,) = play(native, program, say)
    written = native.tokenizer.decode(episode.turns[0].completion.tokens)
    assert written.startswith("Lower. Higher") and not written.endswith("Lower.")


def test_the_reward_comes_from_the_program(native):
    async def program(access):
        async with Client(access) as client:
            await client.ask([{"role": "user", "content": "Go."}])
            await client.step("1")
        return 0.25

    settings = ProgramSettings(reward="program")
    (episode,) = play(native, program, lambda p, s: native.encode_action("1"), settings=settings)
    assert (episode.stop, episode.score, episode.reward) == (Stop.TERMINATED, 0.25, 0.25)


def test_a_program_that_needs_a_score_and_gives_none_is_infrastructure(native):
    async def program(access):
        async with Client(access) as client:
            await client.ask([{"role": "user", "content": "Go."}])

    settings = ProgramSettings(reward="program")
    (episode,) = play(native, program, lambda p, s: native.stop, settings=settings, retries=0)
    assert episode.stop is Stop.ENV_ERROR and "without a score" in episode.error


def test_limits_truncate_and_do_not_count_as_crashes(native):
    say = lambda p, s: native.encode_action("1")  # noqa: E731
    (episode,) = play(native, guesser, say, limits=EpisodeLimits(turns=3))
    assert (episode.stop, len(episode.turns)) == (Stop.MAX_TURNS, 3)
    tight = {"limits": EpisodeLimits(tokens=260), "sampling": Sampling(max_tokens=16)}
    (episode,) = play(native, guesser, say, **tight)
    assert episode.stop is Stop.MAX_TOKENS and episode.turns


def test_a_program_that_ends_politely_at_a_limit_is_truncated(native):
    async def program(access):
        async with Client(access) as client:
            body = {"messages": [{"role": "user", "content": "Go."}]}
            answers = [await client.model.post("/chat/completions", json=body) for _ in range(3)]
            assert [answer.status_code for answer in answers] == [200, 200, 400]
            assert "--program.max-calls" in answers[-1].json()["error"]["message"]

    settings = ProgramSettings(max_calls=2)
    say = lambda p, s: native.encode_action("1")  # noqa: E731
    (episode,) = play(native, program, say, settings=settings, retries=0)
    assert (episode.stop, len(episode.turns)) == (Stop.MAX_TURNS, 2), episode.error


def test_a_first_prompt_that_cannot_fit_stops_the_run(native):
    tight = {"limits": EpisodeLimits(tokens=20), "sampling": Sampling(max_tokens=16)}
    with pytest.raises(ConfigError, match="max-context-tokens"):
        play(native, guesser, lambda p, s: native.stop, **tight)


PROGRAM = """
import json, os, subprocess, sys, time, urllib.request
def post(url, body, key=None):
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    return json.load(urllib.request.urlopen(request))
def ask(text="Go."):
    body = {"messages": [{"role": "user", "content": text}]}
    url = os.environ["OPENAI_BASE_URL"] + "/chat/completions"
    return post(url, body, os.environ["OPENAI_API_KEY"])["choices"][0]["message"]["content"]
"""


def run(tmp_path, native, text, **kwargs):
    """The one episode of a program in a process of its own."""
    file = tmp_path / "program.py"
    file.write_text(PROGRAM + text)
    say = lambda p, s: native.encode_action("1")  # noqa: E731
    return play(native, f"{sys.executable} {file}", say, retries=0, **kwargs)[0]


OUTCOMES = {
    "ends": ("ask()", Stop.TERMINATED, ""),
    "ends without a word": ("", Stop.ENV_ERROR, "without a call"),
    "crashes": ("ask(); raise SystemError('broken pipe dream')", Stop.ENV_ERROR, "broken pipe"),
    "is killed": ("ask(); os.kill(os.getpid(), 9)", Stop.ABORTED, "signal 9"),
    "prints 100 MB": (
        "ask(); [sys.stdout.write('x' * 2**20) for _ in range(100)]",
        Stop.TERMINATED,
        "",
    ),
    "scores itself": (
        "ask(); post(os.environ['AGENTGYM_WORLD_URL'] + '/score', {'score': 1})",
        Stop.TERMINATED,
        "",
    ),
}


@pytest.mark.parametrize("what", OUTCOMES)
def test_how_a_process_ends_is_how_its_episode_ends(tmp_path, native, what):
    text, stop, error = OUTCOMES[what]
    episode = run(tmp_path, native, text)
    assert episode.stop is stop, episode.error
    assert error in episode.error and "\n" not in episode.error


def test_a_process_that_hangs_is_ended_with_its_children(tmp_path, native):
    asked, child = tmp_path / "asked", tmp_path / "child"
    sleep = "[sys.executable, '-c', 'import time; time.sleep(60)']"
    text = f"""
import signal
signal.signal(signal.SIGTERM, lambda *_: open({str(asked)!r}, "w").close())
child = subprocess.Popen({sleep}, start_new_session=True)
open({str(child)!r}, "w").write(str(child.pid))
ask()
time.sleep(60)
"""
    episode = run(tmp_path, native, text, settings=ProgramSettings(timeout=4.0))
    assert episode.stop is Stop.TOOL_TIMEOUT and "--program.timeout" in episode.error
    assert asked.exists(), "it is asked to end before it is killed"
    assert not alive(int(child.read_text()))


def test_a_failing_world_ends_its_episode_and_the_program(tmp_path, native):
    class Broken(type(make("hotter").unwrapped)):
        def act(self, action):
            raise OSError("the disk is gone")

    step = "post(os.environ['AGENTGYM_WORLD_URL'] + '/step', {'action': '1'})"
    text = f"ask()\ntry: {step}\nexcept Exception: time.sleep(60)"
    episode = run(tmp_path, native, text, world=lambda t: Broken())
    assert episode.stop is Stop.ENV_ERROR and "the disk is gone" in episode.error


def test_a_world_that_does_not_begin_ends_its_episode_alone(tmp_path, native):
    class Broken(type(make("hotter").unwrapped)):
        def start(self, task, rng):
            raise OSError("no\nsuch file")

    episode = run(tmp_path, native, "raise SystemError", world=lambda t: Broken())
    assert episode.stop is Stop.ENV_ERROR and "no such file" in episode.error


def test_a_context_that_an_engine_refuses_truncates(native):
    class Full(ScriptedEngine):
        async def generate(self, prompt, sampling):
            if "more" in native.tokenizer.decode(prompt):
                raise ContextTooLong("4 tokens are left")
            return await super().generate(prompt, sampling)

    answers = []

    async def program(access):
        async with Client(access) as client:
            await client.ask([{"role": "user", "content": "Go."}])
            body = {"messages": [{"role": "user", "content": "more"}]}
            answers.append(await client.model.post("/chat/completions", json=body))

    engine = Full(lambda p, s: native.encode_action("1"))
    (episode,) = play(native, program, engine, retries=0)
    assert episode.stop is Stop.MAX_TOKENS and len(episode.turns) == 1
    assert answers[0].status_code == 400
    assert answers[0].json()["error"]["code"] == "context_length_exceeded"


def test_only_what_a_key_opens_is_served(native):
    found = {}

    async def program(access):
        kept.append(access)
        good, world = access.api_key, access.world_url.rpartition("/")[2]
        body = {"messages": [{"role": "user", "content": "Go."}]}
        async with httpx.AsyncClient() as client:
            for name, key in {
                "good": good,
                "none": "none",
                "cut": good[:-1],
                "world's": world,
                "other": "a.b",
            }.items():
                headers = {"Authorization": f"Bearer {key}"}
                url = f"{access.base_url}/chat/completions"
                found[name] = (await client.post(url, json=body, headers=headers)).status_code
            base = access.base_url.removesuffix("/v1")
            found["model's at the world"] = (await client.get(f"{base}/worlds/{good}")).status_code
            found["models"] = (await client.get(f"{base}/v1/models")).status_code
            mine = await client.get(
                f"{base}/v1/models", headers={"Authorization": f"Bearer {good}"}
            )
            assert mine.json()["data"][0]["id"] == "policy"
            for verb in ("step", "score", "mcp"):
                answer = await client.post(f"{base}/worlds/{world[:-1]}/{verb}", json={})
                found[f"the world's {verb}"] = answer.status_code
                assert answer.json()["error"]["code"] == "bad_key"
            found["docs"] = (await client.get(f"{base}/docs")).status_code

    kept = []
    (episode,) = play(native, program, lambda p, s: native.encode_action("1"), retries=0)
    assert episode.stop is Stop.TERMINATED, episode.error
    refused = {name: status for name, status in found.items() if status != 200}
    assert found["good"] == 200
    assert refused == {
        "none": 401,
        "cut": 401,
        "world's": 401,
        "other": 401,
        "model's at the world": 401,
        "models": 401,
        "the world's step": 401,
        "the world's score": 401,
        "the world's mcp": 401,
        "docs": 404,
    }
    assert kept[0].base_url.startswith("http://127.0.0.1:")


BAD = {
    "not JSON": (b"{", "not JSON"),
    "a list": (b"[]", "JSON object"),
    "half a character": (
        b'{"messages": [{"role": "assistant", "content": "\\ud800"}]}',
        "half of a surrogate",
    ),
    "no messages": (b"{}", "messages: expected at least one"),
    "a text": (b'{"messages": "hi"}', "list of objects"),
    "a role": (b'{"messages": [{"role": "king", "content": "x"}]}', "role: expected one of"),
    "an image": (
        b'{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}',
        "'image_url'",
    ),
    "many": (b'{"n": 2, "messages": [{"role": "user", "content": "x"}]}', "n: expected 1"),
    "a limit": (
        b'{"max_tokens": "9", "messages": [{"role": "user", "content": "x"}]}',
        "positive integer",
    ),
    "tools": (
        b'{"tools": [{"type": "x"}], "messages": [{"role": "user", "content": "x"}]}',
        "expected functions",
    ),
}


def test_a_bad_request_gets_one_line(native):
    async def program(access):
        headers = {"Authorization": f"Bearer {access.api_key}"}
        async with httpx.AsyncClient(headers=headers) as client:
            for name, (body, line) in BAD.items():
                response = await client.post(f"{access.base_url}/chat/completions", content=body)
                message = response.json()["error"]["message"]
                assert (response.status_code, line in message) == (400, True), (name, message)
                assert "\n" not in message

    (episode,) = play(native, program, lambda p, s: native.stop, retries=0)
    assert "without a call of the model (after: " in episode.error and not episode.turns
    assert "expected functions" in episode.error, "the last refusal"


def test_a_request_that_is_too_large_is_refused_before_it_is_read_to_its_end(native, monkeypatch):
    monkeypatch.setattr(reading, "LARGEST", 2**20)
    answers = []

    async def body():
        for _ in range(64):
            yield b" " * 2**16

    async def program(access):
        async with Client(access) as client:
            answers.append(await client.model.post("/chat/completions", content=body()))
            await client.ask([{"role": "user", "content": "Go."}])

    (episode,) = play(native, program, lambda p, s: native.encode_action("1"), retries=0)
    assert episode.error == "" and len(episode.turns) == 1
    assert answers[0].status_code == 413
    assert "more than 1 MiB" in answers[0].json()["error"]["message"]


def test_a_bad_step_gets_one_line_and_moves_nothing(native):
    wrong = {
        ("step", b'{"action": 1}'): (400, 'step: expected {"action": "..."}'),
        ("step", b"{}"): (400, "step: expected"),
        ("call", b'{"arguments": {}}'): (400, 'call: expected {"name"'),
        ("call", b'{"name": "act", "arguments": "1"}'): (400, 'call: expected {"name"'),
        ("call", b"1"): (400, "JSON object"),
        ("score", b'{"score": "good"}'): (400, "score: expected a number from 0 to 1"),
        ("score", b'{"score": true}'): (400, "score: expected a number from 0 to 1"),
        ("score", b'{"score": 1.5}'): (400, "score: expected a number from 0 to 1, got 1.5"),
        ("fly", b"{}"): (404, "there is no 'fly'"),
    }

    async def program(access):
        async with Client(access) as client:
            await client.ask([{"role": "user", "content": "Go."}])
            for (verb, body), (status, line) in wrong.items():
                response = await client.world.post(f"/{verb}", content=body)
                message = response.json()["error"]["message"]
                assert (response.status_code, line in message) == (status, True), (verb, message)
                assert "\n" not in message

    (episode,) = play(native, program, lambda p, s: native.encode_action("1"), retries=0)
    assert episode.error == "" and len(episode.turns) == 1
    assert episode.turns[0].observation == "", "no action was taken"


def test_a_call_that_its_episode_leaves_behind_is_answered_and_not_recorded(native):
    waiting, begun = [], asyncio.Event()

    class Slow(ScriptedEngine):
        async def generate(self, prompt, sampling):
            if "slow" in native.tokenizer.decode(prompt):
                begun.set()
                await asyncio.sleep(60)
            return await super().generate(prompt, sampling)

    async def ask_slowly(access):
        async with Client(access) as client:
            body = {"messages": [{"role": "user", "content": "slow"}]}
            return await client.model.post("/chat/completions", json=body)

    async def program(access):
        waiting.append(asyncio.ensure_future(ask_slowly(access)))
        await begun.wait()
        async with Client(access) as other:
            await other.ask([{"role": "user", "content": "fast"}])

    async def run():
        async with ProgramServer() as server:
            player = ProgramPlayer(
                agent=native,
                engine=Slow(lambda p, s: native.encode_action("1")),
                make_env=lambda t: make(t.env),
                program=load_program(program),
                server=server,
                settings=ProgramSettings(),
            )
            episode = await player(TASK, 0)
            return episode, await waiting[0]

    episode, left = asyncio.run(run())
    assert episode.error == "" and len(episode.turns) == 1
    assert left.status_code == 410 and "its episode is over" in left.json()["error"]["message"]


def test_a_withdrawn_request_is_not_part_of_the_episode(native):
    class Slow(ScriptedEngine):
        async def generate(self, prompt, sampling):
            if "slow" in native.tokenizer.decode(prompt):
                await asyncio.sleep(60)
            return await super().generate(prompt, sampling)

    async def program(access):
        async with Client(access) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.model.post(
                    "/chat/completions",
                    json={"messages": [{"role": "user", "content": "slow"}]},
                    timeout=0.3,
                )
            await client.ask([{"role": "user", "content": "fast"}])

    engine = Slow(lambda p, s: native.encode_action("1"))
    (episode,) = play(native, program, engine, limits=EpisodeLimits(turns=1))
    assert episode.stop is Stop.TERMINATED and len(episode.turns) == 1


def test_a_function_that_raises_or_returns_nonsense(native):
    async def raising(access):
        raise ValueError("two\nlines")

    say = lambda p, s: native.stop  # noqa: E731
    (episode,) = play(native, raising, say, retries=0)
    assert episode.stop is Stop.ENV_ERROR and episode.error.endswith("ValueError: two lines")
    with pytest.raises(ConfigError, match="returned 'good', expected its score"):
        play(native, lambda access: "good", say)


def test_an_object_may_be_the_program(native):
    class Guesser:
        async def __call__(self, access):
            await guesser(access)

    (episode,) = play(native, Guesser(), lambda p, s: native.encode_action("1"), retries=0)
    assert episode.error == "" and episode.turns


def test_what_is_no_program_is_refused(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("AGENT = 1")
    with pytest.raises(ConfigError, match=r"mine\.py:AGENT is a int, expected a function"):
        load_program(f"{tmp_path}/mine.py:AGENT")
    with pytest.raises(ConfigError, match="the agent program is empty"):
        load_program(" ")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(MissingExtra, match=r"agentic-gym\[serve\]"):
        asyncio.run(ProgramServer().__aenter__())


def test_a_failing_engine_ends_the_run(native):
    def broken(prompt, sampling):
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        play(native, guesser, broken)


def test_a_program_that_cannot_start_ends_the_run(native):
    with pytest.raises(ConfigError, match="cannot be started"):
        play(native, "no-such-program --fast", lambda p, s: native.stop)


def test_the_world_reaches_a_program_over_mcp(native):
    mcp = pytest.importorskip("mcp")
    seen = {}

    async def program(access):
        async with Client(access) as client:
            await client.ask([{"role": "user", "content": "Go."}])
        async with mcp.Client(access.mcp_url) as client:
            seen["tools"] = [tool.name for tool in (await client.list_tools()).tools]
            for action in ("0", *map(str, range(12))):
                result = await client.call_tool("act", {"action": action})
                seen.setdefault("texts", []).append(result.content[0].text)
            wrong = await client.call_tool("fly", {})
            seen["wrong"] = wrong.is_error, wrong.content[0].text

    (episode,) = play(native, program, lambda p, s: native.encode_action("1"), retries=0)
    assert episode.error == "" and episode.stop is Stop.MAX_TURNS
    assert seen["tools"] == ["act"] and seen["texts"][0] == "Higher."
    assert seen["texts"][-1] == "The episode is over.\n(The episode is over.)"
    assert seen["wrong"] == (True, "the world has no tool 'fly', only act")


def test_the_world_reaches_a_program_over_openenv(native):
    websockets = pytest.importorskip("websockets")
    seen = []

    async def program(access):
        async with Client(access) as client:
            await client.ask([{"role": "user", "content": "Go."}])
        async with websockets.connect(f"{access.world_url.replace('http', 'ws')}/ws") as socket:

            async def send(kind, **data):
                await socket.send(json.dumps({"type": kind, "data": data}))
                seen.append(json.loads(await socket.recv())["data"])

            await send("reset", seed=3)
            await send("step", text="0")
            await send("state")
            await send("reset")
            await send("step", message="0")
            await socket.send("{")
            seen.append(json.loads(await socket.recv())["data"])
            await socket.send("[1]")
            assert json.loads(await socket.recv())["data"]["code"] == "UNKNOWN_TYPE"
            await socket.send(json.dumps({"type": "close"}))
            with pytest.raises(websockets.ConnectionClosedOK):
                await socket.recv()
        with pytest.raises(websockets.InvalidStatus, match="403"):
            await websockets.connect(f"{access.world_url[:-1].replace('http', 'ws')}/ws")

    (episode,) = play(native, program, lambda p, s: native.encode_action("1"), retries=0)
    assert episode.error == ""
    start, step, state, again, wrong, broken = seen
    assert start["observation"]["goal"] == "Find the number." and not start["done"]
    assert (step["observation"], step["reward"], step["done"]) == ({"text": "Higher."}, 0.0, False)
    assert state["step_count"] == 1
    assert "a program plays one" in again["message"] and wrong["code"] == "VALIDATION_ERROR"
    assert broken["code"] == "UNKNOWN_TYPE"


FORMS = {
    "/chat/completions": {"messages": [{"role": "user", "content": "Go."}]},
    "/responses": {"input": "Go."},
    "/messages": {"messages": [{"role": "user", "content": "Go."}], "max_tokens": 64},
}
LAST = {
    "/chat/completions": "data: [DONE]",
    "/responses": "event: response.completed",
    "/messages": "event: message_stop",
}


def test_every_form_is_read_by_its_own_next_request_and_as_a_stream(native):
    """Whole and as a stream; what a form returns extends the row when it is sent back."""
    streams = {}

    async def program(access):
        headers = {"Authorization": f"Bearer {access.api_key}"}
        async with httpx.AsyncClient(base_url=access.base_url, headers=headers) as client:
            for path, body in FORMS.items():
                answer = (await client.post(path, json=body)).json()
                more = {"role": "user", "content": "On."}
                if path == "/chat/completions":
                    body = {"messages": [*body["messages"], answer["choices"][0]["message"], more]}
                elif path == "/responses":
                    asked = {"role": "user", "content": "Go."}
                    body = {"input": [asked, *answer["output"], more]}
                else:
                    reply = {"role": "assistant", "content": answer["content"]}
                    body = {**body, "messages": [*body["messages"], reply, more]}
                streamed = await client.post(path, json={**body, "stream": True})
                streams[path] = streamed.text

    say = lambda p, s: (*native.tokenizer.encode("Higher. Lower."), *native.stop)  # noqa: E731
    (episode,) = play(native, program, say, retries=0)
    assert episode.error == ""
    assert [t.fresh for t in episode.turns] == [True, False] * 3
    for path, text in streams.items():
        assert (
            "Higher. Lower." in text
            and LAST[path] in text.strip().splitlines()[-1 - ("event" in LAST[path])]
        )


def test_a_chat_endpoint_may_play_under_a_program():
    """For evaluation: the service gets the messages of the program."""
    from http_service import serving

    from agentgym.engines.chat import ChatEngine
    from agentgym.engines.endpoint import Endpoint
    from agentgym.models import from_scratch

    tokenizer = from_scratch.make_tokenizer((), from_scratch.MIN_VOCABULARY)
    tokenizer.chat_template = from_scratch.DIALOGUE
    agent = ChatAgent(tokenizer, action_format=NativeCalls())
    answer = {"choices": [{"message": {"content": "1"}, "finish_reason": "stop"}]}

    async def program(access):
        messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "Go."}]
        async with Client(access) as client:
            reply = await client.ask(messages)
            await client.ask([*messages, reply, {"role": "user", "content": "On."}])

    with serving(lambda path, body: (200, answer)) as (service, url):
        engine = ChatEngine("m", Endpoint(url), tokenizer)
        (episode,) = play(agent, program, engine, retries=0)
        sent = [body["messages"] for _, body, *_ in service.asked]
    assert episode.error == "" and [t.action for t in episode.turns] == ["1", "1"]
    assert [m["role"] for m in sent[1]] == ["system", "user", "assistant", "user"]
    assert [m["content"] for m in sent[1]] == ["S", "Go.", "1", "On."]


def test_small_answers_are_sent_at_once(monkeypatch):
    """Without TCP_NODELAY, a client waits 40 ms for the body of each answer."""
    asked, real = [], socket.socket.setsockopt

    def recorded(self, *option):
        asked.append((self.getsockname(), option))
        return real(self, *option)

    monkeypatch.setattr(socket.socket, "setsockopt", recorded, raising=False)

    async def call():
        async with ProgramServer() as server:
            port = int(server.url.rpartition(":")[2])
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            await reader.read()
            writer.close()
            return port

    port = asyncio.run(call())
    ours = [option for (_, at, *_), option in asked if at == port]
    assert (socket.IPPROTO_TCP, socket.TCP_NODELAY, True) in ours


def test_the_digests_of_a_conversation_do_not_depend_on_the_requests_before_it():
    rng = random.Random(0)
    tools = tuple({"type": "function", "function": {"name": f"t{n}"}} for n in range(2))
    marks, conversation, kept = Marks(), [], {}
    for _ in range(400):
        if conversation and rng.random() < 0.3:
            conversation = conversation[: rng.randrange(len(conversation))]
        role = rng.choice(["user", "assistant"])
        conversation = [*conversation, {"role": role, "content": rng.choice("abc")}]
        request = Request(tuple(map(dict, conversation)), tools[: rng.choice([1, 1, 1, 2])])
        found = marks.of(request)
        assert found == Marks().of(request)
        assert len(found) == len(conversation) + 1
        said = str((conversation, request.tools))
        assert kept.setdefault(found[-1], said) == said
    assert len(kept) > 50
