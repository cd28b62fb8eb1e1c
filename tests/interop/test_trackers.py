"""Trackers with their own packages, offline: what a run logs is read back by the package itself."""

import json
import math
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest

# Trackio reads its folder when it is imported.
os.environ["TRACKIO_DIR"] = tempfile.mkdtemp(prefix="trackio-")

pytest.importorskip("tensorboard")
pytest.importorskip("wandb")
pytest.importorskip("mlflow")
pytest.importorskip("trackio")
pytest.importorskip("swanlab")

import agentgym
from agentgym.settings import Experiment, ImitationSettings, PanelSettings, RolloutSettings
from agentgym.settings import ScratchSettings as Scratch
from agentgym.tracking.start import start_trackers
from agentgym.tracking.tracker import TrackedRun
from agentgym_trainers.grpo import GRPO

pytestmark = pytest.mark.filterwarnings("default")

SIZES = {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1}
TINY = Experiment(
    env="agentgym/Hotter-v0",
    env_args={"high": 8},
    steps=2,
    tasks_per_step=2,
    save_every=1,
    imitation=ImitationSettings(max_steps=2, demos_per_task=1, batch_size=4, until_success=1),
    scratch=Scratch(**SIZES, intermediate_size=32, vocab_size=400),
    rollout=RolloutSettings(max_turns=3, max_context_tokens=256, max_completion_tokens=8),
    panel=PanelSettings(tasks=3, episodes=2),
)
ALL = ("tensorboard", "wandb", "mlflow", "trackio", "swanlab")


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    """No tracker may reach for a network, or write outside the test's folder."""
    for variable, value in {
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}",
        "SWANLAB_MODE": "offline",
        "HF_HUB_OFFLINE": "1",
    }.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.chdir(tmp_path)
    yield
    shutil.rmtree(os.environ["TRACKIO_DIR"], ignore_errors=True)


def tracked(folder, **more):
    return TrackedRun(name="run", folder=folder, settings={"seed": 1, "env": "x"}, **more)


def start(name, folder, lines, **more):
    return start_trackers([name], tracked(folder, **more), lines.append)


def twice(name, folder):
    """Two steps, then one more in a continued run; returns the tracker's names of both."""
    lines, known = [], []
    for steps, step in (((1, 2), 0), ((3,), 2)):
        trackers = start(name, folder, lines, step=step)
        assert lines == [] and list(trackers.open) == [name]
        known.append(trackers.open[name].known_as)
        for number in steps:
            trackers.log(number, {"episode/success": number / 4, "policy/entropy": math.nan})
        trackers.finish()
    assert lines == []
    assert json.loads((folder / "tracking.json").read_text())[name] == known[0]
    assert known[0] == known[1], "the same run is continued"
    return known[0]


def test_tensorboard_reads_its_events(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    twice("tensorboard", tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.Tags()["scalars"] == ["episode/success"]
    found = [(event.step, event.value) for event in events.Scalars("episode/success")]
    assert found == [(1, 0.25), (2, 0.5), (3, 0.75)]


def test_wandb_writes_offline_runs_with_one_id(tmp_path):
    known = twice("wandb", tmp_path)
    runs = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert len(runs) == 2 and all(run.name.endswith(known) for run in runs)
    for run in runs:
        content = b"".join(path.read_bytes() for path in run.rglob("*.wandb"))
        assert b"episode/success" in content


def test_mlflow_finds_the_run(tmp_path):
    from mlflow import MlflowClient

    known = twice("mlflow", tmp_path)
    client = MlflowClient()
    history = client.get_metric_history(known, "episode/success")
    assert sorted((each.step, each.value) for each in history) == [(1, 0.25), (2, 0.5), (3, 0.75)]
    run = client.get_run(known)
    assert run.data.params == {"seed": "1", "env": "x"} and run.info.status == "FINISHED"


def test_trackio_keeps_the_run_in_its_database(tmp_path):
    known = twice("trackio", tmp_path)
    (database,) = Path(os.environ["TRACKIO_DIR"]).glob("agentgym*.db")
    with sqlite3.connect(database) as opened:
        query = "select step, metrics from metrics where run_name = ? order by step"
        rows = opened.execute(query, (known,)).fetchall()
    found = [(step, json.loads(numbers)["episode/success"]) for step, numbers in rows]
    assert found == [(1, 0.25), (2, 0.5), (3, 0.75)]


def test_swanlab_writes_offline(tmp_path):
    twice("swanlab", tmp_path)
    written = [path for path in (tmp_path / "swanlab").rglob("*") if path.is_file()]
    assert any(b"episode/success" in path.read_bytes() for path in written)


def test_a_run_is_tracked_everywhere_and_continued(tmp_path):
    out = Path(tmp_path / "run")
    agentgym.train(GRPO(group_size=2), settings=TINY, track=ALL, out=out, progress=False)
    first = json.loads((out / "tracking.json").read_text())
    assert set(first) == set(ALL)
    agentgym.train(resume=out, steps=3, progress=False)
    assert json.loads((out / "tracking.json").read_text()) == first
    from mlflow import MlflowClient

    client = MlflowClient()
    success = client.get_metric_history(first["mlflow"], "episode/success")
    assert sorted({each.step for each in success}) == [1, 2, 3]
    panel = client.get_metric_history(first["mlflow"], "eval/pass_at_1")
    assert {each.step for each in panel} == {0, 2, 3}
    assert os.environ["MLFLOW_TRACKING_URI"].endswith("mlflow.db")
