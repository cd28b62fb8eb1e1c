"""A sandbox for Python that a model wrote: confined interpreters, forked from a warm server.

``Sandbox().run(code)`` runs a program by itself; ``Sandbox().session()`` is an interpreter that
remembers its variables from cell to cell, and can be forked. Linux on x86-64; what it holds
against, and what not, is told in ``docs/how-to/sandbox.md``.
"""

from agentgym.sandbox.limits import LAYERS, Result, SandboxLimits, Status
from agentgym.sandbox.session import Sandbox, Session

__all__ = ["LAYERS", "Result", "Sandbox", "SandboxLimits", "Session", "Status"]
