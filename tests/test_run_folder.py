"""Run folders that are shared, locked, full, linked to or interrupted."""

import errno
import io
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from rich.console import Console
from safetensors import SafetensorError
from test_front_door import TINY
from test_resume import lines

import agentgym
from agentgym.cli import main
from agentgym.errors import ConfigError
from agentgym.evaluation.record_files import read_episodes
from agentgym.experiment.checkpoints import save_model
from agentgym.experiment.plan import Plan, load_plan
from agentgym.experiment.run_folder import RunFolder
from agentgym.settings import ImitationSettings
from agentgym.utils import progress
from agentgym_trainers.grpo import GRPO


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("folder") / "run"
    agentgym.train(GRPO(group_size=2), settings=TINY, out=out, progress=False)
    return RunFolder(out)


def test_a_folder_locked_by_another_process_gives_a_one_line_error(trained, capsys):
    code = (
        "import sys, time; from pathlib import Path; "
        "from agentgym.experiment.run_folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).locked(): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(trained.root)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        assert main(["train", "--resume", str(trained.root)]) == 2
        error = capsys.readouterr().err
        assert f"is in use by another process (pid {holder.pid})" in error
        assert error.count("\n") == 1
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert main(["train", "--resume", str(trained.root)]) == 0  # the lock ended with its process


def test_a_folder_that_cannot_be_created_gives_a_one_line_error(tmp_path, capsys):
    (tmp_path / "file").touch()
    words = ["train", "grpo", "--env", "hotter", "--out", str(tmp_path / "file" / "run")]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "Not a directory" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "problem",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
        SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        ),
    ],
)
def test_a_full_disk_gives_a_one_line_error_and_leaves_no_partial_checkpoint(
    trained, tmp_path, problem
):
    class Full:
        def save_pretrained(self, where):
            raise problem

    folder = RunFolder(tmp_path)
    with pytest.raises(ConfigError, match="cannot write") as refused:
        save_model(folder, folder.warm, Full(), Full())
    assert "\n" not in str(refused.value) and not folder.warm.exists()


def test_a_disk_that_fills_up_while_training_tells_how_to_continue(tmp_path, monkeypatch, capfd):
    def full(path, line):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("agentgym.experiment.metrics_file.append_line", full)
    out = tmp_path / "run"
    (tmp_path / "plan.yaml").write_text(
        Plan(algorithm="grpo", algo=GRPO(group_size=2), experiment=TINY).dump()
    )
    assert main(["train", "--config", str(tmp_path / "plan.yaml"), "--out", str(out)]) == 2
    said = capfd.readouterr()
    assert said.err == f"agentgym: {out / 'metrics.jsonl'}: No space left on device\n"
    assert f"continue with: agentgym train --resume {out}" in said.out


def test_a_programming_error_is_not_reported_as_a_full_disk(tmp_path):
    class Broken:
        def save_pretrained(self, where):
            raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        folder = RunFolder(tmp_path)
        save_model(folder, folder.warm, Broken(), Broken())


def test_a_checkpoint_is_evaluated_with_its_run_settings_from_inside_and_via_a_link(
    trained, tmp_path, monkeypatch, capsys
):
    (tmp_path / "best").symlink_to(trained.final)
    expected = read_episodes(trained.evaluation("after"))
    for folder, name in [
        (trained.root, "checkpoints/final"),
        (trained.root / "checkpoints", "final"),
        (tmp_path, "best"),
    ]:
        monkeypatch.chdir(folder)
        out = tmp_path / f"{folder.name}.jsonl"
        assert main(["eval", name, "--out", str(out)]) == 0, capsys.readouterr().err
        played = [(e.task, e.sample, e.reward) for e in read_episodes(out)]
        assert sorted(played) == sorted((e.task, e.sample, e.reward) for e in expected)


def test_the_default_evaluation_file_is_named_after_the_evaluated_policy(
    trained, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    for checkpoint in (trained.warm, trained.final, trained.final):
        assert main(["eval", "--model", str(checkpoint), "--panel.episodes", "1"]) == 0
    assert len(list(tmp_path.glob("evals/hotter-test-*.jsonl"))) == 2
    shown = capsys.readouterr().out
    assert "checkpoints/warm" in shown and "checkpoints/final" in shown


def test_a_comparison_names_the_models_and_the_settings_that_differ(trained, tmp_path, capsys):
    out = str(tmp_path / "cool.jsonl")
    before = str(trained.evaluation("before"))
    words = ["eval", str(trained.final), "--out", out, "--panel.temperature", "0.5"]
    assert main([*words, "--against", before]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "checkpoints/warm" in shown and "checkpoints/final" in shown
    assert "temperature 1.0 to 0.5" in shown
    assert main(["compare", before, out]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "temperature 0.5 instead of 1.0" in shown and "p (Holm)" in shown


def test_an_evaluation_uses_the_recipe_of_the_environment(trained, tmp_path, capsys):
    out = tmp_path / "e.jsonl"
    words = ["eval", str(trained.final), "--world", "hotter", "--out", str(out)]
    few = ["--panel.tasks", "2", "--panel.episodes", "1", "--rollout.max-completion-tokens", "4"]
    assert main([*words, *few, "--rollout.max-context-tokens", "200"]) == 0
    text = out.read_text()
    assert '"max_turns":12' in text  # the registered limit, where the run had 3
    assert '"env.high"' not in text  # an argument of the run's environment


def test_a_task_file_is_passed_as_an_argument_of_the_environment(tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(
        "from pathlib import Path\nfrom agentgym_envs.hotter import Hotter\n"
        "class Own(Hotter):\n"
        "    def __init__(self, data='', **kwargs):\n"
        "        super().__init__(**kwargs)\n"
        "        self.names = tuple(Path(data).read_text().split())\n"
        "    def tasks(self, split):\n"
        "        return self.names\n"
    )
    (tmp_path / "tasks.txt").write_text("hotter-1 hotter-2")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("builtins.input", lambda *args: ":quit")
    assert main(["play", "own.py:Own", "--data", "tasks.txt"]) == 0
    plan = Plan(
        algorithm="grpo",
        algo=GRPO(group_size=2),
        experiment=replace(TINY, steps=0, imitation=ImitationSettings(max_steps=0)),
    )
    (tmp_path / "plan.yaml").write_text(plan.dump())
    words = ["train", "--config", "plan.yaml", "--env", "own.py:Own", "--data", "tasks.txt"]
    assert main([*words, "--panel.tasks", "2", "--out", "run"]) == 0
    config = load_plan("run/config.yaml").experiment
    assert config.env_args == {"high": 8, "data": str(tmp_path / "tasks.txt")}
    assert config.env == f"{tmp_path}/own.py:Own"


def test_a_split_without_tasks_is_rejected_before_anything_is_written(tmp_path):
    class NoTraining(agentgym.TextEnv):
        def tasks(self, split):
            return () if split == "train" else ("a", "b", "c")

        def start(self, task, rng):
            return agentgym.Opening("", "")

        def act(self, action):
            return agentgym.Outcome("")

    with pytest.raises(ConfigError, match="object:NoTraining has no tasks in split 'train'"):
        agentgym.train(
            env=NoTraining,
            settings=replace(TINY, env_args={}),
            out=tmp_path / "run",
            progress=False,
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("policy", "success"), [("oracle", 1.0), ("random", None), ("own.py:guess", 0.0)]
)
def test_policies_without_a_model_are_evaluated_on_the_same_panels(
    tmp_path, monkeypatch, policy, success
):
    (tmp_path / "own.py").write_text("def guess(observation, info):\n    return 'nothing'\n")
    monkeypatch.chdir(tmp_path)
    few = ["--panel.tasks", "5", "--panel.episodes", "2", "--env-args", "high", "8"]
    for _ in range(2):  # the second call finds every episode
        assert main(["eval", policy, "--env", "hotter", "--out", "e.jsonl", *few]) == 0
    found = read_episodes(tmp_path / "e.jsonl")
    assert len(found) == 10 and all(len(episode.turns) <= 12 for episode in found)
    won = sum(episode.won for episode in found) / 10
    assert won == success if success is not None else won > 0
    assert all(turn.valid for e in found for turn in e.turns) is (policy != "own.py:guess")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("def guess(observation, info):\n    return 3\n", "returned 3, expected an action as text"),
        ("def guess(observation, info):\n    return 1 / 0\n", "raised ZeroDivisionError"),
        ("guess = 3\n", "is a int, expected a function"),
        ("other = 3\n", "has no 'guess'"),
    ],
)
def test_a_failing_policy_gives_a_one_line_error(tmp_path, monkeypatch, capsys, text, expected):
    (tmp_path / "own.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert main(["eval", "own.py:guess", "--env", "hotter", "--panel.tasks", "1"]) == 2
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") == 1
    assert main(["train", "grpo", "--model", "oracle", "--env", "hotter", "--out", "run"]) == 2
    assert "cannot be trained" in capsys.readouterr().err


def test_an_interrupted_run_reports_the_saved_step(tmp_path):
    folder, log = RunFolder(tmp_path / "run"), tmp_path / "log"
    (tmp_path / "plan.yaml").write_text(
        Plan(
            algorithm="grpo",
            algo=GRPO(group_size=2),
            experiment=replace(TINY, steps=1000, save_every=3),
        ).dump()
    )
    words = ["train", "--config", str(tmp_path / "plan.yaml"), "--out", str(folder.root)]
    with log.open("w") as output:
        running = subprocess.Popen(
            [sys.executable, "-m", "agentgym", *words],
            stdout=output,
            stderr=output,
            # A test run in the background of a script ignores Ctrl-C, and passes that on.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        deadline = time.monotonic() + 200
        while lines(folder.metrics) < 4 and running.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 130, log.read_text()
    last_line = log.read_text().splitlines()[-1]
    assert re.match(r"stopped: step \d+ is saved", last_line), last_line
    assert f"continue with: agentgym train --resume {folder.root}" in last_line


@pytest.mark.parametrize("width", [80, 100, 160])
def test_the_progress_bar_and_its_note_fit_the_terminal(width):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=width, color_system=None)
    facts = [progress.Fact("success", "0.312", (0.1, 0.3)), progress.Fact("speed", "12.3k tok/s")]
    with progress.Display(console).stage("evaluate: before", 512) as advance:
        advance(130, *facts)
    plain = re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", screen.getvalue())
    shown = re.split(r"[\r\n]", plain)
    last = [line for line in shown if "evaluate: before" in line][-1]
    assert "130/512" in last and "eta" in last and re.search(r"[━╸╺]", last)
    assert any("success" in line and "0.312" in line for line in shown)
    assert any("12.3k tok/s" in line for line in shown)
    assert max(map(len, shown)) <= width


def test_the_remaining_time_in_a_log_counts_only_units_of_this_call(monkeypatch):
    """A call that resumes at 60 of 100 and takes 1 s per unit has 20 s left at 80, not 5."""
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    screen = io.StringIO()
    display = progress.Display(Console(file=screen, width=200), every=0)
    with display.stage("evaluate", 100) as advance:
        for done in range(61, 81):
            clock[0] += 1.0
            advance(done)
    assert screen.getvalue().splitlines()[-1].split() == [
        "evaluate", "80/100", "0:20", "eta", "0:20"
    ]  # fmt: skip
