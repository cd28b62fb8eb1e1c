"""Unpack archives of official ALFWorld games, and show the panels that they give.

The archives are ``alfworld_official/valid.tar.xz`` and ``train.tar.xz`` in the folder that the
environment variable AGENTGYM_DATA names. They hold ``game.tw-pddl`` and ``traj_data.json`` of each
game of json_2.1.1.

    AGENTGYM_DATA=~/data scripts/alfworld-official ~/alfworld
    ALFWORLD_DATA=~/alfworld agentgym eval MODEL --env alfworld --env-args games official
"""

import argparse
import os
import sys
import tarfile
from pathlib import Path

from agentgym import panel
from agentgym_envs.alfworld.tables import ENV
from agentgym_envs.alfworld.tasks import SPLITS

ARCHIVES = {"valid": ("valid_seen", "valid_unseen"), "train": ("train",)}
"""Archive to the splits in it."""


def main() -> None:
    """Unpack what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the splits go")
    parser.add_argument("--splits", nargs="+", choices=tuple(ARCHIVES), default=["valid"])
    options = parser.parse_args()
    source = os.environ.get("AGENTGYM_DATA", "")
    if not source:
        sys.exit("alfworld-official: set AGENTGYM_DATA to the folder with alfworld_official in it")
    unpack(Path(source), options.folder, options.splits)
    for split in SPLITS:
        if (options.folder / split).is_dir():
            found = panel(ENV, split=split, games=str(options.folder))
            print(f"{split}: {len(found)} games, panel {found.digest}")
    print(f"export ALFWORLD_DATA={options.folder.resolve()}")


def unpack(source: Path, folder: Path, archives: list[str]) -> None:
    """Unpack archives into a folder, except those with splits that are there."""
    for name in archives:
        file = source / "alfworld_official" / f"{name}.tar.xz"
        if all((folder / split).is_dir() for split in ARCHIVES[name]):
            continue
        if not file.is_file():
            sys.exit(f"alfworld-official: there is no {file}")
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(file) as archive:
            archive.extractall(folder, filter="data")


if __name__ == "__main__":
    main()
