"""`scripts/evidence`: its lines, with a small model in place of the pretrained one, and records."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from evidence_records import Found, Line, add, main, records_in, table

from agentgym.errors import ConfigError
from agentgym.models import from_scratch
from agentgym.settings import ScratchSettings
from agentgym.utils.jsonl import append_line, dumps

SCRIPT = Path(__file__).parent.parent / "scripts" / "evidence"
TINY = ScratchSettings(
    hidden_size=32, num_layers=1, num_heads=2, num_kv_heads=1, intermediate_size=32
)
SMALL = ["--panel.tasks", "2", "--panel.episodes", "1", "--rollout.max-turns", "1"]
SMALL += ["--rollout.max-context-tokens", "2048", "--rollout.max-completion-tokens", "4"]
TRAINED = ["--steps", "1", "--tasks-per-step", "1", "--imitation.max-steps", "1"]


def evidence(model, *words):
    environment = {**os.environ, "AGENTGYM_PRETRAINED": str(model)}
    done = subprocess.run(
        [str(SCRIPT), *words], capture_output=True, text=True, env=environment, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def model(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evidence") / "model"
    from_scratch.save(
        from_scratch.make_model(tokenizer, TINY, context=2048, seed=0), tokenizer, folder
    )
    return folder


@pytest.fixture(scope="module")
def played(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evidence") / "out"
    code, output = evidence(model, "--out", str(folder), "deepsearch", "prompt", "3", *SMALL)
    assert code == 0, output
    return folder


def test_a_finished_line_has_a_record_and_is_not_played_again(model, played, tmp_path):
    shutil.copytree(played, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "runs" / "deepsearch" / "prompt-3.jsonl"
    ((key, found),) = records_in(tmp_path).items()
    assert key == Line("deepsearch", "prompt", 3)
    assert (found.episodes, len(found.success)) == (1, 2)
    file.unlink()
    code, output = evidence(model, "--out", str(tmp_path), "deepsearch", "prompt", "3", *SMALL)
    assert code == 0 and "prompt 3 is in" in output and not file.exists()
    code, output = evidence(model, "--out", str(tmp_path), "--table")
    assert code == 0 and "| deepsearch | prompt | 1 | 0.00 [0.00, " in output


@pytest.mark.slow
def test_training_takes_over_the_evaluation_of_its_imitation(model, tmp_path):
    words = ["--out", str(tmp_path), "deepsearch", "grpo", "0", *SMALL, *TRAINED]
    code, output = evidence(model, *words)
    assert code == 0, output
    runs = tmp_path / "runs" / "deepsearch"
    before, after = (
        (runs / name / "eval" / when).read_bytes()
        for name, when in (("grpo-0", "before.jsonl"), ("imitation-0", "after.jsonl"))
    )
    assert before == after
    assert set(records_in(tmp_path)) == {
        Line("deepsearch", "imitation", 0),
        Line("deepsearch", "grpo", 0),
    }


def write(folder, key, found):
    text = dumps({"run": key._asdict(), "found": found._asdict()})
    append_line(folder / "records.jsonl", text)


def test_the_table_pairs_lines_by_seed_and_task(tmp_path):
    won = {"imitation": [(0.0, 0.5), (0.5, 0.5)], "grpo": [(0.5, 1.0), (1.0, 1.0)]}
    for line, seeds in won.items():
        for seed, shares in enumerate(seeds):
            write(tmp_path, Line("w", line, seed), Found("beef", 2, shares))
    rows = table(tmp_path).splitlines()
    assert rows[2].startswith("| w | imitation | 2 | 0.38 [")
    assert rows[3].startswith("| w | grpo | 2 | 0.88 [")
    assert rows[3].endswith("|  | +0.50 [+0.50, +0.50] |  |")
    assert main("has", str(tmp_path), "w", "grpo", "1") == 0
    assert main("has", str(tmp_path), "w", "grpo", "2") == 1


def test_unfinished_runs_and_other_panels_are_refused(played, tmp_path):
    with pytest.raises(ConfigError, match="no finished line in"):
        table(tmp_path)
    shutil.copytree(played / "runs", tmp_path / "runs")
    file = tmp_path / "runs" / "deepsearch" / "prompt-3.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.with_name("prompt-1.jsonl").write_text("".join(lines[:-1]))
    with pytest.raises(ConfigError, match="is not finished"):
        add(tmp_path, Line("deepsearch", "prompt", 1))
    write(tmp_path, Line("deepsearch", "prompt", 0), Found("beef", 1, (0.0,)))
    with pytest.raises(ConfigError, match="has beef of deepsearch: choose another --out"):
        add(tmp_path, Line("deepsearch", "prompt", 3))
    assert len(records_in(tmp_path)) == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["deepsearch", "sft"], "no line sft: expected prompt"),
        (["chess", "prompt"], "no world chess: expected alfworld"),
        (["--tabel"], "no option --tabel: expected --out"),
        (["--out"], "--out needs a folder"),
        ([], "usage: scripts/evidence"),
    ],
)
def test_mistakes_give_one_line(words, says, tmp_path):
    code, output = evidence(tmp_path, *words)
    assert code != 0 and says in output and output.count("\n") == 1
