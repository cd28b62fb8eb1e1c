"""Shared fixtures: a small tokenizer that is built quickly, and scripted play."""

from __future__ import annotations

import os

# Set before torch is imported: on shared machines, spinning OpenMP threads slow each other down
# by a factor of ten.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest

from agentgym.errors import Unconfined
from agentgym.models import from_scratch
from agentgym.rollout.agent import ChatAgent
from agentgym.sandbox import Sandbox


@pytest.fixture(scope="session")
def tokenizer():
    texts = ["Higher. Lower. I hide a number from 1 to 100. Guess. Find the number. Found."] * 20
    return from_scratch.make_tokenizer([*texts, *map(str, range(101))], 400)


@pytest.fixture
def agent(tokenizer):
    return ChatAgent(tokenizer)


@pytest.fixture(scope="session")
def confined():
    """Skips, with the reason, where no foreign code can be confined."""
    try:
        Sandbox().run("1")
    except Unconfined as lacking:
        pytest.skip(str(lacking))


@pytest.fixture(scope="session")
def pretrained() -> Path:
    """Folder of a real instruct model; skips where there is none."""
    default = Path.home() / ".cache/agentgym/models/smollm2-135m-instruct"
    folder = Path(os.environ.get("AGENTGYM_PRETRAINED", default))
    if not (folder / "config.json").exists():
        pytest.skip(f"{folder} is missing: scripts/pretrained makes it")
    return folder
