"""What a process holds, for the benchmarks."""

from __future__ import annotations

from pathlib import Path


def megabytes(process: int | str = "self", key: str = "Pss") -> float:
    """Memory of a process, in MB; by Pss, pages shared with others count by their share."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except ProcessLookupError:  # It has ended, and its parent has not noticed.
        return 0.0
    for line in lines:
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no {key} in smaps_rollup")
