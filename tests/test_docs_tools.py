"""The page on tools: every block runs, in order, with or without a service."""

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
from http_service import serving

from agentgym.cli import main

for needed in ("httpx", "mcp", "Stemmer"):
    pytest.importorskip(needed)

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "tools.md"


def forecast(path, body):
    """Replaces the service of the page."""
    found = path.startswith("/v1/forecast?latitude=52.5")
    return 200 if found else 404, {"current": {"temperature_2m": 7.5}}


def chat(path, body):
    """Replaces the model: searches for the author, then for the town, and answers."""
    turn = sum(message["role"] == "assistant" for message in body["messages"])
    replies = ["<search>author of Emma</search>", "<search>Jane Austen</search>"][turn:]
    if not replies and "Steventon" in body["messages"][-1]["content"]:
        replies = ["<answer>Steventon</answer>"]
    message = {"role": "assistant", "content": replies[0]}
    return 200, {"choices": [{"message": message, "finish_reason": "stop"}]}


def blocks():
    """Language and text of each."""
    page = PAGE.read_text()
    return re.findall(r"^```(python|bash)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)


def command(text):
    """A command of this package, with a service at its address."""
    name, *words = shlex.split(text.replace("\\\n", " "))
    assert name == "agentgym"
    with serving(chat) as (service, address):
        assert main([address if word == "http://127.0.0.1:8000" else word for word in words]) == 0
    assert len(service.asked) == 3 * 4


def run(number, language, block):
    """A file is written, and its tests are run; anything else is run as it is."""
    if language == "bash":
        command(block)
        return 0
    named = re.match(r"# (\w+\.py)\n", block)
    path = Path(named[1] if named else f"block_{number}.py")
    path.write_text(block)
    found = runpy.run_path(str(path), run_name="page" if named else "__main__")
    tests = [each for name, each in found.items() if name.startswith("test_")]
    for each in tests:
        each()
    return len(tests)


def test_every_block_of_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGENTGYM_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path))
    ran = 0
    try:
        with serving(forecast) as (_, address):
            monkeypatch.setenv("WEATHER_API", address)
            parts = [(number, *block) for number, block in enumerate(blocks())]
            while '"replay"' not in parts[0][2]:
                run(*parts.pop(0))
        # The service has stopped: the following blocks do not need it.
        for part in parts:
            ran += run(*part)
    finally:
        sys.modules.pop("weather", None)
    assert len(blocks()) == 8 and ran == 1 and list(Path("recorded").rglob("*.json"))
    assert re.search(r"pass@1 .* 1\.00", capsys.readouterr().out)
    assert len(Path("episodes.jsonl").read_text().splitlines()) == 1 + 4 + 1  # and what it cost


def test_the_page_has_no_other_code():
    assert PAGE.read_text().count("```") == 2 * len(blocks())
