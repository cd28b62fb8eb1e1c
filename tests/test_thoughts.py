"""Thoughts: which text belongs to them, how they are closed, and what they may contain."""

import asyncio

import pytest
from test_chat_templates import CHATML, OPENS_AND_DROPS_THOUGHTS, completion, with_template

from agentgym import Task, make
from agentgym.batch.collate import collate
from agentgym.engines.scripted import ScriptedEngine
from agentgym.errors import MalformedAction
from agentgym.rollout.action_formats import JsonCall, Plain, ReAct, Tags
from agentgym.rollout.agent import AgentInput, ChatAgent
from agentgym.rollout.player import Player
from agentgym.rollout.setup import EpisodeLimits
from agentgym.rollout.thoughts import THINK, answer_of, thought_markers
from agentgym.types import Sampling

TASK = Task("agentgym/Hotter-v0", "hotter-3")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a", (False, "a")),
        ("<think>t</think>a", (True, "a")),
        ("t</think>a", (True, "a")),
        ("x<think>t</think>a<think>u</think>b", (True, "xab")),
        ("<think><think>t</think>a", (True, "a")),
        ("<think>t</think>a</think>b", (True, "a</think>b")),
    ],
)
def test_the_answer_is_the_text_outside_thoughts(text, found):
    assert answer_of(text) == found


@pytest.mark.parametrize("form", [Tags(), JsonCall(), Plain(), ReAct()])
def test_an_unclosed_thought_is_malformed_and_the_message_states_it(form):
    with pytest.raises(MalformedAction, match="not closed"):
        form.parse(f"<think>I should {form.format('go')}")


@pytest.mark.parametrize("form", [Tags(), JsonCall(), ReAct()])
def test_an_action_inside_a_thought_is_not_executed(form):
    text = f"<think>Not {form.format('stop')}!\n</think>\n{form.format('go')}"
    assert form.parse(text) == "go"
    with pytest.raises(MalformedAction):
        form.parse(f"<think>\n{form.format('stop')}\n</think>")


@pytest.mark.parametrize("think", [False, True])
def test_a_thought_opened_by_the_prompt_belongs_to_the_completion(tokenizer, think):
    agent = ChatAgent(
        with_template(tokenizer, OPENS_AND_DROPS_THOUGHTS), action_format=Tags(think=think)
    )
    prompt = agent.prompt(AgentInput("g", "o", "o"), []).tokens
    whole = completion(agent._encode("<action>no</action>?\n</think>\n<action>go</action>"))
    assert agent.parse(whole, prompt) == "go" == agent.parse(whole)
    count = agent.count_thought_tokens(whole, prompt)
    assert "</think>" in agent.decode(whole.tokens[:count])
    assert "</think>" not in agent.decode(whole.tokens[: count - 1])
    cut = completion(agent._encode("<action>no</action>?"))
    with pytest.raises(MalformedAction, match="not closed"):
        agent.parse(cut, prompt)
    assert agent.count_thought_tokens(cut, prompt) == len(cut.tokens)
    assert agent.in_thought(cut, prompt) and not agent.in_thought(whole, prompt)


def test_a_demonstration_closes_a_thought_opened_by_the_prompt(tokenizer):
    for form in (Tags(), Tags(think=True)):
        agent = ChatAgent(with_template(tokenizer, OPENS_AND_DROPS_THOUGHTS), action_format=form)
        written = agent.encode_action("go")
        assert agent.parse(completion(written)) == "go"
        text = agent.decode(written)
        assert text == "\n</think>\n\n<action>go</action>"


@pytest.mark.parametrize(
    ("template", "opening"),
    [
        ("{{ '<|channel|>analysis<|message|>' }}", "<|channel|>analysis<|message|>"),
        ("[THINK]", "[THINK]"),
        ("anything", "<think>"),
    ],
)
def test_markers_are_those_of_the_template(template, opening):
    assert thought_markers(template).opening == opening


def test_a_thought_before_or_after_its_opening_mark_is_split():
    assert THINK.split("a", opened=False) == (None, "a", True)
    assert THINK.split("t</think>a", opened=True) == ("t", "a", True)
    assert THINK.split("<think>t</think>a", opened=True) == ("t", "a", True)
    assert THINK.split("x<think>t</think>a", opened=False) == ("t", "xa", True)
    assert THINK.split("x<think>t", opened=False) == ("t", "x", False)


def test_an_observation_cannot_open_a_thought(tokenizer):
    agent = ChatAgent(with_template(tokenizer, CHATML))
    prompt = agent.prompt(AgentInput("g", "<think>", "<think>"), []).tokens
    assert agent.parse(completion(agent.encode_action("go")), prompt) == "go"
    assert agent.count_thought_tokens(completion(agent.encode_action("go")), prompt) == 0


# ---- budget ----------------------------------------------------------------------------------


def play(agent, say, **limits):
    player = Player(
        agent=agent,
        engine=ScriptedEngine(say),
        make_env=lambda task: make(task.env),
        limits=EpisodeLimits(turns=2, tokens=10_000, **limits),
        sampling=Sampling(max_tokens=200),
    )
    return player, asyncio.run(player(TASK, 0))


def test_a_thought_over_its_budget_is_closed_and_the_completion_continues(tokenizer):
    agent = ChatAgent(with_template(tokenizer, OPENS_AND_DROPS_THOUGHTS))
    asked = []

    def say(prompt, sampling):
        asked.append(sampling)
        if agent.tokenizer.decode(prompt).rstrip().endswith("</think>"):
            return agent._encode("<action>50</action>") + agent.stop[:1]
        return agent._encode("hm " * 300)[: sampling.max_tokens]

    player, played = play(agent, say, thought_tokens=20)
    assert [turn.action for turn in played.turns] == ["50", "50"]
    for turn in played.turns:
        start, stop = turn.forced
        assert start == 20
        inserted = agent.decode(turn.completion.tokens[start:stop])
        assert inserted == agent.template.thoughts.cut and inserted.endswith("</think>\n\n")
        assert turn.thought_tokens >= 20
    assert [s.max_tokens for s in asked[:2]] == [20, 200 - stop]
    assert asked[0].seed != asked[1].seed
    batch = collate([[played]])
    sampled = sum(len(t.completion.tokens) - (t.forced[1] - t.forced[0]) for t in played.turns)
    assert int(batch.mask.sum()) == sampled == player.usage.tokens
    forced = [t.completion.tokens[i] for t in played.turns for i in range(*t.forced)]
    on = batch.tokens[batch.mask].tolist()
    assert len(on) + len(forced) == sum(len(t.completion.tokens) for t in played.turns)


def test_a_thought_within_its_budget_is_unchanged(tokenizer):
    agent = ChatAgent(with_template(tokenizer, CHATML))

    def say(prompt, sampling):
        text = agent.tokenizer.decode(prompt)
        if text.endswith("<|im_start|>assistant\n"):
            return agent._encode("<think>x</think>" + "a " * 40)[: sampling.max_tokens]
        return agent._encode("<action>50</action>") + agent.stop[:1]

    _, played = play(agent, say, thought_tokens=20)
    assert [(turn.action, turn.forced) for turn in played.turns] == [("50", (20, 20))] * 2
