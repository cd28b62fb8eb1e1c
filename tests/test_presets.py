"""``--model`` selects settings that fit a pretrained model."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from agentgym.cli.evaluation import EvalArguments
from agentgym.cli.parsing import take, value_of
from agentgym.cli.training import parse_plan
from agentgym.env import registry
from agentgym.experiment.plan import load_plan, plan_for_env
from agentgym.experiment.presets import advice
from agentgym.settings import Experiment, ImitationSettings, LoraSettings, OptimizerSettings
from agentgym.utils import yaml_config

RECIPES = [id_ for id_ in registry.environments() if registry.recipe(id_)]


def written(path, text):
    path.write_text(text)
    return path


def test_without_a_model_nothing_changes():
    assert load_plan(None, "grpo").experiment == Experiment()


def test_a_pretrained_model_gets_published_learning_rates_and_lengths():
    plans = [load_plan(None, "grpo", model="m", lora=lora) for lora in (False, True)]
    full, lora = (plan.experiment for plan in plans)
    assert 1e-6 <= full.optimizer.learning_rate <= 5e-6
    assert lora.optimizer.learning_rate == pytest.approx(10 * full.optimizer.learning_rate)
    assert lora.imitation.learning_rate > full.imitation.learning_rate
    for plan in plans:
        assert plan.experiment.rollout.max_completion_tokens == 512
        assert plan.experiment.rollout.max_context_tokens == 8192
        assert plan.experiment.tasks_per_step * plan.algo.group_size == 128


def test_a_critic_of_a_pretrained_model_learns_at_its_own_rate(tmp_path):
    assert load_plan(None, "ppo").algo.critic_learning_rate == 1e-3
    assert load_plan(None, "ppo", model="m").algo.critic_learning_rate == 1e-5
    file = written(tmp_path / "a.yaml", "model: m\nalgo: {critic_learning_rate: 0.001}")
    assert load_plan(file, "ppo").algo.critic_learning_rate == 1e-3


def test_a_user_config_file_overrides_the_preset(tmp_path):
    file = written(tmp_path / "a.yaml", "model: m\noptimizer: {learning_rate: 2.0e-5}")
    plan = load_plan(file, "grpo").experiment
    assert plan.optimizer.learning_rate == 2e-5
    assert plan.rollout.max_completion_tokens == 512


def test_adapters_set_in_a_config_file_select_adapter_learning_rates(tmp_path):
    file = written(tmp_path / "a.yaml", "model: m\nlora: {rank: 8}")
    expected = load_plan(None, "grpo", model="m", lora=True).experiment.optimizer
    assert load_plan(file, "grpo").experiment.optimizer == expected


def test_recipe_values_apply_only_to_a_model_made_from_nothing(tmp_path):
    text = """
    env_args: {only: scratch}
    rollout: {max_turns: 7, max_completion_tokens: 9}
    optimizer: {learning_rate: 0.5}
    pretrained: {env_args: {}, rollout: {max_context_tokens: 5000}}
    """
    file = written(tmp_path / "a.yaml", text)
    scratch = load_plan(file, "grpo").experiment
    fitted = load_plan(file, "grpo", model="m").experiment
    assert scratch.env_args and scratch.optimizer.learning_rate == 0.5
    assert fitted.optimizer == load_plan(None, "grpo", model="m").experiment.optimizer
    found = fitted.rollout
    assert (found.max_turns, found.max_context_tokens) == (7, 5000)
    assert found.max_completion_tokens == 512 and fitted.env_args == {}


@pytest.mark.parametrize("env", RECIPES)
def test_every_recipe_has_settings_for_a_pretrained_model(env):
    values = yaml_config.read(registry.recipe(env))
    assert "pretrained" in values
    plan = plan_for_env(env, "grpo", model="m", lora=True).experiment
    assert plan.rollout.max_completion_tokens >= 500 and plan.rollout.max_context_tokens >= 4096
    assert advice(plan) == () and plan.agent.action_format != "plain"


def test_a_saved_run_keeps_its_settings(tmp_path):
    plan = load_plan(None, "ppo", model="m")
    saved = written(tmp_path / "config.yaml", plan.dump())
    assert load_plan(saved) == plan


def test_an_evaluation_of_a_pretrained_model_allows_long_completions():
    assert EvalArguments(model="m").rollout.max_completion_tokens == 512


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ({"model": "m", "optimizer": OptimizerSettings(learning_rate=4e-4)}, "all weights"),
        (
            {
                "model": "m",
                "lora": LoraSettings(rank=8),
                "optimizer": OptimizerSettings(learning_rate=1e-2),
            },
            "adapters",
        ),
        ({"optimizer": OptimizerSettings(learning_rate=1e-6)}, "made from scratch"),
    ],
)
def test_an_unusual_learning_rate_gives_a_one_line_warning(change, warning):
    [line] = advice(Experiment(**change))
    assert warning in line and "\n" not in line and "usual for" in line


def test_usual_learning_rates_give_no_warning():
    assert advice(Experiment()) == ()
    lora = Experiment(
        model="m",
        lora=LoraSettings(rank=8),
        optimizer=OptimizerSettings(learning_rate=1e-4),
        imitation=ImitationSettings(pretrained=True, learning_rate=1e-3),
    )
    assert advice(lora) == ()


def test_a_folder_of_adapters_selects_the_settings_for_adapters(tmp_path):
    plan = plan_for_env("hotter", "grpo", model=str(tmp_path))
    assert plan.experiment.optimizer.learning_rate == 3e-6
    (tmp_path / "adapter_config.json").write_text("{}")
    plan = plan_for_env("hotter", "grpo", model=str(tmp_path))
    assert plan.experiment.optimizer.learning_rate == 3e-5
    rate = OptimizerSettings(learning_rate=3e-7)
    [line] = advice(Experiment(model=str(tmp_path), optimizer=rate))
    assert "usual for adapters of a pretrained model is about 3e-05" in line


EPISODES = {
    "alfworld": (64, 8),
    "deepsearch": (64, 8),
    "miniwob": (64, 2),
    "babyai": (64, 1),
    "web": (64, 1),
    "bfcl": (16, 1),
    "agentdojo": (33, 1),
}
"""Tasks of the panels of the evidence, and episodes of each."""


@pytest.mark.parametrize("world", EPISODES)
@pytest.mark.parametrize("line", ["imitation", "grpo", "gigpo", "epo", "empg", "aepo"])
def test_the_commands_in_the_evidence_are_valid_settings(line, world):
    script = Path(__file__).parents[1] / "scripts" / "evidence"
    shown = subprocess.run([script, "--print", world, line, "3"], capture_output=True, text=True)
    verb, algorithm, *words = shlex.split(shown.stdout)[1:]
    model = value_of(words, "--model")
    adapters = value_of(words, "--lora.rank") is not None
    assert take(words, "--world") == world
    chosen = parse_plan(plan_for_env(world, algorithm, model=model, lora=adapters), words)
    found = chosen.plan.experiment
    assert verb == "train" and found.seed == 3 and adapters == (line == "imitation")
    assert (found.panel.tasks, found.panel.episodes) == EPISODES[world]
    assert found.imitation.pretrained == (line == "imitation")
