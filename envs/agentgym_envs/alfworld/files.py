"""Official game folders: listing them by ALFWorld's own rule, reading them, writing our own.

A game is a folder ``SPLIT/TYPE-OBJECT-None-TARGET-PLAN/TRIAL`` with ``game.tw-pddl`` (domain,
grammar and problem in one JSON object) and ``traj_data.json``. Nothing in a file is ever run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from agentgym.env.base import unknown_task
from agentgym.errors import ConfigError, EnvError
from agentgym_envs.alfworld import games, problem, tasks, wording
from agentgym_envs.alfworld.game import Game, build
from agentgym_envs.alfworld.oracle import winning_commands
from agentgym_envs.alfworld.tables import ENV

GAME, TRAJECTORY, STATE = "game.tw-pddl", "traj_data.json", "initial_state.pddl"
_ID = re.compile(rf"(?:{'|'.join(tasks.SPLITS)})(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*){{2}}")


def root(where: str) -> Path:
    """The folder that holds the splits.

    Args:
        where: A folder that holds them or ``json_2.1.1``, or ``official`` for the one that the
            environment variable ``ALFWORLD_DATA`` names.

    Raises:
        ConfigError: There is no such folder.
    """
    named = os.environ.get("ALFWORLD_DATA", "") if where == "official" else where
    if not named:
        raise ConfigError("games='official' needs ALFWORLD_DATA, the folder of ALFWorld's data")
    for folder in (Path(named).expanduser(), Path(named).expanduser() / "json_2.1.1"):
        if any((folder / split).is_dir() for split in tasks.SPLITS):
            return folder.resolve()
    raise ConfigError(
        f"{named!r} holds no ALFWorld games: expected folders named {', '.join(tasks.SPLITS)} in "
        f"it, or in json_2.1.1 in it"
    )


@cache
def listed(folder: Path, split: str, types: Sequence[str]) -> tuple[str, ...]:
    """Ids of a split's games that ALFWorld itself would play, sorted.

    Its rule: no movable receptacles, no slicing, a family that was asked for, a game file that
    is marked as solvable.
    """
    found = sorted((folder / split).rglob(TRAJECTORY))
    return tuple(
        path.parent.relative_to(folder).as_posix()
        for path in found
        if not re.search("movable|Sliced", str(path.parent.relative_to(folder)))
        and (path.parent / GAME).is_file()
        and _json(path).get("task_type") in types
        and _json(path.parent / GAME).get("solvable") is True
    )


def load(folder: Path, task: str) -> Game:
    """The game of an id.

    Raises:
        UnknownTask: There is no such game.
        EnvError: Its file is damaged, or of a kind that this engine does not play.
    """
    path = folder / task / GAME if _ID.fullmatch(task) else None
    if path is None or not path.is_file():
        known = next((ids for split in tasks.SPLITS if (ids := _some(folder, split))), ())
        raise unknown_task(ENV, task, known)
    return _load(path, path.stat().st_mtime_ns)


def _some(folder: Path, split: str) -> tuple[str, ...]:
    first = next((folder / split).glob(f"*/*/{GAME}"), None)
    return (first.parent.relative_to(folder).as_posix(),) if first else ()


@lru_cache(maxsize=512)
def _load(path: Path, stamp: int) -> Game:
    data = _json(path)
    try:
        spoken, goal = wording.read(str(data["grammar"]))
        wording.check_sentences(str(data["grammar"]))
        wording.check_rules(str(data["pddl_domain"]))
        return build(problem.read(str(data["pddl_problem"])), goal, spoken)
    except KeyError as missing:
        raise EnvError(f"{path} is no game: it lacks {missing}") from missing
    except EnvError as why:
        raise EnvError(f"{path} cannot be played: {why}") from why


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as why:
        raise EnvError(f"{path} is no JSON text: {why}") from why
    if not isinstance(data, dict):
        raise EnvError(f"{path} is not what it should be: expected one JSON object")
    return data


def write(folder: Path, split: str, task: str, name: wording.Name = "new") -> Path:
    """Write a generated game as an official folder, which the reference engine plays, too.

    Args:
        folder: Where the splits are, or will be.
        split: One of the official names.
        task: Id of a generated game.
        name: The wording of its texts.

    Returns:
        The game's folder. One that exists is kept as it is.

    Raises:
        UnknownTask: There is no such game.
        MissingExtra: ALFWorld is not installed.
    """
    spec = tasks.parse(task)
    facts, game = games.make(spec, name)
    goal = problem.write(facts, f"plan_{spec.seed}")
    content = {
        "pddl_domain": wording.domain(name),
        "grammar": wording.grammar(game.task, name),
        "pddl_problem": goal,
        "solvable": True,
        "walkthrough": winning_commands(game, game.start, searching=False),
    }
    home = folder / tasks.official_split(split) / spec.name / f"trial_S{spec.seed}"
    if not home.exists():
        home.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=home.parent))
        try:
            (draft / GAME).write_text(json.dumps(content), encoding="utf-8")
            (draft / TRAJECTORY).write_text(
                json.dumps(_trajectory(spec, game.task)), encoding="utf-8"
            )
            (draft / STATE).write_text(goal, encoding="utf-8")
            draft.chmod(0o755)
            draft.rename(home)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
    return home


def _trajectory(spec: tasks.Spec, goal: str) -> dict[str, Any]:
    lamp = spec.target in tasks.LAMPS
    return {
        "task_id": f"trial_S{spec.seed}",
        "task_type": spec.task_type,
        "pddl_params": {
            "object_target": spec.thing,
            "parent_target": "" if lamp else spec.target,
            "toggle_target": spec.target if lamp else "",
            "mrecep_target": "",
            "object_sliced": False,
        },
        "scene": {"scene_num": spec.plan, "floor_plan": f"FloorPlan{spec.plan}"},
        "turk_annotations": {"anns": [{"task_desc": goal}]},
    }
