"""The interpreter as a tool: one confined session per episode, which forks with its world."""

from __future__ import annotations

from agentgym.sandbox import Result, Sandbox, Status


class PythonTool:
    """Run Python code.

    Prints and the value of the last expression come back. Variables are kept from call to call.
    """

    name = "python"

    def __init__(self, sandbox: Sandbox | None = None) -> None:
        """Nothing is started before the first call."""
        self.sandbox = sandbox or Sandbox()
        self._session = self.sandbox.session()

    def __call__(self, code: str) -> str:
        """Run a cell.

        Args:
            code: Python source.
        """
        return told(self._session.run(code))

    def begin(self) -> None:
        """A new episode has no variables."""
        self._session.close()

    def fork(self) -> PythonTool:
        """The same variables, going their own way."""
        other = PythonTool(self.sandbox)
        other._session = self._session.fork()
        return other

    def close(self) -> None:
        """End the interpreter."""
        self._session.close()


def told(result: Result) -> str:
    """What a model reads of a result: prints, the value, the error in one line."""
    parts = [result.stdout.rstrip("\n"), result.value]
    if result.status is Status.TIMEOUT:
        parts.append(f"Timeout: {result.error}")
    elif result.error:
        parts.append(result.error)
    if result.lost:
        parts.append("The interpreter was started anew: its variables are gone.")
    return "\n".join(filter(None, parts)) or "(no output)"
