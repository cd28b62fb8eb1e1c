"""NeMo Gym's own resource servers, in the environment of another Python, played by us."""

import json
import os
import subprocess

import pytest
from openenv_servers import free_port, process

from agentgym.env.registry import world
from agentgym.errors import ConfigError, EnvError, Unreachable

SERVER = os.environ.get("INTEROP_SERVER", "")

pytestmark = pytest.mark.skipif(not SERVER, reason="scripts/test-interop nemo_gym sets it up")

CODE = """
import sys, uvicorn
from resources_servers.example_session_state_mgmt.app import (
    StatefulCounterResourcesServer as Server,
    StatefulCounterResourcesServerConfig as Config,
)
from nemo_gym.server_utils import ServerClient
config = Config(host="127.0.0.1", port=int(sys.argv[1]), entrypoint="", name="counter")
server = Server(config=config, server_client=ServerClient.model_construct())
uvicorn.run(server.setup_webserver(), host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
"""


def call(name, **arguments):
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


@pytest.fixture(scope="module")
def rows():
    """The rows that the package ships for this server."""
    code = (
        "import resources_servers.example_session_state_mgmt as m, pathlib; "
        "print(pathlib.Path(m.__path__[0]) / 'data' / 'example.jsonl')"
    )
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [SERVER, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    return done.stdout.split()[-1]


@pytest.fixture(scope="module")
def counter():
    port = free_port()
    with process([SERVER, "-c", CODE, str(port)], port, PYTHONPATH="") as url:
        yield f"nemo-gym:{url}"


def test_a_row_is_played_with_its_tools_and_verified(counter, rows):
    env = world(counter, data=rows)
    opening, info = env.reset(seed=0, options={"task": "row-0"})
    assert opening == "add 1 then add 2 then get the count"
    assert "increment_counter" in info["goal"]
    env.step(call("increment_counter", count=1))
    text, reward, terminated, _, info = env.step(
        call("increment_counter", count=2) + call("get_counter_value")
    )
    assert '{"count":6}' in text and (reward, terminated) == (0.0, False)
    _, reward, terminated, _, info = env.step("It is 6.")
    assert (reward, terminated, info["won"]) == (1.0, True, True)


def test_sessions_are_apart_and_a_fork_replays(counter, rows):
    one, two = world(counter, data=rows), world(counter, data=rows)
    for env in (one, two):
        env.reset(seed=0, options={"task": "row-0"})
    one.step(call("increment_counter", count=3))
    twin = one.fork()
    assert two.step("Done.")[1] == 0.0
    assert twin.step("Done.")[1] == 1.0 and one.step("Done.")[1] == 1.0


def test_mistakes_of_the_model_are_answered(counter, rows):
    env = world(counter, data=rows)
    env.reset(seed=0, options={"task": "row-0"})
    for action, sentence in (
        (call("decrement"), "There is no tool 'decrement'. Tools: increment_counter"),
        (call("increment_counter", count="many"), "The call was refused"),
        ("<tool_call>{", "tool_response"),
    ):
        text, _, terminated, _, info = env.step(action)
        assert sentence in text and not info["action_valid"] and not terminated


def test_what_is_missing_is_one_line(counter, rows, tmp_path):
    with pytest.raises(ConfigError, match="takes its tasks from a file of rows"):
        world(counter)
    (tmp_path / "bad.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(ConfigError, match=r"row 0 of .* has no responses_create_params"):
        world(counter, data=str(tmp_path / "bad.jsonl"))
    lone = world(f"nemo-gym:http://127.0.0.1:{free_port()}", data=rows)
    with pytest.raises(Unreachable, match="is the server running"):
        lone.reset(seed=0)
    (tmp_path / "row.jsonl").write_text('{"responses_create_params": {"input": "x"}}\n')
    with pytest.raises(EnvError, match="/seed_session answered 422"):
        world(counter, data=str(tmp_path / "row.jsonl")).reset(seed=0, options={"task": "row-0"})
