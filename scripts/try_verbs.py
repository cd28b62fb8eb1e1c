"""Runs every verb of an installed agentgym; fails on a traceback or an answer of many lines."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

VERB = re.compile(r"^  ([a-z-]+) {2,}", re.MULTILINE)
"""A line of the usage."""
TINY = (
    *("--world", "hotter", "--steps", "1", "--tasks-per-step", "2", "--algo.group-size", "2"),
    *("--imitation.max-steps", "2", "--imitation.demos-per-task", "1"),
    *("--panel.tasks", "2", "--panel.episodes", "1", "--rollout.max-turns", "3"),
)
MISSING = re.compile(r"^agentgym: .*pip install .*agentic-gym\[\w+\].*$")


def run(*words: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """The command, from a folder of its own."""
    command = [str(Path(sys.executable).with_name("agentgym")), *words]
    return subprocess.run(command, capture_output=True, text=True, input=text, timeout=600)


def main(extra: str) -> int:
    """Try everything; the number of faults."""
    into = tempfile.mkdtemp()
    verbs = VERB.findall(run("--help").stdout)
    assert {"train", "eval", "play"} <= set(verbs), verbs
    tries = [("--version",), ("--help",), *((verb, "--help") for verb in verbs)]
    tries += [
        ("envs",),
        ("algorithms",),
        ("doctor",),
        ("check", "hotter", "--effort.resets", "50", "--effort.steps", "20"),
        ("new-env", "lost-key", "--into", into),
        ("eval", "no-such-model", "--engine", "openai", "--server", "http://127.0.0.1:9"),
        ("train", "grpo", *TINY, "--out", f"{into}/run"),
        ("eval", f"{into}/run/checkpoints/final", "--out", f"{into}/again.jsonl"),
    ]
    faults = 0
    for words in tries:
        done = run(*words)
        errors = done.stderr.strip().splitlines()
        works = done.returncode == 0 and done.stdout.strip() != ""
        lacking = done.returncode == 2 and len(errors) == 1 and bool(MISSING.match(errors[0]))
        refused = words[0] == "eval" and done.returncode == 2 and len(errors) == 1
        if extra == "all" or words[-1] == "--help":
            lacking = False
        good = (works or lacking or refused) and "Traceback" not in done.stderr
        faults += not good
        state = "works" if works else errors[-1] if errors else f"status {done.returncode}"
        print(f"{'ok   ' if good else 'FAULT'} agentgym {' '.join(words[:2])}: {state}", flush=True)
        if not good:
            print(done.stderr)
    done = run("play", "hotter", text=":quit\n")
    faults += done.returncode != 0
    print(f"{'FAULT' if done.returncode else 'ok   '} agentgym play hotter", flush=True)
    return faults


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
