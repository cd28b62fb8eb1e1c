"""The page on metrics documents every logged metric."""

import ast
from pathlib import Path

import pytest

HERE = Path(__file__).parent.parent
PAGE = (HERE / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
LOGGED = (
    *("episode", "group", "policy", "credit", "replay", "spent", "time", "tokens"),
    "entropy_law",
)
SOURCES = ("agentgym/training", "agentgym/experiment", "trainers/agentgym_trainers")


def names():
    """Strings in the code that look like the name of a metric."""
    for source in SOURCES:
        for path in sorted((HERE / source).glob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    prefix, slash, name = node.value.partition("/")
                    if slash and prefix in LOGGED and name.replace("_", "").isalnum():
                        yield node.value


@pytest.mark.parametrize("name", sorted(set(names())))
def test_every_metric_is_documented_on_the_page(name):
    assert f"`{name}`" in PAGE


def test_every_row_has_a_column_for_each_library():
    table = PAGE.partition("| name |")[2].partition("\n\n")[0].splitlines()
    assert "TRL | verl" in table[0]
    assert {row.count(" |") for row in table[2:]} == {4}
    named = [row for row in table[2:] if "episode/success`" in row or "policy/entropy`" in row]
    for row in named:
        cells = [cell.strip() for cell in row.strip("| ").split(" | ")]
        assert len(cells) == 4 and all(cells), row
