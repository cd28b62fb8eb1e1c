"""What a plain installation lacks, and that `agentgym envs` says how to get it."""

import os
import re
import subprocess
import sys
from importlib.metadata import distribution, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).parent.parent


def extras():
    """Extra -> the packages it brings."""
    named = {}
    for line in requires("agentic-gym"):
        for extra in re.findall(r"extra == ['\"]([\w-]+)['\"]", line):
            named.setdefault(extra, set()).add(canonicalize_name(Requirement(line).name))
    return named


def closure(name, found):
    """The distributions that come with one, extras left out."""
    if name in found:
        return found
    found.add(name)
    for line in requires(name) or ():
        wanted = Requirement(line)
        if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
            closure(canonicalize_name(wanted.name), found)
    return found


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A folder that holds agentgym's own dependencies, and nothing else that is installed here."""
    folder = tmp_path_factory.mktemp("plain")
    for name in closure("agentic-gym", set()):
        there = distribution(name)
        for top in {path.parts[0] for path in there.files or () if path.parts[0] != ".."}:
            if not (folder / top).exists():
                (folder / top).symlink_to(there.locate_file(top))
    return folder


def test_a_plain_installation_says_what_each_world_needs(plain):
    paths = [plain, HERE, HERE / "envs", HERE / "trainers"]
    done = subprocess.run(
        [sys.executable, "-S", "-m", "agentgym.cli", "envs"],
        env={"PATH": os.environ["PATH"], "COLUMNS": "400", "PYTHONPATH": ":".join(map(str, paths))},
        capture_output=True,
        text=True,
        cwd=plain,
    )
    assert done.returncode == 0, done.stderr
    rows = {line.split()[1]: line for line in done.stdout.splitlines() if "agentgym/" in line}
    assert "yes" in rows.pop("agentgym/Hotter-v0")
    assert 'pip install --no-deps "alfworld' in rows.pop("agentgym/ALFWorld-v0")
    assert len(rows) == 5
    for id_, row in rows.items():
        (extra,) = re.findall(r'pip install "agentic-gym\[(\w+)\]"', row)
        assert extra == id_.partition("/")[2].removesuffix("-v0").lower()
        assert extras()[extra] <= extras()["worlds"]


def test_the_worlds_come_in_one_installation_with_all_that_people_need_to_use_them():
    named = extras()
    assert named["serve"] | named["tools"] <= named["worlds"]
    assert named["all"] == named["worlds"] | named["train"]
    assert "alfworld" not in named["all"], "it would bring a planner that is compiled from C++"
