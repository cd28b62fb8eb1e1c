"""A package of `agentgym new-env` can be installed, checked, played and trained on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agentgym.cli import main


@pytest.fixture
def fresh(tmp_path):
    """A separate virtual environment that inherits the packages installed here."""
    home = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    (site,) = home.glob("lib/python*/site-packages")
    seen = [path for path in sys.path if "site-packages" in path]
    source = Path(__file__).parent.parent
    seen += [str(source), str(source / "envs"), str(source / "trainers")]
    (site / "here.pth").write_text("\n".join(seen) + "\n")
    return home / "bin" / "python"


TINY = """
algorithm: grpo
algo: {group_size: 2}
steps: 2
tasks_per_step: 2
rollout: {max_context_tokens: 256, max_completion_tokens: 12}
imitation: {max_steps: 3, until_success: 1, demos_per_task: 1}
panel: {tasks: 2, episodes: 2}
scratch: {hidden_size: 32, num_layers: 1, num_heads: 2, num_kv_heads: 1, intermediate_size: 32}
"""
"""A recipe that takes seconds."""


def run(python, *words, **how):
    done = subprocess.run([python, *words], capture_output=True, text=True, **how)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_new_environment_package_can_be_installed_checked_played_and_trained_on(
    tmp_path, fresh, capsys
):
    assert main(["new-env", "lost-key", "--into", str(tmp_path)]) == 0
    folder, env = tmp_path / "lost-key", "lost_key/LostKey-v0"
    printed = capsys.readouterr().out
    assert all(f"agentgym {verb} {env}" in printed for verb in ("check", "play", "train --env"))
    assert len((folder / "lost_key" / "world.py").read_text().splitlines()) < 55
    install = ["-m", "pip", "--python", str(fresh), "install", "--quiet", "--no-index"]
    run(sys.executable, *install, "--no-deps", "--no-build-isolation", "-e", str(folder))
    checked = run(fresh, "-m", "agentgym.cli", "check", env, "--effort.resets", "200", cwd=tmp_path)
    assert f"{env} keeps the contract" in checked
    played = run(fresh, "-m", "agentgym.cli", "play", env, input="dig 1\n:hint\n", cwd=tmp_path)
    assert "You see 30 trees" in played and "Further right." in played
    (folder / "lost_key" / "recipe.yaml").write_text(TINY)
    words = ["train", "--world", "lostkey", "--out", "run"]
    trained = run(fresh, "-m", "agentgym.cli", *words, cwd=tmp_path)
    assert f"{env} test: 2 tasks" in trained
    steps = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps] == [1, 2]
    assert all(step["episode/turns"] > 0 for step in steps)
    tested = run(fresh, "-m", "pytest", "-q", str(folder / "tests"), cwd=folder)
    assert "1 passed" in tested


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Lost Key", "is not a package name"),
        ("json", "is installed already"),
        ("class", "is a keyword of Python"),
        ("agentgym-envs", "is installed already"),
        ("there", "exists already"),
    ],
)
def test_an_invalid_name_writes_no_files(tmp_path, capsys, name, expected):
    (tmp_path / "there").mkdir()
    assert main(["new-env", name, "--into", str(tmp_path)]) == 2
    assert expected in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]
