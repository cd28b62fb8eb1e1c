"""Episodes that were really played, for tests of formats and scorers: with and without tools."""

import json
from dataclasses import replace

import agentgym
from agentgym.evaluation.record_files import read_episodes
from agentgym.evaluation.records import EpisodeRecord
from agentgym.types import Completion, Stop, Task, ToolCall, Trajectory, Turn

POLICY = '''
import json

def double(number: int) -> str:
    """Twice a number.

    Args:
        number: Any.
    """
    return str(2 * number)

def act(observation, info):
    """Calls the tool twice in one action, then guesses what it returned."""
    if "tool_response" in observation:
        return observation.split()[1]
    calls = [{"name": "double", "arguments": {"number": n}} for n in (len(observation), 3)]
    return "\\n".join(f"<tool_call>{json.dumps(call)}</tool_call>" for call in calls)
'''


def play(folder, tasks, episodes):
    """``2 * tasks * episodes`` episodes: of a random policy, and of one that calls tools."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "calling.py").write_text(POLICY)
    panel = {"tasks": tasks, "episodes": episodes, "split": "train"}
    common = {"env": "hotter", "panel": panel, "progress": False}
    agentgym.evaluate("random", out=folder / "random.jsonl", **common)
    tools = [f"{folder / 'calling.py'}:double"]
    policy = f"{folder / 'calling.py'}:act"
    agentgym.evaluate(policy, out=folder / "calling.jsonl", tools=tools, **common)
    files = [folder / f"{name}.jsonl" for name in ("random", "calling")]
    return [record for file in files for record in read_episodes(file)]


def sampled(record, place):
    """The episode as a model would have sampled it: with tokens, thoughts and odd values."""
    turns = []
    for number, turn in enumerate(record.turns):
        text = f"<think>Höher\u2028? {number}</think>{turn.action}" if number % 2 else turn.action
        tokens = tuple(map(ord, text))
        unknown = float("nan") if place % 3 == 0 and number == 0 else -0.5
        logprobs = (unknown, *[-0.25] * (len(tokens) - 1)) if tokens else ()
        drawn = Completion(tokens, logprobs, (0.5,) * len(tokens), version=number)
        turns.append(
            Turn(
                *((1, 2, number), drawn, turn.action, turn.observation, turn.reward),
                fresh=number == 0 or place % 2 == 0,
                learn=number != 1,
                forced=(1, 2),
                calls=turn.calls,
                thought_tokens=3,
                sampling_seconds=0.5,
            )
        )
    played = Trajectory(
        *(Task(record.env, record.task, record.seed), record.sample, record.goal, record.opening),
        *(tuple(turns), record.stop, record.score, record.won, "</script>", ""),
        shared_turns=min(1, len(turns)),
        parent=3,
        manual=record.manual,
        tools=record.tools,
    )
    rows = [[0.5 * n for n in range(len(turn.completion.tokens))] for turn in turns]
    decode = lambda ids: "".join(map(chr, ids))  # noqa: E731
    return EpisodeRecord.of(played, decode=decode, advantages=rows)


def odd():
    """Episodes at the edges: broken, empty, with calls that hold markup."""
    task = Task("test/Odd-v0", "odd/1", 7)
    call = ToolCall("write", {"text": "</tool_call>\n<b>", "deep": {"list": [1, None, "ü"]}})
    turn = Turn((), Completion((), (), ()), "anything", "<img src=x onerror=alert(1)>", 0.0)
    called = replace(turn, action="f()", calls=(call,))
    for number, (turns, stop) in enumerate(
        [((), Stop.ENV_ERROR), ((turn, called), Stop.MAX_TURNS), ((called,), Stop.TERMINATED)]
    ):
        played = Trajectory(task, number, "", "Go.", turns, stop, error="ValueError: no\nmore")
        yield EpisodeRecord.of(played)


def as_lines(records):
    """Our own file."""
    return "".join(record.to_json() + "\n" for record in records)


def plain(record):
    """A record as JSON, in which two unknown numbers are equal."""
    return json.loads(record.to_json())
