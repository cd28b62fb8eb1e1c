"""A sandbox for model-written Python: confined interpreters, forked from a warm server.

``Sandbox().run(code)`` runs one program in a new interpreter; ``Sandbox().session()`` is an
interpreter that keeps its variables between cells and can be forked. Linux on x86-64 only;
``docs/how-to/sandbox.md`` states what it protects against.
"""

from agentgym.sandbox.limits import LAYERS, Result, SandboxLimits, Status
from agentgym.sandbox.session import Sandbox, Session

__all__ = ["LAYERS", "Result", "Sandbox", "SandboxLimits", "Session", "Status"]
