"""Progress in a real terminal, and where the output is none."""

import io
import os
import pty
import re
import select
import subprocess
import sys
import time

import pytest
from rich.console import Console

from agentgym.experiment.facts import EvalFacts, TrainFacts, slowest
from agentgym.types import Completion, Stop, Task, Trajectory, Turn
from agentgym.utils.progress import Display, Fact

SHOW = """
import time
from rich.console import Console
from agentgym.experiment.facts import TrainFacts
from agentgym.utils.progress import Display
facts = TrainFacts()
with Display(Console()).stage("train", 4) as advance:
    for step in range(4):
        metrics = {"episode/success": step / 4, "episode/reward": 1.5, "tokens_per_second": 12345.6,
                   "time/engine": 3.0, "time/update": 1.0}
        advance(step + 1, *facts.of(metrics))
        time.sleep(0.15)
"""


def in_terminal(code, columns, **env):
    """What a program writes to a terminal of so many columns."""
    leader, follower = pty.openpty()
    whole = {**os.environ, "COLUMNS": str(columns), "LINES": "24", "TERM": "xterm-256color", **env}
    program = subprocess.Popen(
        [sys.executable, "-c", code], stdout=follower, stderr=follower, stdin=follower, env=whole
    )
    os.close(follower)
    written, end = b"", time.monotonic() + 60
    while time.monotonic() < end:
        if select.select([leader], [], [], 0.1)[0]:
            try:
                chunk = os.read(leader, 65536)
            except OSError:  # Linux reports the end of the other side so.
                break
            if not chunk:
                break
            written += chunk
        elif program.poll() is not None:
            break
    assert program.wait(10) == 0, written.decode()
    os.close(leader)
    return written.decode()


def plain(text):
    """The text without control sequences, one string per line."""
    text = text.replace("\r\n", "\n")
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "\n").split("\n")


@pytest.mark.parametrize("columns", [100, 80, 44])
def test_a_terminal_shows_a_table_that_fits_its_width(columns):
    written = in_terminal(SHOW, columns)
    lines = plain(written)
    assert max(map(len, lines)) <= columns
    shown = "\n".join(lines[-12:])
    assert "4/4" in shown and "12,346" in shown and "engine 75 %" in shown and "eta" in shown
    assert re.search(r"success +0\.75" + (r" +▁▃▆█" if columns > 44 else ""), shown)
    assert "\x1b[?25h" in written, "the cursor is shown again"


def test_no_color_is_respected():
    assert re.search(r"\x1b\[[0-9;]*3[0-9]", in_terminal(SHOW, 80))
    assert not re.search(r"\x1b\[(?:[0-9]+;)*3[0-9]", in_terminal(SHOW, 80, NO_COLOR="1"))


def test_a_terminal_without_cursor_movement_gets_lines():
    written = in_terminal(SHOW, 80, TERM="dumb")
    assert "\x1b" not in written and "4/4" in written


def lines_of(display_of, *facts):
    output = io.StringIO()
    with display_of(output).stage("work", 2) as advance:
        advance(2, *facts)
    return output.getvalue()


def test_where_there_is_no_terminal_facts_are_words_of_a_line():
    facts = Fact("success", "0.5", (0.0, 0.5)), Fact("slowest", "engine 75 %")
    written = lines_of(lambda file: Display(Console(file=file, width=200)), *facts)
    assert written.count("\n") == 1 and "\x1b" not in written
    assert written.rstrip().endswith("success 0.5 slowest engine 75 %")


def test_quiet_shows_results_only():
    output = io.StringIO()
    display = Display(Console(file=output, force_terminal=True), quiet=True)
    with display.stage("work", 1) as advance:
        advance(1, Fact("a", "b"))
    assert output.getvalue() == ""
    display.say("result")
    assert output.getvalue() == "result\n"


def test_facts_of_training_remember_the_trend():
    facts = TrainFacts()
    for value in (0.25, float("nan"), 0.5):
        shown = facts.of({"episode/success": value})
    found = {fact.name: fact for fact in shown}
    assert found["success"].value == "0.5" and found["success"].trend == (0.25, 0.5)
    assert found["slowest"].value == slowest({}) == "?"


async def played(task, sample):
    drawn = Completion((1, 2), (0.0, 0.0), (0.0, 0.0))
    turns = (Turn((1,), drawn, "a", "b", 0.0),) * 3
    stop = Stop.ENV_ERROR if sample == 3 else Stop.TERMINATED
    return Trajectory(task, sample, "", "", turns, stop, won=sample == 0)


async def many(watched):
    for sample in range(4):
        await watched(Task("x", "y"), sample)


def test_facts_of_an_evaluation_count_scored_episodes():
    import asyncio

    watched = EvalFacts(played)
    assert watched.facts() == ()
    asyncio.run(many(watched))
    found = {fact.name: fact for fact in watched.facts()}
    assert found["success so far"].value == "0.333" and found["turns"].value == "3.0"
    assert list(found["success so far"].trend) == [1.0, 0.5, 1 / 3]
