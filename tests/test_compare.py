"""Comparing evaluations: pairs, seeds, flips, panels that differ, and the sentences about it."""

from dataclasses import replace

import numpy as np
import pytest

from agentgym.cli import main
from agentgym.env.panel import Panel
from agentgym.errors import ConfigError
from agentgym.evaluation.compare import compare_reports
from agentgym.evaluation.files import open_file
from agentgym.evaluation.record_files import append
from agentgym.evaluation.records import EpisodeRecord
from agentgym.evaluation.report import Report
from agentgym.evaluation.spec import EvalSpec
from agentgym.evaluation.stats.seeds import difference_over_seeds
from agentgym.types import Stop, Task, Trajectory

ENV = "agentgym/Made-v0"


def panel(count, start=0):
    return Panel(ENV, "test", tuple(Task(ENV, f"t{n}") for n in range(start, start + count)))


def episodes(tasks, wins, n):
    """``wins[i]`` of the ``n`` episodes of task number i are won; even tasks are of type a."""
    for number, (task, won) in enumerate(zip(tasks.tasks, wins, strict=True)):
        for sample in range(n):
            score = float(sample < won)
            yield EpisodeRecord.of(
                Trajectory(
                    task, sample, "", "", (), Stop.TERMINATED, score, score == 1,
                    "ab"[number % 2],
                )
            )  # fmt: skip


def report(wins, n=4, name="m", seed=0, start=0):
    tasks = panel(len(wins), start)
    spec = EvalSpec(name, {"seed": seed})
    return Report.of(tasks, spec, episodes(tasks, wins, n), episodes=n)


def written(path, wins, n=4, name="m"):
    tasks = panel(len(wins))
    open_file(path, tasks, EvalSpec(name))
    for record in episodes(tasks, wins, n):
        append(path, replace(record, panel=tasks.digest))
    return str(path)


def test_a_real_difference_is_stated_with_its_size_and_its_scope():
    found = compare_reports([report([1] * 20, name="old"), report([3] * 19 + [2], name="new")])
    (pair,) = found.pairs
    assert pair.real and pair.verdict == "new is better"
    (text,) = found.sentences
    assert text.startswith("Real: new is higher than old (pass@1 0.74 against 0.25, +48.8 points")
    assert "p < 0.001" in text and "not for training again" in text
    back = compare_reports([report([3] * 20, name="old"), report([1] * 20, name="new")])
    assert back.sentences[0].startswith("Real: new is lower than old")


def test_a_difference_that_may_be_luck_is_called_not_established():
    found = compare_reports([report([2, 1, 3, 2] * 5), report([3, 2, 1, 2] * 5)])
    assert not found.pairs[0].real
    assert "Not established: m (2) may equal m (1)" in found.sentences[0]
    low, high = found.pairs[0].difference[1:]
    assert f"below about {50 * (high - low):.1f} points" in found.sentences[0]


def test_tasks_that_flipped_are_listed_with_their_types():
    before, after = report([4, 0, 4, 2, 0], name="a"), report([0, 4, 3, 4, 3], name="b")
    (pair,) = compare_reports([before, after]).pairs
    assert [(flip.task.id, flip.task_type) for flip in pair.flips] == [
        ("t0", "a"),
        ("t1", "b"),
        ("t4", "a"),
    ]
    text = str(compare_reports([before, after]))
    assert "2 won only by b, 1 only by a" in " ".join(text.split())
    assert "By type: a +1 -1, b +1 -0." in text
    assert max(map(len, text.partition("\n\n")[2].splitlines())) <= 80


def test_more_flips_than_fit_are_counted():
    text = str(compare_reports([report([0] * 20), report([4] * 20, name="b")]))
    assert "and 8 more" in text


def test_seeds_of_one_method_are_one_arm_and_a_factor():
    rng = np.random.default_rng(0)
    arms = [[rng.integers(low, low + 3, 30) for _ in range(3)] for low in (0, 2)]
    groups = [[report(list(w), seed=s) for s, w in enumerate(arm)] for arm in arms]
    found = compare_reports(groups, ["weak", "strong"])
    (pair,) = found.pairs
    expected = difference_over_seeds(*(np.array(arm) / 4 for arm in arms))
    assert pair.difference == pytest.approx(expected.interval)
    assert pair.p == pytest.approx(expected.p)
    assert pair.over_seeds and "3 and 3 seeds" in found.sentences[0]
    text = str(found)
    assert "by seed" in text and "Settings of" not in text


def test_one_seed_on_one_side_is_not_taken_for_training_again():
    found = compare_reports([[report([1] * 6)], [report([3] * 6), report([4] * 6)]], ["a", "b"])
    assert not found.pairs[0].over_seeds
    assert "One side has one training seed" in found.sentences[0]
    assert found.pairs[0].levels == pytest.approx((0.25, 0.875))


def test_three_arms_are_corrected_for_three_pairs():
    three = compare_reports([report([w] * 12, name=n) for w, n in ((1, "a"), (2, "b"), (3, "c"))])
    alone = compare_reports([report([1] * 12, name="a"), report([2] * 12, name="b")])
    assert [(p.first, p.second) for p in three.pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert three.pairs[0].p == pytest.approx(3 * alone.pairs[0].p)
    assert "adjusted for 3 pairs" in three.sentences[0]


def test_panels_that_differ_are_compared_on_their_common_tasks():
    found = compare_reports([report([1] * 10), report([3] * 8, start=4)])
    assert found.pairs[0].difference.value == pytest.approx(0.5)
    assert len(found.pairs[0].better) == 6
    assert "compared on the 6 tasks that all have, of 10 and 8" in str(found)


@pytest.mark.parametrize("start", [20, 9])
def test_panels_without_common_tasks_are_refused(start):
    with pytest.raises(ConfigError, match=r"different panels.*in common.*Play the same panel"):
        compare_reports([report([1] * 10), report([1] * 10, start=start)])


def test_other_measures_are_compared_by_name():
    one, two = report([1] * 8), report([2] * 8)
    found = compare_reports([one, two], measure="pass@2")
    assert found.pairs[0].levels == pytest.approx((0.5, 5 / 6))
    assert "pass@2" in str(found)
    with pytest.raises(ConfigError, match=r"no measure 'pas@1'.*Did you mean 'pass@1'"):
        compare_reports([one, two], measure="pas@1")
    with pytest.raises(ConfigError, match=r"pass@8 needs 8 episodes per task, m \(1\) has 4"):
        compare_reports([one, two], measure="pass@8")
    assert replace(one, method="bootstrap").method == "bootstrap"


def test_bootstrap_intervals_can_be_asked_for(tmp_path, capsys):
    files = [written(tmp_path / f"{n}.jsonl", w) for n, w in (("a", [0, 1] * 9), ("b", [4, 1] * 9))]
    texts = []
    for method in ("analytic", "bootstrap"):
        assert main(["compare", *files, "--intervals", method]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] != texts[1]


def test_arms_are_named_and_seeds_joined_on_the_command_line(tmp_path, capsys):
    for name, wins in (("x-0", 1), ("x-1", 2), ("y-0", 3), ("y-1", 4)):
        written(tmp_path / f"{name}.jsonl", [wins] * 8, name=name)
    words = [f"old={tmp_path}/x-*.jsonl", f"new={tmp_path}/y-0.jsonl,{tmp_path}/y-1.jsonl"]
    assert main(["compare", *words]) == 0
    assert "old -> new" in capsys.readouterr().out
    assert main(["compare", f"old={tmp_path}/none-*"]) == 2
    assert "nothing matches" in capsys.readouterr().err


def test_a_comparison_needs_two_and_a_name_for_each():
    with pytest.raises(ConfigError, match="at least 2 evaluations, got 1"):
        compare_reports([report([1] * 3)])
    with pytest.raises(ConfigError, match="give each its own"):
        compare_reports([report([1] * 3), report([2] * 3)], ["a"])
    with pytest.raises(ConfigError, match="give each its own"):
        compare_reports([report([1] * 3), report([2] * 3)], ["a", "a"])


def run_folder(root, algorithm, seed, wins):
    (root / "eval").mkdir(parents=True)
    (root / "config.yaml").write_text(f"algorithm: {algorithm}\nseed: {seed}\nenv: made\n")
    written(root / "eval" / "before.jsonl", [0] * 8)
    written(root / "eval" / "after.jsonl", wins)
    return str(root)


def test_runs_that_differ_only_in_their_seed_are_one_arm(tmp_path, capsys):
    words = [
        run_folder(tmp_path / f"{name}-{seed}", name, seed, [wins + seed] * 8)
        for name, wins in (("grpo", 1), ("epo", 3))
        for seed in (0, 1)
    ]
    assert main(["compare", *words]) == 0
    out = capsys.readouterr().out
    assert "grpo -> epo" in out and "by seed 0.25 0.50" in out and "2 and 2 seeds" in out
    assert main(["compare", words[0], words[1], words[2]]) == 0
    assert "One side has one training seed" in capsys.readouterr().out
    assert main(["compare", words[0], words[1]]) == 0
    assert "m (1) -> m (2)" in capsys.readouterr().out
