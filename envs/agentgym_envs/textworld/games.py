"""Making game files and keeping them: one ``.z8`` and one ``.json`` per task id."""

from __future__ import annotations

import hashlib
import json
import tempfile
import threading
import warnings
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from agentgym.errors import CacheError, EnvError, MissingExtra, UnknownTask
from agentgym_envs.cache import cache_root
from agentgym_envs.textworld.tasks import ENV, Spec, parse

HOW_TO_INSTALL = f'{ENV} needs TextWorld: pip install "agentic-gym[textworld]"'
FILE_SCHEME = "file:"
DIGEST = "agentgym/z8_sha256"
"""Key in a game's metadata: the digest of the compiled half, so that damage is noticed."""

_MAKERS = {
    "cooking": "textworld.challenges.tw_cooking.cooking",
    "coin_collector": "textworld.challenges.tw_coin_collector.coin_collector",
    "treasure_hunter": "textworld.challenges.tw_treasure_hunter.treasure_hunter",
    "simple": "textworld.challenges.tw_simple.simple",
}
_ATTEMPTS = 8
_BUILDING = threading.Lock()
"""TextWorld's makers share one module-wide generator, so a process builds one game at a time."""


def textworld_module(name: str) -> Any:
    """Import one of TextWorld's modules.

    Raises:
        MissingExtra: TextWorld is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in ("textworld", "jericho"):
            raise
        raise MissingExtra(HOW_TO_INSTALL) from None


def cache_folder() -> Path:
    """Where games are kept.

    Raises:
        MissingExtra: TextWorld is not installed.
    """
    return cache_root() / f"textworld-{_release()}"


@cache
def _release() -> str:
    try:
        return version("textworld")
    except PackageNotFoundError:
        raise MissingExtra(HOW_TO_INSTALL) from None


def missing() -> str:
    """How to install TextWorld; empty when it is there."""
    return "" if find_spec("textworld") and find_spec("jericho") else HOW_TO_INSTALL


def game_file(task: str) -> Path:
    """Where the compiled game of a task is, or would be.

    Raises:
        UnknownTask: The id is malformed, or names a file that does not exist.
    """
    if not task.startswith(FILE_SCHEME):
        return (cache_folder() / parse(task).family / f"{task}.z8").absolute()
    path = Path(task.removeprefix(FILE_SCHEME)).expanduser().absolute()
    if path.suffix != ".z8" or not is_made(path):
        raise UnknownTask(
            f"{ENV} has no task {task!r}: expected file:, the path of a .z8 file, and its .json "
            "beside it"
        )
    return path


def ensure(task: str) -> Path:
    """The compiled game of a task, made now if it is missing."""
    path = game_file(task)
    if not is_made(path):
        with _BUILDING:
            if not is_made(path):
                _build(task, path)
    return path


def is_made(path: Path) -> bool:
    """Whether both halves of a game are there."""
    return path.is_file() and path.with_suffix(".json").is_file()


def _build(task: str, path: Path) -> None:
    """Make a game beside its final place and move it there: nothing is ever half-written."""
    compiler_failed = textworld_module("textworld.generator").CouldNotCompileGameError
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".making-", dir=path.parent) as folder:
            made = Path(folder) / path.name
            with warnings.catch_warnings():
                # TextWorld reports which synonyms it ran out of, Jericho that it does not
                # know a game that was made a second ago.
                warnings.simplefilter("ignore")
                _compile(parse(task), made)
            made.with_suffix(".json").replace(path.with_suffix(".json"))
            made.replace(path)  # last: a game exists when its .z8 does
    except (OSError, compiler_failed) as problem:
        kind = CacheError if isinstance(problem, OSError) else EnvError
        raise kind(
            f"cannot make game {task!r}: {_reason(problem)}; make room in {path.parent} and "
            f"{tempfile.gettempdir()}, or set AGENTGYM_CACHE and TMPDIR to other folders"
        ) from problem


def _reason(problem: Exception) -> str:
    """One line from an error of the system, or from pages of compiler output."""
    if isinstance(problem, OSError):
        return problem.strerror or str(problem)
    lines = [line.strip() for line in str(problem).splitlines()]
    message = next((line for line in lines if "error:" in line.lower()), "")
    return f"the compiler failed ({message[:100]})" if message else "the compiler failed"


def _compile(spec: Spec, made: Path) -> None:
    generator = textworld_module("textworld.generator")
    game, options = _make(spec)
    for quest in game.quests:  # the only order that depends on how Python hashes strings
        quest.fail_events = tuple(sorted(quest.fail_events, key=lambda event: str(event.condition)))
    options.path = str(made)
    options.force_recompile = True
    generator.compile_game(game, options)
    check(made)
    facts = json.loads(made.with_suffix(".json").read_text(encoding="utf-8"))
    facts["metadata"][DIGEST] = hashlib.sha256(made.read_bytes()).hexdigest()
    made.with_suffix(".json").write_text(json.dumps(facts), encoding="utf-8")


def _make(spec: Spec) -> tuple[Any, Any]:
    """TextWorld's own maker; the few seeds it cannot serve are replaced in a fixed way."""
    maker = textworld_module(_MAKERS[spec.family])
    generator = textworld_module("textworld.generator")
    for attempt in range(_ATTEMPTS):
        options = textworld_module("textworld").GameOptions()
        # Counted down from the top, where no task id has its seed.
        options.seeds = spec.seed if attempt == 0 else 2**32 - 1 - spec.seed - attempt
        settings: dict[str, Any] = dict(spec.settings)
        if spec.family == "cooking":
            # 0 would mean one fixed recipe; a new one needs an ingredient to fetch.
            settings["recipe_seed"] = spec.seed + 1 if settings["take"] else 0
            settings["split"] = None
        elif spec.family == "simple":
            settings["test"] = False
        else:  # otherwise the objective spells out the way to the goal
            options.grammar.only_last_action = True
        try:
            return maker.make(settings, options), options
        except generator.QuestGenerationError as problem:
            last = problem
    raise EnvError(f"TextWorld cannot make {spec}: {last}")


def check(path: Path) -> bytes:
    """Read a compiled game, refusing what would make the interpreter crash.

    Returns:
        The content of the file.

    Raises:
        EnvError: It is not a whole, undamaged version 8 story file.
    """
    try:
        rom = path.read_bytes()
    except OSError as problem:
        raise damaged(path, problem.strerror or str(problem)) from problem
    if len(rom) < 64 or rom[0] != 8:
        raise damaged(path, "not a version 8 story file")
    length, checksum = (int.from_bytes(rom[at : at + 2], "big") for at in (0x1A, 0x1C))
    if not 64 < length * 8 <= len(rom):
        raise damaged(path, f"{len(rom)} bytes, expected {length * 8}")
    if int(np.frombuffer(rom, np.uint8)[64 : length * 8].sum()) & 0xFFFF != checksum:
        raise damaged(path, "checksum differs")
    return rom


def damaged(path: Path, reason: str) -> EnvError:
    """The error for a file that cannot be played."""
    cached = cache_folder().absolute() in path.parents
    advice = "delete it to have it made again" if cached else "compile it again"
    return EnvError(f"the game file {path} is damaged ({reason}); {advice}")
