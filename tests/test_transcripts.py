"""Rows against transcripts, over thousands of turns of random text."""

import asyncio
import json
import random
import unicodedata

import pytest

from agentgym import Opening, Outcome, Task, TextEnv
from agentgym.batch.collate import collate
from agentgym.engines.scripted import ScriptedEngine
from agentgym.errors import MalformedAction
from agentgym.rollout.action_formats import JsonCall, Tags
from agentgym.rollout.agent import ChatAgent
from agentgym.rollout.player import Player
from agentgym.rollout.setup import EpisodeLimits
from agentgym.types import Sampling

MARKS = ("<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|endoftext|>")
PIECES = (
    *MARKS,
    *("<|end|", "|>", "< |end|>", "<action>", "</action>", "<think>", "</think>", "<|im_end|>"),
    *("<tool_call>", "</tool_call>", '{"name": "act"}', "\\", '"', "{{", "{%", "}}", "%s"),
    *("north", "take lamp", "Higher.", " ", "  ", "\n", "\r\n", "\t", "\x00", "\x1b[2J", "\u2028"),
    *(
        "ü",
        "e\u0301",
        "日本語",
        "🙂",
        "👩‍👩‍👧",
        "\u202e",
        "\ufeff",
        "\ufffd",
        "\u2400one",
        "\uff11\uff12",
        "\U0001d518",
        "ﬁ",
    ),
)


def babble(rng, most=6):
    return "".join(rng.choice(PIECES) for _ in range(rng.randint(0, most)))


class Babel(TextEnv):
    """Answers random text, with halves of characters; records its actions."""

    heard: list

    def tasks(self, split):
        return tuple(f"babel-{n}" for n in range(1000))

    def start(self, task, rng):
        self.rng, self.heard = random.Random(task), []
        return Opening("o" + babble(self.rng), "goal " + babble(self.rng))

    def act(self, action):
        self.heard.append(action)
        return Outcome(babble(self.rng) + self.rng.choice(["", "", "\ud800"]))


def utterance(rng, agent, tokenizer):
    """A random completion, and the action in it where it is known."""
    action = unicodedata.normalize(
        "NFC", rng.choice(["north", "ü 日本", "say 🙂", "x" * 30, "\x00"])
    )
    written = agent.encode_action(action)
    kind = rng.randrange(6)
    if kind < 2:
        return written, action
    if kind == 2:  # cut off by the limit, anywhere before its end
        return written[: rng.randrange(1, len(written) - 1)], None
    if kind == 3:
        return tuple(rng.randrange(len(tokenizer)) for _ in range(rng.randint(1, 12))), None
    text = babble(rng) + agent.action_format.format(action) * rng.choice([0, 2])
    return (*tokenizer.encode(text, add_special_tokens=False), agent.stop[0]), None


def shown(text):
    """Text of the environment as it appears in a prompt."""
    text = text.encode(errors="replace").decode()
    for mark in sorted(MARKS, key=len, reverse=True):
        text = text.replace(mark, f"< {mark[1:]}")
    return unicodedata.normalize("NFC", text)


def growing(trajectory, tokenizer):
    """The expected prompt of each turn."""
    first = trajectory.opening
    if trajectory.goal not in first:
        first = f"{trajectory.goal}\n{first}"
    yield f"<|user|>{shown(first)}<|assistant|>"
    for turn in trajectory.turns[:-1]:
        closed = turn.completion.tokens[-1] == tokenizer.eos_token_id
        closing = "" if closed else "<|end|>"
        yield f"{closing}<|user|>{shown(turn.observation)}<|assistant|>"


def windowed(trajectory, tokenizer):
    """The goal, the last two exchanges, the current observation."""
    yield next(growing(trajectory, tokenizer))
    seen = [trajectory.opening, *(turn.observation for turn in trajectory.turns)]
    for now in range(1, len(trajectory.turns)):
        lines = [trajectory.goal]
        for n in range(max(0, now - 2), now):
            lines += [f"[{n + 1}] {seen[n]}", f"> {trajectory.turns[n].action or '(no action)'}"]
        yield f"<|user|>{shown(chr(10).join([*lines, f'[{now + 1}] {seen[now]}']))}<|assistant|>"


@pytest.mark.parametrize(
    "form", [Tags(), Tags(think=True), JsonCall()], ids=["tags", "think", "json"]
)
@pytest.mark.parametrize("window", [None, 2])
def test_rows_contain_exactly_the_transcript(tokenizer, form, window):
    """500 turns each: every prompt is the template's text, every completion the engine's tokens.

    An action reaches the environment exactly when the completion contains one.
    """
    agent = ChatAgent(tokenizer, action_format=form, window=window)
    turns = 0
    for number in range(50):
        rng, completions, worlds = random.Random(number), [], []

        def say(prompt, sampling, rng=rng, completions=completions):
            completions.append(utterance(rng, agent, tokenizer))
            return completions[-1][0]

        def make(task, worlds=worlds):
            worlds.append(Babel())
            return worlds[-1]

        limits = EpisodeLimits(turns=10, tokens=100_000)
        player = Player(
            agent=agent,
            engine=ScriptedEngine(say),
            make_env=make,
            limits=limits,
            sampling=Sampling(),
        )
        played = asyncio.run(player(Task("babel", f"babel-{number}"), 0))
        assert played.error == "" and len(played.turns) == 10
        turns += len(played.turns)

        expected = list((growing if window is None else windowed)(played, tokenizer))
        assert [tokenizer.decode(turn.prompt) for turn in played.turns] == expected
        assert [turn.completion.tokens for turn in played.turns] == [
            written for written, _ in completions
        ]

        batch = collate([[played]])
        row = [x for turn in played.turns for x in (*turn.prompt, *turn.completion.tokens)]
        assert batch.tokens.tolist() == row
        assert batch.tokens[batch.mask].tolist() == [
            x for written, _ in completions for x in written
        ]
        assert len(batch) == (1 if window is None else 10)

        acted = [turn for turn in played.turns if turn.parsed]
        assert worlds[0].heard == [turn.action for turn in acted]
        for turn, (written, action) in zip(played.turns, completions, strict=True):
            if action is not None:
                assert (turn.parsed, turn.action) == (True, action.strip())
            if not turn.parsed:
                assert (turn.action, turn.reward, turn.valid) == ("", 0.0, False)
                assert turn.observation and "\n" not in turn.observation
            elif action is None:
                assert one_action_by_hand(form, tokenizer.decode(written), turn.action)
    assert turns == 500


def one_action_by_hand(form, text, action):
    """Whether a random text contains exactly this action by accident."""
    opening, closing = ("<tool_call>",) * 2 if isinstance(form, JsonCall) else ("<action>",) * 2
    closing = closing.replace("<", "</")
    outside = text
    while "<think>" in outside and "</think>" in outside.partition("<think>")[2]:
        before, _, rest = outside.partition("<think>")
        outside = before + rest.partition("</think>")[2]
    inside = outside.partition(opening)[2].partition(closing)[0]
    if outside.count(opening) != 1 or outside.count(closing) != 1:
        return False
    if isinstance(form, JsonCall):
        inside = json.loads(inside)["arguments"]["action"]
    return inside.strip() == action != ""


@pytest.mark.parametrize(
    "call",
    [
        '{"name": "act", "arguments": {"action": "go \\ud800"}}',
        '{"name": "act", "arguments": {"action": "\\udfff\\ud83d"}}',
        '{"name": "act", "arguments": {"action": ["go"]}}',
        '{"name": "act", "arguments": "go"}',
        '{"name": "act", "arguments": {"action": "go"}} {"name": "act"}',
        '{"name": ["act"], "arguments": {"action": "go"}}',
        '{"name": "act", "arguments": {"action": %s}}' % ("9" * 5000),
    ],
)
def test_an_unreadable_tool_call_is_malformed(call):
    with pytest.raises(MalformedAction) as error:
        JsonCall().parse(f"<tool_call>{call}</tool_call>")
    assert len(str(error.value)) < 300


def test_surrogate_pairs_are_joined_into_one_character():
    call = '<tool_call>{"name": "act", "arguments": {"action": "say \\ud83d\\ude42"}}</tool_call>'
    assert JsonCall().parse(call) == "say 🙂"
