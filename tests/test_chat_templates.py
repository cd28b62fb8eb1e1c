# ruff: noqa: RUF001 - DeepSeek writes fullwidth bars.
"""Growing conversations against the chat template itself: our own templates, and 41 real ones."""

import asyncio
import copy
import os
import re
from pathlib import Path

import pytest

from agentgym.batch.collate import collate
from agentgym.engines.scripted import ScriptedEngine
from agentgym.env.registry import world
from agentgym.errors import ConfigError
from agentgym.experiment.assemble import tokenizer_of
from agentgym.rollout.action_formats import NativeCalls, Tags
from agentgym.rollout.agent import AgentInput, ChatAgent
from agentgym.rollout.chat_template import PLAIN, ChatTemplate
from agentgym.rollout.completions import end_tokens
from agentgym.rollout.history_check import history_note
from agentgym.rollout.player import Player
from agentgym.rollout.setup import EpisodeLimits
from agentgym.settings import AgentSettings
from agentgym.types import Completion, Task, Turn

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SYSTEM = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}"
    "{% endif %}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}<|im_start|>{{ m.role }}\n"
    "{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PARTS = (
    "{% for m in messages %}{{ m.role }}: {% for part in m.content %}{% if part.type == 'text' %}"
    "{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
OPENS_AND_DROPS_THOUGHTS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.content.split('</think>')[-1] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n"
    "{% else %}<think>\n{% endif %}{% endif %}"
)
SYSTEM_IN_LAST_TURN = (
    "{% for m in messages if m.role != 'system' %}<|im_start|>{{ m.role }}\n"
    "{% if loop.last and messages[0].role == 'system' %}{{ messages[0].content }}\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOOLS = (
    "{% if tools %}<|im_start|>tools\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}"
    "<|im_end|>\n{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>\n"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}'
    "\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OWN = {
    "chatml": CHATML,
    "no system role": NO_SYSTEM,
    "parts": PARTS,
    "opens and drops thoughts": OPENS_AND_DROPS_THOUGHTS,
    "system in last turn": SYSTEM_IN_LAST_TURN,
    "tools": TOOLS,
    "plain": PLAIN,
}
DATA = Path(os.environ.get("AGENTGYM_DATA", "/nonexistent"), "chat_templates")
REAL = {path.stem: path for path in sorted(DATA.glob("*.jinja"))}

_SPECIAL = re.compile(
    r"<\|[A-Za-z_]+\|?>|<｜[^｜]+｜>|<(?:start|end)_of_turn>|<end_of_utterance>|</s>|\[/?INST\]"
    r"|<(?:turn|tool_call|tool_response|channel|tool)\|>"
)

DROPS_THOUGHTS = [
    *("deepseek_r1_distill", "deepseekv3", "gptoss", "nemotron_3_5_lightning"),
    *("nemotron_3_nano", "nemotron_3_super", "nemotron_3_ultra", "qwen3"),
]
"""Generation prompts or ends of turn that the history does not repeat; empty thoughts dropped."""
NOT_APPENDED = {
    "text": {*DROPS_THOUGHTS, "qwen3_5_nothink", "qwen3_5_think", "qwen3_6"},
    "thought": {
        *DROPS_THOUGHTS,
        *("qwen3_5_nothink", "qwen3_5_think", "qwen3_6", "diffusion_gemma", "gemma4", "gemma4_v3"),
        *("gemma4_v4", "gemma4_v5", "glm4moe", "idefics3", "lfm2_2_5", "lfm2_2_5_v2"),
        *("lfm2_2_5_vl", "llava_next", "smolvlm"),
    },
    "tools": {*DROPS_THOUGHTS, "diffusion_gemma"} - {"gptoss"},
}
"""Real templates that rewrite earlier turns, so that only ``rerender`` follows them exactly."""


def with_template(tokenizer, source, **tokens):
    """The tokenizer with a chat template, the control tokens of which are single tokens."""
    made = copy.deepcopy(tokenizer)
    found = list(dict.fromkeys(_SPECIAL.findall(source)))
    made.add_special_tokens({"additional_special_tokens": found, **tokens})
    made.chat_template = source
    return made


def completion(tokens):
    zeros = (0.0,) * len(tokens)
    return Completion(tuple(tokens), zeros, zeros)


def sampled(agent, kind, number):
    """What a model of the family would sample for one action."""
    tokens = agent.encode_action(f"go {number}")
    if kind != "thought":
        return tokens
    template = agent.template
    text = agent.decode(tokens).removeprefix(template.answer_header)
    markers = template.thoughts
    thought = markers.closed(f"I do not <action>stop {number}</action> yet.") + markers.answer
    thought = thought.lstrip("\n") if template.opens_thought else markers.opening + thought
    return (*template.encode(thought + text), *agent.stop[:1])


def conversation(agent, kind, turns=3):
    """Context and the template's rendering of the same messages, at every turn."""
    shown, done, context = AgentInput("The goal", "open", "open"), [], []
    for number in range(turns + 1):
        prompt = agent.prompt(shown, done)
        before = context
        context = list(prompt.tokens) if prompt.fresh else [*context, *prompt.tokens]
        assert prompt.fresh or context[: len(before)] == before
        messages = agent.conversation.messages(shown, done)
        yield context, agent.template.render(messages, tools=agent.conversation.schemas(shown))
        tokens = sampled(agent, kind, number)
        action = agent.parse(completion(tokens), context)
        assert action == f"go {number}"
        done.append(
            Turn(prompt.tokens, completion(tokens), action, f"obs {number}", 0.0, prompt.fresh)
        )
        context = [*context, *tokens]
        shown = shown._replace(observation=f"obs {number}")


def agent_for(tokenizer, kind, **options):
    form = NativeCalls() if kind == "tools" else Tags()
    return ChatAgent(tokenizer, action_format=form, **options)


@pytest.mark.parametrize("kind", ["text", "thought", "tools"])
@pytest.mark.parametrize("name", [*OWN, *REAL])
def test_rerendered_context_is_the_rendering_of_the_template(tokenizer, name, kind):
    source = OWN[name] if name in OWN else REAL[name].read_text()
    agent = agent_for(with_template(tokenizer, source), kind, history="rerender")
    for context, rendering in conversation(agent, kind):
        assert agent.tokenizer.decode(context) == rendering


@pytest.mark.parametrize("kind", ["text", "thought", "tools"])
@pytest.mark.parametrize("name", [*OWN, *REAL])
def test_appended_context_keeps_what_was_sampled_and_is_exact_where_the_template_appends(
    tokenizer, name, kind
):
    source = OWN[name] if name in OWN else REAL[name].read_text()
    agent = agent_for(with_template(tokenizer, source), kind)
    same = [
        agent.tokenizer.decode(context) == rendering
        for context, rendering in conversation(agent, kind)
    ]
    assert same[0]
    if name in REAL:
        assert all(same) == (name not in NOT_APPENDED[kind])


def test_templates_of_the_folder_are_all_read():
    if not REAL:
        pytest.skip("no AGENTGYM_DATA")
    assert len(REAL) >= 41


def test_a_system_prompt_without_a_role_is_folded_into_the_first_user_turn(tokenizer):
    agent = ChatAgent(with_template(tokenizer, NO_SYSTEM), system_prompt="Be quick.")
    text = agent.tokenizer.decode(agent.prompt(AgentInput("goal", "start", "start"), []).tokens)
    assert text == ("<|im_start|>user\nBe quick.\n\ngoal\nstart<|im_end|>\n<|im_start|>assistant\n")


def test_content_parts_are_used_where_the_template_wants_them(tokenizer):
    agent = ChatAgent(with_template(tokenizer, PARTS), system_prompt="")
    text = agent.tokenizer.decode(agent.prompt(AgentInput("goal", "start", "start"), []).tokens)
    assert text == "user: goal\nstart<|im_end|>\nassistant:"


def test_template_args_reach_the_template(tokenizer):
    made = with_template(tokenizer, OPENS_AND_DROPS_THOUGHTS)
    first = AgentInput("goal", "start", "start")
    on, off = ChatAgent(made), ChatAgent(made, template_args={"enable_thinking": False})
    assert made.decode(on.prompt(first, []).tokens).endswith("<think>\n")
    assert made.decode(off.prompt(first, []).tokens).endswith("<think>\n\n</think>\n\n")
    assert (on.template.opens_thought, off.template.opens_thought) == (True, False)
    with pytest.raises(ConfigError, match="tokenize"):
        ChatAgent(made, template_args={"tokenize": True})


def test_a_template_that_drops_thoughts_starts_new_rows_when_rerendered(tokenizer):
    made = with_template(tokenizer, OPENS_AND_DROPS_THOUGHTS)
    shown, done = AgentInput("goal", "start", "start"), []
    for history, fresh in (("append", False), ("rerender", True)):
        agent = ChatAgent(made, history=history)
        prompt = agent.prompt(shown, [])
        tokens = (*agent._encode("hm\n</think>\n\n<action>go</action>"), *agent.stop[:1])
        done = [Turn(prompt.tokens, completion(tokens), "go", "wall", 0.0, True)]
        following = agent.prompt(shown._replace(observation="wall"), done)
        assert following.fresh is fresh
        assert ("hm" in made.decode(following.tokens)) is False
        text = made.decode(following.tokens)
        assert text.endswith("user\nwall<|im_end|>\n<|im_start|>assistant\n<think>\n")


def test_a_template_without_eos_and_bos_tokens_renders_and_stops(tokenizer):
    made = with_template(tokenizer, "{{ bos_token + '' }}" + CHATML)
    made.eos_token = made.bos_token = made.pad_token = None
    agent = ChatAgent(made)
    assert agent.stop == (made.convert_tokens_to_ids("<|im_end|>"),)
    assert agent.prompt(AgentInput("g", "o", "o"), []).fresh


def test_a_tokenizer_that_adds_a_bos_adds_none_to_rendered_text(tokenizer):
    from tokenizers.processors import TemplateProcessing

    made = with_template(tokenizer, CHATML, bos_token="<|bos|>")
    made.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|bos|> $A", special_tokens=[("<|bos|>", made.bos_token_id)]
    )
    assert made.encode("x")[0] == made.bos_token_id
    agent = ChatAgent(made)
    first = agent.prompt(AgentInput("g", "o", "o"), [])
    assert made.bos_token_id not in first.tokens
    tokens = agent.encode_action("go")
    turn = Turn(first.tokens, completion(tokens), "go", "p", 0.0, True)
    assert made.bos_token_id not in agent.prompt(AgentInput("g", "o", "p"), [turn]).tokens


@pytest.mark.parametrize("window", [None, 2])
def test_end_of_turn_and_generation_config_stop_a_completion(tokenizer, window):
    made = with_template(tokenizer, CHATML)
    config = type("Config", (), {"eos_token_id": [7, 8]})
    model = type("Model", (), {"generation_config": config})
    agent = ChatAgent(made, window=window, stop_tokens=end_tokens(model))
    end = made.convert_tokens_to_ids("<|im_end|>")
    assert agent.stop == (end, made.eos_token_id, 7, 8)
    assert end_tokens("a/path") == () and end_tokens(None) == ()


@pytest.mark.parametrize(
    "source", ["{{ raise_exception('bad') }}", "{{ messages.nothing.at_all }}", "{% for %}"]
)
def test_a_template_that_raises_is_a_config_error_of_one_line(tokenizer, source):
    with pytest.raises(ConfigError) as error:
        ChatTemplate(with_template(tokenizer, source))
    assert "chat template" in str(error.value) and "\n" not in str(error.value)


def test_a_template_without_user_messages_is_refused(tokenizer):
    with pytest.raises(ConfigError, match="renders no user message"):
        ChatTemplate(with_template(tokenizer, "hello"))


@pytest.mark.parametrize("name", ["chatml", "opens and drops thoughts", "system in last turn"])
def test_training_rows_are_what_the_engine_read(tokenizer, name):
    agent = ChatAgent(with_template(tokenizer, OWN[name]), history="rerender")
    read = []

    def say(prompt, sampling):
        written = sampled(agent, "thought", len(read))
        read.append((*prompt, *written))
        return written

    player = Player(
        agent=agent,
        engine=ScriptedEngine(say),
        make_env=lambda task: world(task.env),
        limits=EpisodeLimits(turns=4, tokens=10_000),
    )
    played = asyncio.run(player(Task("agentgym/Hotter-v0", "hotter-3"), 0))
    batch = collate([[played]])
    rows = [batch.tokens[batch.row == row].tolist() for row in range(len(batch))]
    assert len(rows) == (1 if name == "chatml" else 4)
    assert all(row in [list(each) for each in read] for row in rows)
    assert rows[-1] == list(read[-1])


@pytest.mark.parametrize("name", [*OWN, *REAL])
def test_a_note_states_what_the_template_rewrites(tokenizer, name):
    source = OWN[name] if name in OWN else REAL[name].read_text()
    agent = agent_for(with_template(tokenizer, source), "text")
    note = history_note(agent)
    assert "\n" not in note
    if name in REAL:
        assert bool(note) == (name in NOT_APPENDED["text"] | NOT_APPENDED["thought"])
    assert history_note(ChatAgent(agent.tokenizer, history="rerender")) == ""


def test_the_model_made_from_nothing_needs_no_note(tokenizer):
    assert history_note(ChatAgent(tokenizer)) == ""


def test_end_tokens_are_read_from_a_model_folder(tmp_path):
    assert end_tokens(tmp_path) == ()
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [1, 2]}')
    assert end_tokens(str(tmp_path)) == (1, 2)


def test_a_chat_template_is_taken_from_the_settings(tokenizer, tmp_path):
    bare = copy.deepcopy(tokenizer)
    bare.chat_template = None
    bare.save_pretrained(tmp_path)
    assert tokenizer_of(tmp_path, AgentSettings(chat_template="plain")).chat_template == PLAIN
    (tmp_path / "own.jinja").write_text(CHATML)
    own = AgentSettings(chat_template=str(tmp_path / "own.jinja"))
    assert tokenizer_of(tmp_path, own).chat_template == CHATML
    with pytest.raises(ConfigError, match="Jinja"):
        tokenizer_of(tmp_path, AgentSettings(chat_template="nowhere.jinja"))


def test_the_plain_template_of_base_models_ends_answers_with_end_of_text(tokenizer):
    agent = ChatAgent(with_template(tokenizer, PLAIN), system_prompt="Act.")
    first = agent.prompt(AgentInput("goal", "start", "start"), [])
    tokens = agent.encode_action("go")
    assert tokens[-1] == agent.tokenizer.eos_token_id
    turn = Turn(first.tokens, completion(tokens), "go", "wall", 0.0, True)
    following = agent.prompt(AgentInput("goal", "start", "wall"), [turn])
    text = agent.tokenizer.decode([*first.tokens, *tokens, *following.tokens])
    assert text == (
        "Act.\n\n### Input\ngoal\nstart\n\n### Output\n<action>go</action><|end|>\n\n"
        "### Input\nwall\n\n### Output\n"
    )


@pytest.mark.parametrize("name", ["chatml", "opens and drops thoughts", "plain"])
def test_a_tokenizer_that_marks_word_starts_reads_the_same_tokens_in_pieces(name):
    """SentencePiece style: a text begins with a mark, and decoding drops it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE(byte_fallback=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    core.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first"), decoders.Fuse()]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256))],
        show_progress=False,
    )
    core.train_from_iterator(["### Input goal start go north </think> <action>"] * 9, trainer)
    made = with_template(
        PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>"), OWN[name]
    )
    agent = ChatAgent(made, history="rerender")
    shown, done = AgentInput("goal", "start", "start"), []
    for number in range(3):
        prompt = agent.prompt(shown, done)
        if prompt.fresh:
            rendering = agent.template.render(agent.conversation.messages(shown, done))
            assert prompt.tokens == agent.template.encode(rendering)
        tokens = agent.encode_action(f"go {number}")
        action = agent.parse(completion(tokens), prompt.tokens)
        assert action == f"go {number}"
        done.append(Turn(prompt.tokens, completion(tokens), action, "wall", 0.0, prompt.fresh))
        shown = shown._replace(observation="wall")
