"""Our agent loop in verl: its base class, its tokens, and a policy that answers by rule."""

import asyncio
import types

import pytest

pytest.importorskip("verl.experimental.agent_loop.agent_loop")

from omegaconf import OmegaConf
from verl.experimental.agent_loop import agent_loop
from verl.utils.dataset.rl_dataset import RLHFDataset

from agentgym.env.registry import world
from agentgym.interop.there import verl as there
from agentgym.models import from_scratch

pytestmark = pytest.mark.filterwarnings("ignore")

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_its_agent_loop_plays_our_environment():
    tokenizer = from_scratch.make_tokenizer([TEMPLATE, *map(chr, range(32, 127))] * 2, 512)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})  # type: ignore[attr-defined]
    tokenizer.chat_template = TEMPLATE
    own = world("hotter")
    own.reset(seed=0, options={"task": "hotter-12"})
    plan = list(own.oracle())

    class Server:
        """Answers with the oracle's next action."""

        async def generate(self, request_id, *, prompt_ids, sampling_params, **more):
            ids = tokenizer.encode(plan.pop(0) + "<|im_end|>", add_special_tokens=False)
            return types.SimpleNamespace(token_ids=ids, log_probs=[-0.5] * len(ids))

    config = OmegaConf.create(
        {
            "actor_rollout_ref": {"rollout": {"prompt_length": 4096, "response_length": 2048}},
            "data": {},
        }
    )
    wrapped = agent_loop.DictConfigWrap(config), agent_loop.DictConfigWrap(config.data)

    async def play():
        loop = there.AgentGymAgentLoop(
            wrapped[0], Server(), tokenizer, None, RLHFDataset, wrapped[1]
        )
        (row,) = [
            each for each in there.rows("hotter") if each["extra_info"]["task"] == "hotter-12"
        ]
        return await loop.run({}, **row)

    count = len(plan)
    output = asyncio.run(play())
    assert output.reward_score == 1.0 and output.extra_fields["won"]
    assert len(output.response_ids) == len(output.response_mask) == len(output.response_logprobs)
    assert 0 < sum(output.response_mask) < len(output.response_mask)
    assert output.num_turns == 2 * count + 1
    text = tokenizer.decode(output.prompt_ids)
    assert "I hide a number" in text
