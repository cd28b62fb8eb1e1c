"""The page on tools: every Python block is run, in order, with a web service at hand or not."""

import re
import runpy
import sys
from pathlib import Path

import pytest
from http_service import serving

for needed in ("httpx", "mcp", "Stemmer"):
    pytest.importorskip(needed)

PAGE = Path(__file__).parents[1] / "docs" / "tools.md"


def forecast(path, body):
    """Stands for the service of the page."""
    found = path.startswith("/v1/forecast?latitude=52.5")
    return 200 if found else 404, {"current": {"temperature_2m": 7.5}}


def blocks():
    return re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def run(number, block):
    """A file is written, and its tests are run; anything else is run as it is."""
    named = re.match(r"# (\w+\.py)\n", block)
    path = Path(named[1] if named else f"block_{number}.py")
    path.write_text(block)
    found = runpy.run_path(str(path), run_name="page" if named else "__main__")
    tests = [each for name, each in found.items() if name.startswith("test_")]
    for each in tests:
        each()
    return len(tests)


def test_every_block_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGENTGYM_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path))
    ran = 0
    try:
        with serving(forecast) as (_, address):
            monkeypatch.setenv("WEATHER_API", address)
            parts = list(enumerate(blocks()))
            while '"replay"' not in parts[0][1]:
                run(*parts.pop(0))
        # The service is gone: what follows needs none.
        for part in parts:
            ran += run(*part)
    finally:
        sys.modules.pop("weather", None)
    assert len(blocks()) == 7 and ran == 1 and list(Path("recorded").rglob("*.json"))


def test_the_page_has_no_other_code():
    assert PAGE.read_text().count("```") == 2 * len(blocks())
