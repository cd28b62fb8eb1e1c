"""Problems from files: GSM8K, MATH, AIME, NuminaMath, DAPO, verl and others of their form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from agentgym.errors import ConfigError
from agentgym_envs.datafiles import DataFile, data_files, digest_of, last_user_message, read_rows
from agentgym_envs.pythonmath.problems import Problem

_QUESTIONS = ("question", "problem", "Question", "Problem", "query", "instruction")
_ANSWERS = (
    "answer",
    "Answer",
    "final_answer",
    "expected_answer",
    "ground_truth",
    "target",
    "solution",
    "Solution",
)
"""A solution counts where no column holds the result alone."""
_KINDS = ("subject", "type", "level")


@dataclass(frozen=True, eq=False)
class ProblemFile:
    """The problems of one file, or of a folder with a file per split, by row."""

    problems: tuple[Problem, ...]
    files: tuple[DataFile, ...]
    named: tuple[str, ...]
    """The split that the file of each row states, or an empty text."""
    digest: str
    """Hash of the content."""


def open_problems(data: str) -> ProblemFile:
    """Read a file, or the files of a folder; once per process and change.

    Raises:
        ConfigError: A file is missing, or has another format.
        MissingExtra: It is a Parquet file, and pyarrow is not installed.
    """
    files = data_files(data)
    return _read_cached(files, tuple(file.path.stat().st_mtime_ns for file in files))


@cache
def _read_cached(files: tuple[DataFile, ...], changed: tuple[int, ...]) -> ProblemFile:
    problems, named = [], []
    for file in files:
        for where, row in read_rows(file.path):
            problem = _problem(row, where, file.path.stem)
            if problem is not None:
                problems.append(problem)
                named.append(file.split)
    if not problems:
        paths = ", ".join(str(file.path) for file in files)
        raise ConfigError(f"{paths} holds no problems, expected rows with a question and an answer")
    return ProblemFile(tuple(problems), files, tuple(named), digest_of(files))


def _problem(row: Mapping[str, Any], where: str, stem: str) -> Problem | None:
    """One row; None if it is of another field than mathematics, or its answer is blank."""
    ability = row.get("ability")
    if isinstance(ability, str) and "math" not in ability.lower():
        return None
    extra, reward = (
        found if isinstance(found := row.get(name), Mapping) else {}
        for name in ("extra_info", "reward_model")
    )
    question = (
        _first(row, _QUESTIONS) or _first(extra, _QUESTIONS) or last_user_message(row.get("prompt"))
    )
    known = [reward.get("ground_truth"), *(row.get(name) for name in _ANSWERS)]
    answers = [text for text in map(_text, known) if text is not None]
    if not question or not answers:
        raise ConfigError(
            f"{where}: expected a question ('question', 'problem' or 'prompt') and an answer "
            f"('answer', 'solution' or verl's 'reward_model'), got the fields "
            f"{', '.join(row) or 'none'}"
        )
    results = [result for result in map(result_of, answers) if result]
    if not results:
        return None
    kind = next((str(row[name]) for name in _KINDS if row.get(name)), stem)
    return Problem(question, results[0], kind)


def result_of(answer: str) -> str:
    r"""The result of a worked solution: after ``####`` (GSM8K), or in the last box (MATH).

    Examples:
        >>> result_of("3 + 4 = 7\n#### 7"), result_of(r"It is $\boxed{\frac{1}{2}}$.")
        ('7', '\\frac{1}{2}')
    """
    _, mark, after = answer.rpartition("####")
    if mark:
        return after.strip()
    start = answer.rfind("\\boxed{")
    if start < 0:
        return answer.strip()
    depth = 0
    for at in range(start + 6, len(answer)):
        depth += (answer[at] == "{") - (answer[at] == "}")
        if depth == 0:
            return answer[start + 7 : at].strip()
    return answer.strip()


def _first(row: Mapping[str, Any], names: Iterable[str]) -> str:
    return next((row[name].strip() for name in names if isinstance(row.get(name), str)), "")


def _text(value: object) -> str | None:
    """An answer as a text; None if it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, list | tuple) and len(value) == 1:
        return _text(value[0])
    return str(value) if isinstance(value, str | int | float) else None
