"""TextWorld's game files: reproducible, written atomically, checked when read."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from agentgym.env.registry import world
from agentgym.errors import EnvError, MissingExtra

pytest.importorskip("textworld")

from agentgym_envs.textworld import games, makers
from agentgym_envs.textworld.engine import story

COOKING = "cooking-r1t1o1k1c1g6-s1"
KITCHEN = "cooking-r1t1o1k1c1g1-s0"


@pytest.fixture(scope="module", autouse=True)
def made():
    makers.generate([COOKING, KITCHEN], workers=2)


@pytest.fixture
def env():
    env = world("agentgym/TextWorld-v0")
    yield env
    env.close()


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=120,
    )


# ---- game files ----------------------------------------------------------------------------


def test_a_game_file_is_identical_across_processes(tmp_path):
    """Two concurrent processes with different hash seeds, and the default cache."""
    ids = [COOKING, "treasure_hunter-l10-s8"]  # TextWorld needs two attempts for the second
    code = f"from agentgym_envs.textworld import games\nfor i in {ids}: print(games.ensure(i))"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "AGENTGYM_CACHE": str(tmp_path / seed)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    made = [process.communicate(timeout=120)[0].split() for process in running]
    for one, other, cached in zip(*made, map(games.ensure, ids), strict=True):
        first, second, third = (Path(path).read_bytes() for path in (one, other, cached))
        # The header contains the compilation date and a checksum.
        assert len(first) == len(second) == len(third)
        assert first[0x1E:] == second[0x1E:] == third[0x1E:]
        stories = [story(Path(path)) for path in (one, other, cached)]
        assert len({frozenset(s.game.world.state.facts) for s in stories}) == 1
        assert len({json.dumps(s.game.metadata.get("walkthrough")) for s in stories}) == 1
        folder = Path(one).parent
        assert {path.suffix for path in folder.iterdir()} == {".z8", ".json"}


def damage(path: Path, how: str) -> Path:
    """Damage a game in one way; returns the damaged file."""
    rom, facts = bytearray(path.read_bytes()), path.with_suffix(".json").read_bytes()
    if how == "truncated":
        rom = rom[: len(rom) // 2]
    elif how == "empty":
        rom = bytearray()
    elif how == "flipped":
        rom[200_000] ^= 1
    elif how == "header":
        rom[0x0C] ^= 0xFF  # the address of the global variables: not part of the checksum
    elif how == "version":
        rom[0] = 5
    elif how == "json truncated":
        facts = facts[:1000]
    elif how == "json of another kind":
        facts = b"[1, 2]"
    elif how == "json binary":
        facts = b"\xff\xfe\x00"
    path.write_bytes(rom)
    path.with_suffix(".json").write_bytes(facts)
    return path.with_suffix(".json") if how.startswith("json") else path


def copied(task: str, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    for suffix in (".z8", ".json"):
        shutil.copy(games.ensure(task).with_suffix(suffix), path.with_suffix(suffix))
    return path


@pytest.mark.parametrize(
    "how",
    [
        "truncated",
        "empty",
        "flipped",
        "header",
        "version",
        "json truncated",
        "json of another kind",
        "json binary",
    ],
)
def test_a_damaged_game_gives_a_one_line_error_with_its_file(tmp_path, monkeypatch, env, how):
    cached = copied(
        KITCHEN, tmp_path / games.game_file(KITCHEN).relative_to(games.cache_folder().parent)
    )
    monkeypatch.setenv("AGENTGYM_CACHE", str(tmp_path))
    assert env.reset(options={"task": KITCHEN})[0].startswith("Goal: ")
    bad = damage(cached, how)
    with pytest.raises(EnvError, match=r"damaged .*; delete it") as caught:
        env.reset(options={"task": KITCHEN})
    assert str(bad) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("how", "reason"),
    [("truncated", "bytes, expected"), ("flipped", "checksum"), ("version", "not a version 8")],
)
def test_a_damaged_user_game_gives_advice_to_recompile_it(tmp_path, env, how, reason):
    """User games have no digest, so only the checks of the file format apply."""
    mine = copied(KITCHEN, tmp_path / "game.z8")
    facts = json.loads(mine.with_suffix(".json").read_text())
    del facts["metadata"][games.DIGEST]
    mine.with_suffix(".json").write_text(json.dumps(facts))
    env.reset(options={"task": f"file:{mine}"})
    damage(mine, how)
    with pytest.raises(EnvError, match=f"{reason}.*compile it again"):
        env.reset(options={"task": f"file:{mine}"})


FULL_DISK = """
    import resource, sys
    from agentgym.errors import EnvError
    from agentgym_envs.textworld import games
    if {limit}:
        resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
    try:
        games.ensure("coin_collector-l2-s77")
    except EnvError as problem:
        print("refused:", problem)
"""


def test_a_game_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    """A real limit: the write that crosses it kills the compiler."""
    done = python(FULL_DISK.format(limit=150_000), AGENTGYM_CACHE=str(tmp_path))
    assert done.stdout.startswith("refused: cannot make game") and done.stdout.count("\n") == 1
    assert str(tmp_path) in done.stdout and "AGENTGYM_CACHE" in done.stdout
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("size", "reason"), [("8k", "No space left on device"), ("300k", "couldn't write")]
)
def test_a_full_disk_leaves_nothing_behind(tmp_path, size, reason):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(tmp_path)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount")
    try:
        done = python(FULL_DISK.format(limit=0), AGENTGYM_CACHE=str(tmp_path))
        left = [path for path in tmp_path.rglob("*") if path.is_file()]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert done.stdout.startswith("refused: cannot make game") and not left, done
    assert reason in done.stdout and done.stdout.count("\n") == 1, done


def test_a_killed_generator_leaves_no_partial_game_and_a_killed_worker_is_replaced(tmp_path):
    """Kill the workers once while they compile; all games are still generated."""
    ids = [f"coin_collector-l2-s{number}" for number in (90, 91)]
    code = f"""
        from agentgym_envs.textworld import makers
        makers.generate({ids}, workers=2, progress=lambda done, total: print(done, total))
    """
    script = tmp_path / "make.py"
    script.write_text(textwrap.dedent(code))
    maker = subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "AGENTGYM_CACHE": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
        # As a shell starts background jobs.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    deadline = time.monotonic() + 60
    while not (busy := list(tmp_path.rglob(".making-*"))) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert busy and not list(tmp_path.rglob("[a-z]*/*.z8"))
    for worker in children(maker.pid):
        if "textworld.makers" in Path(f"/proc/{worker}/cmdline").read_text():
            os.kill(worker, signal.SIGKILL)
    output = maker.communicate(timeout=120)[0]
    assert maker.returncode == 0 and output.split("\n")[0] == "0 2" and output.endswith("2 2\n"), (
        output
    )
    for path in tmp_path.rglob("coin*.z8"):
        if not path.parent.name.startswith(".making"):
            games.check(path)


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_generating_games_reports_existing_ones():
    seen = []
    makers.generate(
        [KITCHEN, COOKING, KITCHEN], progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(2, 2)]


def test_a_user_game_is_played_from_its_file(tmp_path, env):
    mine = copied(KITCHEN, tmp_path / "mine.z8")
    _, info = env.reset(options={"task": f"file:{mine}"})
    assert info["task_type"] == "file"
    for line in env.oracle():
        info = env.step(line)[4]
    assert info["won"]


# ---- the optional package ------------------------------------------------------------------


def test_the_module_imports_without_textworld_and_states_how_to_install_it():
    done = python("""
        import sys
        import agentgym_envs.textworld.env
        assert not {"textworld", "jericho"} & set(sys.modules)
        sys.modules["textworld"] = sys.modules["jericho"] = None
        from agentgym.errors import MissingExtra
        env = agentgym_envs.textworld.env.TextWorld()
        try:
            env.reset(options={"task": "cooking-r1t1o1k1c1g1-s0"})
        except MissingExtra as problem:
            print(problem)
    """)
    assert done.stdout.endswith('pip install "agentic-gym[textworld]"\n'), done
    assert done.stdout.count("\n") == 1
    assert issubclass(MissingExtra, ImportError)
