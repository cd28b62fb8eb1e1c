"""The tool that stands for text actions, for models that act by calling tools."""

from __future__ import annotations

from typing import Any

ACT: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "act",
        "description": "Take one action in the environment.",
        "parameters": {
            "type": "object",
            "properties": {"action": {"type": "string", "description": "The action, as text."}},
            "required": ["action"],
        },
    },
}
"""The one tool of an environment with text actions, and one of several of ``WithTools``."""
