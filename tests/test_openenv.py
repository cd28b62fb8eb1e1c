"""OpenEnv without its packages: sessions, forks, shut doors, and servers that misbehave."""

import contextlib
import http
import json
import socket
import threading
import time
import urllib.error
from typing import Any

import pytest
from openenv_servers import get, serving

from agentgym.cli import main
from agentgym.env.registry import EnvFactory, make, world
from agentgym.errors import (
    ConfigError,
    EnvError,
    EnvLost,
    EnvTimeout,
    NotReplayable,
    UnknownTask,
    Unreachable,
)
from agentgym.interop.openenv import client
from agentgym.interop.openenv.served import Served
from agentgym.interop.openenv.session import Session, Sessions
from agentgym.interop.web import checked_url
from agentgym.testing.steps import Walk
from agentgym.types import Task
from agentgym.utils.access import TOKEN

pytest.importorskip("websockets")
from websockets.datastructures import Headers
from websockets.http11 import Response
from websockets.sync.server import serve


@pytest.fixture(scope="module")
def hotter():
    with serving("hotter", "--audit") as url:
        yield f"openenv:{url}"


def played(env, task="hotter-12", seed=5, actions=("50", "nonsense", "25")):
    first = env.reset(seed=seed, options={"task": task})
    return [first, *(env.step(action) for action in actions)]


def test_a_served_environment_answers_as_in_process(hotter):
    theirs, ours = world(hotter, admissible=True), world("hotter", admissible=True)
    assert played(theirs) == played(ours)
    assert theirs.manual() == ours.manual() and theirs.oracle() == ours.oracle()
    assert list(theirs.tasks("test")) == list(ours.tasks("test"))
    assert make(hotter).spec.max_episode_steps == make("hotter").spec.max_episode_steps
    with pytest.raises(UnknownTask, match="has no task 'cold'"):
        theirs.reset(options={"task": "cold"})
    with pytest.raises(ConfigError, match="has no split 'noon'"):
        theirs.tasks("noon")
    theirs.close()


def test_a_fork_is_a_copy_on_the_server(hotter):
    env = world(hotter)
    played(env)
    twin = env.fork()
    assert env.promises.fork == "copy"
    right = env.oracle()[-1]
    assert twin.step(right)[2] and not env.step("nonsense")[2] and env.step(right)[2]
    env.close()
    twin.close()


def test_a_factory_of_it_can_be_sent_to_another_process(hotter):
    import pickle

    make_env = pickle.loads(pickle.dumps(EnvFactory(env=hotter, max_turns=3)))
    env = make_env(Task(hotter, "hotter-12"))
    env.reset(seed=0, options={"task": "hotter-12"})
    assert [env.step("1")[3] for _ in range(3)] == [False, False, True]
    env.close()


def test_a_session_refuses_what_the_protocol_does_not_allow():
    session = Session(Sessions(Served(env="agentgym/Hotter-v0")))

    def refused(message):
        answer = session.answer(message)
        assert answer["type"] == "error"
        return answer["data"]["code"], answer["data"]["message"]

    assert refused([])[0] == "VALIDATION_ERROR"
    assert refused({"type": "reset", "data": 3})[0] == "VALIDATION_ERROR"
    assert refused({"type": "dance"})[0] == "UNKNOWN_TYPE"
    assert refused({"type": ["reset"]})[0] == "UNKNOWN_TYPE"
    assert "no episode is running" in refused({"type": "step", "data": {"text": "5"}})[1]
    assert refused({"type": "reset", "data": {"seed": "five"}})[0] == "VALIDATION_ERROR"
    assert refused({"type": "reset", "data": {"seed": True}})[0] == "VALIDATION_ERROR"
    assert (
        "expected 0 to" in refused({"type": "reset", "data": {"split": "test", "index": 10**9}})[1]
    )
    assert "no session plays" in refused({"type": "reset", "data": {"fork_of": "x"}})[1]
    assert "`--audit`" in refused({"type": "audit", "data": {"what": "oracle"}})[1]
    assert session.answer({"type": "reset", "data": {"task": "hotter-12"}})["type"] == "observation"
    assert refused({"type": "step", "data": {"text": 5}})[0] == "VALIDATION_ERROR"
    assert refused({"type": "step", "data": {"text": "5", "tool": 1}})[0] == "VALIDATION_ERROR"
    # A refused message leaves the episode as it was.
    right = session.world.oracle()[-1]
    assert session.answer({"type": "step", "data": {"text": right}})["data"]["done"] is True
    assert session.close() == ""


def test_the_oracle_is_served_to_this_machine_alone(monkeypatch, capsys):
    monkeypatch.setenv(TOKEN, "secret")
    assert main(["serve", "hotter", "--openenv", "--audit", "--host", "0.0.0.0"]) == 2
    assert "--audit shows the oracle" in capsys.readouterr().err


def test_a_server_with_a_token_answers_its_bearer_alone(monkeypatch):
    with serving("hotter", **{TOKEN: "secret"}) as url:
        for given in ("", "Bearer ", "Bearer secre", "Bearer secrét"):
            with pytest.raises(urllib.error.HTTPError, match="401"):
                get(url, "/health", Authorization=given.encode().decode("latin-1"))
        assert b"healthy" in get(url, "/health", Authorization="Bearer secret")
        monkeypatch.delenv(TOKEN, raising=False)
        with pytest.raises(EnvError, match="401: send `Authorization"):
            world(f"openenv:{url}")
        monkeypatch.setenv(TOKEN, "secret")
        env = world(f"openenv:{url}")
        assert env.reset(seed=0)[1]["goal"] == "Find the number."
        env.close()
        with pytest.raises(urllib.error.HTTPError, match="403"):
            get(url, "/health", Origin="http://evil.example", Authorization="Bearer secret")


@pytest.mark.parametrize(
    "url", ["ftp://host", "http://", "http://127.0.0.1:0", "http://h:port", ":"]
)
def test_a_name_that_is_no_address_is_refused(url):
    with pytest.raises(ConfigError, match="expected an address such as"):
        checked_url(url, "openenv")


# ---- servers that misbehave ------------------------------------------------------------------

SCHEMA = {
    "action": {"properties": {"message": {"type": "string"}}, "required": ["message"]},
    "observation": {"properties": {"echo": {"type": "string"}}},
    "state": {},
}
RESET = {
    "type": "observation",
    "data": {"observation": {"echo": "Ready."}, "reward": None, "done": False},
}


HANG_UP = object()


def stepping(**changes):
    data = {"observation": {"echo": "Yes."}, "reward": 0.5, "done": False, **changes}
    return {"type": "observation", "data": data}


@contextlib.contextmanager
def other(step, routes=None, reset=RESET):
    """A server of another maker; ``step(message)`` gives the answer, None none."""
    pages = {"/schema": SCHEMA, **(routes or {})}

    def respond(connection, request):
        if request.path == "/ws":
            return None
        found = pages.get(request.path)
        body = found if isinstance(found, bytes) else json.dumps(found).encode()
        status = http.HTTPStatus.NOT_FOUND if found is None else http.HTTPStatus.OK
        headers = Headers({"Content-Length": str(len(body)), "Connection": "close"})
        return Response(status.value, status.phrase, headers, body)

    def session(connection):
        for text in connection:
            message = json.loads(text)
            if message["type"] == "close":
                return
            if step is HANG_UP and message["type"] == "step":
                return
            answer = reset if message["type"] == "reset" else step(message)
            if answer is not None:
                connection.send(answer if isinstance(answer, str | bytes) else json.dumps(answer))

    with serve(session, "127.0.0.1", 0, process_request=respond) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"openenv:http://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join(5)


WRONG = [
    ("{]", "answered '{]' to step, expected JSON"),
    (b"\xff\x00", "expected JSON"),
    ([1], "expected an object with type and data"),
    ({"type": "observation"}, "expected an object with type and data"),
    ({"type": "state", "data": {}}, "answered step with type 'state', expected 'observation'"),
    (stepping(observation="Yes."), "the observation is 'Yes.', expected an object"),
    (stepping(observation={"echo": 3}), "'echo' is 3 of type int, the schema promises a text"),
    (stepping(done="no"), "done='no', expected true or false"),
    (stepping(reward="much"), "the reward 'much', expected a number"),
    (stepping(reward=True), "the reward True, expected a number"),
    ('{"type":"observation","data":{"observation":{},"reward":NaN}}', "expected a finite number"),
    ({"type": "error", "data": {"message": "boom\nbang", "code": "EXECUTION_ERROR"}}, "boom bang"),
    ({"type": "error", "data": {}}, "None"),
]


@pytest.mark.parametrize(("answer", "message"), WRONG, ids=[text for _, text in WRONG])
def test_a_wrong_answer_is_one_line(answer, message):
    with other(lambda _: answer) as name:
        env = world(name)
        env.reset(seed=0)
        with pytest.raises(EnvError) as problem:
            env.step("Hello")
        assert message in str(problem.value) and "\n" not in str(problem.value)
        env.close()


def test_a_server_that_does_not_answer_is_given_up():
    with other(lambda _: None) as name:
        env = world(name, timeout=0.3)
        env.reset(seed=0)
        started = time.monotonic()
        with pytest.raises(EnvTimeout, match=r"did not answer step within 0\.3 s"):
            env.step("Hello")
        assert time.monotonic() - started < 5
        # The next episode has a new session, so that a late answer meets no other question.
        assert env.reset(seed=0)[0] == "Ready."
        env.close()


def test_a_server_that_ends_the_session_is_infrastructure():
    with other(HANG_UP) as name:
        env = world(name)
        env.reset(seed=0)
        with pytest.raises(EnvLost, match="ended the session"):
            env.step("Hello")
        env.close()


def test_a_port_that_listens_and_stays_silent_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        from agentgym.interop.openenv.connection import get_json

        with pytest.raises(EnvTimeout, match="did not answer within"):
            get_json(url, "/schema", timeout=0.3)


def test_an_answer_that_trickles_is_given_up():
    def trickle(listener):
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
                for _ in range(100):
                    connection.sendall(b" ")
                    time.sleep(0.1)

    from agentgym.interop.openenv.connection import get_json

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=trickle, args=(listener,), daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(EnvTimeout, match="did not answer within"):
            get_json(url, "/schema", timeout=0.5)
        assert time.monotonic() - started < 3


def test_a_web_server_is_no_openenv_server():
    with (
        other(None, {"/schema": b"<html>"}) as name,
        pytest.raises(EnvError, match="expected JSON"),
    ):
        world(name)
    with (
        other(None, {"/schema": {"a": 1}}) as name,
        pytest.raises(EnvError, match="expected schemas"),
    ):
        world(name)
    with (
        pytest.raises(Unreachable, match="is the server running"),
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        port = listener.getsockname()[1]
        listener.close()
        world(f"openenv:http://127.0.0.1:{port}")


LISTED = {"/list_environments": ["ours"], "/ours/splits": [{"name": "train"}, 7]}


def test_tasks_are_those_that_a_server_lists(monkeypatch):
    pages = {"/schema": SCHEMA, **LISTED, "/ours/tasks": {"tasks": [{"id": "a"}, {"id": "b"}]}}
    monkeypatch.setattr(client, "get_json", lambda url, route, **_: pages.get(route))
    with other(lambda _: stepping()) as name:
        env = world(name)
        assert len(env.tasks("train")) == 2 and env.promises.panels
        with pytest.raises(UnknownTask):
            env.reset(options={"task": "train-9"})
        with pytest.raises(ConfigError, match=r"has no split 'valid'\. .*Splits: train"):
            env.tasks("valid")
        for wrong in ({"tasks": "none"}, ["a"], None):
            pages["/ours/tasks"] = wrong
            with pytest.raises(EnvError, match=r"/tasks answered .*, expected a list"):
                env.tasks("train")
        env.close()


def test_an_action_that_the_server_or_its_schema_refuses_is_invalid():
    fields = {"row": {"type": "integer"}, "mark": {"type": "string"}}
    schema = {**SCHEMA, "action": {"properties": fields, "required": ["row", "mark"]}}
    answers = {
        1: stepping(),
        2: {"type": "error", "data": {"code": "VALIDATION_ERROR", "message": "row: at most 1"}},
        3: {"type": "error", "data": {"code": "EXECUTION_ERROR", "message": "boom"}},
    }
    with other(lambda each: answers[each["data"]["row"]], {"/schema": schema}) as name:
        env = world(name)
        env.reset(seed=0)
        for wrong in ("row 1", "[1]", ""):
            text, reward, done, _, info = env.step(wrong)
            assert (reward, done, info["action_valid"]) == (0.0, False, False)
            assert text.startswith('An action is a JSON object: {"row": "<integer>"')
        assert env.step('{"row": 1, "mark": "x"}')[4]["action_valid"]
        text, *_, info = env.step('{"row": 2, "mark": "x"}')
        assert "refused" in text and "row: at most 1" in text and not info["action_valid"]
        with pytest.raises(EnvError, match="boom"):
            env.step('{"row": 3, "mark": "x"}')
        env.close()


def test_a_server_of_ours_that_answers_in_another_form_is_one_line(hotter):
    env: Any = world(hotter)
    for answer in ({"observation": {}}, {"metadata": {}, "observation": "Hi"}, {}):
        env._connection.ask = lambda *_, answer=answer: answer
        with pytest.raises(EnvError, match="expected observation and metadata"):
            env.reset(seed=0)
    env.close()


def test_a_time_limit_of_nothing_is_refused(hotter):
    for timeout in (0, -1, float("nan")):
        with pytest.raises(ConfigError, match="expected seconds above 0"):
            world(hotter, timeout=timeout)


def test_seeds_are_tasks_where_a_server_lists_none():
    asked = []
    with other(lambda message: asked.append(message) or stepping(reward=1.0, done=True)) as name:
        env = world(name, num_tasks=20)
        assert env.tasks("train")[:2] == ["seed-0", "seed-1"] and len(env.tasks("test")) == 2
        assert not {*env.tasks("train")} & {*env.tasks("test")}
        env.reset(seed=0, options={"task": "seed-7"})
        _, reward, terminated, _, info = env.step("Hello")
        assert (reward, terminated, info["won"], info["score"]) == (1.0, True, True, 1.0)
        assert asked == [{"type": "step", "data": {"message": "Hello"}}]
        for unknown in ("seed-20", "seed--1", "seed-x", "7", "seed-²"):
            with pytest.raises(UnknownTask):
                env.reset(options={"task": unknown})
        assert env.promises.lacking == (
            "forks by copy",
            "listed tasks",
            "success",
            "validity of actions",
        )
        env.close()


def test_the_checker_does_not_take_a_missing_reward_for_nought():
    from agentgym.testing import CheckSettings
    from agentgym.testing.harness import Harness
    from agentgym.testing.wire import rewards_are_numbers

    for reward, sentence in ((None, "the reward None, expected"), (True, "the reward True")):
        with other(lambda _, paid=reward: stepping(reward=paid, done=True)) as name:
            harness = Harness(name, {}, CheckSettings(steps=4))
            harness.recorded = lambda: (Walk("seed-0", 0, ("a",), ()),)
            with pytest.raises(AssertionError, match=sentence):
                rewards_are_numbers(harness)
            harness.abandon()


def test_a_replay_that_differs_is_no_fork():
    count = iter(range(100))
    with other(lambda _: stepping(observation={"echo": str(next(count))})) as name:
        env = world(name)
        env.reset(seed=0)
        env.step("Hello")
        with pytest.raises(NotReplayable, match="answered action 1 of task"):
            env.fork()
        env.close()


def evaluated(tmp_path, policy, name, *words):
    """Episodes of an evaluation, as recorded."""
    out = tmp_path / "eval"
    reported = ["--out", str(out), "--panel.tasks", "2", "--panel.episodes", "1"]
    assert main(["eval", policy, "--env", name, *reported, *words]) == 0
    (file,) = out.glob("*.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [line for line in lines if "stop" in line]


def test_an_evaluation_over_the_wire_is_won_by_the_oracle(hotter, tmp_path, capsys):
    episodes = evaluated(tmp_path, "oracle", hotter)
    assert len(episodes) == 2 and all(episode["won"] for episode in episodes)


def test_a_failing_server_ends_the_episode_and_not_the_run(tmp_path, capsys):
    """It counts as infrastructure, never as a failure of the agent."""
    policy = tmp_path / "policy.py"
    policy.write_text("def shy(observation, info):\n    return 'Hello'\n")
    with other(lambda _: {"type": "error", "data": {"message": "boom", "code": "X"}}) as name:
        episodes = evaluated(tmp_path, f"{policy}:shy", name)
    assert {episode["stop"] for episode in episodes} == {"world_error"}
