"""verifiers both ways: its evaluation on our environments, and its tasksets here."""

import asyncio
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytest.importorskip("verifiers.v1")

from verifiers.v1.cli.eval.runner import run_eval
from verifiers.v1.configs.cli.eval import EvalConfig

from agentgym.env.registry import world
from agentgym.errors import ConfigError

pytestmark = pytest.mark.filterwarnings("ignore")

SUMS = '''
"""Sums, asked once and scored by verifiers."""
import verifiers.v1 as vf

class Data(vf.TaskData):
    answer: str

class SumTask(vf.Task[Data]):
    @vf.reward
    async def right(self, trace) -> float:
        return float(trace.last_reply.strip() == self.data.answer)

class Sums(vf.Taskset[SumTask, vf.TasksetConfig]):
    def load(self):
        for n in range(20):
            yield SumTask(Data(prompt=f"What is {n} + {n}?", answer=str(2 * n)), self.config.task)

__all__ = ["Sums"]
'''

OURS = """
from agentgym.interop.there.verifiers import AgentGymEnv, AgentGymTaskset
__all__ = ["AgentGymEnv", "AgentGymTaskset"]
"""


@pytest.fixture(autouse=True)
def modules(tmp_path, monkeypatch):
    (tmp_path / "sums_vf.py").write_text(SUMS)
    (tmp_path / "ours_vf.py").write_text(OURS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield
    for name in ("sums_vf", "ours_vf"):
        sys.modules.pop(name, None)


class Searcher:
    """An OpenAI-compatible endpoint that plays Hotter by halving."""

    def __enter__(self):
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                low, high = 1, 100
                guess = None
                for message in body["messages"]:
                    text = message["content"]
                    if message["role"] == "assistant":
                        guess = int(text)
                    elif guess is not None:
                        low, high = (guess + 1, high) if "Higher" in text else (low, guess - 1)
                reported = {
                    "id": "x",
                    "object": "chat.completion",
                    "created": 0,
                    "model": body["model"],
                    "choices": [
                        {
                            "index": 0,
                            "finish_reason": "stop",
                            "message": {"role": "assistant", "content": str((low + high) // 2)},
                        }
                    ],
                    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
                }
                data = json.dumps(reported).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}/v1"

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def test_its_evaluation_plays_our_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("SEARCHER_KEY", "key")
    with Searcher() as url:
        config = EvalConfig.model_validate(
            {
                "env": {"taskset": {"id": "ours_vf", "env": "hotter", "count": 3}},
                "client": {"base_url": url, "api_key_var": "SEARCHER_KEY"},
                "model": "searcher",
                "output_dir": str(tmp_path / "out"),
                "push": False,
            }
        )
        episodes = asyncio.run(run_eval(config))
    assert len(episodes) == 3
    for episode in episodes:
        (trace,) = episode.traces
        assert not trace.errors and trace.reward == 1.0 and trace.metrics["won"] == 1.0


def test_a_taskset_of_verifiers_is_played_and_scored_by_it():
    env = world("verifiers:sums_vf")
    assert [len(env.tasks(split)) for split in ("train", "valid", "test")] == [16, 2, 2]
    for answer, reward in (("6", 1.0), ("7", 0.0)):
        opening, info = env.reset(seed=0, options={"task": "row-3"})
        assert "What is 3 + 3?" in opening
        _, paid, terminated, _, info = env.step(answer)
        assert (paid, terminated, info["won"]) == (reward, True, reward == 1.0)
    with pytest.raises(ConfigError, match="cannot be forked"):
        env.fork()
    env.close()


def test_our_environment_through_verifiers_and_back():
    """The whole way round: a conversation of several turns with verifiers between."""
    own = world("hotter")
    env = world("verifiers:ours_vf", taskset={"env": "hotter", "count": 10})
    opening, _ = env.reset(seed=0, options={"task": "row-0"})
    assert "I hide a number" in opening
    own.reset(seed=0, options={"task": next(iter(own.tasks("train")))})
    for action in own.oracle():
        expected = own.step(action)
        got = env.step(action)
        if not expected[2]:
            assert got[0] == expected[0] and not got[2]
    assert got[2] and got[4]["won"] and got[1] == 1.0
    # An episode that is left in the middle ends with its environment.
    env.reset(seed=0, options={"task": "row-1"})
    env.close()


def test_a_taskset_that_is_not_there_is_one_line():
    with pytest.raises(ConfigError, match="verifiers:no_such_set cannot be loaded"):
        world("verifiers:no_such_set")
