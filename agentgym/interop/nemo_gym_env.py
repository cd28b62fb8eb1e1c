"""Resource servers of NeMo Gym: ``nemo-gym:URL`` with a file of rows.

A row is a task: its input is the prompt, its tools are routes of the server. An action calls some
of them; one that calls none is the answer, which the server verifies.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from agentgym.env.base import Opening, Promises, unknown_task
from agentgym.errors import ConfigError, EnvError, MalformedAction
from agentgym.interop.foreign import ForeignEnv, Reply
from agentgym.interop.rows import read_rows, split_rows
from agentgym.interop.web import Answer, checked_url, request
from agentgym.tools.calls import Call, HermesCalls

_LONGEST = 8000
"""Characters of a tool's result that are shown."""


class NeMoGymWorld(ForeignEnv):
    """A resource server that runs, such as NeMo Gym's ``ng_run`` starts them."""

    kind = "nemo-gym"
    promises = Promises(fork="replay", success=False)

    def __init__(
        self, target: str, *, data: str = "", timeout: float = 60.0, **kwargs: Any
    ) -> None:
        """Read the rows; see ``ForeignEnv`` for further arguments.

        Args:
            target: Address of the server.
            data: JSON Lines file of rows with ``responses_create_params``.
            timeout: Seconds in which each answer must come.
            **kwargs: Those of ``ForeignEnv``.

        Raises:
            ConfigError: The address, the file or a row is not as expected.
        """
        super().__init__(target, **kwargs)
        self.url = checked_url(target, self.kind)
        self.timeout = timeout
        if not data:
            raise ConfigError(f"{self.name} takes its tasks from a file of rows: `--data FILE`")
        self._rows = read_rows(data)
        for number, row in enumerate(self._rows):
            if not isinstance(row.get("responses_create_params"), dict):
                raise ConfigError(f"data: row {number} of {data} has no responses_create_params")
        self._notation = HermesCalls()
        self._row: dict[str, Any] = {}
        self._cookie = ""
        self._output: list[dict[str, Any]] = []

    def tasks(self, split: str) -> Sequence[str]:
        """The rows of the file."""
        return split_rows(self._rows, self.name, split)

    def begin(self, task: str, seed: int) -> Opening:
        """Seed a session with the row."""
        known = [f"row-{number}" for number in range(len(self._rows))]
        if task not in known:
            raise unknown_task(self.name, task, known)
        self._row, self._cookie, self._output = self._rows[known.index(task)], "", []
        self._post("/seed_session", self._row)
        params = self._row["responses_create_params"]
        given = params.get("input", "")
        messages = [{"content": given}] if isinstance(given, str) else given
        shown = "\n\n".join(_content(message.get("content", "")) for message in messages)
        listed = "\n".join(json.dumps(each, ensure_ascii=False) for each in self._tools().values())
        tools = f"\n\nTools:\n{listed}" if listed else ""
        return Opening(shown, f"Do what the task asks.{tools}")

    def respond(self, action: str) -> Reply:
        """Call tools, or answer and be verified."""
        calls = self._notation.parse(action, ())
        if not calls:
            return self._verified(action)
        texts, valid = [], True
        for call in calls:
            try:
                text = self._called(call)
            except MalformedAction as problem:
                text, valid = str(problem), False
            texts.append(self._notation.result(text[:_LONGEST]))
        return Reply("\n".join(texts), valid=valid)

    def manual(self) -> str:
        """How tools are called."""
        return (
            "The goal lists the tools of the task. Call one by a JSON object:\n"
            '<tool_call>{"name": "...", "arguments": {...}}</tool_call>\n'
            "An action without a call is your answer; it ends the episode."
        )

    def _tools(self) -> dict[str, Any]:
        listed = self._row["responses_create_params"].get("tools") or []
        return {str(each.get("name")): each for each in listed}

    def _called(self, call: Call) -> str:
        if call.problem:
            raise MalformedAction(call.problem)
        if call.name not in self._tools():
            names = ", ".join(self._tools()) or "none"
            raise MalformedAction(f"There is no tool {call.name[:80]!r}. Tools: {names}.")
        number = str(len(self._output))
        arguments = json.dumps(dict(call.arguments))
        item = {"type": "function_call", "call_id": number, "name": call.name}
        answer = self._ask(f"/{call.name}", dict(call.arguments))
        text = answer.data.decode(errors="replace")
        self._output += [
            {**item, "arguments": arguments},
            {"type": "function_call_output", "call_id": number, "output": text},
        ]
        if answer.status >= 500:
            raise EnvError(f"{self.url}/{call.name} answered {answer.status}: {text[:200]}")
        if answer.status >= 400:
            raise MalformedAction(f"The call was refused: {text[:500]}")
        return text

    def _verified(self, action: str) -> Reply:
        content = [{"type": "output_text", "text": action, "annotations": []}]
        message = {"id": "msg", "type": "message", "role": "assistant", "status": "completed"}
        response = {
            "id": "resp",
            "created_at": time.time(),
            "model": "policy",
            "object": "response",
            "output": [*self._output, {**message, "content": content}],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": self._row["responses_create_params"].get("tools") or [],
        }
        reported = self._post("/verify", {**self._row, "response": response})
        reward = reported.get("reward") if isinstance(reported, dict) else None
        if reward is None:
            raise EnvError(f"{self.url}/verify answered {reported!r:.80}, expected a reward")
        return Reply("", reward, True)

    def _post(self, path: str, body: Any) -> Any:
        answer = self._ask(path, body)
        if answer.status >= 400:
            raise EnvError(f"{self.url}{path} answered {answer.status}: {answer.data[:300]!r}")
        try:
            return json.loads(answer.data)
        except ValueError:
            raise EnvError(
                f"{self.url}{path} answered {answer.data[:80]!r}, expected JSON"
            ) from None

    def _ask(self, path: str, body: Any) -> Answer:
        headers = {"Cookie": self._cookie} if self._cookie else {}
        answer = request(self.url, path, timeout=self.timeout, body=body, headers=headers)
        if cookie := answer.headers.get("set-cookie"):
            self._cookie = cookie.partition(";")[0]
        return answer


def _content(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text", "")) for part in content)
