"""A run killed by signal in each of its stages."""

import os
import subprocess
import sys
import time

import pytest

from agentgym.evaluation.record_files import read_episodes
from agentgym.experiment.metrics_file import read_metrics
from agentgym.experiment.run_folder import RunFolder
from agentgym.settings import (
    Experiment,
    ImitationSettings,
    PanelSettings,
    RolloutSettings,
    ScratchSettings,
)
from agentgym.utils import yaml_config

PLAN = Experiment(
    env="agentgym/Hotter-v0",
    env_args={"high": 8},
    steps=8,
    tasks_per_step=4,
    save_every=3,
    imitation=ImitationSettings(max_steps=20, demos_per_task=1),
    scratch=ScratchSettings(
        hidden_size=32,
        num_layers=1,
        num_heads=2,
        num_kv_heads=1,
        intermediate_size=64,
        vocab_size=400,
    ),
    rollout=RolloutSettings(max_turns=6, max_context_tokens=256, max_completion_tokens=8),
    panel=PanelSettings(tasks=40, episodes=8),
)
AGENTGYM = [sys.executable, "-m", "agentgym.cli", "train"]


def lines(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


def start(words, log):
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen([*AGENTGYM, *words], stdout=log, stderr=log, env=environment)


def kill_when(process, condition, log):
    """Kill as soon as the condition holds; the process must still be running then."""
    deadline = time.monotonic() + 200
    try:
        while not condition() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert process.poll() is None and condition(), log.read_text()
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_run_killed_in_each_stage_resumes_and_completes(tmp_path):
    folder, log, file = RunFolder(tmp_path / "run"), tmp_path / "log", tmp_path / "plan.yaml"
    file.write_text(yaml_config.dump(PLAN))
    before, after = folder.evaluation("before"), folder.evaluation("after")
    stages = [
        lambda: "demonstrations" in log.read_text(),
        lambda: "imitate" in log.read_text(),
        lambda: lines(before) > 20,
        lambda: lines(folder.metrics) >= 4,
        lambda: lines(after) > 20,
    ]
    words = ["--config", str(file), "--out", str(folder.root)]
    found = []
    for stage in stages:
        with log.open("w") as output:
            kill_when(start(words, output), stage, log)
        words = ["--resume", str(folder.root)]
        made = (folder.warm, before, folder.metrics, folder.final, after)
        found.append([path.exists() for path in made])
    assert found == [
        [False, False, False, False, False],
        [False, False, False, False, False],
        [True, True, False, False, False],
        [True, True, True, False, False],
        [True, True, True, True, True],
    ]
    with log.open("w") as output:
        assert start(words, output).wait(200) == 0, log.read_text()
    assert "demonstrations" not in log.read_text() and "pass@8" in log.read_text()

    assert [row["step"] for row in read_metrics(folder.metrics)] == list(range(1, 9))
    assert len(read_episodes(folder.episodes)) == 8 * 4 * 8
    for path in (before, after):
        played = [(record.task, record.sample) for record in read_episodes(path)]
        assert len(set(played)) == len(played) == 40 * 8
    names = {path.name for path in folder.root.rglob("*")}
    assert not [name for name in names if "partial" in name or "tmp" in name]
    assert {"config.yaml", "warm", "step-0003", "step-0006", "final", "report.txt"} <= names
