"""Every example in a docstring runs and prints the stated output."""

import doctest
import importlib
from pathlib import Path

import pytest

HERE = Path(__file__).parent.parent
SOURCES = [HERE / "agentgym", HERE / "envs" / "agentgym_envs", HERE / "trainers/agentgym_trainers"]


def modules():
    """Names of the modules with examples."""
    for source in SOURCES:
        for path in sorted(source.rglob("*.py")):
            if ">>> " in path.read_text(encoding="utf-8"):
                name = ".".join(path.relative_to(source.parent).with_suffix("").parts)
                yield name.removesuffix(".__init__")


@pytest.mark.parametrize("name", list(modules()))
def test_examples_in_docstrings_run(name):
    failed, tried = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert tried and not failed
