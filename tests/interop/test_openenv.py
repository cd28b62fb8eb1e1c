"""OpenEnv both ways with its own package: its client plays our server, ours plays its server."""

import asyncio
import json
import os
import re
import subprocess
import sys

import pytest

pytest.importorskip("openenv.core")

from defects import DEFECTS
from openenv.cli._validation import validate_running_environment
from openenv.core import GenericEnvClient
from openenv_servers import ROOT, free_port, process, serving

from agentgym.env.registry import make, world
from agentgym.errors import ConfigError, EnvError, UnknownTask
from agentgym.testing import CheckSettings
from agentgym.testing.environments import findings
from agentgym.testing.findings import Verdict

pytestmark = pytest.mark.timeout(1200)
"""Audits over the wire are long: many messages, with a server that shares the processors."""


@pytest.fixture(scope="module")
def hotter():
    with serving("hotter") as url:
        yield url


@pytest.fixture(scope="module")
def echo(tmp_path_factory):
    """The environment that ``openenv init`` writes, served by OpenEnv's own server."""
    folder = tmp_path_factory.mktemp("echo")
    command = [sys.executable, "-m", "openenv.cli", "init", "echo", "--output-dir", str(folder)]
    # It would resolve versions over the network for a lock file where there is uv.
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "UV_OFFLINE": "1"})
    port = free_port()
    code = (
        "import sys, uvicorn; sys.path.insert(0, '.')\n"
        "from openenv.core.env_server.http_server import create_fastapi_app\n"
        "from server.echo_environment import EchoEnvironment\n"
        "from models import EchoAction, EchoObservation\n"
        "app = create_fastapi_app(\n"
        "    EchoEnvironment, EchoAction, EchoObservation, max_concurrent_envs=64)\n"
        f"uvicorn.run(app, host='127.0.0.1', port={port}, log_level='error')\n"
    )
    inner = next(folder.rglob("openenv.yaml")).parent
    with process([sys.executable, "-c", code], port, cwd=inner) as url:
        yield url


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    """Our echo of two tasks with OpenEnv's TaskProvider, on OpenEnv's own server."""
    folder, port = tmp_path_factory.mktemp("listed"), free_port()
    (folder / "listed.py").write_text(LISTED.replace("FREE", str(port)))
    with process([sys.executable, "listed.py"], port, cwd=folder) as url:
        yield url


LISTED = """
import uvicorn
from openenv.core.env_server.http_server import create_fastapi_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State

class Say(Action):
    message: str

class Heard(Observation):
    text: str

class Listed(Environment):
    SUPPORTS_CONCURRENT_SESSIONS = True
    def __init__(self):
        super().__init__()
        self.now = State()
    def list_splits(self):
        return ["train", {"name": "validation", "type": "validation"}]
    def list_tasks(self, split):
        return [{"id": f"{split}-{word}"} for word in ("red", "blue")]
    def num_tasks(self, split):
        return 2
    def reset(self, seed=None, episode_id=None, split=None, index=None, **more):
        self.word = self.list_tasks(split)[index]["id"].partition("-")[2]
        self.now = State(episode_id=episode_id, step_count=0)
        return Heard(text="Which colour?")
    def step(self, action, **more):
        self.now.step_count += 1
        right = action.message == self.word
        return Heard(text="Yes." if right else "No.", reward=float(right), done=right)
    @property
    def state(self):
        return self.now

app = create_fastapi_app(Listed, Say, Heard, max_concurrent_envs=64)
uvicorn.run(app, host="127.0.0.1", port=FREE, log_level="error")
"""

# ---- its client, our server ------------------------------------------------------------------


def test_its_client_plays_an_episode_as_in_process(hotter):
    own = world("hotter")
    opening, info = own.reset(seed=3, options={"task": "hotter-12"})
    with GenericEnvClient(base_url=hotter).sync() as env:
        got = env.reset(seed=3, task="hotter-12", episode_id="mine")
        assert got.observation["text"] == opening and got.done is False
        assert (
            got.observation["goal"] == info["goal"] and info["manual"] in got.observation["manual"]
        )
        for number, action in enumerate(own.oracle(), 1):
            text, reward, terminated, _, info = own.step(action)
            got = env.step({"text": action})
            assert (got.observation["text"], got.reward, got.done) == (text, reward, terminated)
            assert got.metadata["score"] == info["score"] and got.metadata["won"] is info["won"]
            state = env.state()
            assert (state["episode_id"], state["step_count"]) == ("mine", number)
        assert got.done and got.reward == 1.0
        with pytest.raises(RuntimeError, match="no episode is running: reset starts one"):
            env.step({"text": "5"})
        with pytest.raises(RuntimeError, match="VALIDATION_ERROR"):
            env.step({"message": "5"})


def test_its_client_picks_tasks_by_split_and_index(hotter):
    with GenericEnvClient(base_url=hotter).sync() as env:
        got = env.reset(split="test", index=4)
        assert got.metadata["task_id"] == list(world("hotter").tasks("test"))[4]
        again = env.reset(split="test", seed=7).metadata["task_id"]
        assert again == env.reset(split="test", seed=7).metadata["task_id"]


def test_sessions_of_its_client_are_independent(hotter):
    async def play():
        async with (
            GenericEnvClient(base_url=hotter) as one,
            GenericEnvClient(base_url=hotter) as two,
        ):
            await one.reset(task="hotter-12")
            await two.reset(task="hotter-40")
            answers = await asyncio.gather(one.step({"text": "40"}), two.step({"text": "40"}))
            return [each.done for each in answers]

    own = world("hotter")
    own.reset(options={"task": "hotter-40"})
    assert asyncio.run(play()) == [False, own.step("40")[2]]


def test_a_turn_limit_truncates(hotter):
    with GenericEnvClient(base_url=hotter).sync() as env:
        env.reset(task="hotter-12", max_turns=2)
        assert env.step({"text": "1"}).done is False
        last = env.step({"text": "2"})
        assert last.done and last.metadata["truncated"] and not last.metadata["terminated"]


def test_its_validator_of_running_servers_passes_ours(hotter):
    report = validate_running_environment(hotter)
    assert report["passed"], json.dumps(report, indent=1)


# ---- our client, its server ------------------------------------------------------------------


def test_we_play_its_echo_environment(echo):
    env = world(f"openenv:{echo}")
    first = env.tasks("train")[0]
    observation, info = env.reset(seed=0, options={"task": first})
    assert observation == "Echo environment ready!" and info["task_id"] == first
    text, reward, terminated, truncated, info = env.step("Hello")
    assert (text, reward, terminated, truncated) == ("Hello", 0.5, False, False)
    twin = env.fork()
    assert twin.step("again")[:2] == env.step("again")[:2]
    assert env.promises.fork == "replay" and not env.promises.panels and not env.promises.success
    env.close()
    twin.close()


def test_its_episodes_are_truncated_at_our_turn_limit(echo):
    env = make(f"openenv:{echo}", max_episode_steps=2)
    env.reset(seed=0)
    assert env.step("a")[3] is False and env.step("b")[3] is True
    env.close()


def test_the_tasks_that_its_server_lists_are_played(listed):
    env = world(f"openenv:{listed}")
    assert env.promises.panels and list(env.tasks("valid")) == ["validation-red", "validation-blue"]
    with pytest.raises(ConfigError, match="has no split 'test'"):
        env.tasks("test")
    with pytest.raises(UnknownTask, match="has no task 'train-green'"):
        env.reset(options={"task": "train-green"})
    assert env.reset(seed=0, options={"task": "train-blue"})[1]["task_id"] == "train-blue"
    assert env.step("red")[4]["score"] == 0.0
    text, reward, terminated, _, info = env.step("blue")
    assert (text, reward, terminated, info["won"]) == ("Yes.", 1.0, True, True)
    env.close()


def test_an_action_that_its_schema_refuses_is_invalid_and_no_failure(echo):
    env = world(f"openenv:{echo}", action="message")
    env.form = env.form.__class__("massage", env.form.observation_field, env.form.action_schema)  # type: ignore[attr-defined]
    env.reset(seed=0)
    text, _, terminated, _, info = env.step("Hello")
    assert "refused" in text and not info["action_valid"] and not terminated
    env.close()


def test_a_server_of_its_own_that_is_gone_is_one_line():
    with pytest.raises(EnvError, match="is the server running"):
        world(f"openenv:http://127.0.0.1:{free_port()}")


# ---- the checker over the wire ---------------------------------------------------------------

QUICK = CheckSettings(steps=60, resets=200, seconds=30.0)


@pytest.fixture(scope="module")
def defective():
    """Every seeded defect, on two servers that hash texts differently."""
    command = [sys.executable, str(ROOT / "tests/defect_server.py")]
    one, two = free_port(), free_port()
    with (
        process([*command, str(one), "worlds"], one, PYTHONHASHSEED="1") as first,
        process([*command, str(two), "worlds"], two, PYTHONHASHSEED="2") as second,
    ):
        yield first, second


SAID_DIFFERENTLY = {
    "RaisesOnNothing": "never raise; it raised Refused: IndexError",
    "CallsAnUnknownTaskAKeyError": "must raise UnknownTask, got Refused: KeyError",
    "TakesNoOptionsOfTheBase": "has no argument 'admissible'",
}
"""Where the sentence over the wire differs from the one in process."""


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.world.__name__)
def test_every_seeded_defect_is_caught_over_the_wire(defective, defect):
    name = defect.world.__name__
    first, second = (f"{url}/{name}" for url in defective)
    found = findings(f"openenv:{first}", QUICK, replica=second)
    failed = next((each for each in found if each.verdict is Verdict.FAILED), None)
    assert failed is not None
    assert re.search(SAID_DIFFERENTLY.get(name, defect.sentence), failed.note)


@pytest.mark.parametrize("name", ["Corridor", "Drawers"])
def test_a_correct_world_passes_over_the_wire(defective, name):
    first, second = (f"{url}/{name}" for url in defective)
    found = list(findings(f"openenv:{first}", QUICK, replica=second))
    assert [each.note for each in found if each.verdict is Verdict.FAILED] == []


def test_the_checker_reports_what_its_echo_environment_breaks(echo):
    """It ends no episode and pays for length: an auditor must say so."""
    found = {each.check: each for each in findings(f"openenv:{echo}", QUICK)}
    failed = {check for check, each in found.items() if each.verdict is Verdict.FAILED}
    assert {"task ids select tasks", "canaries stay at the floor"} <= failed
    assert "state follows the episode" not in failed
    assert "broken messages are refused" not in failed
    assert "observations match their schema" not in failed
