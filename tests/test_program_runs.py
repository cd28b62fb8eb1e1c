"""A whole run by an agent program, with a curriculum: trained, interrupted, resumed, evaluated."""

import json
import shutil

import pytest

import agentgym
from agentgym.errors import ConfigError
from agentgym.evaluation.record_files import read_episodes
from agentgym.experiment.metrics_file import read_metrics
from agentgym_trainers.grpo import GRPO

PROGRAM = """
import json, urllib.request

from agentgym_envs.hotter import Hotter


class Few(Hotter):
    def tasks(self, split):
        return super().tasks(split)[:6]


def play(access):
    def post(url, body):
        headers = {"Authorization": "Bearer " + access.api_key}
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        return json.load(urllib.request.urlopen(request))

    messages = [{"role": "user", "content": access.goal + " " + access.observation}]
    done = False
    while not done:
        asked = {"messages": messages}
        answer = post(access.base_url + "/chat/completions", asked)["choices"][0]["message"]
        action = answer["content"].removeprefix("<action>").removesuffix("</action>")
        result = post(access.world_url + "/step", {"action": action})
        messages += [answer, {"role": "user", "content": result["observation"]}]
        done = result["done"]
"""
SMALL = {
    "env_args": {"high": 4},
    "tasks_per_step": 2,
    "save_every": 2,
    "imitation": {"max_steps": 6, "demos_per_task": 1, "until_success": 1.0},
    "scratch": {
        "hidden_size": 32,
        "num_layers": 1,
        "num_heads": 2,
        "num_kv_heads": 1,
        "intermediate_size": 64,
        "vocab_size": 300,
    },
    "rollout": {"max_turns": 3, "max_context_tokens": 256, "max_completion_tokens": 8},
    "panel": {"tasks": 1, "episodes": 1},
    "curriculum": {"kind": "filter"},
}


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    file = tmp_path_factory.mktemp("program") / "my_agent.py"
    file.write_text(PROGRAM)
    return {"env": f"{file}:Few", "agent_program": f"{file}:play"}


def logged(folder):
    kept = ("episode/", "policy/entropy", "update/", "curriculum/", "spent/")
    rows = read_metrics(folder / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k.startswith(kept)} for row in rows]


def sampled(episode):
    """All of an episode but its times."""
    turns = [(t.action, t.observation, t.tokens, t.logprobs, t.version) for t in episode.turns]
    return episode.key, episode.stop, episode.score, turns


def test_a_resumed_run_of_a_program_is_that_without_interruption(tmp_path, program):
    whole, half = tmp_path / "whole", tmp_path / "half"
    agentgym.train(GRPO(group_size=2), **program, steps=3, out=whole, progress=False, **SMALL)
    rows = logged(whole)
    assert len(rows) == 3 and "curriculum/tasks" in rows[0] and rows[-1]["spent/tokens"] > 0
    shutil.copytree(whole, half)
    shutil.rmtree(half / "checkpoints" / "final")
    (half / "eval" / "after.jsonl").unlink()
    agentgym.train(resume=half, progress=False)
    assert logged(half) == rows
    one, other = (read_episodes(folder / "episodes.jsonl") for folder in (whole, half))
    assert list(map(sampled, one)) == list(map(sampled, other))
    header = json.loads((whole / "eval" / "after.jsonl").read_text().splitlines()[0])["header"]
    assert header["settings"]["agent_program"] == program["agent_program"]


def test_what_cannot_work_is_refused_before_anything_is_written(tmp_path, program):
    out = tmp_path / "run"
    with pytest.raises(ConfigError, match="forks running episodes"):
        agentgym.train("arpo", **program, out=out, progress=False, **SMALL)
    with pytest.raises(ConfigError, match=r"program.reward.*'luck'"):
        agentgym.train(**program, program={"reward": "luck"}, out=out, progress=False, **SMALL)
    with pytest.raises(ConfigError, match="which an agent program cannot call"):
        agentgym.evaluate("oracle", **program, progress=False)
    assert not out.exists()
