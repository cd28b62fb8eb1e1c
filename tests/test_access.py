"""Who reaches our servers: every one is started, and asked without and with a wrong secret."""

import asyncio
import contextlib
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest
from openenv_servers import free_port

from agentgym.cli import main
from agentgym.errors import ConfigError
from agentgym.utils.access import TOKEN, Access, Guarded, is_loopback, same

SECRET = "secret-é"
BEARER = f"Bearer {SECRET}".encode().decode("latin-1")


def status(url, method="GET", **headers):
    """Status and headers of an answer; redirects are not followed."""

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_):
            return None

    body = b"{}" if method == "POST" else None
    request = urllib.request.Request(url, body, headers, method=method)
    try:
        with urllib.request.build_opener(Stay).open(request, timeout=20) as answer:
            return answer.status, answer.headers
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, refusal.headers


# ---- servers that people start ----------------------------------------------------------------


@contextlib.contextmanager
def served(monkeypatch, *words):
    """``agentgym serve WORDS``, with Uvicorn in a thread of this process."""
    uvicorn = pytest.importorskip("uvicorn")
    servers = []

    def run(app, **options):
        servers.append(uvicorn.Server(uvicorn.Config(app, **options)))
        servers[0].run()

    monkeypatch.setattr(uvicorn, "run", run)
    port = free_port()
    thread = threading.Thread(target=main, args=(["serve", *words, "--port", str(port)],))
    thread.start()
    while not (servers and servers[0].started):
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        servers[0].should_exit = True
        thread.join()


@contextlib.contextmanager
def viewed(monkeypatch, *words):
    """The server of ``agentgym view``, in a thread."""
    from agentgym.viewer.server import server

    running = server(lambda: "the page", words[-1], 0)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_address[1]}"
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


SERVERS = {
    "web pages": (served, ("webshop",), "GET", "/"),
    "a service": (served, ("retrieve", "--env-args", "size", "50"), "POST", "/retrieve"),
    "MCP": (served, ("hotter", "--mcp", "http"), "POST", "/mcp"),
    "OpenEnv": (served, ("hotter", "--openenv"), "GET", "/health"),
    "AgentGym's HTTP": (served, ("hotter", "--agentgym-http"), "POST", "/create"),
    "the viewer": (viewed, (), "GET", "/"),
}
COMMANDS = {name: ["serve", *words] for name, (_, words, _, _) in SERVERS.items()}


@pytest.fixture(params=SERVERS)
def server(request):
    start, words, method, path = SERVERS[request.param]
    if "webshop" in words or "retrieve" in words:
        for needed in ("Stemmer", "starlette"):
            pytest.importorskip(needed)
    if "--mcp" in words:
        pytest.importorskip("mcp")
    return start, words, method, path


def test_other_machines_need_a_token(server, monkeypatch):
    monkeypatch.setenv(TOKEN, SECRET)
    start, words, method, path = server
    with start(monkeypatch, *words, "--host", "0.0.0.0") as url:
        wrong = ("", BEARER[:-1], BEARER + "x", BEARER.replace("Bearer", "Basic"), "Bearer ")
        for given in ({}, *({"Authorization": each} for each in wrong)):
            assert status(url + path, method, **given)[0] == 401, given
        for given in ({"Cookie": "agentgym_token=x"}, {"Cookie": f"agentgym_token={'0' * 64}"}):
            assert status(url + path, method, **given)[0] == 401, given
        assert status(f"{url}{path}?token=wrong", method)[0] == 401
        assert status(url + path, method, Authorization=BEARER)[0] not in (401, 403)
        # A person opens the page with the token, and then has a cookie.
        found, headers = status(f"{url}{path}?a=1&token={urllib.parse.quote(SECRET)}")
        assert found == 303 and headers["Location"] == f"{path}?a=1"
        cookie = headers["Set-Cookie"]
        assert SECRET not in cookie and "HttpOnly" in cookie and "SameSite=Strict" in cookie
        assert status(url + path, method, Cookie=cookie.partition(";")[0])[0] not in (401, 403)


def test_without_a_token_other_machines_and_names_are_refused(server, monkeypatch):
    monkeypatch.delenv(TOKEN, raising=False)
    start, words, method, path = server
    with start(monkeypatch, *words, "--host", "127.0.0.1") as url:
        assert status(url + path, method)[0] not in (401, 403)
        # A name of another site that points here, and a page of another site.
        assert status(url + path, method, Host="evil.example:80")[0] == 403
        assert status(url + path, method, Origin="http://evil.example")[0] == 403
        assert status(url + path, method, Origin="null")[0] == 403


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
@pytest.mark.parametrize("words", [*COMMANDS.values()], ids=[*COMMANDS])
def test_no_server_listens_elsewhere_without_a_token(words, host, monkeypatch, capsys, tmp_path):
    monkeypatch.delenv(TOKEN, raising=False)
    if words == ["serve"]:
        episodes = tmp_path / "episodes.jsonl"
        episodes.touch()
        words = ["view", str(episodes)]
    assert main([*words, "--host", host]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and f"set the environment variable {TOKEN}" in lines[0]


# ---- servers that a run starts for itself ------------------------------------------------------


@contextlib.contextmanager
def programs():
    pytest.importorskip("uvicorn")
    from agentgym.programs.server import ProgramServer

    ready, over, found = threading.Event(), threading.Event(), []

    async def run():
        async with ProgramServer() as server:
            found.append(server.url)
            ready.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    assert ready.wait(60)
    try:
        yield found[0], ("/v1/models", "/worlds/nobody.secret", "/worlds/x/mcp")
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def bridge():
    from agentgym.interop.bridge import Bridge

    made = Bridge()
    try:
        yield made.url.removesuffix("/v1"), ("/v1/chat/completions",)
    finally:
        made.close()


@pytest.mark.parametrize("start", [programs, bridge])
def test_a_run_opens_its_endpoints_to_its_own_keys_on_this_machine(start):
    with start() as (url, paths):
        port = int(url.rpartition(":")[2])
        assert is_loopback(url.split("/")[2].partition(":")[0])
        assert not reached(port, another_address())
        for path in paths:
            method = "POST" if "completions" in path or "mcp" in path else "GET"
            assert status(url + path, method)[0] == 401
            assert status(url + path, method, Authorization="Bearer x.y")[0] == 401


def test_the_site_of_web_tasks_is_on_this_machine_alone():
    from agentgym_envs.web.site import Server

    server = Server(lambda environ, start_response: [])
    port = int(server.url.rpartition(":")[2])
    assert reached(port, "127.0.0.1") and not reached(port, another_address())
    server.close()


def another_address():
    """Of this machine, on all of which a server listens that is bound to no single one."""
    return "127.0.0.2"


def reached(port, address):
    try:
        socket.create_connection((address, port), 5).close()
    except ConnectionRefusedError:
        return False
    return True


# ---- the rule ----------------------------------------------------------------------------------


def test_secrets_are_compared_whole():
    assert same("", "") and same("é", "é") and same("\udc80", "\udc80")
    for given in ("", "a", "ab ", "abc", "AB", "\udc80"):
        assert not same(given, "ab")


@pytest.mark.parametrize(
    ("host", "right"),
    [
        ("localhost:8000", True),
        ("127.0.0.1", True),
        ("[::1]:8000", True),
        ("127.9.9.9:1", True),
        ("", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("[::1", False),
        ("10.0.0.1:8000", False),
    ],
)
def test_without_a_token_a_loopback_name_is_needed(host, right):
    assert (Access().reply("GET", "/", {"host": host}) is None) == right


@pytest.mark.parametrize("port", ["0", "99999", "-1"])
def test_an_impossible_port_is_refused_in_one_line(port, capsys):
    assert main(["serve", "retrieve", "--port", port]) == 2
    assert capsys.readouterr().err == f"agentgym: port is {port}, expected 1 to 65535\n"


def test_a_redirect_stays_on_the_server():
    reply = Access("s").reply("GET", "//evil.example/?token=s", {})
    assert dict(reply.headers)["Location"] == "/evil.example/"


def test_the_token_is_not_shown():
    assert "hidden" not in repr(Access("hidden"))


def test_a_websocket_is_closed_before_it_opens():
    sent = []

    async def connect(headers):
        async def receive():
            return {"type": "websocket.connect"}

        async def send(message):
            sent.append(message)

        async def app(scope, receive, send):
            sent.append("inside")

        scope = {"type": "websocket", "path": "/ws", "headers": headers}
        await Guarded(app, Access("s"))(scope, receive, send)

    asyncio.run(connect([(b"host", b"x")]))
    asyncio.run(connect([(b"host", b"x"), (b"authorization", b"bearer s")]))
    assert sent == [{"type": "websocket.close", "code": 1008}, "inside"]


def test_an_address_elsewhere_takes_a_token(monkeypatch):
    monkeypatch.delenv(TOKEN, raising=False)
    assert Access.of("localhost").token == ""
    with pytest.raises(ConfigError, match="admits other machines"):
        Access.of("0.0.0.0")
