"""A harness of verifiers that converses in its own process: no shell, no tools, no subprocess.

verifiers' own harnesses start a program for every turn. verifiers finds harnesses by the name of a
top-level module, so this one is known as ``agentgym_converse``.
"""

from __future__ import annotations

import sys
from typing import Any

import httpx
from verifiers.v1 import Harness, HarnessConfig, ProgramResult
from verifiers.v1.dialects.chat import message_to_wire

NAME = "agentgym_converse"
_SECONDS = 600.0
"""For one completion."""


class ConverseConfig(HarnessConfig):  # type: ignore[misc]
    """Nothing to choose."""

    id: Any = NAME


class ConverseHarness(Harness[ConverseConfig]):  # type: ignore[misc]
    """Sends the conversation to the model once per turn, and is done."""

    APPENDS_SYSTEM_PROMPT = True
    SUPPORTS_RESUME = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self,
        ctx: Any,
        trace: Any,
        runtime: Any,
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],
        data: Any,
        tool_interception_url: str | None = None,
    ) -> Any:
        """One completion; verifiers' endpoint records it in the trace."""
        system, prompt = self.resolve_prompt(data)
        first = [{"role": "system", "content": system}] if system else []
        messages = (
            [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt or []
        )
        rest = [each if isinstance(each, dict) else message_to_wire(each) for each in messages]
        async with httpx.AsyncClient(timeout=_SECONDS) as client:
            answer = await client.post(
                f"{endpoint.rstrip('/')}/chat/completions",
                headers={"Authorization": f"Bearer {secret}"},
                json={"model": ctx.model, "messages": [*first, *rest]},
            )
        failed = answer.status_code >= 400
        return ProgramResult(int(failed), "", answer.text[:2000] if failed else "")


sys.modules.setdefault(NAME, sys.modules[__name__])

__all__ = ["ConverseHarness"]
