"""`scripts/reproduce` on the toy environment: after a kill the same command continues."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import yaml

from agentgym.experiment.metrics_file import read_metrics
from agentgym.models import from_scratch
from agentgym.settings import ScratchSettings

SCRIPT = Path(__file__).parent.parent / "scripts" / "reproduce.py"
TOY = [
    *("--world", "hotter", "--run.env-args", "high", "8"),
    *("--run.max-env-steps", "220", "--run.tasks-per-step", "3", "--run.save-every", "1"),
    *(
        "--run.rollout.max-turns",
        "6",
        "--run.rollout.max-context-tokens",
        "256",
        "--run.rollout.max-completion-tokens",
        "8",
    ),
    *("--run.panel.tasks", "6", "--run.panel.episodes", "2"),
]


def reproduce(out, *more):
    words = [sys.executable, str(SCRIPT), "--out", str(out), *TOY, *more]
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def test_two_methods_with_two_seeds_resume_after_a_kill(tokenizer, tmp_path):
    shape = ScratchSettings(
        hidden_size=32, num_layers=1, num_heads=2, num_kv_heads=1, intermediate_size=32
    )
    model = from_scratch.make_model(tokenizer, shape, context=256, seed=0)
    from_scratch.save(model, tokenizer, tmp_path / "warm")
    out = tmp_path / "out"
    arms = ("--arms", "grpo", "aepo: random branching", "--seeds", "2")
    arms = (*arms, "--warm", str(tmp_path / "warm"))  # type: ignore[assignment]
    first = reproduce(out, *arms)
    second_run = out / "aepo-random-branching-seed0" / "metrics.jsonl"
    while not (second_run.exists() and second_run.read_text()):
        assert first.poll() is None, first.stdout.read()
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGKILL)
    output = first.communicate()[0]
    assert "1/4  grpo, seed 0" in output and "eta" in output
    stamp = (out / "grpo-seed0" / "report.txt").stat().st_mtime_ns
    assert not (out / "aepo-random-branching-seed0" / "report.txt").exists()
    assert (out / "table.md").read_text().count("| grpo | 1 |") == 1

    readme = tmp_path / "README.md"
    readme.write_text("Before.\n<!-- reproduce -->\nold\n<!-- /reproduce -->\nAfter.\n")
    second = reproduce(out, *arms, "--readme", str(readme))
    output = second.communicate()[0]
    assert second.returncode == 0, output
    assert "1 of 4 runs are done" in output and "4/4  aepo: random branching, seed 1" in output
    assert (out / "grpo-seed0" / "report.txt").stat().st_mtime_ns == stamp

    for run in ("grpo-seed0", "grpo-seed1", "aepo-random-branching-seed0"):
        lines = read_metrics(out / run / "metrics.jsonl")
        turns = [line["spent/turns"] for line in lines]
        assert turns[-1] >= 220 > turns[-2] and turns == sorted(turns)
        assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    before = [path.read_bytes() for path in out.glob("*-seed0/eval/before.jsonl")]
    assert len(before) == 2 and before[0] == before[1]
    made = yaml.safe_load((out / "aepo-random-branching-seed1" / "config.yaml").read_text())
    assert (made["seed"], made["algorithm"], made["algo"]["entropy_weight"]) == (1, "aepo", 0.0)

    text = readme.read_text()
    assert text.startswith("Before.\n<!-- reproduce -->\n| arm") and text.endswith("After.\n")
    assert "old" not in text and (tmp_path / "reproduce.png").stat().st_size > 10_000
    number = r"[+-]\d\.\d\d \[[+-]\d\.\d\d, [+-]\d\.\d\d\]"
    row = next(line for line in text.splitlines() if line.startswith("| aepo: random"))
    assert re.search(rf"\| 2 \| [^|]+ \| {number} \| grpo \| {number} \| {number} \|", row)


def test_runs_end_with_the_process_that_started_them(tokenizer, tmp_path):
    """Only the parent is killed; its output ends when no process holds the pipe open."""
    shape = ScratchSettings(
        hidden_size=32, num_layers=1, num_heads=2, num_kv_heads=1, intermediate_size=32
    )
    model = from_scratch.make_model(tokenizer, shape, context=256, seed=0)
    from_scratch.save(model, tokenizer, tmp_path / "warm")
    endless = ("--run.max-env-steps", "1000000", "--jobs", "2", "--arms", "grpo", "gigpo")
    whole = reproduce(tmp_path / "out", "--warm", str(tmp_path / "warm"), *endless)
    files = [tmp_path / "out" / f"{arm}-seed0" / "metrics.jsonl" for arm in ("grpo", "gigpo")]
    try:
        while not all(file.exists() and file.read_text() for file in files):
            assert whole.poll() is None, whole.stdout.read()
            time.sleep(0.02)
        whole.kill()
        whole.communicate(timeout=20)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(whole.pid, signal.SIGKILL)


def test_a_mistyped_method_gives_a_one_line_error(tmp_path):
    done = reproduce(tmp_path / "out", "--arms", "aepo: random")
    output = done.communicate()[0]
    assert done.returncode == 2 and "Did you mean 'aepo: random branching'?" in output
    assert output.count("\n") == 1 and not (tmp_path / "out").exists()
