"""ALFWorld's own engine, TextWorld's PDDL planner, beside ours: generated games, official ones."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fast_downward")

pytestmark = pytest.mark.timeout(1800)

SCRIPTS = Path(__file__).parents[2] / "scripts"
ARCHIVE = Path(os.environ.get("AGENTGYM_DATA", "/nowhere")) / "alfworld_official" / "valid.tar.xz"


def differences(*options):
    """Steps that were compared, and how many answers differed."""
    command = [sys.executable, str(SCRIPTS / "differential_alfworld.py"), *options]
    played = subprocess.run(command, capture_output=True, text=True, timeout=1500)
    last = played.stdout.splitlines()[-1] if played.stdout else played.stderr
    found = re.search(r"(\d+) steps, (\d+) won, (\d+) differences", last)
    assert found, last
    return int(found[1]), int(found[3])


def test_generated_games_get_the_same_answers():
    steps, found = differences("--games", "9")
    assert steps > 300 and found == 0


@pytest.mark.skipif(not ARCHIVE.is_file(), reason="needs the archives in AGENTGYM_DATA")
def test_official_games_get_the_same_answers(tmp_path):
    unpack = [sys.executable, str(SCRIPTS / "alfworld_official.py"), str(tmp_path)]
    subprocess.run(unpack, check=True, capture_output=True)
    steps, found = differences("--games", "12", "--official", str(tmp_path))
    assert steps > 400 and found == 0
