"""Text to the actions of any OpenEnv server, and its observations to text, by its schemas."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from agentgym.errors import ConfigError, EnvError, MalformedAction

_TEXTS = ("text", "prompt", "message", "observation", "content", "output", "response", "result")
"""Fields that hold what an agent reads, by preference."""


@dataclass(frozen=True)
class Form:
    """How a server's actions are written and its observations read."""

    action_field: str
    """The one field of an action, which takes the agent's text; empty: the agent writes JSON."""
    observation_field: str
    """The field that is shown; empty: the whole observation, as JSON."""
    action_schema: dict[str, Any]

    @classmethod
    def of(cls, schema: Any, *, action: str = "", observation: str = "") -> Form:
        """The form by a server's schemas.

        Args:
            schema: The response of ``/schema``.
            action: Field that takes the agent's text; empty: the only required text.
            observation: Field that is shown; empty: the only text.

        Raises:
            EnvError: The response holds no schemas.
            ConfigError: There is no such field.
        """
        schemas = [schema.get(key) if isinstance(schema, dict) else None for key in _KEYS]
        if not all(isinstance(each, dict) for each in schemas):
            raise EnvError(f"/schema answered {schema!r:.80}, expected schemas of {_KEYS}")
        acts, seen = ({**each.get("properties", {})} for each in schemas if each is not None)
        acts.pop("metadata", None)
        for name in ("metadata", "done", "reward"):
            seen.pop(name, None)
        for chosen, known in ((action, acts), (observation, seen)):
            if chosen and chosen not in known:
                raise ConfigError(f"no field {chosen!r}, expected one of {', '.join(known)}")
        assert schemas[0] is not None
        required = [name for name in schemas[0].get("required", ()) if name in acts] or list(acts)
        only = required[0] if len(required) == 1 and _is_text(acts[required[0]]) else ""
        return cls(action or only, observation or _readable(seen), schemas[0])

    def write(self, action: str) -> dict[str, Any]:
        """The action of a text.

        Raises:
            MalformedAction: The agent must write a JSON object and did not.
        """
        if self.action_field:
            return {self.action_field: action}
        try:
            value = json.loads(action)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise MalformedAction(f"An action is a JSON object: {self.example()}")
        return value

    def read(self, observation: Any) -> str:
        """The text of an observation.

        Raises:
            EnvError: The observation is not what the schema promises.
        """
        if not isinstance(observation, dict):
            raise EnvError(f"the observation is {observation!r:.80}, expected an object")
        if not self.observation_field:
            shown = {key: value for key, value in observation.items() if key != "metadata"}
            return json.dumps(shown, ensure_ascii=False)
        value = observation.get(self.observation_field)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise EnvError(
                f"the observation's {self.observation_field!r} is {value!r:.80} of type "
                f"{type(value).__name__}, the schema promises a text"
            )
        return value

    def example(self) -> str:
        """How an action is written."""
        if self.action_field:
            return "any text"
        fields = self.action_schema.get("properties", {})
        return json.dumps(
            {
                name: f"<{inner.get('type', 'value')}>"
                for name, inner in fields.items()
                if name != "metadata" and isinstance(inner, dict)
            }
        )


_KEYS = ("action", "observation")


def _is_text(schema: Any) -> bool:
    return isinstance(schema, dict) and schema.get("type") == "string"


def _readable(fields: dict[str, Any]) -> str:
    """The field to show: the only text, or the first that is usually one."""
    texts = [name for name, inner in fields.items() if _is_text(inner)]
    if len(texts) == 1:
        return texts[0]
    return next((name for name in _TEXTS if name in texts), "")
