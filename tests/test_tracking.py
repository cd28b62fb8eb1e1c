"""What the trackers of a run get, and what happens when one is missing or fails."""

import json
import math
import sys
import types

import pytest

from agentgym.cli import main
from agentgym.errors import ConfigError, MissingExtra
from agentgym.tracking import start as starting
from agentgym.tracking.start import PACKAGES, check_trackers, start_trackers
from agentgym.tracking.tracker import TrackedRun, Trackers


class Recorder:
    """A tracker that remembers, and raises from a step on."""

    def __init__(self, known_as="mine", breaks_at=math.inf):
        self.known_as, self.breaks_at = known_as, breaks_at
        self.seen, self.finished = [], 0

    def log(self, step, metrics):
        if step >= self.breaks_at:
            raise ConnectionError("no server\nsecond line")
        self.seen.append((step, dict(metrics)))

    def finish(self):
        self.finished += 1


def test_a_tracker_that_raises_is_warned_about_once_and_dropped():
    lines, good, bad = [], Recorder(), Recorder(breaks_at=2)
    trackers = Trackers({"bad": bad, "good": good}, lines.append)
    for step in (1, 2, 3):
        trackers.log(step, {"loss": float(step), "nan": math.nan})
    trackers.finish()
    assert good.seen == [(1, {"loss": 1.0}), (2, {"loss": 2.0}), (3, {"loss": 3.0})]
    assert (good.finished, bad.finished, len(bad.seen)) == (1, 0, 1)
    assert lines == [
        "warning: tracker bad is dropped, training continues: ConnectionError: no server"
    ]


@pytest.fixture
def adapters(monkeypatch):
    """Adapters of the test in the place of those of two packages."""
    made = []

    def start(run):
        if run.settings.get("fails"):
            raise RuntimeError("no key")
        made.append(run)
        return Recorder(known_as=run.known_as or f"id-{len(made)}")

    for name in ("wandb", "mlflow"):
        module = types.ModuleType(f"agentgym.tracking.{name}")
        module.start = start  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return made


def run(folder, **settings):
    return TrackedRun(name="run", folder=folder, settings=settings)


def test_a_continued_run_gets_the_trackers_own_name(tmp_path, adapters):
    start_trackers(["wandb", "mlflow", "wandb"], run(tmp_path))
    assert [each.known_as for each in adapters] == [None, None]
    kept = json.loads((tmp_path / "tracking.json").read_text())
    assert kept == {"wandb": "id-1", "mlflow": "id-2"}
    start_trackers(["mlflow"], run(tmp_path))
    assert adapters[-1].known_as == "id-2"
    assert json.loads((tmp_path / "tracking.json").read_text()) == kept


def test_a_tracker_that_cannot_start_is_left_out(tmp_path, adapters):
    lines = []
    trackers = start_trackers(["wandb"], run(tmp_path, fails=True), lines.append)
    assert trackers.open == {} and "RuntimeError: no key" in lines[0]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_a_missing_package_is_one_line_with_the_command(name, monkeypatch):
    monkeypatch.setattr(starting, "find_spec", lambda package: None)
    with pytest.raises(MissingExtra, match=rf"--track {name} .* pip install {PACKAGES[name]}$"):
        check_trackers([name])


def test_an_unknown_tracker_is_named():
    with pytest.raises(ConfigError, match="Did you mean 'wandb'"):
        check_trackers(["wandbb"])


def test_nothing_is_written_when_a_tracker_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(starting, "find_spec", lambda package: None)
    out = tmp_path / "run"
    assert main(["train", "--env", "hotter", "--track", "wandb", "mlflow", "--out", str(out)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not out.exists()
