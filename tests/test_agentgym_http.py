"""AgentGym's HTTP interface, called in the order in which its clients call it."""

import json
import urllib.error
import urllib.request

import pytest
from openenv_servers import free_port, process

from agentgym.cli import main
from agentgym.env.registry import world
from agentgym.errors import EnvError
from agentgym.interop.there import agentgym_http

pytest.importorskip("starlette")


@pytest.fixture(scope="module")
def url():
    import sys

    port = free_port()
    command = [sys.executable, "-m", "agentgym", "serve", "hotter", "--agentgym-http"]
    with process([*command, "--port", str(port)], port) as address:
        yield address


def post(url, path, body=None):
    data = json.dumps(body or {}).encode()
    request = urllib.request.Request(f"{url}/{path}", data=data)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())


def get(url, path):
    with urllib.request.urlopen(f"{url}/{path}", timeout=10) as answer:
        return answer.read().decode()


def test_an_episode_is_played_as_its_clients_do(url):
    assert "agentgym/Hotter-v0" in get(url, "")
    made = post(url, "create")
    number = made["id"]
    assert "I hide a number" in made["observation"] and made["done"] is False
    opening = post(url, "reset", {"id": number, "data_idx": 5})
    assert opening["observation"] == json.loads(get(url, f"observation?id={number}"))
    own = world("hotter")
    own.reset(seed=0, options={"task": own.tasks("train")[5]})
    for action in own.oracle():
        expected = own.step(action)
        reported = post(url, "step", {"id": number, "action": action})
        assert (reported["observation"], reported["reward"], reported["done"]) == expected[:3]
    assert reported["done"] and reported["reward"] == 1.0
    assert json.loads(get(url, f"available_actions?id={number}")) == list(own.admissible())
    assert post(url, "close", {"id": number}) == {"closed": True}


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        ("step", {"id": 999, "action": "1"}, "there is no environment '999'"),
        ("step", {"action": "1"}, "there is no environment 'None'"),
        ("reset", {"id": 0, "data_idx": -1}, "data_idx is -1, expected 0 to"),
        ("step", {"id": 0, "action": 1}, "action is 1, expected a text"),
        ("step", [], "expected an object"),
    ],
)
def test_wrong_requests_are_one_line(url, path, body, sentence):
    number = post(url, "create")["id"]
    if isinstance(body, dict) and body.get("id") == 0:
        body = {**body, "id": number}
    with pytest.raises(urllib.error.HTTPError) as problem:
        data = json.dumps(body).encode()
        urllib.request.urlopen(urllib.request.Request(f"{url}/{path}", data=data), timeout=10)
    with problem.value as answer:
        assert answer.code in (400, 422) and sentence in json.loads(answer.read())["detail"]


def test_old_environments_make_room(monkeypatch):
    monkeypatch.setattr(agentgym_http, "KEPT", 2)
    opened = agentgym_http.Environments("hotter", {})
    first, *_ = [opened.create({})["id"] for _ in range(3)]
    with pytest.raises(EnvError, match="there is no environment '0'"):
        opened.step({"id": first, "action": "1"})


def test_one_protocol_at_a_time(capsys):
    assert main(["serve", "hotter", "--openenv", "--agentgym-http"]) == 2
    assert "give one of" in capsys.readouterr().err
    assert main(["serve", "hotter", "--audit"]) == 2
    assert "belongs to `--openenv`" in capsys.readouterr().err
