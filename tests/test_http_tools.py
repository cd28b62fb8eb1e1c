"""The HTTP client for tools against a real server: slow, failing, silent, and recorded."""

import asyncio
import contextlib
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from agentgym.env.registry import world
from agentgym.errors import ConfigError, EnvError, EnvTimeout, ImpossibleValue
from agentgym.tools import WithTools

pytest.importorskip("httpx")
from agentgym.tools.http import HttpClient, Response, ResponseCache, RetryPolicy

HASTY = RetryPolicy(deadline=30, retries=2, backoff=0.01)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        self.server.clients.add(self.client_address)  # type: ignore[attr-defined]
        name = self.path.partition("?")[0].strip("/")
        with contextlib.suppress(ConnectionError):
            getattr(self, f"say_{name}", self.say_missing)()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.asked.append(body.decode())  # type: ignore[attr-defined]
        self.say(200, body[::-1])

    def say(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in {"content-length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def say_fine(self):
        self.say(200, f"answer {len(self.server.asked)}".encode(), content_type="text/plain")  # type: ignore[attr-defined]

    def say_binary(self):
        self.say(200, b"\xff\x00\xfe")

    def say_missing(self):
        self.say(404, b"no such page")

    def say_forbidden(self):
        self.say(403, b"who are you?")

    def say_busy(self):
        """Rate limited twice, then successful."""
        busy = self.server.asked.count(self.path) < 3  # type: ignore[attr-defined]
        self.say(429 if busy else 200, b"" if busy else b"at last", retry_after="0.2")

    def say_broken(self):
        self.say(503, b"down for maintenance")

    def say_garbage(self):
        self.wfile.write(b"\x16\x03\x01 not HTTP at all\r\n\r\n")
        self.close_connection = True

    def say_zipped(self):
        self.say(200, b"not zipped", content_encoding="gzip")

    def say_torn(self):
        self.send_response(200)
        self.send_header("content-length", "100")
        self.end_headers()
        self.wfile.write(b"half")
        self.close_connection = True

    def say_nothing(self):
        self.server.over.wait(20)  # type: ignore[attr-defined]

    def say_drops(self):
        """Sends single bytes without end: no single read times out."""
        self.send_response(200)
        self.send_header("content-length", "100000")
        self.end_headers()
        while not self.server.over.wait(0.05):  # type: ignore[attr-defined]
            self.wfile.write(b".")
            self.wfile.flush()

    def say_flood(self):
        self.say(200, b"x" * 100_000)


@pytest.fixture(scope="module")
def server():
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.asked, made.clients, made.over = [], set(), threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.over.set()  # type: ignore[attr-defined]
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
def root(server):
    server.asked.clear()
    server.clients.clear()
    return f"http://127.0.0.1:{server.server_port}"


@pytest.fixture
def web():
    made = HttpClient(retry=HASTY)
    yield made
    made.close()


def test_responses_of_any_status_are_returned(root, web):
    assert web.get(f"{root}/fine") == Response(200, b"answer 1", "text/plain")
    assert (web.get(f"{root}/nowhere").status, web.get(f"{root}/forbidden").status) == (404, 403)
    assert web.post(f"{root}/", {"a": [1]}).text == '{"a":[1]}'[::-1]
    assert web.get(f"{root}/binary").text == "\ufffd\x00\ufffd"
    with pytest.raises(EnvError, match="expected JSON, got 'answer 6'"):
        web.get(f"{root}/fine").json()


def test_connections_are_reused_and_shared_by_threads(root, web, server):
    for _ in range(5):
        web.get(f"{root}/fine")
    assert len(server.clients) == 1
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: web.get(f"{root}/fine").status, range(40)))
    assert found == {200} and len(server.clients) <= 9


def test_transient_errors_are_retried_after_retry_after(root, web, server):
    start = time.monotonic()
    assert web.get(f"{root}/busy").text == "at last"
    assert server.asked == ["/busy"] * 3 and time.monotonic() - start > 0.4


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("broken", "status 503"),
        ("garbage", "RemoteProtocolError"),
        ("torn", "RemoteProtocolError"),
        ("zipped", "DecodingError"),
    ],
)
def test_permanent_failure_raises_after_all_tries(root, web, server, path, message):
    with pytest.raises(EnvError, match=f"GET {root}/{path} failed in 3 tries: {message}"):
        web.get(f"{root}/{path}?key=secret")
    assert server.asked == [f"/{path}?key=secret"] * 3


def test_refused_connection_raises_an_environment_error(web):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(EnvError, match="failed in 3 tries: ConnectError"):
        web.get(f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize("path", ["nothing", "drops"])
def test_deadline_applies_to_silent_and_slow_servers(root, path):
    web = HttpClient(retry=RetryPolicy(deadline=0.5))
    start = time.monotonic()
    with pytest.raises(EnvTimeout, match=r"did not answer within 0.5 s"):
        web.get(f"{root}/{path}")
    assert time.monotonic() - start < 10
    web.close()


def test_invalid_requests_raise_value_error(root, web):
    small = HttpClient(retry=RetryPolicy(max_bytes=1000))
    with pytest.raises(ValueError, match="sent more than 1000 bytes"):
        small.get(f"{root}/flood")
    small.close()
    for url in ("no address", "ftp://127.0.0.1/x", "http://[::1", "http://\x00"):
        with pytest.raises(ValueError, match=r"\w"):
            web.get(url)


def test_limits_out_of_range_are_refused():
    for name, value in (("deadline", 0), ("retries", -1), ("max_bytes", 0)):
        with pytest.raises(ImpossibleValue, match=name):
            RetryPolicy(**{name: value})


# ---- the cache -------------------------------------------------------------------------------


def test_responses_are_cached_by_method_url_and_body(root, server, tmp_path):
    web = HttpClient(cache=ResponseCache(tmp_path), retry=HASTY)
    for _ in range(2):
        assert web.get(f"{root}/fine", {"q": "a b"}).text == "answer 1"
        assert web.get(f"{root}/binary").body == b"\xff\x00\xfe"
        assert web.get(f"{root}/nowhere").status == 404
        assert web.post(f"{root}/", {"a": 1}).text == '{"a":1}'[::-1]
        assert web.post(f"{root}/", {"a": 2}).text == '{"a":2}'[::-1]
    assert len(server.asked) == 5
    again = HttpClient(cache=ResponseCache(tmp_path), headers={"x-key": "secret"})
    assert again.get(f"{root}/fine?q=a+b").text == "answer 1"
    assert not any(b"secret" in path.read_bytes() for path in tmp_path.rglob("*.json"))
    web.close()
    again.close()


def test_errors_are_not_cached(root, server, tmp_path):
    web = HttpClient(cache=ResponseCache(tmp_path), retry=HASTY)
    for _ in range(2):
        assert web.get(f"{root}/forbidden").status == 403
    assert len(server.asked) == 2 and not list(tmp_path.rglob("*.json"))
    web.close()


def test_recorded_responses_are_replayed_without_a_server(root, server, tmp_path):
    recording = HttpClient(cache=ResponseCache(tmp_path, "record"), retry=HASTY)
    assert [recording.get(f"{root}/fine").text for _ in range(2)] == ["answer 1", "answer 2"]
    recording.close()
    server.asked.clear()
    replaying = HttpClient(cache=ResponseCache(tmp_path, "replay"))
    assert replaying.get(f"{root}/fine").text == "answer 2"
    with pytest.raises(EnvError, match=f"no response to GET {root}/other is recorded in"):
        replaying.get(f"{root}/other")
    assert server.asked == []


def test_damaged_cache_entry_is_reported_in_one_line(root, tmp_path):
    web = HttpClient(cache=ResponseCache(tmp_path))
    web.get(f"{root}/fine")
    (path,) = tmp_path.rglob("*.json")
    assert json.loads(path.read_text())["request"]["url"] == f"{root}/fine"
    for content in ("{", "[]", '{"status": 200}', '{"status": "x", "text": "", "type": ""}'):
        path.write_text(content)
        with pytest.raises(ConfigError, match=r"\.json is not a recorded response, remove it"):
            web.get(f"{root}/fine")
    with pytest.raises(ConfigError, match="expected one of use, record, replay"):
        ResponseCache(tmp_path, "reply")
    web.close()


def test_threads_can_cache_the_same_response_at_once(root, tmp_path):
    web = HttpClient(cache=ResponseCache(tmp_path, "record"))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: web.get(f"{root}/fine"), range(40)))
    assert [path.suffix for path in tmp_path.rglob("*.*")] == [".json"]
    web.close()


# ---- as tools --------------------------------------------------------------------------------


def test_sync_and_async_tools_share_one_client(root, web):
    def page(name: str) -> str:
        """Read a page."""
        return web.get(f"{root}/{name}").text

    async def both(one: str, other: str) -> str:
        """Read two pages at once."""
        asked = (web.request("GET", f"{root}/{name}") for name in (one, other))
        return " and ".join(answer.text for answer in await asyncio.gather(*asked))

    env = WithTools(world("agentgym/Hotter-v0"), [page, both])
    env.reset(options={"task": "hotter-3"})

    def result_of(tool, **arguments):
        call = json.dumps({"name": tool, "arguments": arguments})
        return env.step(f"<tool_call>{call}</tool_call>")[0].split("\n")[1]

    assert result_of("page", name="nowhere") == "no such page"
    assert result_of("both", one="nowhere", other="forbidden") == "no such page and who are you?"
    with pytest.raises(EnvError, match="status 503"):
        result_of("page", name="broken")
