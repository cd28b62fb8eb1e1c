"""MCP both ways, against real server processes: over stdio and over streamable HTTP."""

import contextlib
import gc
import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from http_service import serving

from agentgym.env.registry import world
from agentgym.errors import ConfigError, EnvError, EnvTimeout, ImpossibleValue, Unreachable
from agentgym.tools import CallLimits, TagCalls, WithTools

pytest.importorskip("mcp")
from agentgym.tools.json_schema import schema_check
from agentgym.tools.mcp import ToolServer

SHOP = str(Path(__file__).with_name("mcp_shop.py"))
COMMAND = [sys.executable, SHOP]
PATIENT = 120
"""Seconds for a process to start, on a busy machine."""


def call(name, **arguments):
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def hotter(server, notation=None, timeout=PATIENT, count=None):
    limits = CallLimits(timeout=timeout, retries=5, backoff=0.01)
    tools = server.tools[:count]
    env = WithTools(world("agentgym/Hotter-v0"), tools, notation=notation, limits=limits)
    env.reset(options={"task": "hotter-3"})
    return env


def result(env, name, **arguments):
    """The result of a call without its tags, and whether the call was valid."""
    observation, *_, info = env.step(call(name, **arguments))
    text = observation.removeprefix("<tool_response>\n").removesuffix("\n</tool_response>")
    return text, info["action_valid"]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@contextlib.contextmanager
def over_http(*command, path="/mcp"):
    """A server process, and its address once it answers."""
    port = free_port()
    process = subprocess.Popen([*command, str(port)], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PATIENT
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            assert process.poll() is None and time.monotonic() < deadline, "it does not start"
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}{path}", process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def shops():
    """A connection over each transport, for the tests that leave the server alive."""
    with (
        over_http(*COMMAND) as (url, _),
        ToolServer(COMMAND, timeout=PATIENT) as stdio,
        ToolServer(url) as http,
    ):
        yield {"stdio": stdio, "http": http}


both = pytest.mark.parametrize("transport", ["stdio", "http"])


# ---- tools of a server as local tools --------------------------------------------------------


@both
def test_server_tools_are_called_like_local_ones(shops, transport):
    env = hotter(shops[transport])
    assert [tool.signature for tool in env.tools] == [
        "price(item: string, count: integer = 1)",
        "double(number: integer)",
        "total()",
        "stock(same: boolean = false)",
        "names()",
        "nap(seconds: number)",
        "die()",
    ]
    assert "What an item costs." in env.instructions
    before = json.loads(result(env, "total")[0])["asked"]
    assert result(env, "price", item="tea", count=2) == ("2 x tea: 6", True)
    assert result(env, "double", number=21) == ("42", True)
    assert json.loads(result(env, "total")[0])["asked"] == before + 1
    # Structured content is added unless the text repeats it.
    assert result(env, "stock") == ('2 items\n{"items": ["tea", "moon"]}', True)
    assert result(env, "stock", same=True) == ('{"items": ["tea", "moon"]}', True)
    assert result(env, "names") == ("tea\nmoon", True)


@both
def test_model_errors_are_reported_and_the_episode_continues(shops, transport):
    env = hotter(shops[transport])
    for arguments, message in [
        ({"item": 3}, "$.item: 3 is not of type 'string'. Expected price(item: string"),
        ({}, "'item' is a required property"),
        ({"item": "moon"}, "the moon is not for sale"),
    ]:
        text, valid = result(env, "price", **arguments)
        assert message in text and not valid
    assert result(env, "price", item="tea")[1]


def test_tag_arguments_are_converted_from_text(shops):
    env = hotter(shops["stdio"], notation=TagCalls(), count=2)
    assert env.step("<double>21</double>")[0] == "<result>\n42\n</result>"
    assert "'x' is not of type 'integer'" in env.step("<double>x</double>")[0]
    assert env.step("<price>12</price>")[0] == "<result>\n1 x 12: 3\n</result>"


@both
def test_slow_call_times_out_and_the_server_stays_usable(shops, transport):
    env = hotter(shops[transport], timeout=0.5)
    start = time.monotonic()
    with pytest.raises(EnvTimeout, match=r"tool 'nap' did not answer within 0.5 s"):
        env.step(call("nap", seconds=3))
    assert time.monotonic() - start < 3
    env.limits = CallLimits(timeout=PATIENT)
    assert result(env, "double", number=2) == ("4", True)


def test_dead_server_breaks_the_episode_and_the_next_one_reconnects():
    with ToolServer(COMMAND, timeout=PATIENT) as server:
        env = hotter(server)
        result(env, "price", item="tea")
        with pytest.raises(
            EnvError, match="Connection closed; last line of its stderr: out of memory"
        ):
            env.step(call("die"))
        with pytest.raises(EnvError, match="Connection closed"):
            env.step(call("total"))
        env.reset(options={"task": "hotter-3"})
        assert json.loads(result(env, "total")[0]) == {"asked": 0}


def test_dead_http_server_breaks_this_and_later_episodes():
    with over_http(*COMMAND) as (url, process), ToolServer(url) as server:
        env = hotter(server)
        process.kill()
        process.wait()
        with pytest.raises(EnvError, match=f"the MCP server '{url}' failed: "):
            env.step(call("total"))
        with pytest.raises(Unreachable, match="failed: ConnectError"):
            env.reset(options={"task": "hotter-3"})


@pytest.mark.parametrize(
    ("server", "error", "message"),
    [
        (["/no/such/server"], Unreachable, "FileNotFoundError"),
        (
            [sys.executable, "-c", "raise SystemExit('no key')"],
            Unreachable,
            "last line of its stderr: no key",
        ),
        ([sys.executable, "-c", "input(); print('{}')"], Unreachable, "Connection closed"),
        ("http://127.0.0.1:9/mcp", Unreachable, "ConnectError"),
        ("", ConfigError, "expected an address or a command"),
    ],
)
def test_invalid_server_is_reported_in_one_line(server, error, message):
    with pytest.raises(error, match=message) as raised:
        ToolServer(server, timeout=PATIENT)
    assert "\n" not in str(raised.value)


def test_website_that_is_not_an_mcp_server_is_rejected():
    page = (200, b"<html>", ("content-type", "text/html"))
    with serving(lambda path, body: page) as (_, url):
        with pytest.raises((Unreachable, EnvTimeout), match="the MCP server 'http") as raised:
            ToolServer(f"{url}/mcp", timeout=20)
        assert "\n" not in str(raised.value)


def test_silent_server_times_out():
    with pytest.raises(EnvTimeout, match=r"did not list its tools within 0.5 s"):
        ToolServer([sys.executable, "-c", "import time; time.sleep(99)"], timeout=0.5)
    with pytest.raises(ImpossibleValue, match="timeout"):
        ToolServer(COMMAND, timeout=0)


def test_schema_validation_fetches_no_references():
    with pytest.raises(ConfigError, match="tool 'x' has no valid schema"):
        schema_check("x", {"type": "nothing"})
    check = schema_check(
        "x", {"type": "object", "properties": {"n": {"type": ["null", "integer"]}}}
    )
    assert check({"n": "null"}, True) == {"n": None}
    remote = schema_check("x", {"$ref": "http://127.0.0.1:9/schema"})
    with pytest.raises(Exception, match="Unresolvable"):
        remote({}, False)


def processes(marker):
    """Ids of the processes with a text in their command line."""
    found = []
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if marker.encode() in Path("/proc", entry, "cmdline").read_bytes():
                found.append(int(entry))
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are read from /proc")
@pytest.mark.parametrize("how", ["close", "forget"])
def test_started_server_exits_when_closed_or_garbage_collected(how):
    marker = f"shop-{how}-{os.getpid()}"
    server = ToolServer([*COMMAND[:1], "-c", f"'{marker}'; import runpy, sys; "
                         f"sys.argv = [{SHOP!r}]; runpy.run_path({SHOP!r}, run_name='__main__')"],
                        timeout=PATIENT)  # fmt: skip
    env = hotter(server)
    assert len(processes(marker)) == 1
    if how == "close":
        server.close()
        with pytest.raises(EnvError, match="was closed"):
            env.step(call("total"))
        env.reset(options={"task": "hotter-3"})
    del server, env
    gc.collect()
    deadline = time.monotonic() + PATIENT
    while processes(marker):
        assert time.monotonic() < deadline, "the server is left"
        time.sleep(0.05)


# ---- environments as a server ------------------------------------------------------------------

SERVE = [sys.executable, "-m", "agentgym.cli", "serve"]


def play(env, goal="Find the number"):
    """Win a game of Hotter through the server's own tools."""
    listed = json.loads(result(env, "tasks", split="test")[0])
    assert len(listed["tasks"]) <= listed["total"]
    task = listed["tasks"][0]
    seen = json.loads(result(env, "reset", task=task)[0])
    assert goal in seen["goal"] and not seen["done"]
    plan = world("agentgym/Hotter-v0")
    plan.reset(options={"task": task})
    for action in plan.oracle():
        seen = json.loads(result(env, "step", episode=seen["episode"], action=action)[0])
    assert seen["won"] and seen["done"] and seen["score"] == 1
    text, valid = result(env, "step", episode=seen["episode"], action="1")
    assert "is over; reset() starts another" in text and not valid
    assert result(env, "close", episode=seen["episode"]) == ("closed", True)
    return seen


def test_environment_is_served_over_stdio_and_http():
    with ToolServer([*SERVE, "hotter", "--mcp", "stdio"], timeout=PATIENT) as server:
        play(hotter(server))
    with (
        over_http(*SERVE, "hotter", "--mcp", "http", "--port") as (url, _),
        ToolServer(url) as server,
    ):
        env = hotter(server)
        play(env)
        for name, arguments, message in [
            ("reset", {"task": "hotter-x"}, "has no task 'hotter-x'"),
            ("step", {"episode": "nobody", "action": "1"}, "there is no episode 'nobody'"),
            ("tasks", {"split": "tset"}, "tset"),
        ]:
            text, valid = result(env, name, **arguments)
            assert message in text and not valid
        one, other = (json.loads(result(env, "reset", task="hotter-3")[0]) for _ in range(2))
        assert one["episode"] != other["episode"]
        assert one["observation"] == other["observation"]


def test_unservable_environment_is_reported_in_one_line():
    done = subprocess.run(
        [*SERVE, "hoter", "--mcp", "stdio"], capture_output=True, text=True, timeout=PATIENT
    )
    assert done.returncode == 2 and done.stdout == ""
    assert re.fullmatch(r"agentgym: no environment 'hoter'.*\n", done.stderr)
