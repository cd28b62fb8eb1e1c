"""Search over HTTP: server and client against each other and against other implementations."""

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest

from agentgym.env.registry import world
from agentgym.errors import ConfigError, EnvError, EnvTimeout
from agentgym.tools.http import HttpClient, ResponseCache, RetryPolicy
from agentgym_envs.deepsearch.corpora import Document, corpus_of
from agentgym_envs.deepsearch.pages import open_encyclopaedia
from agentgym_envs.deepsearch.remote import RemoteCorpus
from agentgym_envs.deepsearch.service import application, retrieve

for needed in ("Stemmer", "httpx", "starlette"):
    pytest.importorskip(needed)
uvicorn = pytest.importorskip("uvicorn")
DOCUMENTS = [
    Document("0", "Jane Austen", "She was born in Steventon."),
    Document("1", "Emma", "A novel by Jane Austen."),
    Document("2", "Jane Austen", "She died in Winchester."),
]


@contextlib.contextmanager
def serving(app):
    """A running server; returns the address of its only service."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/retrieve"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture(scope="module")
def address():
    with serving(application(corpus_of(DOCUMENTS))) as url:
        yield url


def ask(url, body):
    """A plain request, as any client makes it: status and content."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, json.load(refusal)


def passages(result):
    """Format a list of documents as Search-R1's agent does."""
    shown = []
    for number, item in enumerate(result, start=1):
        title, *rest = item["document"]["contents"].split("\n")
        shown.append(f"Doc {number}(Title: {title}) {' '.join(rest)}")
    return shown


def test_search_r1_request_gets_its_response_format(address):
    body = {"queries": ["Where did Jane Austen die?", "Emma"], "topk": 2, "return_scores": True}
    status, found = ask(address, body)
    assert status == 200 and set(found) == {"result"} and len(found["result"]) == 2
    for each in found["result"][0]:
        assert set(each) == {"document", "score"} and set(each["document"]) == {"id", "contents"}
        assert isinstance(each["document"]["id"], str) and isinstance(each["score"], float)
    scores = [each["score"] for each in found["result"][0]]
    assert len(scores) == 2 and scores == sorted(scores, reverse=True)
    assert passages(found["result"][1])[0] == 'Doc 1(Title: "Emma") A novel by Jane Austen.'


def test_verl_agent_request_is_answered(address):
    body = {"query": "Emma", "topk": 1, "return_scores": True}
    assert ask(address, body)[1]["result"][0][0]["document"]["id"] == "1"


def test_without_scores_the_response_is_three_plain_documents_by_default(address):
    status, found = ask(address, {"queries": ["Jane Austen novel"], "topk": None})
    assert status == 200
    assert sorted(each["id"] for each in found["result"][0]) == ["0", "1", "2"]
    assert {"id": "1", "contents": '"Emma"\nA novel by Jane Austen.'} in found["result"][0]
    assert ask(address, {"queries": ["zzz"]})[1] == {"result": [[]]}
    assert ask(address, {"queries": []})[1] == {"result": []}


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 422, "expected a JSON object"),
        (b"[" * 100_000, 422, "expected a JSON object"),
        ([], 422, "expected a JSON object"),
        ({}, 422, "expected a list of texts under 'queries'"),
        ({"queries": [3]}, 422, "expected a list of texts under 'queries'"),
        ({"queries": ["a"] * 513}, 422, "expected at most 512 queries, got 513"),
        ({"queries": ["a"], "topk": 101}, 422, "expected 1 to 100 under 'topk'"),
        ({"queries": ["a"], "topk": "3"}, 422, "expected 1 to 100 under 'topk'"),
        ({"queries": ["a"], "return_scores": 1}, 422, "expected true or false"),
        (b" " * 1_100_000, 413, "more than 1048576 bytes"),
    ],
)
def test_invalid_request_is_rejected_with_a_reason(address, body, status, message):
    code, found = ask(address, body)
    assert code == status and message in found["detail"]


def test_client_and_server_agree_with_the_local_corpus(address):
    ours, remote = corpus_of(DOCUMENTS), RemoteCorpus(address)
    for query in ("Jane Austen novel", "Where was she born?", "zzz", 'quotes " and \n lines'):
        assert remote.search(query, 3) == ours.search(query, 3)
    for title in ("Jane Austen", "Emma", "Nobody"):
        assert remote.page(title) == ours.page(title)
    remote.web.close()


def test_an_address_without_a_path_gets_the_default_path_of_the_protocol(address):
    ours = corpus_of(DOCUMENTS)
    for url in (address.removesuffix("/retrieve"), address.removesuffix("retrieve"), address):
        remote = RemoteCorpus(url)
        assert remote.url == address
        assert remote.search("Jane Austen novel", 3) == ours.search("Jane Austen novel", 3)
        remote.web.close()
    assert RemoteCorpus("http://x/other").url == "http://x/other"


def test_episodes_over_http_equal_in_process_episodes(address, tmp_path):
    rows = [{"question": "Where did Jane Austen die?", "answer": "Winchester"}]
    path, pages = tmp_path / "questions.jsonl", tmp_path / "pages.jsonl"
    path.write_text(json.dumps(rows[0]))
    pages.write_text(
        "".join(
            json.dumps({"id": d.id, "contents": f'"{d.title}"\n{d.text}'}) + "\n" for d in DOCUMENTS
        )
    )
    worlds = [
        world("agentgym/DeepSearch-v0", data=str(path), data_split="test", corpus=corpus)
        for corpus in (address, str(pages))
    ]
    for env in worlds:
        env.reset(options={"task": env.tasks("test")[0]})
    for action in (
        "<search>Austen die</search>",
        "<visit>Jane Austen</visit>",
        "<visit>Jane Austen#2</visit>",
        "<visit>Nowhere</visit>",
        "<find_in_page>Winchester</find_in_page>",
        "<answer>Winchester</answer>",
    ):
        one, other = (env.step(action) for env in worlds)
        assert one == other
    assert one[4]["won"]


def say(status, body):
    """An application that returns the same response to every request."""

    async def app(scope, receive, send):
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": status, "headers": []})
            await send({"type": "http.response.body", "body": body})

    return app


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (200, b"<html>", "expected JSON, got '<html>'"),
        (200, b"[]", "expected an object with one list of documents"),
        (200, b'{"result": []}', "expected an object with one list"),
        (200, b'{"result": [[{"document": {"id": 1}}]]}', "expected an object with one list"),
        (200, b'{"result": [[3]]}', "expected an object with one list"),
        (404, b"gone", "answered 404: 'gone'"),
        (500, b"", "failed in 1 tries: status 500"),
    ],
)
def test_invalid_response_raises_env_error(status, body, message):
    with serving(say(status, body)) as url:
        remote = RemoteCorpus(url, HttpClient(retry=RetryPolicy(retries=0)))
        with pytest.raises(EnvError, match=message) as error:
            remote.search("Emma", 3)
        assert "\n" not in str(error.value)
        remote.web.close()


def test_silent_server_times_out():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/retrieve"
        remote = RemoteCorpus(url, HttpClient(retry=RetryPolicy(deadline=0.3)))
        with pytest.raises(EnvTimeout, match=r"did not answer within 0.3 s"):
            remote.search("Emma", 3)
        remote.web.close()


def test_recorded_responses_are_replayed_without_a_server(tmp_path):
    with serving(application(corpus_of(DOCUMENTS))) as url:
        recording = RemoteCorpus(url, HttpClient(cache=ResponseCache(tmp_path, "record")))
        found = recording.search("Emma", 3)
        recording.web.close()
    assert (
        RemoteCorpus(url, HttpClient(cache=ResponseCache(tmp_path, "replay"))).search("Emma", 3)
        == found
        != []
    )


def test_serve_command_serves_the_encyclopaedia_and_rejects_other_files(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "agentgym.cli", "serve", "retrieve"]
    process = subprocess.Popen(
        [*command, "--port", str(port), "--env-args", "size", "400"], stdout=subprocess.PIPE
    )
    try:
        assert process.stdout.readline().startswith(b"retrieve is at http://127.0.0.1:")
        # `corpus` accepts the printed address.
        remote = RemoteCorpus(f"http://127.0.0.1:{port}", HttpClient(retry=RetryPolicy(retries=9)))
        book = open_encyclopaedia(400, 0)
        title = next(iter(book.pages))
        assert remote.search(title, 5) == book.search(title, 5)
        remote.web.close()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    done = subprocess.run(
        [*command, "--env-args", "corpus", str(tmp_path / "no.jsonl")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stderr.startswith("agentgym: corpus: there is no file")
    with pytest.raises(ConfigError, match="topk: got 0, expected 1 to 100"):
        retrieve(topk=0)
