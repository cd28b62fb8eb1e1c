"""Arguments checked against the JSON schema of a tool."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from agentgym.errors import ConfigError, MalformedAction
from agentgym.tools.tool import Check


def schema_check(name: str, schema: dict[str, Any]) -> Check:
    """Checks arguments against a JSON schema; remote references are not fetched."""
    from jsonschema import Draft202012Validator, SchemaError
    from referencing import Registry

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as problem:
        raise ConfigError(f"tool {name!r} has no valid schema: {problem.message}") from None
    validator = Draft202012Validator(schema, registry=Registry())
    properties = schema.get("properties", {})

    def check(given: Mapping[str, object], texts: bool) -> dict[str, Any]:
        arguments = {
            key: _read(str(value), properties.get(key, {})) if texts else value
            for key, value in given.items()
        }
        faults = sorted(validator.iter_errors(arguments), key=lambda fault: str(fault.json_path))
        if faults:
            messages = (f"{fault.json_path}: {fault.message[:120]}." for fault in faults[:3])
            raise MalformedAction(" ".join(messages))
        return arguments

    return check


def _read(text: str, schema: Mapping[str, Any]) -> object:
    """A text from a tag as a value of the parameter's type."""
    if "string" in json.dumps(schema.get("type", "string")):
        return text
    try:
        found: object = json.loads(text)
    except ValueError:
        return text
    return found
