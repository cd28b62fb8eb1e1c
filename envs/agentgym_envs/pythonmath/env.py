"""The PythonMath environment: a problem, a Python interpreter, and one answer."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np

from agentgym.env.base import SPLITS, AnyText, Opening, Outcome, one_of, unknown_split, unknown_task
from agentgym.errors import ConfigError, EnvError, MissingExtra
from agentgym.sandbox import Sandbox, SandboxLimits
from agentgym.tools import CallLimits, HermesCalls, PythonTool, TagCalls, ToolEnv
from agentgym_envs.datafiles import DATA_SPLITS, DataSplit, split_rows
from agentgym_envs.pythonmath.answers import same
from agentgym_envs.pythonmath.files import ProblemFile, open_problems
from agentgym_envs.pythonmath.problems import KINDS, NUMBERS, Problem, generate

ENV = "agentgym/PythonMath-v0"
_NEEDS = ("docstring_parser", "mpmath", "pydantic", "sympy")


class PythonMath(ToolEnv):
    """Solve a mathematics problem with a Python interpreter; the first answer counts.

    The interpreter is sandboxed (see ``agentgym.sandbox``) and keeps its variables; answers are
    compared by value, outside of it. Reward and score are 1 for the right answer, else 0.
    """

    def __init__(
        self,
        *,
        difficulty: int = 2,
        kinds: str = ",".join(KINDS),
        data: str = "",
        data_split: DataSplit = "auto",
        notation: Literal["tags", "json"] = "tags",
        seconds: float = 5.0,
        **kwargs: Any,
    ) -> None:
        """Make the environment; the interpreter starts on first use.

        Args:
            difficulty: Level of generated problems, 1 to 5.
            kinds: Kinds of generated problems, separated by commas.
            data: A file of problems instead, such as GSM8K, MATH-500 or AIME, as JSON lines, JSON
                or Parquet; or a folder with a file per split. See ``files.py``.
            data_split: How a file is split: ``hash``, or all of it ``train``, ``valid`` or
                ``test``; see ``datafiles.DataSplit``.
            notation: Calls as ``<python>...</python>`` or as JSON.
            seconds: Time limit of a program.
            **kwargs: See ``TextEnv``.

        Raises:
            ConfigError: A value is out of range, or the file has no problems.
            MissingExtra: A library is not installed.
        """
        if not all(map(find_spec, _NEEDS)):
            raise MissingExtra(f'{ENV} needs more libraries: pip install "agentic-gym[pythonmath]"')
        one_of("notation", notation, ("tags", "json"))
        one_of("data_split", data_split, DATA_SPLITS)
        if difficulty not in range(1, 6):
            raise ConfigError(f"difficulty: got {difficulty!r}, expected 1 to 5")
        self.kinds = tuple(dict.fromkeys(kind.strip() for kind in str(kinds).split(",")))
        for kind in self.kinds:
            one_of("kinds", kind, tuple(KINDS))
        sandbox = Sandbox(SandboxLimits(wall=seconds))
        super().__init__(
            tools=(PythonTool(sandbox), self.answer),
            notation=TagCalls() if notation == "tags" else HermesCalls(),
            # Longer than any cell, including the replay of cells after a fork.
            limits=CallLimits(timeout=120 + 10 * seconds),
            **kwargs,
        )
        self.difficulty = difficulty
        self.file: ProblemFile | None = open_problems(data) if data else None
        self._rows = self._split(self.file, data_split) if self.file else {}
        self._problem: Problem | None = None
        self.action_space = AnyText((self.write("python", "1 + 1"), self.write("answer", "0")))

    def tasks(self, split: str) -> Sequence[str]:
        """Kind, difficulty and number; or the rows of the file."""
        if split not in SPLITS:
            raise unknown_split(ENV, split, SPLITS)
        if self.file is not None:
            return [f"file-{self.file.digest}-{row}" for row in self._rows[split]]
        return [
            f"{kind}-{self.difficulty}-{number}" for number in NUMBERS[split] for kind in self.kinds
        ]

    def open(self, task: str, rng: np.random.Generator) -> Opening:
        """Pose the problem of the task."""
        self._problem = self._find(task)
        goal = (
            f"Solve this problem. Use Python where it helps, then answer once; give the result "
            f"alone.\n\n{self._problem.question}"
        )
        return Opening("The interpreter is ready.", goal, self._problem.kind)

    def answer(self, result: str) -> Outcome:
        """Give the result, which ends the episode.

        Args:
            result: A number or an expression, in plain or LaTeX notation.
        """
        right = same(result, self._current().answer)
        text = "That is right." if right else "That is wrong."
        return Outcome(text, float(right), float(right), right, done=True)

    def manual(self) -> str:
        """The task, the tools with an example each, and how it ends."""
        run, give = self.write("python", "print(12 * 34)"), self.write("answer", "408")
        return (
            f"You solve a mathematical problem, with a Python interpreter where it helps.\n"
            f"Each action is one or more tool calls, written exactly as in these examples: "
            f"`{run}`, `{give}`.\n{super().manual()}\n"
            f"Each turn answers with what the calls returned. The first answer ends the episode, "
            f"and so does the turn limit. Only a right answer wins: give the result alone, as a "
            f"number or an expression in plain or LaTeX notation."
        )

    def oracle(self) -> tuple[str, ...]:
        """Run the program that solves the problem, where one is known, then answer."""
        problem = self._current()
        steps = (self.write("python", problem.program),) if problem.program else ()
        return (*steps, self.write("answer", problem.answer))

    def _current(self) -> Problem:
        if self._problem is None:
            raise EnvError("no problem is set; call reset() first")
        return self._problem

    def _find(self, task: str) -> Problem:
        head, _, last = task.rpartition("-")
        number = int(last) if last.isascii() and last.isdecimal() and len(last) < 10 else -1
        if str(number) == last:
            if self.file is not None:
                if head == f"file-{self.file.digest}" and number < len(self.file.problems):
                    return self.file.problems[number]
            elif number < NUMBERS["test"].stop:
                kind = head.removesuffix(f"-{self.difficulty}")
                if kind != head and kind in self.kinds:
                    return generate(kind, self.difficulty, number)
        raise unknown_task(ENV, task, [id_ for split in SPLITS for id_ in self.tasks(split)[:1]])

    @staticmethod
    def _split(file: ProblemFile, data_split: DataSplit) -> dict[str, tuple[int, ...]]:
        texts = [problem.question for problem in file.problems]
        return split_rows(texts, file.files, file.named, data_split)
