"""Files of `agentgym export`, read by the projects that they are for; 1,000 episodes come back."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")
pytest.importorskip("inspect_ai")
sys.path.insert(0, str(Path(__file__).parent.parent))

from played_episodes import as_lines, odd, plain, play, sampled

from agentgym.evaluation.record_files import read_episodes
from agentgym.interchange.conversation import without
from agentgym.interchange.files import export, import_file
from agentgym.interchange.formats import FORMATS

pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.timeout(1800)]
TEMPLATE = (
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<|{{ m.role }}|>"
    "{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function.name }}"
    "{{ c.function.arguments }}{% endfor %}{% endfor %}"
)


@pytest.fixture(scope="module")
def episodes(tmp_path_factory):
    """500 that were played, and the same as if a model had sampled them."""
    found = play(tmp_path_factory.mktemp("played"), tasks=50, episodes=5)
    both = [*found, *(sampled(each, place) for place, each in enumerate(found))]
    assert len(both) == 1000
    return [*both, *odd()]


@pytest.fixture(scope="module")
def written(tmp_path_factory, episodes):
    folder = tmp_path_factory.mktemp("written")
    (folder / "episodes.jsonl").write_text(as_lines(episodes))
    return {name: export(folder / "episodes.jsonl", name).path for name in FORMATS}


@pytest.mark.parametrize("name", FORMATS)
def test_a_thousand_episodes_come_back(name, written, episodes, tmp_path):
    back = import_file(written[name], name, tmp_path / "back.jsonl")
    assert not back.warnings and back.episodes == 1003
    for found, each in zip(read_episodes(back.path), episodes, strict=True):
        assert plain(found) == plain(without(each, FORMATS[name].loses))


@pytest.mark.parametrize("name", ["openai", "trl", "verl"])
def test_datasets_gives_every_row(name, written, episodes, tmp_path):
    from datasets import load_dataset

    kind = "parquet" if name == "verl" else "json"
    rows = load_dataset(kind, data_files=str(written[name]), split="train", cache_dir=str(tmp_path))
    assert len(rows) == len(episodes)
    for row, each in zip(rows, episodes, strict=True):
        answers = [message for message in row["messages"] if message["role"] == "assistant"]
        assert len(answers) == len(each.turns)


def test_trl_renders_every_conversation(written, episodes, tmp_path):
    from datasets import load_dataset
    from transformers import PreTrainedTokenizerFast
    from trl import apply_chat_template
    from trl.data_utils import is_conversational

    from agentgym.models.from_scratch import make_tokenizer

    made = make_tokenizer((), 512)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made.backend_tokenizer)  # type: ignore[attr-defined]
    tokenizer.chat_template = TEMPLATE
    rows = load_dataset(
        "json", data_files=str(written["trl"]), split="train", cache_dir=str(tmp_path)
    )
    called = 0
    for row, each in zip(rows, episodes, strict=True):
        example = {"messages": row["messages"]}
        assert is_conversational(example)
        tools = json.loads(row["tools"]) if row["tools"] else None
        text = apply_chat_template(example, tokenizer, tools)["text"]
        assert text.count("<|assistant|>") == len(each.turns)
        names = [call.name for turn in each.turns for call in turn.calls]
        assert all(name in text for name in names)
        called += len(names)
    assert called > 500


@pytest.mark.parametrize("tools", [False, True])
def test_verl_reads_tasks_and_conversations(episodes, tmp_path, tools):
    """Only where verl is: it pins other versions of torch's companions, so no group installs it."""
    pytest.importorskip("verl")
    from omegaconf import OmegaConf
    from transformers import PreTrainedTokenizerFast
    from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset
    from verl.utils.dataset.rl_dataset import RLHFDataset

    from agentgym.models.from_scratch import make_tokenizer

    chosen = [each for each in episodes[:1000] if bool(each.tools) is tools][:40]
    (tmp_path / "e.jsonl").write_text(as_lines(chosen))
    file = str(export(tmp_path / "e.jsonl", "verl").path)
    made = make_tokenizer((), 512)
    backend: Any = made
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend.backend_tokenizer,
        pad_token=backend.pad_token,
        eos_token=backend.eos_token,
    )
    tokenizer.chat_template = TEMPLATE + "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    settings = {"cache_dir": str(tmp_path), "max_prompt_length": 8192}
    tasks = RLHFDataset([file], tokenizer, OmegaConf.create(settings))
    assert len(tasks) == len(chosen)
    assert [row["data_source"] for row in tasks] == [each.env for each in chosen]
    assert tasks[0]["raw_prompt"][-1]["content"].endswith(chosen[0].opening)
    talk = {"max_length": 32768, "truncation": "error", "pad_mode": "no_padding"}
    talks = MultiTurnSFTDataset([file], tokenizer, OmegaConf.create(talk))
    for row, each in zip(talks, chosen, strict=True):
        assert bool(row["loss_mask"].sum()) == bool(each.turns)
    assert ("tools" in load_columns(file)) is tools


def load_columns(file):
    from pyarrow import parquet

    return parquet.read_schema(file).names


def test_inspect_reads_samples_scores_and_metadata(written, episodes):
    from inspect_ai.analysis import samples_df
    from inspect_ai.log import read_eval_log

    log = read_eval_log(str(written["inspect"]))
    assert log.status == "success" and len(log.samples) == len(episodes)
    wins = [each.won for each in episodes if each.stop.scored]
    assert log.results.scores[0].metrics["success"].value == sum(wins) / len(wins)
    reported = {sample.uuid: sample for sample in log.samples}
    for place, each in enumerate(episodes):
        sample = reported[f"agentgym-{place:09d}"]
        assert sample.epoch == each.sample + 1
        assert (sample.scores is None) == (sample.error is not None) == (not each.stop.scored)
        if sample.scores:
            assert sample.scores["agentgym"].as_float() == each.score
    frame = samples_df(str(written["inspect"]))
    assert len(frame) == len(episodes)


@pytest.fixture(scope="module")
def trajectory_model(tmp_path_factory):
    """Harbor's own model of a trajectory, from its wheel: it needs pydantic alone."""
    folder = tmp_path_factory.mktemp("harbor")
    words = [
        "--quiet",
        "--no-deps",
        "--python-version",
        "3.12",
        "--only-binary=:all:",
        "harbor==0.26.0",
    ]
    subprocess.run([sys.executable, "-m", "pip", "download", *words, "-d", str(folder)], check=True)
    (wheel,) = folder.glob("harbor-*.whl")
    sys.path.insert(0, str(wheel))
    from harbor.models.trajectories import Trajectory

    yield Trajectory
    sys.path.remove(str(wheel))


def test_harbor_accepts_every_trajectory(written, episodes, trajectory_model):
    files = sorted(written["atif"].iterdir())
    assert len(files) == len(episodes)
    for file, each in zip(files, episodes, strict=True):
        found = trajectory_model.model_validate_json(file.read_text())
        agent = [step for step in found.steps if step.source == "agent"]
        assert len(agent) == len(each.turns)
        calls = [call for step in agent for call in step.tool_calls or ()]
        assert len(calls) == sum(len(turn.calls) for turn in each.turns)
    with pytest.raises(ValueError, match="step_id"):
        trajectory_model.model_validate_json(
            files[0].read_text().replace('"step_id":2', '"step_id":9')
        )


def test_a_log_that_inspect_wrote_itself_becomes_episodes(tmp_path):
    from inspect_ai import Task, eval
    from inspect_ai.dataset import Sample
    from inspect_ai.model import ChatMessageAssistant, ModelOutput
    from inspect_ai.scorer import includes
    from inspect_ai.solver import solver

    @solver
    def answers():
        """Without a model: those of Inspect count tokens with files from the network."""

        async def solve(state, generate):
            text = "It is 4." if state.sample_id == "sum-0" else "No idea."
            state.messages.append(ChatMessageAssistant(content=text))
            state.output = ModelOutput.from_content("none/none", text)
            return state

        return solve

    data = [Sample(id=f"sum-{n}", input="What is 2 + 2?", target="4") for n in range(2)]
    task = Task(dataset=data, solver=answers(), scorer=includes())
    (log,) = eval(task, model=None, log_dir=str(tmp_path), display="none")
    assert log.status == "success", log.error
    back = import_file(Path(log.location), out=tmp_path / "back.jsonl")
    found = read_episodes(back.path)
    assert [each.task for each in found] == ["sum-0", "sum-1"]
    assert [each.turns[0].text for each in found] == ["It is 4.", "No idea."]
    assert [(each.score, each.won) for each in found] == [(1.0, True), (0.0, False)]
    cut = tmp_path / "cut.eval"
    cut.write_bytes(Path(log.location).read_bytes()[:-200])
    with pytest.raises(ValueError, match="no log of Inspect, or was cut off") as refused:
        import_file(cut)
    assert "\n" not in str(refused.value)
