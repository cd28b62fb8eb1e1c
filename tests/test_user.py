"""A simulated user, as a tool or as the other speaker: seeded, capped, masked, counted, failing."""

import asyncio
from contextlib import ExitStack, closing
from typing import Any

import pytest
from http_service import serving

from agentgym import Stop, Task
from agentgym.cli import main
from agentgym.engines.scripted import ScriptedEngine
from agentgym.env.base import Opening, Outcome
from agentgym.env.registry import world
from agentgym.errors import ConfigError, EnvError, ImpossibleValue
from agentgym.evaluation.files import read_header
from agentgym.evaluation.record_files import read_episodes
from agentgym.experiment.sources import EnvSource
from agentgym.experiment.users import speaker_of
from agentgym.models import from_scratch
from agentgym.rollout.action_formats import NativeCalls, Plain
from agentgym.rollout.agent import ChatAgent
from agentgym.rollout.player import Player
from agentgym.rollout.speaker import EngineSpeaker
from agentgym.settings import UserSettings
from agentgym.tools import ToolEnv
from agentgym.tools.speakers import EndpointSpeaker, Reply
from agentgym.tools.user import END, SimulatedUser, WithUser
from agentgym.types import Sampling

WANTED = ("tea", "salt", "soap")


class Shop(ToolEnv):
    """Sell the user what they want; the task names it."""

    def __init__(self, **kwargs):
        super().__init__(tools=[self.sell], **kwargs)

    def tasks(self, split):
        return WANTED

    def open(self, task, rng):
        self.wanted = task
        return Opening("The shop is open.", f"Buy {task}.")

    def sell(self, item: str) -> Outcome:
        """Sell an item.

        Args:
            item: Its name.
        """
        won = item == self.wanted
        return Outcome(f"Sold {item}.", float(won), float(won), won)


def scripted(messages, seed):
    """A user who says what they want when asked, and leaves after the second answer."""
    wanted = messages[0]["content"].split("Buy ")[1].split(".")[0]
    asked = messages[-1]["content"]
    text = f"I want {wanted}." if "?" in asked else f"Thanks, bye. {END}"
    return Reply(text, prompt_tokens=sum(len(m["content"]) for m in messages), completion_tokens=5)


def sell(item):
    return f'<tool_call>{{"name": "sell", "arguments": {{"item": "{item}"}}}}</tool_call>'


def ask(message):
    return f'<tool_call>{{"name": "ask_user", "arguments": {{"message": "{message}"}}}}</tool_call>'


def shop(speaker=scripted, **options):
    return WithUser(Shop(), SimulatedUser(speaker, **options), partner=True)


def started(env, task="tea", seed=0):
    return env.reset(seed=seed, options={"task": task})


def test_a_partner_opens_talks_and_ends_the_episode():
    env = shop()
    observation, info = started(env, "salt")
    assert observation == "I want salt." and "Buy salt" not in info["goal"]
    assert "sell" in info["goal"] and info["tools"][0]["function"]["name"] == "sell"
    observation, reward, done, _, info = env.step(sell("salt"))
    assert (reward, done, info["score"]) == (1.0, False, 1.0) and "Sold salt." in observation
    observation, reward, done, _, info = env.step("Here you are.")
    assert (observation, reward, done) == ("Thanks, bye.", 0.0, True)
    assert (info["won"], info["score"], info["user_turns"]) == (True, 1.0, 2)
    assert info["user_tokens"] > 10
    assert env.step("Hello?")[0] == "The user has left."


def test_a_user_as_a_tool_of_any_environment():
    env = WithUser(world("hotter"), SimulatedUser(lambda m, s: Reply(f"{m[-1]['content']}!")))
    _, info = started(env, "hotter-3")
    assert [tool["function"]["name"] for tool in info["tools"]] == ["ask_user", "act"]
    assert "ask_user" in info["goal"]
    observation, *_, info = env.step(ask("Higher?"))
    assert "Higher?!" in observation and info["user_turns"] == 1
    assert env.step("81")[0] in ("Higher.", "Lower.", "Found.")
    assert "Find the number." in env.user.messages[0]["content"]
    assert "ask_user" not in env.user.messages[0]["content"]


def test_the_conversation_is_capped():
    env = shop(lambda m, s: Reply("Hm?"), max_turns=3)
    started(env)
    assert not env.step("Tea?")[2]
    observation, _, done, _, info = env.step("Salt?")
    assert done and observation == "Hm?" and info["user_turns"] == 3 and not info["won"]


def test_seeds_are_a_function_of_task_seed_and_turn():
    def conversation(seed):
        seen = []
        env = shop(lambda m, s: seen.append(s) or Reply("Hm?"))
        started(env, seed=seed)
        env.step("a")
        return seen

    assert conversation(1) == conversation(1) != conversation(2)
    first, second = conversation(1)
    assert second == first + 1


def test_the_randomness_of_the_environment_is_not_touched():
    """The same draws as without a user."""

    class Drawing(Shop):
        def open(self, task, rng):
            return super().open(task, rng)._replace(observation=str(rng.integers(2**60)))

    alone, wrapped = Drawing(), WithUser(Drawing(), SimulatedUser(scripted))
    assert started(alone)[0] == started(wrapped)[0]


def test_a_fork_has_its_own_conversation():
    for env in (shop(lambda m, s: Reply("Hm?")), WithUser(Shop(), SimulatedUser(scripted))):
        started(env)
        twin = env.fork()
        twin.step("Tea?" if env.partner else ask("Tea?"))
        assert twin.user.turns == env.user.turns + 1
        assert len(twin.user.messages) == len(env.user.messages) + 2


def test_a_failing_user_is_infrastructure():
    for broken, line in (
        (lambda m, s: Reply("  "), "is empty"),
        (lambda m, s: 1 / 0, "failed: ZeroDivisionError"),
    ):
        env = WithUser(Shop(), SimulatedUser(broken))
        started(env)
        with pytest.raises(EnvError, match=line):
            env.step(ask("Tea?"))


def test_a_partner_needs_a_world_of_tools_and_impossible_values():
    with pytest.raises(ConfigError, match="Hotter takes actions as text"):
        WithUser(world("hotter"), SimulatedUser(scripted), partner=True)
    with pytest.raises(ImpossibleValue, match="max_turns"):
        SimulatedUser(scripted, max_turns=0)
    with pytest.raises(ConfigError, match="is empty"):
        SimulatedUser(scripted, end="")


ANSWERS = {
    "good": ((200, {"choices": [{"message": {"content": "Tea."}}], "usage": {}}), None),
    "garbage": ((200, {"choices": []}), "sent no chat completion"),
    "not JSON": ((200, b"<html>"), "expected JSON"),
    "refused": ((401, {"error": "who?"}), "refused with status 401"),
}


@pytest.mark.parametrize("what", ANSWERS)
def test_an_endpoint_plays_the_user(what):
    answer, problem = ANSWERS[what]
    with serving(lambda path, body: answer) as (service, url):
        speaker, reply = EndpointSpeaker(f"{url}/v1", "m", key="k"), None
        with closing(speaker.client):
            if problem:
                with pytest.raises(EnvError, match=problem):
                    speaker([{"role": "user", "content": "Hi"}], 7)
            else:
                reply = speaker([{"role": "user", "content": "Hi"}], 7)
        path, body, headers, _ = service.asked[0]
        assert path == "/v1/chat/completions" and body["seed"] == 7
        assert headers["authorization"] == "Bearer k" and (reply is None or reply.text == "Tea.")


def test_the_words_of_the_user_are_not_trained_on(tokenizer):
    """Player, agent and user each with an engine; the user's tokens lie in prompts only."""
    from agentgym.batch.collate import collate

    template = from_scratch.make_tokenizer(["I want tea. Thanks."], 400)
    template.chat_template = from_scratch.DIALOGUE
    spoken = iter(["I want tea.", f"Thanks. {END}"] * 2)

    def speak(prompt, sampling):
        return (*template.encode(next(spoken)), *sampling.stop[:1])

    speaker = EngineSpeaker(ScriptedEngine(speak), template)
    agent = ChatAgent(tokenizer, action_format=NativeCalls())
    acts = [sell("tea"), "Here you are."]

    def act(prompt, sampling):
        done = tokenizer.decode(prompt).count("<|assistant|>") - 1
        return (*tokenizer.encode(acts[done]), *agent.stop[:1])

    def made(task):
        return WithUser(Shop(), SimulatedUser(speaker), partner=True)

    plain = ChatAgent(tokenizer, action_format=Plain())
    player = Player(
        agent=plain,
        engine=ScriptedEngine(act),
        make_env=made,
        sampling=Sampling(max_tokens=64),
    )
    episode = asyncio.run(player(Task("shop", "tea"), 0))
    assert (episode.stop, episode.won, len(episode.turns)) == (Stop.TERMINATED, True, 2)
    assert episode.opening == "I want tea." and episode.turns[1].observation == "Thanks."
    batch = collate([[episode]])
    trained = tokenizer.decode(batch.tokens[batch.mask].tolist())
    assert "Here you are." in trained and "I want" not in trained and "Thanks" not in trained
    assert player.usage.user_tokens > 20


def test_a_local_model_plays_the_user(tokenizer):
    """A real engine: seeded, and it leaves its tokens in no other engine."""
    from agentgym.engines.local.engine import LocalEngine
    from agentgym.settings import ScratchSettings

    shape = ScratchSettings(
        hidden_size=32, num_layers=1, num_heads=2, num_kv_heads=1, intermediate_size=64
    )
    model = from_scratch.make_model(tokenizer, shape, context=1024, seed=0)
    engine = LocalEngine(model, slots=2, context=1024)
    speaker = EngineSpeaker(engine, tokenizer, sampling=Sampling(max_tokens=12))
    messages = [{"role": "user", "content": "Hello."}]
    first, again, other = (speaker(messages, seed) for seed in (1, 1, 2))
    assert first == again and first.text != other.text
    assert first.completion_tokens == 12 and first.prompt_tokens > 2
    short = EngineSpeaker(engine, tokenizer, sampling=Sampling(max_tokens=2000))
    with pytest.raises(EnvError, match="the user's engine failed: ConfigError"):
        short(messages, 0)


PLAYER = """
asked = False

def player(observation, info):
    global asked
    asked = not asked
    if asked:
        return '<tool_call>{"name": "ask_user", "arguments": {"message": "Hot?"}}</tool_call>'
    return "50"
"""


def test_a_user_from_the_command_line(tmp_path, monkeypatch, capsys):
    """`--user` names a model at an endpoint; the evaluation counts its words, and its settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGENTGYM_USER_KEY", "secret")
    (tmp_path / "player.py").write_text(PLAYER)
    said = {"choices": [{"message": {"content": "Cold."}}], "usage": {"completion_tokens": 3}}
    with serving(lambda path, body: (200, said)) as (service, url), ExitStack() as stack:
        settings = UserSettings(model="neighbour", endpoint=url, max_turns=2)
        speaker: Any = speaker_of(settings)
        stack.callback(speaker.client.close)
        words = ["eval", "player.py:player", "--env", "hotter", "--out", "found.jsonl", "--quiet"]
        user = ["--user.model", "neighbour", "--user.endpoint", url, "--user.max-turns", "2"]
        size = ["--panel.tasks", "1", "--panel.episodes", "2", "--rollout.max-turns", "6"]
        assert main([*words, *user, *size]) == 0
    _, body, headers, _ = service.asked[0]
    assert (body["model"], body["max_tokens"]) == ("neighbour", 256)
    assert headers["authorization"] == "Bearer secret"
    _, spec = read_header(tmp_path / "found.jsonl")
    assert (spec.settings["user"], spec.settings["user.max_turns"]) == ("neighbour", 2)
    for record in read_episodes(tmp_path / "found.jsonl"):
        heard = [turn.observation for turn in record.turns if "ask_user" in turn.action]
        answers = ["Cold.", "Cold.", "The user has left."]
        assert all(answer in text for answer, text in zip(answers, heard, strict=True))


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"endpoint": "http://127.0.0.1:1"}, "name it with `--user.model`"),
        ({"partner": True}, "name it with `--user.model`"),
        ({"model": "m", "end": " "}, "user.end is empty"),
    ],
)
def test_impossible_users_of_the_settings(given, line):
    with pytest.raises(ImpossibleValue, match=line):
        UserSettings(**given)


def test_a_partner_of_the_settings_needs_a_world_of_tools():
    source = EnvSource(
        env="agentgym/Hotter-v0", user=UserSettings(model="m", endpoint="http://h", partner=True)
    )
    with pytest.raises(ConfigError, match="takes actions as text"):
        source.bare()
