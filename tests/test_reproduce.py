"""`scripts/reproduce` on the toy environment: after a kill the same command continues."""

import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import yaml
from reproduce_plan import Options, Plan, best_rate, profile
from reproduce_records import Common, Key, Record, RecordFile, check_same, shares_won
from reproduce_report import compare, effects, holm_of, sweep_table, table
from reproduce_study import Study

from agentgym.errors import ConfigError
from agentgym.evaluation.files import read_report
from agentgym.experiment.metrics_file import read_metrics
from agentgym.experiment.run_folder import fingerprint
from agentgym.models import from_scratch
from agentgym.settings import Experiment, ScratchSettings
from agentgym.utils import yaml_config

SCRIPT = Path(__file__).parent.parent / "scripts" / "reproduce.py"

TINY = ScratchSettings(
    hidden_size=32, num_layers=1, num_heads=2, num_kv_heads=1, intermediate_size=32
)
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
    model = from_scratch.make_model(tokenizer, TINY, context=256, seed=0)
    from_scratch.save(model, tokenizer, tmp_path / "warm")
    out = tmp_path / "out"
    arms = ["--arms", "grpo", "aepo: random branching", "--seeds", "2", "--rates", "2e-4"]
    arms += ["--warm", str(tmp_path / "warm")]
    first = reproduce(out, *arms)
    runs = out / "runs"
    second_run = runs / "aepo-random-branching-seed0" / "metrics.jsonl"
    while not (second_run.exists() and second_run.read_text()):
        assert first.poll() is None, first.stdout.read()
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGKILL)
    output = first.communicate()[0]
    assert "1/4  grpo, seed 0" in output and "eta" in output
    assert not (runs / "aepo-random-branching-seed0" / "report.txt").exists()
    assert (out / "table.md").read_text().count("| grpo | 1 |") == 1

    shutil.rmtree(runs / "grpo-seed0")  # Its line among the records is enough.

    readme = tmp_path / "README.md"
    readme.write_text("Before.\n<!-- reproduce out -->\nold\n<!-- /reproduce out -->\nAfter.\n")
    second = reproduce(out, *arms, "--readme", str(readme))
    output = second.communicate()[0]
    assert second.returncode == 0, output
    assert "1 of 4 runs are done" in output and "4/4  aepo: random branching, seed 1" in output
    assert not (runs / "grpo-seed0").exists()

    for run in ("grpo-seed1", "aepo-random-branching-seed0"):
        lines = read_metrics(runs / run / "metrics.jsonl")
        turns = [line["spent/turns"] for line in lines]
        assert turns[-1] >= 220 > turns[-2] and turns == sorted(turns)
        assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    before = [path.read_bytes() for path in runs.glob("*-seed1/eval/before.jsonl")]
    assert len(before) == 2 and before[0] == before[1]
    made = yaml.safe_load((runs / "aepo-random-branching-seed1" / "config.yaml").read_text())
    assert (made["seed"], made["algorithm"], made["algo"]["entropy_weight"]) == (1, "aepo", 0.0)

    text = readme.read_text()
    assert text.startswith("Before.\n<!-- reproduce out -->\n| arm")
    assert "old" not in text and text.endswith(
        "](out/curves.png)\n<!-- /reproduce out -->\nAfter.\n"
    )
    assert (out / "curves.png").stat().st_size > 10_000
    number = r"[+-]\d\.\d\d \[[+-]\d\.\d\d, [+-]\d\.\d\d\]"
    row = next(line for line in text.splitlines() if line.startswith("| aepo: random"))
    middle = rf"\| 2 \| 0.0002 \| [^|]+ \| {number} \| grpo \| {number} \| {number} \|"
    assert re.search(middle, row)
    effects = [line for line in text.splitlines() if line.startswith("| grpo | ")][1]
    # Not its first two: here the model never wins, so no step is taken.
    assert all(re.fullmatch(r" -?[\d.e-]+ ", cell) for cell in effects.split("|")[4:8])


def test_every_arm_tries_all_rates_on_the_valid_split_and_keeps_its_best(tokenizer, tmp_path):
    model = from_scratch.make_model(tokenizer, TINY, context=256, seed=0)
    from_scratch.save(model, tokenizer, tmp_path / "warm")
    out = tmp_path / "out"
    words = ["--arms", "grpo", "--seeds", "1", "--rates", "1e-4", "0.5"]
    done = reproduce(out, *words, "--warm", str(tmp_path / "warm"))
    output = done.communicate()[0]
    assert done.returncode == 0, output
    assert "sweep: 0 of 2 runs are done" in output and "table: 0 of 1 runs are done" in output
    runs = out / "runs"
    trials = [runs / "sweep" / rate / "grpo-seed100" for rate in ("0.0001", "0.5")]
    won = [np.mean(shares_won(read_report(trial / "eval" / "after.jsonl"))) for trial in trials]
    for trial, rate in zip(trials, (1e-4, 0.5), strict=True):
        config = yaml.safe_load((trial / "config.yaml").read_text())
        assert (config["panel"]["split"], config["optimizer"]["learning_rate"]) == ("valid", rate)
    best = 1e-4 if won[0] >= won[1] else 0.5
    config = yaml.safe_load((runs / "grpo-seed0" / "config.yaml").read_text())
    assert (config["panel"]["split"], config["optimizer"]["learning_rate"]) == ("test", best)
    cells = [f"**{w:.2f}**" if w == won[best == 0.5] else f"{w:.2f}" for w in won]
    row = f"| grpo | {' | '.join(cells)} |"
    table = (out / "table.md").read_text()
    assert "| arm, valid split | 0.0001 | 0.5 |" in table
    assert row in table or won[0] == won[1]


def test_of_equal_rates_the_lowest_is_kept_and_the_best_wins():
    assert best_rate((1e-4, 2e-4, 4e-4), (0.2, 0.5, 0.5)) == 2e-4
    assert best_rate((1e-4, 2e-4, 4e-4), (0.2, 0.3, 0.5)) == 4e-4
    assert best_rate((4e-4, 1e-4), (0.5, 0.5)) == 1e-4
    assert best_rate((3e-4,), ()) == 3e-4


def test_a_comparison_is_a_t_test_over_seeds():
    found = compare("a", "b", np.array([[0.1, 0.1], [0.1, 0.3], [0.3, 0.3]]))
    assert found.both.value == found.seeds.value == pytest.approx(0.2)
    assert found.p == pytest.approx(0.0742, abs=1e-4)  # t = 0.2 / (0.1 / sqrt(3)), 2 degrees
    assert math.isnan(compare("a", "b", np.zeros((3, 2))).p)


def test_p_values_are_adjusted_for_those_that_are_known():
    assert holm_of([0.01, math.nan, 0.04]) == [0.02, pytest.approx(math.nan, nan_ok=True), 0.04]


def test_runs_end_with_the_process_that_started_them(tokenizer, tmp_path):
    """Only the parent is killed; its output ends when no process holds the pipe open."""
    model = from_scratch.make_model(tokenizer, TINY, context=256, seed=0)
    from_scratch.save(model, tokenizer, tmp_path / "warm")
    endless = ("--run.max-env-steps", "1000000", "--jobs", "2", "--arms", "grpo", "gigpo")
    endless = (*endless, "--rates", "2e-4")
    whole = reproduce(tmp_path / "out", "--warm", str(tmp_path / "warm"), *endless)
    files = [
        tmp_path / "out" / "runs" / f"{arm}-seed0" / "metrics.jsonl" for arm in ("grpo", "gigpo")
    ]
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


COMMON = Common("0a1b", {"steps": 10, "panel": {"tasks": 6, "episodes": 2}, "clip": math.inf})
RUN = Key("grpo", 0, 2e-4, "test")
FOUND = Record(
    {"group_size": 8}, "beef", 2, before=(0.0, 0.5), after=(0.5, 1.0), steps=({"step": 1.0},)
)


def records(tmp_path):
    file = RecordFile(tmp_path / "records.jsonl")
    file.open(COMMON)
    file.add(RUN, FOUND)
    return file


def test_records_are_read_as_they_were_written(tmp_path):
    file = records(tmp_path)
    file.open(COMMON)
    stopped = Record({}, stopped="the loss is not finite")
    file.add(RUN._replace(rate=8e-4), stopped)
    assert file.read() == {RUN: FOUND, RUN._replace(rate=8e-4): stopped}
    assert RecordFile(tmp_path / "none.jsonl").read() == {}


def test_runs_with_other_settings_do_not_join_a_file(tmp_path):
    file = records(tmp_path)
    with pytest.raises(ConfigError, match=r"another warm-up \(0a1b, now ffff\)"):
        file.open(COMMON._replace(warm="ffff"))
    other = {"steps": 10, "panel": {"tasks": 6, "episodes": 4}}
    with pytest.raises(ConfigError, match=r"settings\.panel\.episodes 2 \(now 4\): choose"):
        file.open(COMMON._replace(settings=other))
    file.open(COMMON._replace(settings={**COMMON.settings, "newer": 3}))
    with pytest.raises(ConfigError, match=r"grpo, seed 0, with group_size 8 \(now 4\)"):
        check_same(file.path, RUN, FOUND, {"group_size": 4})
    check_same(file.path, RUN, FOUND, {"group_size": 8, "newer": 1})


def test_a_file_that_holds_something_else_is_refused_in_one_line(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text('{"step": 1}\n')
    with pytest.raises(ConfigError, match="does not begin with what its runs have in common"):
        RecordFile(path).open(COMMON)
    assert path.read_text() == '{"step": 1}\n'


def run_of(after, kl=0.0, before=(0.0, 0.0)):
    step = {"step": 1.0, "spent/turns": 90.0, "spent/tokens": 5000.0, "policy/kl": kl}
    norms = {"policy/norm/surrogate": 2.0, "policy/norm/entropy": 0.5}
    return Record({}, "beef", 2, before=before, after=after, steps=({**step, **norms},))


STUDY = Study(
    env="agentgym/Hotter-v0",
    split="test",
    against={"host": (), "method": ("host",)},
    panels={},
    rates={"host": 2e-4, "method": 4e-4},
    found={
        "host": {0: run_of((0.0, 0.5)), 1: run_of((0.5, 0.5))},
        "method": {0: run_of((0.5, 0.5), kl=0.01), 1: run_of((1.0, 1.0), kl=0.03)},
    },
    stopped={"host": 0, "method": 1},
    sweep={"host": {1e-4: run_of((0.0, 0.5)), 2e-4: run_of((0.5, 0.5))}},
)


def test_the_table_names_success_gain_difference_and_runs_that_stopped():
    host, method = table(STUDY).splitlines()[2:4]
    assert host.startswith("| host | 2 | 0.0002 | 0.38 [") and "| +0.38 [" in host
    assert method.startswith("| method | 2, 1 stopped | 0.0004 | 0.75 [")
    # 0.25 and 0.5 over the seeds: t = 3 with one degree of freedom.
    assert "| host | +0.38 [" in method and method.endswith("| 0.205 | 1.0 | 5k |")
    assert "2 tasks x 2 episodes, last checkpoint, 90 turns" in table(STUDY)


def test_effects_are_means_over_steps_and_norms_parts_of_the_surrogate_s():
    rows = effects(STUDY).splitlines()
    assert rows[2].startswith("| host | 0 |") and rows[3].startswith("| method | 0.02 |")
    assert rows[3].endswith("| entropy 0.25 |")


def test_the_sweep_shows_the_chosen_rate_in_bold():
    assert sweep_table(STUDY).splitlines()[2] == "| host | 0.25 | **0.50** |"


def test_the_table_of_the_readme_follows_from_the_records_in_the_repository():
    root = SCRIPT.parent.parent
    base = profile(yaml_config.load(Experiment, root / "examples" / "study.yaml"))
    options = Options(run=base, out=root / "evidence" / "coins")
    study = Plan(options, options.out / "warm", options.records.read()).study()
    readme = (root / "trainers" / "agentgym_trainers" / "README.md").read_text()
    assert table(study) in readme and effects(study) in readme and sweep_table(study) in readme
    assert [len(study.finished(arm)) for arm in study.found] == [5] * 15
    assert options.records.common().warm == fingerprint(options.out / "warm")
