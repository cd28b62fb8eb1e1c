"""Evaluation on a fixed panel: complete, resumable, and independent of the order."""

import asyncio
import json
import math
from collections import Counter
from dataclasses import replace
from math import sqrt
from statistics import stdev

import pytest

from agentgym.env.panel import panel
from agentgym.env.registry import make
from agentgym.errors import ConfigError
from agentgym.evaluation.evaluate import EvalOptions, evaluate
from agentgym.evaluation.files import read_report
from agentgym.evaluation.measures import passes
from agentgym.evaluation.paired import paired_difference
from agentgym.evaluation.record_files import read_episodes
from agentgym.evaluation.records import EpisodeRecord
from agentgym.evaluation.render import render
from agentgym.evaluation.report import Report
from agentgym.evaluation.spec import EvalSpec
from agentgym.evaluation.stats.passes import pass_at_k
from agentgym.types import Completion, Ending, Stop, Task, Trajectory, Turn
from agentgym.utils.jsonl import append_line

HOTTER = "agentgym/Hotter-v0"
PANEL = panel(HOTTER).head(6)
BASE = EvalSpec("base", {"temperature": 1.0, "turns": 7})


class Guesser:
    """Plays Hotter: ``skilled(task, sample)`` decides if it halves the interval or gives up."""

    def __init__(self, skilled, *, wait=lambda task, sample: 0.0):
        self.skilled = skilled
        self.wait = wait
        self.calls = []
        self.flying = self.most = 0

    async def __call__(self, task, sample):
        self.calls.append((task, sample))
        self.flying += 1
        self.most = max(self.most, self.flying)
        try:
            await asyncio.sleep(self.wait(task, sample))
            return self.play(task, sample)
        finally:
            self.flying -= 1

    def play(self, task, sample):
        env = make(task.env)
        opening, info = env.reset(seed=task.seed, options={"task": task.id})
        low, high, turns, stop = 1, 100, [], Stop.MAX_TURNS
        while len(turns) < 7 and stop is Stop.MAX_TURNS:
            guess = (low + high) // 2
            action = str(guess) if self.skilled(task, sample) else "pass"
            answer, reward, done, _, info = env.step(action)
            low = guess + 1 if answer == "Higher." else low
            high = guess - 1 if answer == "Lower." else high
            turns.append(
                Turn((1,), completion_of(guess), action, answer, reward, valid=info["action_valid"])
            )
            stop = Stop.TERMINATED if done else stop
        score, won = info["score"], info["won"]
        return Trajectory(task, sample, info["goal"], opening, tuple(turns), stop, score, won)


def completion_of(guess):
    return Completion((guess,), (-1.0,), (0.5,))


def always(task, sample):
    return True


def sometimes(task, sample):
    """Task number n of the panel is solved in samples below n: 0, 1, ... of them."""
    return sample < PANEL.tasks.index(task)


def broken(task, sample, spoilt=()):
    stop = Stop.ENV_ERROR
    return Trajectory(task, sample, "", "", (), stop, error="OSError: gone", failed_attempts=spoilt)


def run(play, path, *, episodes=4, tasks=PANEL, spec=BASE, **options):
    how = EvalOptions(**{"concurrency": 3, **options})
    return asyncio.run(evaluate(tasks, play, episodes=episodes, path=path, spec=spec, options=how))


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_task_is_played_equally_often_and_recorded(tmp_path):
    play = Guesser(always)
    report = run(play, tmp_path / "e.jsonl")
    assert Counter(task for task, _ in play.calls) == dict.fromkeys(PANEL.tasks, 4)
    header, *episodes = lines(tmp_path / "e.jsonl")
    assert header["header"]["panel"] == PANEL.digest
    assert len(episodes) == 24
    assert {episode["panel"] for episode in episodes} == {PANEL.digest}
    assert report.pass_at(1).value == report.pass_hat(4).value == 1
    assert report.pass_at(1).low < 1
    assert report.valid_share == 1


def test_the_report_counts_successes_by_task_in_the_order_of_the_panel(tmp_path):
    report = run(Guesser(sometimes), tmp_path / "e.jsonl")
    assert [result.task for result in report.tasks] == list(PANEL.tasks)
    assert [result.won for result in report.tasks] == [0, 1, 2, 3, 4, 4]
    for k in (1, 2, 4):
        expected = sum(pass_at_k(4, c, k) for c in (0, 1, 2, 3, 4, 4)) / 6
        found = report.pass_at(k)
        assert found.value == pytest.approx(expected)
        assert found.low < found.value < found.high
    assert report.score().value == pytest.approx(14 / 24)
    assert report.tasks[0].turns == 7
    assert report.tasks[0].valid == 0


def test_results_do_not_depend_on_the_order_in_which_episodes_end(tmp_path):
    def wait(task, sample):
        return 0.001 * ((PANEL.tasks.index(task) * 7 + sample * 5) % 11)

    one = run(Guesser(sometimes), tmp_path / "a.jsonl", concurrency=1)
    many = run(Guesser(sometimes, wait=wait), tmp_path / "b.jsonl", concurrency=9)
    orders = [
        [record.key for record in read_episodes(tmp_path / name)] for name in ("a.jsonl", "b.jsonl")
    ]
    assert orders[0] != orders[1]
    assert one == many
    assert render(one) == render(many)


def test_no_more_episodes_are_in_flight_than_allowed(tmp_path):
    play = Guesser(always, wait=lambda task, sample: 0.001)
    run(play, tmp_path / "e.jsonl", concurrency=5)
    assert play.most == 5


def test_a_compressed_file_is_continued_and_reported_like_a_plain_one(tmp_path):
    plain, path = tmp_path / "e.jsonl", tmp_path / "e.jsonl.zst"
    whole = run(Guesser(sometimes), plain)
    run(Guesser(sometimes), path, episodes=2)
    cut = path.read_bytes()[:-30]
    path.write_bytes(cut)
    play = Guesser(sometimes)
    report = run(play, path)
    assert len(play.calls) == 2 * len(PANEL) + 1, "the missing ones, and the one that was cut off"
    assert report.metrics() == whole.metrics() == read_report(path).metrics()
    path.write_bytes(path.read_bytes() + b"damaged")
    notes = read_report(path).notes
    assert len(notes) == 1 and "the compressed data is damaged" in notes[0]


def test_an_interrupted_evaluation_is_continued_and_ends_the_same(tmp_path):
    whole = run(Guesser(sometimes), tmp_path / "whole.jsonl")
    path = tmp_path / "cut.jsonl"

    class Interrupted(Guesser):
        async def __call__(self, task, sample):
            if len(self.calls) == 10:
                raise KeyError("power")
            return await super().__call__(task, sample)

    first = Interrupted(sometimes)
    with pytest.raises(KeyError, match="power"):
        run(first, path)
    path.write_bytes(path.read_bytes()[:-40])
    kept = {record.key for record in read_episodes(path)}
    second = Guesser(sometimes)
    assert run(second, path) == whole
    assert 0 < len(kept) < 10
    assert set(second.calls).isdisjoint(kept)
    assert len(second.calls) + len(kept) == 24
    third = Guesser(sometimes)
    assert run(third, path) == whole
    assert third.calls == []


def test_more_episodes_can_be_added_later_and_fewer_reported(tmp_path):
    path = tmp_path / "e.jsonl"
    short = run(Guesser(sometimes), path, episodes=2)
    play = Guesser(sometimes)
    run(play, path, episodes=4)
    assert {sample for _, sample in play.calls} == {2, 3}
    assert run(Guesser(sometimes), path, episodes=2) == short


def test_an_error_in_one_episode_stops_the_others(tmp_path):
    class Faulty(Guesser):
        def play(self, task, sample):
            if (task, sample) == (PANEL.tasks[0], 1):
                raise KeyError("bug")
            return super().play(task, sample)

    play = Faulty(always, wait=lambda task, sample: 0.01)
    with pytest.raises(KeyError, match="bug"):
        run(play, tmp_path / "e.jsonl")
    assert len(play.calls) < 24
    assert play.flying == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spec": replace(BASE, model="tuned")}, "its model is 'base', requested 'tuned'"),
        (
            {"spec": EvalSpec("base", {"temperature": 0.4, "turns": 7})},
            r"its temperature is 1\.0, requested 0\.4",
        ),
        (
            {"spec": EvalSpec("base", {"temperature": 1.0, "turns": 7, "top_p": 0.9})},
            r"its top_p is 'absent', requested 0\.9",
        ),
        ({"tasks": PANEL.head(5)}, r"its panel is .*6 tasks.*, requested .*5 tasks"),
        ({"tasks": panel(HOTTER, split="valid").head(6)}, "requested agentgym/Hotter-v0 valid"),
    ],
)
def test_a_file_of_another_evaluation_is_refused_in_one_line(tmp_path, change, message):
    path = tmp_path / "e.jsonl"
    run(Guesser(always), path, episodes=1)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=message) as problem:
        run(Guesser(always), path, **change)
    assert "\n" not in str(problem.value)
    assert path.read_bytes() == before


def test_a_header_cut_off_by_an_interruption_is_written_again(tmp_path):
    path = tmp_path / "e.jsonl"
    path.write_text('{"header": {"sche')
    run(Guesser(always), path, episodes=1)
    assert len(lines(path)) == 7


def test_another_kind_of_file_is_not_appended_to(tmp_path):
    path = tmp_path / "metrics.jsonl"
    append_line(path, '{"step": 1}')
    with pytest.raises(ConfigError, match="the header is missing"):
        run(Guesser(always), path)
    append_line(path, '{"step": 2}')
    with pytest.raises(ConfigError, match="no evaluation file at"):
        read_report(tmp_path / "nothing.jsonl")


class Fragile(Guesser):
    """Sample 1 of the first task fails in the first ``breaks`` of 3 attempts."""

    def __init__(self, breaks):
        super().__init__(always)
        self.breaks = breaks

    def play(self, task, sample):
        spoilt = (Stop.TOOL_TIMEOUT, Stop.ABORTED, Stop.ENV_ERROR)[: self.breaks]
        if (task, sample) != (PANEL.tasks[0], 1):
            return super().play(task, sample)
        if self.breaks == 3:
            return broken(task, sample, spoilt[:2])
        return replace(super().play(task, sample), failed_attempts=spoilt)


def test_attempts_that_failed_in_the_environment_are_counted_and_reported(tmp_path):
    report = run(Fragile(2), tmp_path / "e.jsonl")
    assert (report.lost, report.tasks[0].finished) == (0, 4)
    assert report.endings == {Ending.SUCCESS: 24}
    assert report.failed_attempts == {Ending.TOOL_TIMEOUT: 1, Ending.ABORTED: 1}
    assert report.metrics()["eval/ending/tool_timeout"] == 1
    flat = " ".join(render(report).split())
    assert "Episodes: success 24." in flat
    assert "Failed attempts (environment errors): tool_timeout 1, aborted 1." in flat
    assert "Failed attempts" not in render(run(Fragile(0), tmp_path / "f.jsonl"))
    assert "lost" not in flat


def test_an_episode_that_never_completes_is_reported_but_not_scored(tmp_path):
    path = tmp_path / "e.jsonl"
    report = run(Fragile(3), path)
    first = report.tasks[0]
    assert (first.finished, first.won, first.lost, first.score) == (3, 3, 1, 1)
    assert report.pass_at(1).value == 1
    assert report.with_at_least(4) == 5
    assert report.pass_at(4).value == 1
    flat = " ".join(render(report).split())
    assert "1 episodes were lost to environment errors and are not scored" in flat
    assert "1 tasks have too few episodes for pass@4" in flat
    healed = run(Fragile(0), path)
    assert (healed.lost, healed.tasks[0].finished) == (0, 4)
    assert sum(healed.failed_attempts.values()) == 3


def test_a_panel_without_a_scored_episode_has_no_success_rate(tmp_path):
    class Broken(Guesser):
        def play(self, task, sample):
            return broken(task, sample)

    report = run(Broken(always), tmp_path / "e.jsonl", episodes=1)
    assert report.lost == 6
    assert report.failed_attempts == {Ending.ENV_ERROR: 6}
    assert math.isnan(report.pass_at(1).value)
    assert math.isnan(report.valid_share)
    assert "nan" in render(report)


def test_the_file_alone_gives_the_same_report(tmp_path):
    path = tmp_path / "e.jsonl"
    report = run(Guesser(sometimes), path)
    assert read_report(path) == report
    assert read_report(path).spec == BASE
    path.write_text(path.read_text().replace(PANEL.tasks[3].id, "hotter-999", 1))
    with pytest.raises(ConfigError, match="was altered"):
        read_report(path)


def test_progress_includes_episodes_of_an_earlier_call(tmp_path):
    seen = []
    run(Guesser(always), tmp_path / "e.jsonl", episodes=1)
    run(
        Guesser(always),
        tmp_path / "e.jsonl",
        episodes=2,
        progress=lambda done, total, note: seen.append((done, total)),
    )
    assert seen == [(done, 12) for done in range(7, 13)]


def test_the_text_of_completions_is_kept_when_there_is_a_decoder(tmp_path):
    path = tmp_path / "e.jsonl"
    run(Guesser(always), path, episodes=1, decode=lambda tokens: f"<{tokens[0]}>")
    assert read_episodes(path)[0].turns[0].text == "<50>"


@pytest.mark.parametrize("wrong", [{"episodes": 0}, {"concurrency": 0}])
def test_an_evaluation_without_episodes_is_an_error(tmp_path, wrong):
    with pytest.raises(ConfigError, match="must be at least 1"):
        run(Guesser(always), tmp_path / "e.jsonl", **wrong)


class Families(Guesser):
    """Tasks at odd places of the panel are one family; its first world stays broken."""

    def play(self, task, sample):
        if (task, sample) == (PANEL.tasks[1], 0):
            return broken(task, sample)
        kind = "odd" if PANEL.tasks.index(task) % 2 else "even"
        return replace(super().play(task, sample), task_type=kind)


def test_success_is_broken_down_by_task_type(tmp_path):
    report = run(Families(sometimes), tmp_path / "e.jsonl")
    assert report.task_types == ("even", "odd")
    assert [result.won for result in report.only("odd").tasks] == [0, 3, 4]
    assert report.only("odd").pass_at(1).value == pytest.approx((0 + 3 + 4) / 12)
    assert "pass@1 odd (3)" in render(report)
    assert report.metrics()["eval/success/odd"] == pytest.approx(7 / 12)


def test_before_and_after_are_compared_task_by_task(tmp_path):
    before = run(Guesser(sometimes), tmp_path / "a.jsonl")
    after = run(Guesser(always), tmp_path / "b.jsonl", spec=EvalSpec("tuned"))
    gain = paired_difference(before, after, passes(1))
    assert gain.tasks == 6
    assert gain.before.value == pytest.approx(14 / 24)
    assert gain.difference.value == pytest.approx(10 / 24)
    changes = [1, 0.75, 0.5, 0.25, 0, 0]
    reach = 2.570582 * stdev(changes) / sqrt(6)
    assert gain.difference.low == pytest.approx(10 / 24 - reach, abs=1e-6)
    assert gain.difference.high == pytest.approx(10 / 24 + reach, abs=1e-6)
    text = render(after, before)
    assert "difference" in text
    assert f"+{10 / 24:.2f} [-0.01" in text
    assert "paired" in text


def test_a_task_missing_on_one_side_is_left_out_of_the_comparison(tmp_path):
    before = run(Fragile(3), tmp_path / "a.jsonl")
    after = run(Guesser(always), tmp_path / "b.jsonl")
    assert paired_difference(before, after, passes(4)).tasks == 5
    assert paired_difference(before, after, passes(1)).tasks == 6


def test_results_on_different_panels_are_not_compared(tmp_path):
    before = run(Guesser(always), tmp_path / "a.jsonl", episodes=1)
    after = run(Guesser(always), tmp_path / "b.jsonl", episodes=1, tasks=PANEL.head(5))
    with pytest.raises(ConfigError, match=r"6 tasks.*5 tasks.*play the same panel"):
        paired_difference(before, after, passes(1))


def test_metrics_have_names_and_are_plain_numbers(tmp_path):
    found = run(Guesser(always), tmp_path / "e.jsonl").metrics()
    assert {"eval/pass@1", "eval/pass@4", "eval/score", "eval/turns", "eval/valid"} <= found.keys()
    assert all(type(value) is float for value in found.values())


def test_an_episode_of_a_task_outside_the_panel_is_refused():
    record = EpisodeRecord.of(broken(Task(HOTTER, "hotter-1"), 0))
    with pytest.raises(ConfigError, match="not on the panel"):
        Report.of(PANEL, BASE, [record], episodes=1)


def attempt(stop, won):
    """A record of one attempt at sample 0 of the first task."""
    played = Trajectory(PANEL.tasks[0], 0, "", "", (), stop, float(won), won)
    return EpisodeRecord.of(played)


def test_the_first_scored_attempt_at_an_episode_counts():
    failed = attempt(Stop.ENV_ERROR, False)
    lost, won = attempt(Stop.TERMINATED, False), attempt(Stop.TERMINATED, True)
    for records, expected in [([failed, lost, won], 0), ([failed, won, lost], 1), ([won, lost], 1)]:
        result = Report.of(PANEL, BASE, records, episodes=1).tasks[0]
        assert (result.finished, result.won, result.lost) == (1, expected, 0)
        assert sum(result.failed_attempts.values()) == records.count(failed)
