"""What the lines of `scripts/evidence` found, and their table.

    evidence_records.py has FOLDER WORLD LINE SEED     # whether it has a record
    evidence_records.py add FOLDER WORLD LINE SEED     # make one of the finished run
    evidence_records.py table FOLDER

FOLDER/records.jsonl has one JSON object per finished line. In the table each line stands over its
seeds, and against what it builds on. Axes: S seeds, M tasks of the panel. Brackets: 95 %
intervals, seeds and tasks resampled, paired.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from reproduce_records import shares_won
from reproduce_report import over, signed, success

from agentgym.errors import AgentGymError, ConfigError
from agentgym.evaluation.files import read_report
from agentgym.evaluation.stats.intervals import Floats
from agentgym.experiment.run_folder import RunFolder
from agentgym.utils.jsonl import append_line, dumps, read_objects

LINES = ("prompt", "examples", "imitation", "grpo", "gigpo", "epo", "empg", "aepo")
HOSTS = ("prompt", "imitation", "grpo")
"""What a line is compared with, as far as it comes before it."""


class Line(NamedTuple):
    """Which line."""

    world: str
    line: str
    seed: int


class Found(NamedTuple):
    """What it found."""

    panel: str
    """Digest of the panel."""
    episodes: int
    """Of each task."""
    success: tuple[float, ...]
    """Share of the episodes of each task that were won, (M,)."""


def records_in(folder: Path) -> dict[Line, Found]:
    """The finished lines of a folder; none where there is no file."""
    file = folder / "records.jsonl"
    lines = read_objects(file) if file.exists() else ()
    return {
        Line(**line["run"]): Found(
            line["found"]["panel"], line["found"]["episodes"], tuple(line["found"]["success"])
        )
        for line in lines
    }


def add(folder: Path, key: Line) -> None:
    """Record a finished run, once.

    Raises:
        ConfigError: It is not finished, or has another panel than the lines of its world.
    """
    root = folder / "runs" / key.world / f"{key.line}-{key.seed}"
    played = key.line in ("prompt", "examples")
    file = root.with_name(f"{root.name}.jsonl") if played else RunFolder(root).evaluation("after")
    report = read_report(file)
    shares = shares_won(report)
    if np.isnan(shares).any():
        raise ConfigError(f"{file} is not finished: the same command continues it")
    found, records = Found(report.panel.digest, report.episodes, shares), records_in(folder)
    for other, held in records.items():
        if other.world == key.world and held.panel != found.panel:
            raise ConfigError(
                f"{file} is of panel {found.panel}, {folder}/records.jsonl has {held.panel} of "
                f"{key.world}: choose another --out"
            )
    if key not in records:
        line = {"run": key._asdict(), "found": found._asdict()}
        append_line(folder / "records.jsonl", dumps(line))


def rows(world: str, records: Mapping[Line, Found]) -> Iterator[str]:
    """The rows of a world."""
    found: dict[str, dict[int, Floats]] = {
        line: {
            seed: np.array(records[Line(world, line, seed)].success)
            for _, seed in sorted(key[1:] for key in records if key[:2] == (world, line))
        }
        for line in LINES
    }
    for line, result in found.items():
        if not result:
            continue
        before = LINES[: LINES.index(line)]
        cells = [world, line, str(len(result)), str(success(np.array(list(result.values()))))]
        for host in HOSTS:
            shared = [s for s in result if host in before and s in found[host]]
            change = np.array([result[s] - found[host][s] for s in shared])
            cells.append(signed(over(change)) if shared else "")
        yield f"| {' | '.join(cells)} |"


def table(folder: Path) -> str:
    """The table of all worlds.

    Raises:
        ConfigError: No line is finished.
    """
    records = records_in(folder)
    if not records:
        raise ConfigError(f"no finished line in {folder}: run scripts/evidence WORLD LINE")
    worlds = dict.fromkeys(key.world for key in records)
    titles = ["environment", "line", "seeds", "pass@1", *(f"against {host}" for host in HOSTS)]
    head = f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}"
    return "\n".join([head, *(row for world in worlds for row in rows(world, records))])


def main(verb: str, root: str, *which: str) -> int:
    """Run one of the three."""
    folder = Path(root)
    if verb == "table":
        print(table(folder))
        return 0
    world, line, seed = which
    key = Line(world, line, int(seed))
    if verb == "has":
        return 0 if key in records_in(folder) else 1
    add(folder, key)
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main(*sys.argv[1:]))
    except AgentGymError as error:
        print(f"evidence: {error}", file=sys.stderr)
        raise SystemExit(2) from None
