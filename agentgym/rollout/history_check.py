"""Whether a conversation that keeps what was sampled is what the chat template would render."""

from __future__ import annotations

from agentgym.rollout.agent import ChatAgent
from agentgym.rollout.prompts import AgentInput
from agentgym.types import Completion, Turn


def history_note(agent: ChatAgent) -> str:
    """One line if ``history="append"`` differs from the chat template; else empty.

    Compares whole renderings of three turns, without thoughts and with them.
    """
    if agent.window is not None or agent.history == "rerender":
        return ""
    rewritten = [
        kind for kind in ("answers", "thoughts") if _rewrites(agent, thoughts=kind == "thoughts")
    ]
    if not rewritten:
        return ""
    return (
        f"the chat template rewrites {' and '.join(rewritten)} of earlier turns; the "
        "conversation keeps what was sampled (`--agent.history rerender` follows the template)"
    )


def _rewrites(agent: ChatAgent, *, thoughts: bool) -> bool:
    shown, markers = AgentInput("goal", "start", "start"), agent.template.thoughts
    turns: list[Turn] = []
    context: tuple[int, ...] = ()
    for _ in range(2):
        prompt = agent.prompt(shown, turns)
        written = agent.encode_action("look")
        if thoughts:
            text = agent.completions.written("look").removeprefix(agent.template.answer_header)
            closed = markers.closed("hm") + markers.answer
            opened = agent.template.opens_thought
            thought = closed.lstrip("\n") if opened else markers.opening + closed
            written = (*agent.template.encode(thought + text), *written[-1:])
        zeros = (0.0,) * len(written)
        context = (*context, *prompt.tokens, *written)
        completion = Completion(written, zeros, zeros)
        turns.append(Turn(prompt.tokens, completion, "look", "start", 0.0, prompt.fresh))
    prompt = agent.prompt(shown, turns)
    read = agent.tokenizer.decode([*context, *prompt.tokens])
    return bool(read != agent.rendered(shown, turns))
