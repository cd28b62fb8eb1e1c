"""`--world NAME` trains in an environment with the settings of the recipe next to its code."""

import gymnasium
import pytest
from gymnasium.envs.registration import EnvSpec

from agentgym.cli import main
from agentgym.env import registry
from agentgym.errors import ConfigError, MissingExtra
from agentgym.experiment import start
from agentgym.experiment.plan import load_plan
from agentgym.experiment.preflight import check

SHIPPED = [id_ for id_ in registry.environments() if registry.recipe(id_)]


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """An installed package with one environment, without a recipe yet."""
    package = (
        tmp_path / f"of_{tmp_path.name}"
    )  # A unique name, because imported packages stay in memory.
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "world.py").write_text("from agentgym_envs.hotter import Hotter as World\n")
    monkeypatch.syspath_prepend(tmp_path)
    spec = EnvSpec(id="mine/Mine-v0", entry_point=f"{package.name}.world:World")
    monkeypatch.setitem(gymnasium.registry, spec.id, spec)
    return package / "recipe.yaml"


@pytest.mark.parametrize(
    ("recipe", "flags", "expected"),
    [
        ("steps: -1\n", [], "steps is -1"),
        ("steps: 3\n", ["--steps", "-2"], "steps is -2"),
        ("stpes: 1\n", [], "Did you mean 'steps'?"),
        ("env_args: {hihg: 3}\n", [], "mine/Mine-v0 has no argument 'hihg'"),
        ("algorithm: gpppo\n", [], "Did you mean 'gppo'?"),
        ("algorithm: gpppo\n", ["--config", "x.yaml"], "give one of them"),
    ],
)
def test_options_override_the_recipe(mine, capsys, tmp_path, recipe, flags, expected):
    mine.write_text(recipe)
    words = ["train", "--world", "mine", "--out", str(tmp_path / "out"), *flags]
    assert main(words) == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_run_folder_records_the_selected_algorithm(mine, tmp_path):
    """Resuming a run needs the name of its algorithm in the run folder."""
    mine.write_text("algorithm: grpo\nsteps: 7\n")
    assert [load_plan(mine, named).algorithm for named in (None, "epo")] == ["grpo", "epo"]
    kept = tmp_path / "config.yaml"
    kept.write_text(load_plan(mine, "epo").dump())
    assert load_plan(kept) == load_plan(mine, "epo")
    assert load_plan(mine, "epo").experiment.steps == 7


def test_an_environment_without_a_recipe_is_trained_with_the_defaults(mine, capsys, tmp_path):
    words = ["train", "--world", "mine", "--out", str(tmp_path / "out"), "--env-args", "hihg", "3"]
    assert main(words) == 2
    assert "mine/Mine-v0 has no argument" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--env-args", "high", "9"], {"high": 9, "turns": 5}),
        (["--env-args", "reward", "0.5", "--steps", "2"], {"high": 3, "turns": 5, "reward": 0.5}),
        (
            ["--env-args", "list", "True", "name", "x", "--env-args.turns", "7"],
            {"high": 3, "turns": 7, "list": True, "name": "x"},
        ),
    ],
)
def test_environment_arguments_are_merged_with_those_of_its_recipe(
    mine, monkeypatch, flags, expected
):
    mine.write_text("env_args: {high: 3, turns: 5}\n")
    plans = []
    monkeypatch.setattr(start, "start", lambda plan, **how: plans.append(plan.experiment))
    assert main(["train", "--world", "mine", *flags]) == 0
    assert plans[0].env_args == expected


@pytest.mark.parametrize("flags", [[], ["high"], ["high", "--steps", "2"]])
def test_environment_arguments_are_name_value_pairs(mine, capsys, flags):
    assert main(["train", "--env", "mine/Mine-v0", "--env-args", *flags]) == 2
    assert "--env-args expects names and values in turn" in capsys.readouterr().err


def test_an_unknown_environment_has_no_recipe():
    with pytest.raises(ConfigError, match="Did you mean 'agentgym/Hotter-v0'"):
        registry.recipe("agentgym/Hoter-v0")


@pytest.mark.parametrize("env_id", SHIPPED)
def test_every_shipped_recipe_is_valid_for_its_environment(env_id):
    recipe = load_plan(registry.recipe(env_id)).experiment
    assert recipe.env == env_id
    try:
        check(recipe)
    except MissingExtra as missing:
        pytest.skip(str(missing))
