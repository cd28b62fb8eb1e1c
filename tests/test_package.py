import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest

import agentgym
from agentgym import plugins
from agentgym.cli import VERBS, main
from agentgym.cli.parsing import take_pairs
from agentgym.env.base import TextEnv
from agentgym.errors import ConfigError, MissingExtra
from agentgym.settings import Experiment
from agentgym.utils import yaml_config


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_importing_agentgym_loads_no_heavy_library():
    heavy = ["torch", "transformers", "textworld", "matplotlib", "jericho", "scienceworld", "py4j"]
    done = python(f"import agentgym, sys; print([m for m in {heavy} if m in sys.modules])")
    assert done.stdout.strip() == "[]", done.stderr


def test_every_public_name_exists_and_they_are_sorted():
    assert sorted(agentgym.__all__) == list(agentgym.__all__)
    assert all(hasattr(agentgym, name) for name in agentgym.__all__)


def test_algorithms_and_environments_are_found_through_entry_points():
    assert "grpo" in plugins.algorithms()
    ours = {f"agentgym/{name}-v0" for name in ("Hotter", "ScienceWorld", "TextWorld")}
    assert ours <= set(agentgym.environments())


def test_a_third_party_package_registers_its_own_entries(tmp_path):
    (tmp_path / "theirs.py").write_text(
        "import gymnasium\n"
        "class Mine:\n    '''A method.'''\n"
        "def register():\n    gymnasium.register('theirs/World-v0', 'theirs:World')\n"
    )
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[agentgym.algorithms]\nmine = theirs:Mine\n[agentgym.environments]\nt = theirs:register\n"
    )
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import agentgym; "
        "from agentgym import plugins; print(plugins.algorithm('mine').__name__, "
        "'theirs/World-v0' in agentgym.environments())"
    )
    assert python(code).stdout.split() == ["Mine", "True"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["tain"], "Did you mean 'train'?"),
        (["train", "gpppo"], "Did you mean 'gppo'?"),
        (["train", "epo.papr"], "Did you mean 'paper'? Variants: paper, released"),
        (["train", "grpo", "--algo.group-size", "1", "--out", "OUT"], "expected at least 2"),
        (["train", "arpo", "--algo.initial-rollouts", "99", "--out", "OUT"], "budget of a task"),
        (["play", "agentgym/Hoter-v0"], "Did you mean 'agentgym/Hotter-v0'?"),
        (["play", "agentgym/Hotter-v0", "--task", "hotter-x"], "has no task 'hotter-x'"),
        (["play", "agentgym/Hotter-v0", "--env-args", "hihg", "3"], "hihg"),
        (["serve", "hotter"], "agentgym/Hotter-v0 has no web pages"),
        (["play", "htter"], "Did you mean"),
        (["train", "--resume"], "--resume needs a value"),
        (["train", "--lr", "1e-5"], "Did you mean --optimizer.learning-rate?"),
        (["train", "--learning_rate=1e-5"], "or --optimizer.learning-rate?"),
        (["train", "grpo", "--num-generations", "8"], "Did you mean --algo.group-size?"),
        (["train", "--max-steps", "8"], "Did you mean --steps?"),
        (["train", "actor_rollout_ref.actor.optim.lr=1e-6"], "mean --optimizer.learning-rate?"),
        (["train", "grpo", "data.train_batch_size=8"], "Did you mean --tasks-per-step?"),
        (["train", "grpo", "algorithm.adv_estimator=gae"], "after the verb: `agentgym train grpo`"),
        (["train", "--rollout.max-turn", "8"], "Did you mean --rollout.max-turns?"),
        (["train", "--qqqqqq", "8"], "no option --qqqqqq. `agentgym train gigpo --help` lists all"),
        (["eval", "m", "--temprature", "1"], " or --rollout.temperature"),
        (["eval", "m", "--tools", "none.py:f", "--out", "OUT/x"], "there is no file"),
        (["train", "--tools", "json:dumbs", "--out", "OUT"], "Did you mean 'dumps'?"),
        (["check", "hotter", "--seeds", "1"], "no option --seeds"),
        (["compare"], "nothing to compare"),
        (["compare", "/nowhere"], "no evaluation file at /nowhere"),
        (["serve", "webshp"], "no environment 'webshp'"),
        (["train", "--resume", "/nowhere"], "cannot read the configuration"),
        (["train", "--config"], "--config needs a value"),
        (["train", "--model", "/no/such/model", "--out", "OUT"], "is no causal language model"),
        (["eval", "/no/such/model", "--out", "OUT/x.jsonl"], "is no causal language model"),
        (["train", "--steps", "-1", "--out", "OUT"], "steps is -1, expected at least 0"),
        (
            ["train", "--imitation.random-action-rate", "1", "--out", "OUT"],
            "imitation.random_action_rate is 1.0",
        ),
        (["train", "--rollout.temperature", "0", "--out", "OUT"], "expected more for training"),
        (["train", "--rollout.workers", "-1", "--out", "OUT"], "rollout.workers is -1"),
        (
            ["train", "--schedule.importance-floor", "3", "--out", "OUT"],
            "schedule.importance_floor is 3.0",
        ),
        (["train", "--rollout.env-timeout", "0", "--out", "OUT"], "rollout.env_timeout is 0.0"),
        (["train", "--rollout.max-seconds", "0", "--out", "OUT"], "rollout.max_seconds is 0.0"),
        (["train", "--optimizer.learning-rate", "nan", "--out", "OUT"], "learning_rate is nan"),
        (
            ["train", "--scratch.num-kv-heads", "3", "--out", "OUT"],
            "a multiple of scratch.num_kv_heads (3)",
        ),
        (
            ["train", "--rollout.max-context-tokens", "32", "--out", "OUT"],
            "more than rollout.max_completion_tokens",
        ),
        (["eval", "m", "--panel.tasks", "0", "--out", "OUT/x.jsonl"], "panel.tasks is 0"),
    ],
)
def test_a_usage_error_is_one_line_with_exit_status_two(words, expected, capsys, tmp_path):
    words = [word.replace("OUT", str(tmp_path / "out")) for word in words]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1 and error.startswith("agentgym: ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [["train", "--help"], []])
def test_a_closed_output_pipe_causes_no_error(words):
    """Like `agentgym train --help | head`; short output fails only when it is flushed."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "agentgym.cli", *words]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize("words", [["--version"], ["-V"]])
def test_the_version_flag_prints_the_package_version(words, capsys):
    from importlib.metadata import version

    assert main(words) == 0
    assert capsys.readouterr().out == f"agentgym {version('agentic-gym')}\n"
    assert agentgym.__version__ == version("agentic-gym")


def test_the_package_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "agentgym", "--version"], capture_output=True, text=True
    )
    assert done.stdout.startswith("agentgym "), done.stderr


def test_an_ascii_only_terminal_gets_an_ascii_table():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    done = subprocess.run(
        [sys.executable, "-m", "agentgym", "envs"], capture_output=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert b"agentgym/Hotter-v0" in done.stdout and b"?" not in done.stdout


@pytest.mark.parametrize("verb", list(VERBS))
def test_help_shows_the_usage(verb, capsys):
    with pytest.raises(SystemExit) as done:
        main([verb, "--help"])
    assert done.value.code == 0
    assert "usage: agentgym" in capsys.readouterr().out


def test_envs_lists_environments_splits_and_horizon(capsys):
    assert main(["envs"]) == 0
    listed = capsys.readouterr().out
    assert "agentgym/Hotter-v0" in listed and "12 turns" in listed and "train" in listed


def test_envs_lists_the_arguments_of_one_environment(capsys):
    assert main(["envs", "textworld"]) == 0
    rows = [row.split("│")[1:-1] for row in capsys.readouterr().out.splitlines() if "│" in row]
    listed = [tuple(cell.strip() for cell in row) for row in rows]
    assert ("family", "str", "'cooking'") in listed
    assert ("admissible", "bool", "False") in listed
    assert main(["envs", "txtworld"]) == 2
    assert "Did you mean 'textworld'?" in capsys.readouterr().err


class Lacking(TextEnv):
    def tasks(self, split):
        raise MissingExtra("pip install 'agentic-gym[lacking]'")


@pytest.mark.parametrize("width", ["60", "200"])
def test_envs_shows_the_full_command_that_installs_a_missing_package(capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", width)
    gymnasium.register("agentgym/Lacking-v0", Lacking)
    try:
        assert main(["envs"]) == 0
    finally:
        del gymnasium.registry["agentgym/Lacking-v0"]
    rows = capsys.readouterr().out.splitlines()
    assert "agentgym/Lacking-v0: pip install 'agentic-gym[lacking]'" in rows


def test_algorithms_lists_name_paper_and_the_three_components(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["algorithms"]) == 0
    listed = capsys.readouterr().out
    for name, kind in plugins.algorithms().items():
        row = next(line for line in listed.splitlines() if line.startswith(f"{name} "))
        assert kind.about.arxiv in row
    assert "a scout splits the budget" in listed


@pytest.mark.parametrize("width", [80, 120])
def test_algorithms_lists_each_ones_defaults_and_fits_the_terminal(capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["algorithms"]) == 0
    table, _, agreed = capsys.readouterr().out.partition("its row omits it:")
    lines = table.splitlines()
    assert max(map(len, lines)) <= width
    starts = [k for k, line in enumerate(lines) if line[:1].strip()][1:-1]
    rows = {
        lines[k].split()[0]: lines[k:n] for k, n in zip(starts, [*starts[1:], None], strict=True)
    }
    assert list(rows) == list(plugins.algorithms())
    place = lines[0].index("defaults")
    listed = {name: " ".join(line[place:] for line in row).split() for name, row in rows.items()}
    assert {"group_size=8", "minibatches=2", "truncated_episodes=zero"} <= set(agreed.split())
    assert "group_size=8" not in listed["grpo"]
    assert {"overlong_buffer=0.2", "max_attempts=3"} <= set(listed["dapo"])
    assert {"base=GRPO", "base.dual_clip=3"} <= set(listed["aepo"])
    assert {"base=DrBoT", "replay_mode=some"} <= set(listed["spear"])
    assert "dual_clip=3" in listed["riskpo"] and "max_penalty=0.9" in listed["pear"]


def test_the_algorithms_readme_lists_the_installed_algorithms():
    import agentgym_trainers

    text = (Path(agentgym_trainers.__file__).parent / "README.md").read_text()
    for name, kind in plugins.algorithms().items():
        module = kind.__module__.rpartition(".")[2]
        cells = " | ".join(kind.about[1:])
        assert f"| `{name}` | `{module}.py` | [{kind.about.arxiv}](" in text, name
        assert f") | {cells} |" in text, name


def test_a_config_file_selects_the_base_of_an_algorithm(tmp_path):
    from agentgym_trainers.epo import EPO
    from agentgym_trainers.grpo import GRPO
    from agentgym_trainers.ppo import PPO

    for host, text in [
        (PPO(gae_lambda=0.9), "{gae_lambda: 0.9}"),
        (GRPO(clip_ratio_low=0.1), "{clip_ratio_low: 0.1}"),
    ]:
        path = tmp_path / "c.yaml"
        path.write_text(f"base: {text}\n")
        assert yaml_config.load(EPO, path) == EPO(base=host)


def test_a_person_can_play(monkeypatch, capsys):
    lines = iter([":hint", "50", ":hlep", ":quit"])
    monkeypatch.setattr("builtins.input", lambda *args: next(lines))
    words = ["play", "agentgym/Hotter-v0", "--task", "hotter-3", "--env-args", "high", "80"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "I hide a number from 1 to 80" in shown and "Higher." in shown and "score 0.00" in shown
    assert "commands: :hint, :actions, :quit" in shown
    assert "Find the number." in shown  # the goal, which the observation does not state


def test_a_configuration_round_trips_through_a_file(tmp_path):
    arguments = {"high": 20, "deep": True, "low": 1e-5, "text": "1e-5", "word": "false"}
    plan = Experiment(env_args=arguments, steps=3, model="m")
    path = tmp_path / "c.yaml"
    path.write_text(yaml_config.dump(plan))
    assert yaml_config.load(Experiment, path) == plan


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stpes: 3", "no field 'stpes'. Did you mean 'steps'?"),
        ("rollout: {turn: 3}", "RolloutSettings has no field 'turn'. Did you mean 'max_turns'?"),
        ("steps: ten", "steps is 'ten', expected int"),
        ("agent: {action_format: tag}", "agent.action_format is 'tag'"),
        ("rollout: 3", "rollout is 3, expected the fields of Rollout"),
        ("a: [", "is not YAML"),
    ],
)
def test_an_invalid_configuration_gives_a_one_line_error(tmp_path, text, expected):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        yaml_config.load(Experiment, path)
    assert expected in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["1e-5", "1E-5", "1.0e-5", "+1.e-5", "0.00001"])
def test_scientific_notation_is_parsed_as_a_number(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(f"optimizer: {{learning_rate: {text}}}")
    assert yaml_config.load(Experiment, path).optimizer.learning_rate == 1e-5


def test_config_files_are_utf_8_in_any_locale_with_or_without_a_byte_order_mark(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_bytes("\ufeffagent: {system_prompt: 'Antworte höflich: 日本'}".encode())
    code = (
        f"from agentgym.utils import yaml_config as y; from agentgym.settings import Experiment; "
        f"print(ascii(y.load(Experiment, {str(path)!r}).agent.system_prompt))"
    )
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.stdout.strip() == ascii("Antworte höflich: 日本"), done.stderr


@pytest.mark.parametrize(("field", "given"), [("env", TextEnv), ("model", object()), ("model", 3)])
def test_an_object_in_place_of_a_name_is_rejected(field, given):
    with pytest.raises(ConfigError, match=rf"{field} is a \w+, expected a name: give objects to"):
        Experiment(**{field: given})


@pytest.mark.parametrize(
    ("text", "value"),
    [("false", False), ("True", True), ("3", 3), ("0.5", 0.5), ("1e-5", 1e-5), ("x", "x")],
)
def test_environment_arguments_are_numbers_booleans_or_text(text, value):
    found = take_pairs(words := ["--env-args", "a", text, "--seed", "1"], "--env-args")["a"]
    assert (found, type(found), words) == (value, type(value), ["--seed", "1"])


def test_every_option_of_another_library_maps_to_an_existing_option():
    from agentgym.cli.flags import FOREIGN, TAKEN_FIRST, known_flags

    kinds = plugins.algorithms().values()
    algo = {f"algo.{name}" for kind in kinds for name in known_flags(kind())}
    known = known_flags(Experiment) | algo | set(TAKEN_FIRST) | {"out", "data"}
    assert {name: ours for name, ours in FOREIGN.items() if ours not in known} == {}


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["probe", "m", "--world", "hotter"], " Did you mean --env?"),
        (["probe", "m", "--config", "x.yaml"], ""),
    ],
)
def test_an_option_that_a_verb_lacks_is_not_suggested_for_itself(words, meant, capsys):
    """``train`` takes ``--world`` and ``--config`` before its other options, ``probe`` does not."""
    assert main(words) == 2
    assert f"no option {words[2]}.{meant} `agentgym probe --help`" in capsys.readouterr().err


def test_the_checked_options_equal_those_of_the_parser(capsys):
    from agentgym.cli.flags import known_flags
    from agentgym.cli.worlds import PlayOptions

    with pytest.raises(SystemExit):
        main(["play", "--help"])
    shown = set(re.findall(r"--([a-z][a-z.-]*)", capsys.readouterr().out))
    assert shown - {"env-args"} <= known_flags(PlayOptions)


def test_a_missing_extra_raises_an_import_error():
    assert issubclass(MissingExtra, ImportError)
