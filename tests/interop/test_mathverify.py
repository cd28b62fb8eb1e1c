"""Our comparison of answers beside math-verify: on our pairs, and on its own regression tables.

The tables are those of math-verify's source distribution, which pip fetches.
"""

import ast
import subprocess
import sys
import tarfile

import pytest

pytest.importorskip("math_verify")

from answer_pairs import RIGHT, WRONG
from math_verify import parse, verify

from agentgym_envs.pythonmath.answers import same

VERSION = "0.9.0"
LONGEST = 80
"""Characters of an answer; longer ones are whole solutions, from which math-verify extracts one."""
EQUAL_ALL_THE_SAME = {
    (r"$x \in [-2,7]$", r"$-2 \\le x \\le 7$"),
    (r"\boxed{1} no no no no no \boxed{2}", "$\\boxed{1,2}$"),
}
"""Unequal by math-verify's rules of extraction (a relation for a set; the first of two boxes)."""


def theirs(given, expected):
    """The judgement of math-verify, for answers in the dress that suits them better."""
    for dress in (r"\boxed{@}", "$@$"):
        gold, answer = (parse(dress.replace("@", text)) for text in (expected, given))
        if verify(gold, answer):
            return True
    return False


def test_more_pairs_are_judged_right_than_by_math_verify_and_no_wrong_one_is_accepted():
    right = [pair for pairs in RIGHT.values() for pair in pairs]
    wrong = [pair for pairs in WRONG.values() for pair in pairs]
    assert sum(same(*pair) for pair in right) == len(right)
    assert not any(same(*pair) for pair in wrong)
    accepted, false = (sum(theirs(*pair) for pair in pairs) for pairs in (right, wrong))
    assert accepted < len(right) and false > 0


def tables(folder):
    """Rows (known answer, given answer, whether they are equal) of the tests."""
    for file in sorted(folder.rglob("tests/test_*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.parametrize":
                names = ast.literal_eval(node.args[0])
                if names.replace(" ", "").startswith("gold,pred,expected"):
                    for row in node.args[1].elts:  # type: ignore[attr-defined]
                        if all(isinstance(each, ast.Constant) for each in row.elts):
                            gold, pred, equal = ast.literal_eval(row)[:3]
                            yield gold, pred, bool(equal)


def test_the_tables_of_math_verify(tmp_path):
    wanted = ["--no-deps", "--no-binary", "math-verify"]
    command = [sys.executable, "-m", "pip", "download", "-q", *wanted, "--dest", str(tmp_path)]
    subprocess.run([*command, f"math-verify=={VERSION}"], check=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        files.extractall(tmp_path, filter="data")
    rows = [row for row in tables(tmp_path) if max(map(len, row[:2])) <= LONGEST]
    right = [row for row in rows if row[2]]
    false = {row[:2] for row in rows if not row[2] and same(row[1], row[0])}
    found = sum(same(pred, gold) for gold, pred, _ in right)
    assert false <= EQUAL_ALL_THE_SAME
    assert found >= 0.8 * len(right)
