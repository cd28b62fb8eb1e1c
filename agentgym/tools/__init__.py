"""Tools for agents: typed functions that a model calls, in any environment.

A tool is a typed function, sync or async, or an object with a typed ``__call__``; its JSON schema
comes from the signature and the docstring (``tool.py``). A model calls it in one of two notations
(``calls.py``), within limits (``limits.py``). ``WithTools`` adds tools to any environment, and a
``ToolEnv`` is an environment where every action is a tool call (``env.py``); ``PythonTool`` is an
interpreter in the sandbox (``python.py``). Needs the extra ``tools``.
"""

from agentgym.tools.calls import Call, CallNotation, HermesCalls, TagCalls
from agentgym.tools.env import ToolEnv, WithTools
from agentgym.tools.limits import CallLimits, Cut, cut_characters, cut_tokens
from agentgym.tools.python import PythonTool
from agentgym.tools.tool import Tool, tool

__all__ = [
    "Call",
    "CallLimits",
    "CallNotation",
    "Cut",
    "HermesCalls",
    "PythonTool",
    "TagCalls",
    "Tool",
    "ToolEnv",
    "WithTools",
    "cut_characters",
    "cut_tokens",
    "tool",
]
