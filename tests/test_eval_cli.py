"""`agentgym eval`: several panels, k, prices, recorded actions, kills, dead workers."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from agentgym.cli import main
from agentgym.engines.scripted import ScriptedEngine
from agentgym.env.panel import panel
from agentgym.env.process_pool import ProcessPool
from agentgym.env.registry import EnvFactory
from agentgym.evaluation.cost import Cost, Prices
from agentgym.evaluation.evaluate import EvalOptions, evaluate
from agentgym.evaluation.files import read_report
from agentgym.evaluation.measures import best, passes_all
from agentgym.evaluation.record_files import read_episodes
from agentgym.evaluation.render import cost_summary, render, summary, types_grid
from agentgym.evaluation.report import Report
from agentgym.evaluation.spec import EvalSpec
from agentgym.evaluation.stats.passes import best_of_k
from agentgym.rollout.player import Player
from agentgym.rollout.setup import EpisodeLimits
from agentgym.types import Completion, Stop, Trajectory, Turn

HOTTER = "agentgym/Hotter-v0"
SMALL = ["--panel.tasks", "3", "--panel.episodes", "2"]
DOORS = '''
import agentgym

class Doors(agentgym.TextEnv):
    """Three doors; the task names the right one."""

    max_turns = 4

    def tasks(self, split):
        return tuple(f"{split}-{n}" for n in range(4))

    def prepare(self, tasks, progress=None):
        with open(f"{__file__}.prepared", "a") as log:
            print(*tasks, file=log)

    def start(self, task, rng):
        self.right = task.rpartition("-")[2]
        return agentgym.Opening("Three doors.", "Open the right door.")

    def act(self, action):
        won = action == self.right
        return agentgym.Outcome("Open." if won else "Locked.", float(won), float(won), won, True)

    def oracle(self):
        return (self.right,)
'''


def test_several_worlds_and_splits_are_played_in_one_call(tmp_path, capsys):
    (tmp_path / "doors.py").write_text(DOORS)
    worlds = ["--world", "hotter", "--world", f"{tmp_path}/doors.py:Doors"]
    words = [*worlds, "--panel.split", "valid", "test", *SMALL, "--k", "2"]
    assert main(["eval", "oracle", *words, "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    reports = [read_report(path) for path in (tmp_path / "out").glob("*.jsonl")]
    assert sorted((r.panel.env, r.panel.split) for r in reports) == [
        (HOTTER, "test"),
        (HOTTER, "valid"),
        ("doors.py:Doors", "test"),
        ("doors.py:Doors", "valid"),
    ]
    assert all(report.pass_at(1).value == 1 for report in reports)
    assert "4 evaluations" in out and "pass^2" in out and "pass@1" not in out
    assert all(len(line) <= 80 for line in out.splitlines() if "/" not in line)


def test_only_what_is_played_is_prepared_and_only_when_something_can_play_it(tmp_path, capsys):
    (tmp_path / "doors.py").write_text(DOORS)
    prepared = tmp_path / "doors.py.prepared"
    words = ["--env", f"{tmp_path}/doors.py:Doors", *SMALL, "--out", str(tmp_path / "out.jsonl")]
    nowhere = ["--engine", "openai", "--server", "http://127.0.0.1:9"]
    assert main(["eval", "some-model", *nowhere, *words]) == 2
    assert "no usable answer" in capsys.readouterr().err and not prepared.exists()
    assert main(["eval", "oracle", *words]) == 0
    assert prepared.read_text().split() == ["test-0", "test-1", "test-2"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--env", "hotter", "--k", "1", "9"], "--k 9 needs 9 episodes per task, --panel.episodes"),
        (["--env", "hotter", "--k", "0"], "expected k from 1 to 8"),
        (["--world", "hotter", "--panel.split", "valid", "nosplit"], "has no split 'nosplit'"),
        (["--world", "hotter", "alfworld", "--out", "x.jsonl"], "give a folder to `--out`"),
        (["--world", "hotter", "alfworld", "--against", "x"], "--against names one panel"),
        (["--world"], "--world needs a value"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_played(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["eval", "oracle", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_card_holds_what_another_person_needs(tmp_path, capsys):
    words = ["oracle", "--env", "hotter", *SMALL, "--card", "--seed", "7"]
    assert main(["eval", *words, "--out", str(tmp_path)]) == 0
    (card,) = tmp_path.glob("*.md")
    (file,) = tmp_path.glob("*.jsonl")
    text, report = card.read_text(), read_report(file)
    assert f"agentgym eval {' '.join(words)} --out {tmp_path}" in text
    for fact in (report.panel.digest, "`oracle`", "test, 3 tasks", "| k | `1, 2` |", "gymnasium"):
        assert fact in text
    assert f"| pass@1 | {report.pass_at(1)} |" in text
    assert "seed: 7" in text and "learning_rate" not in text
    assert f"agentgym verify {card.name}" in text


def test_a_recorded_person_is_evaluated_on_the_tasks_that_were_played(tmp_path, monkeypatch):
    file = tmp_path / "human.jsonl"
    for task in ("hotter-900", "hotter-902"):
        record = ["--task", task, "--record", str(file)]
        assert main(["play", "hotter", "--oracle", *record]) == 0
    lines = file.read_text().splitlines()
    words = ["--env", "hotter", "--panel.episodes", "1", "--out", str(tmp_path / "e.jsonl")]
    assert main(["eval", f"replay:{file}", *words]) == 0
    report = read_report(tmp_path / "e.jsonl")
    assert [task.task.id for task in report.tasks] == ["hotter-900", "hotter-902"]
    assert report.pass_at(1).value == 1
    played = [[t.action for t in record.turns] for record in read_episodes(tmp_path / "e.jsonl")]
    assert len(played) == len(lines) == 2 and played[0] != played[1]
    assert main(["eval", f"replay:{file}", "--env", "hotter"]) == 2
    assert main(["eval", "replay:nothing.jsonl", "--env", "hotter"]) == 2


def episode(task, sample, score, tokens=5):
    drawn = Completion((1,) * tokens, (0.0,) * tokens, (0.0,) * tokens)
    turn = Turn((1, 2, 3), drawn, "a", "o", score)
    kind = "even" if int(task.id[-1]) % 2 == 0 else "odd"
    return Trajectory(task, sample, "", "", (turn, turn), Stop.TERMINATED, score, score == 1, kind)


def graded(tmp_path, scores=(0.0, 0.5, 1.0)):
    async def play(task, sample):
        return episode(task, sample, scores[sample])

    notes = []
    options = EvalOptions(
        concurrency=1,
        prices=Prices(2.0, 4.0),
        progress=lambda done, total, spent: notes.append(spent),
    )
    tasks = panel(HOTTER).head(4)
    path, spec = tmp_path / "g.jsonl", EvalSpec("graded")
    report = asyncio.run(evaluate(tasks, play, episodes=3, path=path, spec=spec, options=options))
    return report, notes


def test_graded_scores_have_best_of_k(tmp_path):
    report, _ = graded(tmp_path)
    assert report.graded
    assert report.best_at(2).value == pytest.approx(best_of_k([0.0, 0.5, 1.0], 2))
    assert report.mean(best(3)).value == 1
    assert report.mean(passes_all(2)).value == 0
    text = render(replace(report, chosen_ks=(1, 3)))
    assert re.search(r"best@3 +1\.00", text) and re.search(r"pass\^3 +0\.00", text)
    assert "avg@3" in text


def test_what_episodes_cost_is_counted_and_priced(tmp_path):
    report, notes = graded(tmp_path)
    assert report.cost.prompt_tokens == 12 * 6 and report.cost.completion_tokens == 12 * 10
    assert (report.cost.episodes, report.cost.turns) == (12, 24)
    assert report.cost.dollars(Prices(2.0, 4.0)) == pytest.approx((72 * 2 + 120 * 4) / 1e6)
    assert notes[0] == "6 tokens in, 10 out, $0.00" and len(notes) == 12
    big = replace(report, prices=Prices(2e6, 4e6))
    assert "$624.00" in cost_summary([big]).text()
    assert "dollars" not in cost_summary([report]).text()
    assert Cost(seconds=3700).episodes == 0


def test_the_cost_of_a_resumed_evaluation_includes_the_earlier_part(tmp_path):
    graded(tmp_path)
    report, notes = graded(tmp_path)
    assert notes == [] and report.cost.episodes == 12


def test_task_types_have_a_table_of_their_own(tmp_path):
    report, _ = graded(tmp_path)
    rows = [line.split() for line in types_grid(report).text().splitlines()]
    assert [row[:2] for row in rows if row and row[0] in ("even", "odd")] == [
        ["even", "2"],
        ["odd", "2"],
    ]
    assert [row[1:3] for row in summary([report, report]).rows] == [
        ("4x3", str(report.pass_at(1)))
    ] * 2


KILLED = """
import asyncio, sys, time
from pathlib import Path
from agentgym.env.panel import panel
from agentgym.env.registry import EnvFactory
from agentgym.evaluation.evaluate import evaluate
from agentgym.evaluation.spec import EvalSpec
from agentgym.rollout.policies import PolicyPlayer

play = PolicyPlayer(name="random", make_env=EnvFactory(env="agentgym/Hotter-v0", max_turns=4),
                    max_turns=4)

async def slow(task, sample):
    await asyncio.sleep(0.05)
    return await play(task, sample)

asyncio.run(evaluate(panel("agentgym/Hotter-v0").head(8), slow, episodes=4,
                     path=Path(sys.argv[1]), spec=EvalSpec("random")))
"""


def test_a_killed_evaluation_is_continued_to_the_same_result(tmp_path):
    path, whole = tmp_path / "killed.jsonl", tmp_path / "whole.jsonl"
    tasks, spec = panel(HOTTER).head(8), EvalSpec("random")
    process = subprocess.Popen([sys.executable, "-c", KILLED.replace("0.05", "0.5"), str(path)])
    try:
        while not path.exists() or path.read_bytes().count(b"\n") < 6:
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    from agentgym.rollout.policies import PolicyPlayer

    play = PolicyPlayer(name="random", make_env=EnvFactory(env=HOTTER, max_turns=4), max_turns=4)
    kept, calls = {record.key for record in read_episodes(path)}, []

    async def counted(task, sample):
        calls.append((task, sample))
        return await play(task, sample)

    again = asyncio.run(evaluate(tasks, counted, episodes=4, path=path, spec=spec))
    fresh = asyncio.run(evaluate(tasks, play, episodes=4, path=whole, spec=spec))
    assert again == fresh and isinstance(again, Report)
    assert kept and set(calls).isdisjoint(kept) and len(calls) + len(kept) == 32


def test_an_episode_that_ends_on_its_last_turn_is_won_by_a_policy_and_by_its_replay():
    from agentgym.rollout.policies import PolicyPlayer
    from agentgym.rollout.replay import ReplayPlayer

    task = panel(HOTTER).tasks[0]

    def oracle(turns):
        make = EnvFactory(env=HOTTER, max_turns=turns)
        return asyncio.run(PolicyPlayer(name="oracle", make_env=make, max_turns=turns)(task, 0))

    needed = len(oracle(50).turns)
    played, cut = oracle(needed), oracle(needed - 1)
    assert (played.stop, played.won) == (Stop.TERMINATED, True)
    assert (cut.stop, cut.won) == (Stop.MAX_TURNS, False)
    replay = ReplayPlayer(
        actions={(task, 0): ["", *(turn.action for turn in played.turns), "never played"]},
        make_env=EnvFactory(env=HOTTER, max_turns=needed),
        max_turns=needed,
    )
    again = asyncio.run(replay(task, 0))
    assert again == played
    assert all(turn.env_seconds > 0 and turn.sampling_seconds > 0 for turn in again.turns)


class Bisecting(ScriptedEngine):
    """Guesses slowly and kills a worker of the pool at the 20th and the 50th completion."""

    def __init__(self, agent, pool):
        super().__init__(lambda prompt, sampling: agent.encode_action("50"))
        self.pool, self.count = pool, 0

    async def generate(self, prompt, sampling):
        await asyncio.sleep(0.005)
        self.count += 1
        if self.pool is not None and self.count in (20, 50) and self.pool.processes:
            os.kill(self.pool.processes[0], signal.SIGKILL)
        return await super().generate(prompt, sampling)


def test_an_evaluation_survives_dead_workers(agent, tmp_path):
    tasks = panel(HOTTER).head(10)

    async def play_with(pool, path, killed):
        player = Player(
            agent=agent,
            engine=Bisecting(agent, pool if killed else None),
            make_env=EnvFactory(env=HOTTER, max_turns=3),
            executor=pool,
            limits=EpisodeLimits(turns=3),
            retries=30,
        )
        return await evaluate(tasks, player, episodes=3, path=path, spec=EvalSpec("bisect"))

    async def both():
        async with ProcessPool(workers=2, step_timeout=20) as pool:
            calm = await play_with(pool, tmp_path / "calm.jsonl", False)
            return calm, await play_with(pool, tmp_path / "wild.jsonl", True)

    calm, wild = asyncio.run(both())
    assert sum(wild.failed_attempts.values()) > 0 and wild.lost == 0
    assert [t.won for t in wild.tasks] == [t.won for t in calm.tasks]
    assert [t.finished for t in wild.tasks] == [3] * 10
    assert Path(tmp_path / "wild.jsonl").exists()
