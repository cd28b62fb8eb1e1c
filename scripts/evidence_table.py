"""The table of `scripts/evidence`: each line over its seeds, and against what it builds on.

    scripts/evidence --table [FOLDER]

Axes: S seeds, M tasks of the panel. Brackets: 95 % intervals, seeds and tasks resampled, paired.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from reproduce_records import shares_won
from reproduce_report import over, signed, success

from agentgym.evaluation.stats.intervals import Floats
from agentgym.experiment.run_folder import RunFolder

LINES = ("prompt", "examples", "imitation", "grpo", "gigpo", "epo", "empg", "aepo")
HOSTS = ("prompt", "imitation", "grpo")
"""What a line is compared with, as far as it comes before it."""

Line = dict[int, Floats]
"""Share of the episodes of each task that were won, (M,), by seed."""


def result_of(folder: Path, line: str) -> Line:
    """What there is of a line; a panel that was cut off is left out."""
    files = (
        {int(f.stem.rsplit("-", 1)[1]): f for f in folder.glob(f"{line}-*.jsonl")}
        if line in ("prompt", "examples")
        else {
            int(f.parent.name.rsplit("-", 1)[1]): RunFolder(f.parent).evaluation("after")
            for f in folder.glob(f"{line}-*/report.txt")
        }
    )
    played = {seed: np.array(shares_won(files[seed])) for seed in sorted(files)}
    return {seed: shares for seed, shares in played.items() if not np.isnan(shares).any()}


def rows(folder: Path) -> Iterator[str]:
    """The rows of a world."""
    found = {line: result for line in LINES if (result := result_of(folder, line))}
    for line, result in found.items():
        before = LINES[: LINES.index(line)]
        cells = [folder.name, line, str(len(result)), str(success(np.array(list(result.values()))))]
        for host in HOSTS:
            shared = [s for s in result if host in before and s in found.get(host, {})]
            change = np.array([result[s] - found[host][s] for s in shared])
            cells.append(signed(over(change)) if shared else "")
        yield f"| {' | '.join(cells)} |"


def main(root: Path) -> int:
    """Print the table of all worlds in a folder."""
    worlds = sorted(path for path in root.glob("*") if path.is_dir())
    found = [row for world in worlds for row in rows(world)]
    if not found:
        print(
            f"evidence: no finished line in {root}: run scripts/evidence WORLD LINE",
            file=sys.stderr,
        )
        return 2
    titles = ["environment", "line", "seeds", "pass@1", *(f"against {host}" for host in HOSTS)]
    print(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}")
    print("\n".join(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/evidence")))
