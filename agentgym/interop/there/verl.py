"""Our environments in verl: an agent loop, known as ``agentgym``.

Rows of the dataset name the environment: ``{"agent_name": "agentgym", "prompt": [], "extra_info":
{"env": "hotter", "task": "hotter-3"}}``; ``rows`` makes them. verl finds the loop through
``actor_rollout_ref.rollout.agent.agent_loop_config_path``, or when its workers import this module.
"""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

from agentgym.errors import MissingExtra
from agentgym.interop.there.episode import EnvEpisode, task_ids

try:
    from verl.experimental.agent_loop.agent_loop import (
        AgentLoopBase,
        AgentLoopMetrics,
        AgentLoopOutput,
        register,
    )
except ImportError as problem:
    raise MissingExtra(f"pip install verl ({problem})") from None

NAME = "agentgym"


@register(NAME)
class AgentGymAgentLoop(AgentLoopBase):  # type: ignore[misc]
    """Plays one episode: the environment answers each completion as the user."""

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> Any:
        """The tokens of the episode; those of the environment are masked."""
        row = dict(kwargs.get("extra_info") or {})
        episode = await asyncio.to_thread(EnvEpisode, row["env"], row.get("env_args") or {})
        try:
            return await self._play(episode, row, sampling_params)
        finally:
            await asyncio.to_thread(episode.close)

    async def _play(
        self, episode: EnvEpisode, row: dict[str, Any], sampling: dict[str, Any]
    ) -> Any:
        manual, shown = await asyncio.to_thread(
            episode.start, row.get("task"), int(row.get("seed", 0))
        )
        messages = [{"role": "system", "content": manual}, {"role": "user", "content": shown}]
        tokens = list(await self.ct_build_initial_tokens(messages))
        start, limit = len(tokens), int(self.rollout_config.response_length)
        mask: list[int] = []
        logprobs: list[float] | None = []
        request, turns = uuid4().hex, 0
        while len(mask) < limit and not episode.done:
            output = await self.server_manager.generate(
                request_id=request, prompt_ids=tokens, sampling_params=sampling
            )
            logprobs = None if output.log_probs is None else logprobs
            merged, mask, logprobs = await self.ct_merge_assistant_token(
                tokens, output.token_ids, mask, logprobs, assistant_logprobs=output.log_probs
            )
            tokens, turns = list(merged.token_ids), turns + 1
            text = self.tokenizer.decode(output.token_ids, skip_special_tokens=True)
            shown, _ = await asyncio.to_thread(episode.act, text)
            before = [*messages, {"role": "assistant", "content": text}]
            messages = [*before, {"role": "user", "content": shown}]
            if not episode.done:
                merged, mask, logprobs = await self.ct_merge_context_msg(
                    before, messages, tokens, mask, logprobs
                )
                tokens = list(merged.token_ids)
        return AgentLoopOutput(
            prompt_ids=tokens[:start],
            response_ids=tokens[start : start + limit],
            response_mask=mask[:limit],
            response_logprobs=logprobs[:limit] if logprobs else None,
            reward_score=episode.reward,
            num_turns=2 * turns + 1,
            metrics=AgentLoopMetrics(),
            extra_fields={"turn_scores": [], "tool_rewards": [], "won": episode.won},
        )


def rows(env: str, split: str = "train", count: int | None = None, **env_args: Any) -> list[Any]:
    """Rows of a dataset for verl, one per task; write them with ``pyarrow`` or ``datasets``."""
    return [
        {
            "agent_name": NAME,
            "prompt": [],
            "data_source": env,
            "extra_info": {"env": env, "task": task, "env_args": env_args},
        }
        for task in task_ids(env, split, count, env_args)
    ]
