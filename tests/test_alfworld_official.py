"""The official games of json_2.1.1: panels, loader, oracle and the reference engine.

Skipped unless the environment variable AGENTGYM_DATA names a folder with their archives.
"""

import json
import os
import sys
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from agentgym import panel
from agentgym.env.registry import world
from agentgym.errors import EnvError, MissingExtra
from agentgym_envs.alfworld import files, reference

ENV = "agentgym/ALFWorld-v0"
ARCHIVE = Path(os.environ.get("AGENTGYM_DATA", "/nowhere")) / "alfworld_official" / "valid.tar.xz"
pytestmark = pytest.mark.skipif(not ARCHIVE.is_file(), reason="needs the archives in AGENTGYM_DATA")

DIGESTS = {
    "valid_seen": (140, "b627ba6cc1e52fc66324ada8807d188a073c487c71128d605e462b202814641c"),
    "valid_unseen": (134, "50ed90d1194d78d5b67194d3fd1a5751c4f44443d9599e86d057f7aa77ddffcd"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Both validation splits, unpacked by the script."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent.parent / "scripts"))
        import alfworld_official

        found = tmp_path_factory.mktemp("official")
        patch.setattr(sys, "argv", ["alfworld-official", str(found)])
        alfworld_official.main()
        yield found


@pytest.mark.parametrize("split", DIGESTS)
def test_the_official_panels_have_their_size_and_digest(folder, split):
    found = panel(ENV, split=split, games=str(folder))
    assert (len(found), found.digest) == DIGESTS[split]
    assert all(one.id < other.id for one, other in pairwise(found.tasks))


@pytest.mark.parametrize("split", DIGESTS)
def test_the_oracle_wins_official_games(folder, split):
    env = world(ENV, games=str(folder), oracle="omniscient")
    tasks = env.tasks(split)
    for task in Random(0).sample(tasks, 20):
        env.reset(options={"task": task})
        plan = env.oracle()
        assert plan and len(plan) <= 50
        ended = [env.step(action)[2] for action in plan]
        assert ended == [False] * (len(plan) - 1) + [True] and env._last.won


def test_every_official_game_loads_with_our_grammar_and_rules(folder):
    env = world(ENV, games=str(folder))
    for split in DIGESTS:
        for task in env.tasks(split):
            files.load(env.folder, task)  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("number", range(3))
def test_official_games_give_the_same_answers_as_the_reference_engine(folder, number):
    """`scripts/differential_alfworld.py` plays hundreds of generated games."""
    env = world(ENV, games=str(folder), oracle="omniscient")
    tasks = env.tasks("valid_unseen")
    task = min(
        Random(number).sample(tasks, 12), key=lambda id_: len(files.load(folder, id_).places)
    )
    try:
        theirs = reference.Reference(folder / task / files.GAME)
    except MissingExtra as missing:
        pytest.skip(str(missing))
    ours, rng = reference.Ours(files.load(folder, task)), Random(number)
    env.reset(options={"task": task})
    plan = list(env.oracle())
    answers = ours.reset(), theirs.reset()
    assert not reference.difference(*answers)
    for command in plan:
        for chosen in (rng.choice(["look", "inventory", "dance"]), command):
            answers = ours.step(chosen), theirs.step(chosen)
            assert not reference.difference(*answers), chosen
    assert answers[1].won


def test_official_files_with_a_different_grammar_are_refused(folder):
    """Three files outside the official selection answer `open` with less text."""
    others = []
    for path in sorted(folder.rglob(files.GAME)):
        if 'You open the {r.name}."' in json.loads(path.read_text())["grammar"]:
            others.append(path.parent.relative_to(folder).as_posix())
    assert len(others) == 3
    for task in others:
        with pytest.raises(EnvError, match="other sentences than ALFWorld's"):
            files.load(folder, task)
