"""Training, evaluating and comparing from Python, with names and with objects."""

import asyncio
import os
import signal
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
from small_runs import SHAPE, SMALL_RUN

import agentgym
from agentgym.cli import main
from agentgym.errors import ConfigError
from agentgym.evaluation.record_files import read_episodes
from agentgym.experiment.plan import load_plan
from agentgym.models import from_scratch
from agentgym.settings import (
    Experiment,
    ImitationSettings,
    RolloutSettings,
)
from agentgym_envs.hotter import Hotter
from agentgym_trainers.grpo import GRPO

TINY = replace(
    SMALL_RUN,
    steps=2,
    save_every=1,
    imitation=replace(SMALL_RUN.imitation, max_steps=4),
)


class Doors(agentgym.TextEnv):
    """Three doors; the task names the right one."""

    def __init__(self, doors: int = 3, **kwargs):
        super().__init__(**kwargs)
        self.doors = doors

    def tasks(self, split):
        return tuple(f"door-{n}" for n in range(self.doors))

    def start(self, task, rng):
        self.right = task.removeprefix("door-")
        return agentgym.Opening(f"{self.doors} doors. Hint: {self.right}.", "Open the right door.")

    def act(self, action):
        won = action.strip() == self.right
        return agentgym.Outcome("Open." if won else "Locked.", float(won), float(won), won, True)

    def oracle(self):
        return (self.right,)


def double(number: int) -> str:
    """Twice a number."""
    return str(2 * number)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("front") / "run"
    return agentgym.train(GRPO(group_size=2), settings=TINY, out=out, progress=False)


@pytest.fixture
def in_memory(tokenizer):
    return from_scratch.make_model(tokenizer, SHAPE, context=1024, seed=0), tokenizer


def test_ten_lines_train_and_five_evaluate(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train = """
import agentgym
result = agentgym.train(
    "grpo", env="hotter", steps=1, tasks_per_step=2, out="run", progress=False,
    imitation={"max_steps": 2, "demos_per_task": 1, "batch_size": 2},
    scratch={"hidden_size": 32, "num_layers": 1, "intermediate_size": 32},
    panel={"tasks": 2, "episodes": 2},
)
print(result)
"""
    evaluate = """
import agentgym
report = agentgym.evaluate(
    "run/checkpoints/final", panel={"tasks": 2, "episodes": 1}, progress=False)
print(report.pass_at(1))
"""
    assert len(train.strip().splitlines()) <= 10 and len(evaluate.strip().splitlines()) <= 5
    names = {}
    exec(train, names)
    exec(evaluate, names)
    assert names["result"].checkpoint.is_dir()
    assert len(names["report"].panel) == 2


def test_the_command_line_can_continue_a_run_started_from_python(trained, capsys):
    config = trained.folder / "config.yaml"
    plan = load_plan(config)
    assert (plan.algorithm, plan.algo, plan.experiment) == ("grpo", GRPO(group_size=2), TINY)
    assert main(["train", "--resume", str(trained.folder)]) == 0
    assert "pass@2" in capsys.readouterr().out
    assert len(trained.metrics()) == 2


def test_a_finished_run_is_extended(tmp_path):
    folder = tmp_path / "run"
    first = agentgym.train("grpo", settings=TINY, out=folder, progress=False)
    assert main(["train", "--resume", str(folder), "--steps", "1"]) == 2
    assert main(["train", "--resume", str(folder), "--steps", "4"]) == 0
    assert [line["step"] for line in first.metrics()] == [1, 2, 3, 4]
    assert (folder / "checkpoints" / "final-0002").is_dir()
    assert (folder / "eval" / "after-0002.jsonl").exists()
    again = agentgym.train(resume=folder, progress=False, steps=5)
    assert len(again.metrics()) == 5
    assert load_plan(folder / "config.yaml").experiment.steps == 5


@pytest.mark.parametrize(
    "words", [["--seed", "3"], ["--rollout.temperature", "0.5"], ["--algo.group-size", "4"]]
)
def test_a_resumed_run_keeps_every_other_setting(trained, words, capsys):
    assert main(["train", "--resume", str(trained.folder), *words]) == 2
    assert "a resumed run keeps its settings" in capsys.readouterr().err


def test_environment_tools_model_and_tokenizer_are_given_as_objects(tmp_path, in_memory, capsys):
    model, tokenizer = in_memory
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    given = {"env": Doors, "model": model, "tokenizer": tokenizer, "tools": [double]}
    settings = replace(TINY, env_args={"doors": 4}, imitation=ImitationSettings(max_steps=0))
    settings = replace(settings, rollout=replace(TINY.rollout, max_context_tokens=900))
    folder = tmp_path / "run"
    result = agentgym.train(
        GRPO(group_size=2), settings=settings, out=folder, progress=False, **given
    )
    assert all((before[name] == tensor).all() for name, tensor in model.state_dict().items())
    assert len(result.before.tasks) == 3
    goals = {episode.goal for episode in read_episodes(folder / "episodes.jsonl")}
    assert all("Open the right door." in goal and '"double"' in goal for goal in goals)
    assert main(["train", "--resume", str(folder)]) == 2
    error = capsys.readouterr().err
    assert "the env of this run is the Python object Doors" in error and error.count("\n") == 1
    assert main(["eval", str(result.checkpoint)]) == 2
    assert "the Python object Doors" in capsys.readouterr().err
    again = agentgym.train(resume=folder, progress=False, steps=3, **given)
    assert len(again.metrics()) == 3
    with pytest.raises(ConfigError, match="the tools of this run is the Python object double"):
        agentgym.train(resume=folder, env=Doors, model=model, tokenizer=tokenizer, progress=False)


def test_a_model_in_memory_is_evaluated(tmp_path, monkeypatch, in_memory):
    monkeypatch.chdir(tmp_path)
    model, tokenizer = in_memory
    how = {"env": lambda **kwargs: Doors(**kwargs), "settings": TINY, "env_args": {}}
    report = agentgym.evaluate(model, tokenizer=tokenizer, progress=False, **how)
    (file,) = tmp_path.glob("evals/*.jsonl")
    assert len(read_episodes(file)) == 6 and report.spec.name == "object:Qwen2ForCausalLM"
    again = agentgym.evaluate(model, tokenizer=tokenizer, progress=False, **how)
    assert again == report and len(list(tmp_path.glob("evals/*"))) == 1
    with pytest.raises(ConfigError, match="needs its tokenizer"):
        agentgym.evaluate(model, progress=False, **how)


def test_everything_works_inside_a_running_event_loop(trained, tmp_path):
    async def notebook():
        return agentgym.evaluate(trained, out=tmp_path / "e.jsonl", progress=False)

    report = asyncio.run(notebook())
    assert report == trained.after


def test_an_interrupt_inside_a_running_event_loop_cancels_the_work():
    from agentgym.utils.concurrency import run_sync

    ended = []

    async def work():
        try:
            asyncio.get_running_loop().call_later(0.2, os.kill, os.getpid(), signal.SIGINT)
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    async def notebook():
        with pytest.raises(KeyboardInterrupt):
            run_sync(work)

    asyncio.run(notebook())
    assert ended == [True]


def test_reports_are_shown_as_tables_in_notebooks(trained):
    for shown in (trained, trained.after, agentgym.compare(trained)):
        html = shown._repr_html_()
        assert "<table>" in html and "agentgym/Hotter-v0" in html and "pass@1" in str(shown)
    assert "<th>before</th><th>after</th><th>difference</th>" in trained._repr_html_()


def test_html_of_a_table_is_escaped():
    from agentgym.evaluation.tables import Grid

    html = Grid(title="<b>", columns=("<i>",), rows=(("<script>",),), notes=("a & b",)).html()
    assert "<script>" not in html and "&lt;script&gt;" in html and "a &amp; b" in html


def test_environments_are_made_by_name_and_by_class():
    for env in ("hotter", "agentgym/Hotter-v0", Hotter, lambda high: Hotter(high=high)):
        made = agentgym.make(env, high=20, max_turns=2)
        observation, _ = made.reset(seed=1)
        assert "1 to 20" in observation
        made.step("30")
        assert made.step("30")[3]
        assert agentgym.panel(env, high=20).tasks[0].id == "hotter-900"
    assert agentgym.make("hotter").spec.max_episode_steps == 12
    with pytest.raises(ConfigError, match=r"object:Hotter: .*hihg"):
        agentgym.make(Hotter, hihg=3)
    with pytest.raises(ConfigError, match="makes a int, expected an agentgym"):
        agentgym.make(lambda: 3)


def test_tools_are_added_to_an_environment():
    made = agentgym.make("hotter", tools=[double])
    made.reset(options={"task": "hotter-3"})
    call = '<tool_call>{"name": "double", "arguments": {"number": 40}}</tool_call>'
    assert "80" in made.step(call)[0] and made.step("81")[0] == "Higher."


def test_tools_of_a_file_are_named_on_the_command_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.py").write_text(
        'def convert(miles: float) -> str:\n    """Miles in kilometres."""\n'
        "    return str(1.609 * miles)\n"
    )
    lines = iter(
        ['<tool_call>{"name": "convert", "arguments": {"miles": 10}}</tool_call>', ":quit"]
    )
    monkeypatch.setattr("builtins.input", lambda *args: next(lines))
    assert main(["play", "hotter", "--tools", f"{tmp_path}/mine.py:convert"]) == 0
    assert "16.09" in capsys.readouterr().out


def test_a_run_with_tools_of_a_file_can_be_continued_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text('def f(x: int) -> str:\n    """F."""\n    return "1"\n')
    monkeypatch.chdir(tmp_path)
    settings = replace(TINY, steps=0, imitation=ImitationSettings(max_steps=0))
    settings = replace(settings, rollout=replace(TINY.rollout, max_context_tokens=900))
    agentgym.train("grpo", settings=settings, tools=["mine.py:f"], out="run", progress=False)
    config = load_plan("run/config.yaml").experiment
    assert config.tools == (f"{tmp_path}/mine.py:f",)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert main(["train", "--resume", "../run"]) == 0


def test_workers_need_objects_that_they_can_import():
    with pytest.raises(ConfigError, match="worker processes cannot import"):
        agentgym.train(
            "grpo",
            env=lambda: Doors(),
            settings=replace(TINY, env_args={}, rollout=RolloutSettings(workers=1)),
            progress=False,
        )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"stpes": 3}, "no field 'stpes'. Did you mean 'steps'"),
        ({"rollout": {"turns": 3}}, "Did you mean 'max_turns'"),
        ({"steps": "3"}, "steps is '3', expected int"),
        ({"world": "hotter", "settings": TINY}, "give one of them"),
        ({"env": "hoter"}, "no environment 'hoter'"),
        ({"algorithm": GRPO}, "expected a name or a dataclass instance with `build"),
        ({"algorithm": "gppo2"}, "Did you mean 'gppo'"),
        ({"resume": "/nowhere"}, "cannot read the configuration"),
        ({"model": 3}, "needs its tokenizer"),
    ],
)
def test_a_mistake_gives_a_one_line_error_and_nothing_is_written(tmp_path, given, expected):
    with pytest.raises(agentgym.AgentGymError) as problem:
        agentgym.train(**{"progress": False, "out": tmp_path / "run"} | given)
    assert expected in str(problem.value) or "resume" in given
    assert "\n" not in str(problem.value)
    assert not (tmp_path / "run").exists()


def test_sections_are_overridden_by_field_or_as_a_whole():
    from agentgym.experiment.plan import override

    one = override(TINY, {"rollout": {"temperature": 0.5}})
    assert one.rollout == replace(TINY.rollout, temperature=0.5)
    two = override(TINY, {"rollout": RolloutSettings(temperature=0.5), "steps": 7})
    assert two.rollout == RolloutSettings(temperature=0.5) and two.steps == 7
    assert two.scratch == TINY.scratch


def test_a_recipe_can_be_used_as_training_settings():
    recipe = agentgym.load_recipe("alfworld")
    assert recipe.env == "agentgym/ALFWorld-v0" and recipe.rollout.max_turns == 30
    assert agentgym.load_recipe("hotter") == Experiment(env="agentgym/Hotter-v0")


def test_the_turn_limit_is_the_registered_one_unless_it_is_set(trained):
    from agentgym.experiment.sources import source_of, with_turn_limit

    for env, turns, expected in [
        ("hotter", None, 12),
        ("scienceworld", None, 200),
        ("hotter", 5, 5),
    ]:
        full = agentgym.load_recipe(env).env
        wanted = Experiment(env=full, rollout=RolloutSettings(max_turns=turns))
        assert with_turn_limit(wanted, source_of(wanted)).rollout.max_turns == expected


def test_evaluations_are_compared_task_by_task(trained, tmp_path):
    found = agentgym.compare(trained.before, trained.after, trained.folder, names=("a", "b", "c"))
    assert [(pair.first, pair.second) for pair in found.pairs] == [
        ("a", "b"),
        ("a", "c"),
        ("b", "c"),
    ]
    assert found.pairs[2].difference.value == 0 and found.pairs[2].p == 1
    assert found.pairs[2].verdict == "no significant difference"
    with pytest.raises(ConfigError, match="at least 2 evaluations"):
        agentgym.compare(trained.before)


def test_a_difference_is_reported_only_when_it_is_significant(tmp_path):
    from test_evaluate import Guesser, always, run, sometimes

    never = run(Guesser(lambda task, sample: False), tmp_path / "a.jsonl")
    won = run(Guesser(always), tmp_path / "b.jsonl")
    some = run(Guesser(sometimes), tmp_path / "c.jsonl")
    pairs = agentgym.compare(never, won, some, names=("never", "always", "some")).pairs
    assert pairs[0].verdict == "no significant difference"  # 6 tasks: p is 2/64, times 3
    assert pairs[0].p == pytest.approx(min(1, 3 * 2 / 64))
    assert (len(pairs[0].better), len(pairs[0].worse)) == (6, 0)
    two = agentgym.compare(never, won, names=("never", "always")).pairs[0]
    assert two.p == pytest.approx(2 / 64) and two.verdict == "always is better"


def test_importing_the_package_is_cheap():
    code = "import time; t = time.process_time(); import agentgym; print(time.process_time() - t)"
    done = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout)
        for _ in range(3)
    ]
    assert min(done) < 0.4, f"{min(done):.2f} CPU seconds"


def test_a_public_name_is_never_a_module():
    import types

    import agentgym.env.panel
    import agentgym.evaluation.compare

    for name in agentgym.__all__:
        assert not isinstance(getattr(agentgym, name), types.ModuleType), name
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = agentgym.trian
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(len(agentgym.panel("hotter")))
