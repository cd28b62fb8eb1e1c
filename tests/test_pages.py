"""Every Python block on every page runs; every command uses existing verbs and flags.

A page's blocks run in order, in one folder and one namespace. A block that begins with a comment
that names a file is written to that file. `<!-- not run: reason -->` before a block skips it.
"""

import contextlib
import io
import re
import shlex
import sys
from functools import cache
from pathlib import Path

import pytest

from agentgym.cli import VERBS, main

HERE = Path(__file__).parent.parent
ELSEWHERE = {"docs/how-to/tools.md"}
"""Needs services of its own: `test_docs_tools.py`."""
NEEDS = {"docs/how-to/benchmarks.md": ("agentdojo", "deepdiff", "tau2", "addict")}
"""Page -> packages without which its blocks are not run."""
FOLDERS = ("docs", "envs", "trainers", "examples")
FOUND = [path for folder in FOLDERS for path in (HERE / folder).rglob("*.md")]
PAGES = [
    *sorted(path.relative_to(HERE).as_posix() for path in FOUND),
    "README.md",
    "CONTRIBUTING.md",
]
BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<why>[^>]+) -->\n)?^```(?P<language>python|bash)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


def blocks(page, language):
    """The blocks of a page in one language: text, and why it does not run."""
    text = (HERE / page).read_text(encoding="utf-8")
    found = [match for match in BLOCK.finditer(text) if match["language"] == language]
    return [(match["text"], match["why"]) for match in found]


def having(language):
    """Pages with blocks in a language."""
    return [page for page in PAGES if blocks(page, language)]


@pytest.mark.parametrize("page", [page for page in having("python") if page not in ELSEWHERE])
def test_every_python_block_on_a_page_runs(page, tmp_path, monkeypatch):
    for package in NEEDS.get(page, ()):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGENTGYM_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    namespace = {"__name__": "page"}
    try:
        for text, why in blocks(page, "python"):
            if why:
                compile(text, page, "exec")
                continue
            if named := re.match(r"# (\w+\.py)\n", text):
                Path(named[1]).write_text(text, encoding="utf-8")
            exec(compile(text, page, "exec"), namespace)
    finally:
        for name in set(sys.modules) - before:
            if (tmp_path / f"{name}.py").exists():
                del sys.modules[name]


@cache
def flags(verb):
    """The flags listed by `--help` of a verb."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
        main([verb, "--help"])
    return set(re.findall(r"--[a-z][a-z.-]*", output.getvalue()))


def commands(page):
    """The agentgym commands on a page, split into words."""
    for text, _ in blocks(page, "bash"):
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["agentgym"] and len(words) > 1:
                yield words[1:]


@pytest.mark.parametrize("page", having("bash"))
def test_every_command_on_a_page_uses_existing_verbs_and_flags(page):
    for verb, *words in commands(page):
        assert verb in VERBS or verb.startswith("-"), f"agentgym {verb}"
        for word in words:
            if word.startswith("--") and not word.startswith("--algo."):
                flag = word.partition("=")[0]
                assert flag in flags(verb), f"agentgym {verb} has no {flag}"
