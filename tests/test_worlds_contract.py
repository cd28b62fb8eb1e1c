"""Every registered environment satisfies the contract."""

import subprocess
import sys
from pathlib import Path

import pytest

import agentgym
from agentgym.errors import ConfigError, MissingExtra
from agentgym.testing import CheckSettings, check_environment

SMALL = {
    "agentgym/AgentDojo-v0": [{"suites": "banking"}],
    "agentgym/ALFWorld-v0": [{"train_games": 8, "valid_games": 4, "test_games": 4}],
    "agentgym/ScienceWorld-v0": [{"tasks": "find-non-living-thing,lifespan-longest-lived"}],
    "agentgym/TextWorld-v0": [
        {
            "family": family,
            "difficulty": difficulty,
            "train_games": 2,
            "valid_games": 1,
            "test_games": 1,
        }
        # In the easy coin games a random walk finds the coin in time.
        for family, difficulty in (("coin_collector", "hard"), ("cooking", "easy"))
    ],
}
"""Settings with which an environment is checked where its defaults would take long."""

BRISK = CheckSettings(steps=100, resets=300, seconds=1.0)
"""Most of what the defaults look at, in a fraction of the time."""
QUICK = CheckSettings(steps=40, resets=60, seconds=1.0)
"""For environments made of packages whose own tests look closely."""
BROWSER = ("agentgym/MiniWoB-v0", "agentgym/Web-v0")
"""In a real browser, where the contract takes a minute of a core."""
SLOW = {
    **dict.fromkeys(BROWSER, CheckSettings(steps=10, resets=12, seconds=0.2, episodes=2)),
    **dict.fromkeys(
        ("agentgym/AgentDojo-v0", "agentgym/BFCL-v0", "agentgym/BabyAI-v0", "agentgym/Tau2-v0"),
        QUICK,
    ),
    "agentgym/ScienceWorld-v0": CheckSettings(steps=8, resets=20, seconds=0.2, episodes=2),
}
"""Less where a reset takes a fifth of a second; `agentgym check scienceworld` looks for longer."""

CASES = [
    pytest.param(id_, how, marks=[pytest.mark.slow] if id_ in BROWSER else [])
    for id_ in agentgym.environments()
    for how in SMALL.get(id_, [{}])  # type: ignore[attr-defined]
]


# TextWorld filters this warning once, at import; pytest resets warning filters after a test.
@pytest.mark.filterwarnings("ignore:.*is not fully supported")
@pytest.mark.parametrize(("env_id", "settings"), CASES)
def test_every_registered_environment_satisfies_the_contract(env_id, settings):
    try:
        check_environment(env_id, SLOW.get(env_id, BRISK), **settings)
    except MissingExtra as missing:
        pytest.skip(str(missing))


def test_an_unknown_environment_is_not_a_contract_violation():
    with pytest.raises(ConfigError, match="Did you mean 'agentgym/Hotter-v0'"):
        check_environment("agentgym/Hoter-v0")
    with pytest.raises(ConfigError, match="hihg"):
        check_environment("agentgym/Hotter-v0", hihg=3)


def test_panels_do_not_depend_on_the_hash_seed_of_the_process():
    """Processes of a job must agree on tasks; the order of a string set differs by process."""
    code = "from agentgym import panel; print(panel('agentgym/Hotter-v0').digest)"
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parent,
        ).stdout
        for seed in ("1", "2")
    }
    assert digests == {agentgym.panel("agentgym/Hotter-v0").digest + "\n"}
