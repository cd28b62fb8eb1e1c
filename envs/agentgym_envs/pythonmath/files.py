"""Problems from JSON-lines files: GSM8K, MATH-500, AIME, and others of their form."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from agentgym.errors import ConfigError
from agentgym.utils.jsonl import parse_object
from agentgym_envs.pythonmath.problems import Problem

_QUESTIONS = ("question", "problem")
_KINDS = ("subject", "type", "level")


class ProblemFile:
    """The problems of one file, by row; ``digest`` names its content."""

    def __init__(self, path: Path) -> None:
        """Read and check all of it.

        Raises:
            ConfigError: It cannot be read, is empty, or a row is no problem.
        """
        try:
            content = path.read_bytes()
            lines = content.decode().splitlines()
        except (OSError, UnicodeDecodeError) as problem:
            raise ConfigError(f"cannot read the problems in {path}: {problem}") from problem
        self.problems = tuple(
            _problem(line, f"{path}, line {number}", path.stem)
            for number, line in enumerate(lines, start=1)
            if line.strip()
        )
        if not self.problems:
            raise ConfigError(f"{path} holds no problems, expected a JSON object per line")
        self.digest = hashlib.sha256(content).hexdigest()[:8]


@cache
def open_file(path: Path, changed: int) -> ProblemFile:
    """The file, read once per process and change."""
    return ProblemFile(path)


def open_problems(path: str) -> ProblemFile:
    """A file of problems.

    Raises:
        ConfigError: It is not there, or holds something else.
    """
    whole = Path(path).expanduser().resolve()
    if not whole.is_file():
        raise ConfigError(f"data: there is no file {path}")
    return open_file(whole, whole.stat().st_mtime_ns)


def _problem(line: str, where: str, stem: str) -> Problem:
    """One row: the question under either name, the answer a text or a number.

    GSM8K's answers are worked solutions whose result follows the last ``####``.
    """
    try:
        row = parse_object(line)
    except ConfigError as problem:
        raise ConfigError(f"{where}: {problem}") from problem
    question = next((row[name] for name in _QUESTIONS if isinstance(row.get(name), str)), "")
    answer = row.get("answer")
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        answer = ""
    text = str(answer).rpartition("####")[2].strip()
    if not question.strip() or not text:
        raise ConfigError(
            f"{where}: expected texts under 'question' (or 'problem') and 'answer', got the "
            f"fields {', '.join(row) or 'none'}"
        )
    kind = next((str(row[name]) for name in _KINDS if row.get(name)), stem)
    return Problem(question.strip(), text, kind)
