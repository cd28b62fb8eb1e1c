"""The interpreter as a tool: one confined session per episode, which forks with its world."""

from __future__ import annotations

from agentgym.sandbox import Result, Sandbox, Status


class PythonTool:
    """Run Python code.

    Returns printed output and the value of the last expression. Variables persist between calls.
    """

    name = "python"

    def __init__(self, sandbox: Sandbox | None = None) -> None:
        """The interpreter starts at the first call."""
        self.sandbox = sandbox or Sandbox()
        self._session = self.sandbox.session()

    def __call__(self, code: str) -> str:
        """Run a cell.

        Args:
            code: Python source.
        """
        return result_text(self._session.run(code))

    def reset(self) -> None:
        """Start an episode without variables."""
        self._session.close()

    def fork(self) -> PythonTool:
        """An independent copy with the same variables."""
        other = PythonTool(self.sandbox)
        other._session = self._session.fork()
        return other

    def close(self) -> None:
        """End the interpreter."""
        self._session.close()


def result_text(result: Result) -> str:
    """A result as the model reads it: printed output, the value, the error in one line."""
    parts = [result.stdout.rstrip("\n"), result.value]
    if result.status is Status.TIMEOUT:
        parts.append(f"Timeout: {result.error}")
    elif result.error:
        parts.append(result.error)
    if result.lost:
        parts.append("The interpreter was restarted: its variables are lost.")
    return "\n".join(filter(None, parts)) or "(no output)"
