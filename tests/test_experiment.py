"""A small training run: it must improve the score."""

import math
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest

from agentgym.cli import main
from agentgym.engines.local import engine as local
from agentgym.engines.local.engine import LocalEngine
from agentgym.errors import ConfigError
from agentgym.evaluation.measures import passes
from agentgym.evaluation.paired import paired_difference
from agentgym.evaluation.record_files import read_episodes
from agentgym.experiment.checkpoints import load_state
from agentgym.experiment.evaluations import evaluate_blocking
from agentgym.experiment.job import run_blocking
from agentgym.experiment.metrics_file import read_metrics
from agentgym.experiment.parts import RunParts
from agentgym.experiment.preflight import check
from agentgym.experiment.run_folder import RunFolder
from agentgym.experiment.warm_start import _needed
from agentgym.settings import (
    Experiment,
    ImitationSettings,
    OptimizerSettings,
    PanelSettings,
    RolloutSettings,
    ScratchSettings,
)
from agentgym.utils import yaml_config
from agentgym.utils.progress import Display
from agentgym_trainers.grpo import GRPO

SMALL = Experiment(
    env="agentgym/TextWorld-v0",
    env_args={
        "family": "coin_collector",
        "difficulty": "l2",
        "train_games": 12,
        "valid_games": 1,
        "test_games": 12,
    },
    steps=30,
    tasks_per_step=8,
    save_every=10,
    imitation=ImitationSettings(
        max_steps=150,
        batch_size=16,
        random_action_rate=0.5,
        learn_random_actions=True,
        until_success=1.0,
    ),
    optimizer=OptimizerSettings(learning_rate=2e-3, warmup_steps=10),
    scratch=ScratchSettings(
        hidden_size=64,
        num_layers=2,
        num_heads=2,
        num_kv_heads=1,
        intermediate_size=128,
        vocab_size=400,
    ),
    rollout=RolloutSettings(max_turns=6, max_context_tokens=512, max_completion_tokens=16),
    panel=PanelSettings(tasks=12, episodes=8),
)
TASKS = SMALL.tasks_per_step


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    return folder, run_blocking(SMALL, GRPO(minibatches=4).build(), folder, Display())


def test_training_improves_the_score(finished):
    """Of 640 training episodes, and of the panel, too small for an interval: CPUs round apart."""
    folder, result = finished
    success = [line["episode/success"] for line in read_metrics(folder.metrics)]
    assert fmean(success[20:]) > fmean(success[:10]) + 0.1, success
    assert paired_difference(result.before, result.after, passes(1)).difference.value > 0


def test_a_run_writes_all_its_files(finished):
    folder, _result = finished
    assert len(read_metrics(folder.metrics)) == SMALL.steps
    assert len(read_episodes(folder.episodes)) == SMALL.steps * TASKS * 8
    assert all(path.exists() for path in (folder.table, folder.plot, folder.warm, folder.final))
    assert "pass@8" in folder.table.read_text()
    assert {p.name for p in folder.root.glob("checkpoints/*")} == {
        "warm",
        "final",
        "step-0010",
        "step-0020",
    }


def test_training_episodes_hold_the_advantage_of_every_token_and_times(finished):
    folder, _result = finished
    episodes = read_episodes(folder.episodes)
    groups = {}
    for place, episode in enumerate(episodes):
        groups.setdefault(place // 8, []).append(episode)
    moved = 0
    for group in groups.values():
        rewards = [episode.reward for episode in group]
        for episode in group:
            found = {turn.advantage for turn in episode.turns}
            assert len(found) == 1 and all(not turn.advantages for turn in episode.turns)
            above = episode.reward - sum(rewards) / len(rewards)
            assert (found.pop() > 0) == (above > 1e-6), "GRPO: above the mean of the group"
            moved += abs(above) > 1e-6
    assert moved > len(episodes) / 4
    turns = [turn for episode in episodes for turn in episode.turns]
    assert all(turn.sampling_seconds > 0 for turn in turns)
    assert all((turn.env_seconds > 0) == turn.parsed for turn in turns)
    assert all(math.isnan(t.advantage) for t in read_episodes(folder.evaluation("after"))[0].turns)


def test_checkpoints_are_ordinary_model_folders(finished):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, _ = finished
    model = AutoModelForCausalLM.from_pretrained(folder.final)
    tokenizer = AutoTokenizer.from_pretrained(folder.final)
    assert model.config.vocab_size == len(tokenizer)
    for text in ("Higher. 50", "ünïcode 日本 \t\n", "<action>3</action>"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_loaded_tokenizer_gives_the_tokens_it_gave_before_it_was_saved(tmp_path):
    """Loaders pick the class by the model's type, and classes split digits differently."""
    from transformers import AutoTokenizer

    from agentgym.models import from_scratch

    made = from_scratch.make_tokenizer(["Higher. 100 knives, the cook's table; 12 3."] * 20, 400)
    model = from_scratch.make_model(made, SMALL.scratch, context=64, seed=0)
    from_scratch.save(model, made, tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert len(loaded) == len(made) == model.config.vocab_size
    for text in ("Higher. 100 knives", "a  b\n\nc 1234's", "<action>go 50</action><|end|>", "ü\t"):
        assert loaded.encode(text) == made.encode(text)


@pytest.mark.parametrize(
    ("engine", "device", "line"),
    [
        ("local", "cuda:99", "must be a device of this machine such as cpu or cuda:0"),
        ("local", "the fast one", "must be a device of this machine such as cpu or cuda:0"),
        ("vllm", "cpu", "the engine vllm finds its own device"),
    ],
)
def test_an_unavailable_device_is_refused_in_one_line(engine, device, line):
    with pytest.raises(ConfigError) as error:
        check(replace(SMALL, engine=engine, engine_device=device))
    assert line in str(error.value) and "\n" not in str(error.value)
    check(replace(SMALL, engine_device="cpu"))


@pytest.mark.parametrize("batch_invariant", [True, False])
def test_the_run_setting_decides_batch_invariance(tmp_path, monkeypatch, batch_invariant):
    asked = []

    class Asked(LocalEngine):
        def __init__(self, *args, batch_invariant, **kwargs):
            asked.append(batch_invariant)
            super().__init__(*args, batch_invariant=batch_invariant, **kwargs)

    monkeypatch.setattr(local, "LocalEngine", Asked)
    once = {
        "imitation": ImitationSettings(max_steps=2),
        "panel": PanelSettings(tasks=2, episodes=1),
    }
    small = replace(SMALL, batch_invariant=batch_invariant, steps=0, **once)
    folder = RunFolder(tmp_path / "run")
    run_blocking(small, GRPO().build(), folder, Display())
    played = len(asked)
    alone = replace(small, model=str(folder.final))
    evaluate_blocking(alone, tmp_path / "alone.jsonl", Display())
    assert 0 < played < len(asked) and set(asked) == {batch_invariant}


def test_a_given_model_is_shown_no_more_tasks_than_its_steps_read(tmp_path):
    def tasks_and_count(max_steps, batch_size, demos_per_task):
        wanted = ImitationSettings(
            max_steps=max_steps, batch_size=batch_size, demos_per_task=demos_per_task
        )
        parts = RunParts(replace(SMALL, imitation=wanted), RunFolder(tmp_path), Display())
        tasks = parts.panel("train").tasks
        kept, count = _needed(parts, tasks, demos_per_task)
        assert set(kept) <= set(tasks) and len(set(kept)) == len(kept)
        return len(kept), count, len(tasks)

    *found, every = tasks_and_count(max_steps=2, batch_size=2, demos_per_task=8)
    assert found == [4, 1] and every > 4
    assert tasks_and_count(every, batch_size=3, demos_per_task=8) == (every, 3, every)
    assert tasks_and_count(every, batch_size=32, demos_per_task=2) == (every, 2, every)


def test_a_model_that_did_not_change_plays_its_panel_once(tmp_path):
    once = {
        "imitation": ImitationSettings(max_steps=2),
        "panel": PanelSettings(tasks=2, episodes=1),
    }
    folder = RunFolder(tmp_path / "run")
    found = run_blocking(replace(SMALL, steps=0, **once), GRPO().build(), folder, Display())
    before, after = (folder.evaluation(name).read_bytes() for name in ("before", "after"))
    assert before == after, "records hold times, which differ where episodes are played again"
    assert found.before.metrics() == found.after.metrics()


def test_a_checkpoint_evaluated_alone_gives_the_result_of_its_run(finished, tmp_path, capsys):
    """The command is given only the path of the checkpoint."""
    folder, _ = finished
    folder.config.write_text(yaml_config.dump({**yaml_config.encode(SMALL), "algorithm": "grpo"}))
    alone, other = tmp_path / "alone.jsonl", tmp_path / "other.jsonl"
    words = ["eval", str(folder.final), "--engine-device", "cpu", "--out"]
    assert main([*words, str(alone), "--against", str(folder.evaluation("before"))]) == 0
    printed, kept = capsys.readouterr().out, folder.table.read_text()
    rows = [line.split("│")[1:5] for line in kept.splitlines() if "pass@1 " in line]
    assert rows and all(cell.strip() in printed for row in rows for cell in row)
    alike = [
        sorted((e.task, e.sample, [t.text for t in e.turns]) for e in read_episodes(path))
        for path in (alone, folder.evaluation("after"))
    ]
    assert alike[0] == alike[1]
    few = ("--panel.tasks", "2", "--panel.episodes", "1")
    assert main([*words, str(other), "--env", "agentgym/Hotter-v0", *few]) == 0
    assert [episode.env for episode in read_episodes(other)] == ["agentgym/Hotter-v0"] * 2
    assert main([*words, str(other), "--against", str(tmp_path / "none.jsonl")]) == 2
    assert "no evaluation file at" in capsys.readouterr().err
    unplayed = tmp_path / "unplayed.jsonl"
    assert main([*words, str(unplayed), *few, "--against", str(alone)]) == 2
    assert "cannot compare results on panel" in capsys.readouterr().err
    assert not unplayed.exists()


def test_a_checkpoint_belongs_to_the_run_folder_that_holds_it(tmp_path):
    folder = RunFolder(tmp_path)
    assert RunFolder.of_checkpoint(folder.final) is None
    folder.config.touch()
    assert RunFolder.of_checkpoint(folder.final) == folder
    assert RunFolder.of_checkpoint(tmp_path / "models" / "final") is None


def test_worker_processes_do_not_change_results(tmp_path):
    """A short warm-up and one training step: the same episodes for any number of processes."""

    def episodes(workers):
        experiment = replace(
            SMALL,
            env="agentgym/Hotter-v0",
            env_args={"high": 8},
            steps=1,
            tasks_per_step=2,
            imitation=ImitationSettings(max_steps=30, until_success=1, demos_per_task=1),
            rollout=replace(SMALL.rollout, workers=workers),
            panel=PanelSettings(tasks=2, episodes=2),
        )
        folder = RunFolder(tmp_path / str(workers))
        run_blocking(experiment, GRPO(group_size=2).build(), folder, Display())
        assert "after: Episodes: " in folder.table.read_text()
        found = read_episodes(folder.episodes) + read_episodes(folder.evaluation("before"))
        assert any(turn.valid for episode in found for turn in episode.turns)
        return sorted(
            (e.task, e.sample, e.stop, [(t.text, t.observation) for t in e.turns]) for e in found
        )

    assert episodes(2) == episodes(0)


def test_a_finished_run_is_not_repeated(finished):
    folder, result = finished
    stamp = folder.final.stat().st_mtime_ns
    again = run_blocking(SMALL, GRPO(minibatches=4).build(), folder, Display())
    assert again == result
    assert folder.final.stat().st_mtime_ns == stamp


def test_an_interrupted_and_resumed_run_equals_an_uninterrupted_one(finished, tmp_path: Path):
    """Stop at step 10 like a kill, and resume: the same episodes, the same weights."""
    import shutil

    import torch
    from transformers import AutoModelForCausalLM

    whole, result = finished
    cut = RunFolder(tmp_path / "cut")
    shutil.copytree(whole.root, cut.root)
    for gone in (cut.final, cut.step(20)):
        shutil.rmtree(gone)
    for gone in (cut.evaluation("after"), cut.table, cut.plot):
        gone.unlink()
    with cut.episodes.open("a") as file:
        file.write('{"schema": 1, "half a li')
    again = run_blocking(SMALL, GRPO(minibatches=4).build(), cut, Display())
    assert len(read_metrics(cut.metrics)) == SMALL.steps
    assert len(read_episodes(cut.episodes)) == SMALL.steps * TASKS * 8
    first = AutoModelForCausalLM.from_pretrained(whole.final).state_dict()
    second = AutoModelForCausalLM.from_pretrained(cut.final).state_dict()
    assert all(torch.allclose(first[name], second[name], atol=1e-4) for name in first)
    assert again.after.pass_at(1).value == pytest.approx(result.after.pass_at(1).value, abs=0.05)


@pytest.mark.parametrize("swapped", ["tokenizer.json", "model.safetensors"])
def test_a_trainer_state_of_another_model_is_refused(finished, tmp_path: Path, swapped):
    """A copied checkpoint, or one with another tokenizer; refused before a model is loaded."""
    import shutil

    whole, _result = finished
    cut = RunFolder(tmp_path / "cut")
    shutil.copytree(whole.root, cut.root)
    shutil.rmtree(cut.final)
    last = cut.step(20)
    (last / "config.json").unlink()  # so that loading the model would fail in another way
    assert load_state(last)["step"] == 20
    if swapped == "tokenizer.json":
        text = (last / swapped).read_text()
        (last / swapped).write_text(text.replace("'", "`", 1))
    else:
        shutil.copy(cut.warm / swapped, last / swapped)
    with pytest.raises(ConfigError, match=r"trainer\.pt belongs to another model or tokenizer"):
        run_blocking(SMALL, GRPO(minibatches=4).build(), cut, Display())
