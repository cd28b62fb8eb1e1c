"""TRL both ways: its trainer on our environments, and its environment classes here."""

import json
import sys

import pytest

pytest.importorskip("trl")

from agentgym.env.registry import world
from agentgym.errors import ConfigError, UnknownTask

COUNTER = '''
class Counter:
    """Count up to a number."""

    def reset(self, goal: int = 3, seed: int = 0, **row) -> str:
        self.goal, self.at = goal + seed % 2, 0
        return f"Count to {self.goal}."

    def add(self, number: int) -> str:
        """Add a number.

        Args:
            number: What to add.
        """
        self.at += number
        return f"At {self.at}."

    def get_reward(self) -> float:
        return float(self.at == self.goal)
'''


def call(**arguments):
    return f"<tool_call>{json.dumps({'name': 'add', 'arguments': arguments})}</tool_call>"


@pytest.fixture
def counter(tmp_path):
    (tmp_path / "counter.py").write_text(COUNTER)
    yield f"trl:{tmp_path / 'counter.py'}:Counter"
    for name in [name for name in sys.modules if name.startswith("counter_")]:
        del sys.modules[name]


def test_an_environment_class_of_trl_is_played(counter):
    env = world(counter)
    opening, info = env.reset(seed=0, options={"task": "seed-0"})
    assert opening == "Count to 3." and "Add a number." in info["manual"]
    text, reward, terminated, _, info = env.step(call(number=3))
    assert "At 3." in text and (reward, terminated) == (0.0, False)
    assert env.step(call(number="x"))[4]["action_valid"] is False
    _, reward, terminated, _, info = env.step("Done.")
    assert (reward, terminated, info["won"], info["score"]) == (1.0, True, True, 1.0)
    assert env.reset(options={"task": "seed-1"})[0] == "Count to 4."
    with pytest.raises(ConfigError, match=r"cannot be forked.*such as grpo"):
        env.fork()
    with pytest.raises(UnknownTask):
        env.reset(options={"task": "seed-5000"})


def test_rows_of_a_dataset_are_the_tasks(counter, tmp_path):
    rows = [{"goal": n, "prompt": [{"role": "user", "content": "Please."}]} for n in range(10)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    env = world(counter, data=str(tmp_path / "rows.jsonl"))
    assert env.promises.panels and [len(env.tasks(s)) for s in ("train", "test")] == [8, 1]
    opening = env.reset(seed=2, options={"task": "row-9"})[0]
    assert opening.startswith("Please.\n\nCount to ")


def test_a_class_that_trl_could_not_use_is_one_line(tmp_path):
    (tmp_path / "bare.py").write_text("class Bare:\n    def reset(self):\n        pass\n")
    with pytest.raises(ConfigError, match=r"has no method get_reward\(\)"):
        world(f"trl:{tmp_path / 'bare.py'}:Bare")


@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")
def test_trls_trainer_takes_two_steps_in_our_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    import torch
    from transformers import PreTrainedTokenizerFast
    from trl import GRPOConfig, GRPOTrainer

    from agentgym.interop.there import trl as there
    from agentgym.models import from_scratch
    from agentgym.settings import ScratchSettings

    tokenizer = tokenizer_with_tools(from_scratch, PreTrainedTokenizerFast)
    shape = ScratchSettings(
        hidden_size=16, num_layers=1, num_heads=2, num_kv_heads=1, intermediate_size=16
    )
    model = from_scratch.make_model(tokenizer, shape, context=4096, seed=1)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    played = []

    class Watched(there.environment_factory("hotter")):
        def reset(self, **row):
            played.append(row["task"])
            return super().reset(**row)

        def get_reward(self):
            # Two members of a group must differ, or nothing is learnt from untrained answers.
            return super().get_reward() + float(len(played) % 3)

    trainer = GRPOTrainer(
        model=model,
        processing_class=tokenizer,
        environment_factory=Watched,
        train_dataset=there.dataset("hotter", count=4),
        args=GRPOConfig(
            output_dir=str(tmp_path),
            max_steps=2,
            per_device_train_batch_size=2,
            num_generations=2,
            max_completion_length=16,
            learning_rate=1e-2,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            bf16=False,
        ),
    )
    trainer.train()
    assert trainer.state.global_step == 2
    assert {*played} <= {f"hotter-{n}" for n in range(1000)} and len(played) >= 4
    logged = [entry for entry in trainer.state.log_history if "reward" in entry]
    assert len(logged) == 2
    assert not all(map(torch.equal, before, model.parameters())) or logged[0]["reward_std"] == 0


def tokenizer_with_tools(from_scratch, kind):
    """A small tokenizer with the chat template of Qwen3, which TRL knows."""
    from pathlib import Path

    import trl

    template = (Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja").read_text()
    tokenizer = from_scratch.make_tokenizer([template, *map(chr, range(32, 127))] * 2, 512)
    tokenizer.chat_template = template
    return tokenizer
