"""What a process holds, for the benchmarks."""

from __future__ import annotations

from pathlib import Path


def megabytes(process: int | str = "self", key: str = "Pss") -> float:
    """Memory of a process, in MB; by Pss, pages shared with others count by their share."""
    for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no {key} in smaps_rollup")
