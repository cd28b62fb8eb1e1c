"""The report of a run: what it draws and states, and when it is written."""

import math
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import yaml
from small_runs import SMALL_RUN

import agentgym
from agentgym.cli import main
from agentgym.evaluation.stats.student import student_t
from agentgym.experiment import report_page
from agentgym.experiment.metrics_file import read_metrics
from agentgym.experiment.report_page import GrowingPage, read_run
from agentgym.experiment.run_folder import RunFolder
from agentgym.run_report.alarms import active_spans, alarm_sentences
from agentgym.run_report.durations import seconds_by_stage, time_section
from agentgym.run_report.page import page
from agentgym.run_report.run import Arm, Run, arms_of
from agentgym.run_report.success import arm_lines, success_plots
from agentgym.run_report.svg import Line, plot
from agentgym.utils.progress import Display
from agentgym_trainers.grpo import GRPO


def run(name="a", *, success=(0.2, 0.4), seed=0, algorithm="grpo", steps=2, **columns):
    metrics = tuple(
        {
            "step": n + 1,
            "episode/success": value,
            "episode/success_error": 0.1,
            "spent/turns": 100.0 * (n + 1),
            "time/step": 3600.0,
            **{key: values[n] for key, values in columns.items()},
        }
        for n, value in enumerate(success)
    )
    settings = {"algorithm": algorithm, "seed": seed, "steps": steps, "env": "x"}
    return Run(name=name, metrics=metrics, settings=settings)


class Tags(HTMLParser):
    """Checks that tags close in order, and collects addresses."""

    VOID = ("meta", "link", "line", "circle", "polyline", "polygon", "br")

    def __init__(self):
        super().__init__()
        self.open, self.addresses = [], []

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def well_formed(html):
    found = Tags()
    found.feed(html)
    assert found.open == []
    return found


# ---- values --------------------------------------------------------------------------------------


def test_runs_that_differ_in_their_seed_are_an_arm_named_after_its_algorithm():
    runs = [run("a", seed=0), run("b", seed=1), run("c", algorithm="epo")]
    arms = arms_of(runs)
    assert [(arm.label, len(arm.runs)) for arm in arms] == [("grpo", 2), ("epo", 1)]
    other = replace(runs[2], settings={**runs[0].settings, "lr": 1})
    assert [arm.label for arm in arms_of([runs[0], runs[1], other])] == ["a and 1 more", "c"]


def test_success_is_drawn_over_steps_turns_and_hours():
    found = run(success=(0.1, 0.5, 0.9))
    assert list(found.series("episode/success", "spent/turns")[0]) == [100, 200, 300]
    assert list(found.series("episode/success", "hours")[0]) == [1, 2, 3]
    assert len(success_plots([Arm("", (found,))])) == 3


def test_the_band_of_seeds_is_the_student_interval():
    runs = (run(success=(0.2, 0.2)), run(success=(0.4, 0.4)), run(success=(0.9, 0.9)))
    line = arm_lines(Arm("x", runs), "episode/success", "step", 0)[-1]
    half = student_t(2) * np.std([0.2, 0.4, 0.9], ddof=1) / math.sqrt(3)
    assert line.ys[0] == pytest.approx(0.5)
    assert line.high[0] - line.ys[0] == pytest.approx(half)


def test_the_band_of_one_run_shrinks_with_the_steps_that_it_averages():
    found = run(success=tuple([0.5] * 30))
    whole = success_plots([Arm("", (found,))])[0]
    ring = re.search(r'class="band c0" points="([^"]+)"', whole)[1]
    ys = [float(point.split(",")[1]) for point in ring.split()]
    per_unit = 230 - 38 - 28
    # The middle averages three steps, each with a standard error of 0.1.
    assert abs(ys[45] - ys[15]) == pytest.approx(2 * 1.96 * 0.1 / math.sqrt(3) * per_unit, rel=0.02)


def test_alarms_are_told_with_their_steps():
    counts = [0, 1, 2, 3, 4, 0, 1, 2, 3]
    found = run(success=[0.1] * 9, **{"alarm/never-acts": counts, "alarm/template": [1] * 9})
    assert active_spans(found, "never-acts") == [(2, 5), (7, 9)]
    (sentence,) = alarm_sentences(found)
    assert "steps 2 to 5, 7 to 9" in sentence and sentence.endswith("It still holds.")
    assert "<code>episode/parsed</code>" in sentence


def test_the_time_of_stages_adds_up_to_the_steps():
    found = run(**{"time/engine": (1000, 1000), "time/update": (500, 700), "time/env": (0, 0)})
    seconds = {stage.name: value for stage, value in seconds_by_stage(found).items()}
    assert seconds == {"engine": 2000, "update": 1200, "rest": 4000}
    assert "slowest stage is <b>rest</b> with 56 %" in time_section(found)


def test_a_plot_leaves_out_what_is_not_finite_and_survives_constants():
    xs = np.arange(4.0)
    drawn = plot("t", [Line(xs, np.array([1.0, math.nan, 1.0, 1.0]))])
    assert drawn.count(",") and "nan" not in drawn
    assert len(re.search(r'points="([^"]+)"', drawn)[1].split()) == 3
    assert plot("t", [Line(xs, np.full(4, math.nan))]) == ""
    long = plot("t", [Line(np.arange(1e4), np.arange(1e4))])
    assert len(re.search(r'points="([^"]+)"', long)[1].split()) == 300


# ---- the page ------------------------------------------------------------------------------------


def test_the_page_of_an_empty_run_says_what_there_is():
    html = page([Run(name="<b>", metrics=(), settings={"seed": 1, "steps": 9})])
    well_formed(html)
    assert "&lt;b&gt;" in html and "not finished, step 0 of 9" in html


def test_only_the_page_of_a_running_run_loads_itself_again():
    assert 'http-equiv="refresh"' in page([replace(run(), running=True)])
    assert 'http-equiv="refresh"' not in page([run()])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "run"
    agentgym.train(GRPO(group_size=2), settings=SMALL_RUN, out=out, progress=False)
    return out


def test_a_run_leaves_a_page_with_everything_in_it(trained):
    html = (trained / "report.html").read_text(encoding="utf-8")
    found = well_formed(html)
    assert [address for address in found.addresses if not address.startswith("data:")] == []
    for content in (
        *("Success by training step", "Success by environment steps", "Success by hours"),
        *("Entropy, nats per token", "Reward of an episode", "Length of an episode"),
        *("Where the time goes", "pass@1", "difference"),
        *("finished, 3 steps", "optimizer.learning_rate", "transformers", "Alarms"),
    ):
        assert content in html, content
    assert 'http-equiv="refresh"' not in html
    times = read_metrics(trained / "metrics.jsonl")[-1]
    assert times["time/engine"] + times["time/env"] == pytest.approx(times["time/rollout"])
    assert 0 < times["time/sync"] < times["time/step"] >= times["time/update"]


def test_report_overlays_runs(trained, tmp_path, capsys):
    out = tmp_path / "arms.html"
    assert main(["report", str(trained), str(trained), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    html = out.read_text(encoding="utf-8")
    well_formed(html)
    assert "2 seeds with 95 % interval" in html and "gain over seeds" in html


def test_a_folder_that_is_no_run_gives_one_line(tmp_path, trained, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert main(["report"]) == 2
    assert main(["report", str(trained), "--every", "0"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["agentgym"] * 3
    assert "is no run folder" in lines[0]
    assert not list(tmp_path.iterdir())


def test_an_evaluation_of_another_version_is_left_out_with_a_line(trained, tmp_path):
    copied = tmp_path / "old"
    shutil.copytree(trained, copied)
    file = copied / "eval" / "after.jsonl"
    file.write_text('{"header": {"schema": 1, "tasks": "<i>"}}\n')
    assert main(["report", str(copied)]) == 0
    html = (copied / "report.html").read_text(encoding="utf-8")
    well_formed(html)
    assert "after.jsonl is left out: " in html and "Success by training step" in html


def test_watching_ends_with_the_run(trained, tmp_path, monkeypatch):
    folder = RunFolder(trained)
    assert not folder.held()
    states = []
    monkeypatch.setattr(RunFolder, "held", lambda self: len(states) < 2)
    monkeypatch.setattr("agentgym.cli.report.time.sleep", states.append)
    out = tmp_path / "r.html"
    assert main(["report", str(trained), "--watch", "--every", "3", "--out", str(out)]) == 0
    assert states == [3.0, 3.0]


def test_a_held_folder_is_running(trained):
    folder = RunFolder(trained)
    with folder.locked():
        assert folder.held() and read_run(folder).running
    assert not read_run(folder).running


def test_the_page_is_written_within_its_share_of_the_time(tmp_path, monkeypatch):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"seed": 0, "steps": 5}))
    now, written = [0.0], []

    def make(runs):
        now[0] += 0.1
        written.append(now[0])
        return "page"

    monkeypatch.setattr(report_page, "page", make)
    monkeypatch.setattr(report_page.time, "monotonic", lambda: now[0])
    growing = GrowingPage(RunFolder(tmp_path), Display())
    for _ in range(1000):
        now[0] += 0.1
        growing.update()
    assert 0.1 * len(written) <= (report_page.SHARE + 0.002) * now[0]
    assert len(written) == 5


def test_a_page_that_fails_is_a_warning_and_not_the_end(tmp_path, monkeypatch, capsys):
    lines = []
    monkeypatch.setattr(Display, "say", lambda self, text="": lines.append(text))
    growing = GrowingPage(RunFolder(tmp_path), Display())
    growing.update()
    growing.update()
    assert len(lines) == 1 and "is no longer written" in lines[0]
