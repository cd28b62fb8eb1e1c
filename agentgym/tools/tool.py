"""What a tool is: a typed callable, its schema, and the validation of its arguments."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MethodType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    NotRequired,
    Required,
    Self,
    cast,
    get_type_hints,
)

from agentgym.errors import ConfigError, MalformedAction, MissingExtra

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

Check = Callable[[Mapping[str, object], bool], dict[str, Any]]
"""Arguments as a model gave them, and whether they are all texts -> arguments of the callable."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that a model can call by name; ``tool`` makes one from a function.

    A callable object may keep state. It then needs ``fork() -> object``, an independent copy for
    a forked environment; it may have ``reset()``, called at the start of an episode, and
    ``close()``. A callable without ``fork`` is shared by all forks.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    """JSON schema of the arguments, an object."""
    check: Check
    call: Callable[..., Any]
    """Returns a text, an ``Outcome`` that acts on the environment, or a JSON value.

    Raises ``MalformedAction``, ``ValueError``, ``LookupError`` or ``ArithmeticError`` for bad
    arguments, and ``Unreachable`` or ``ConnectionError`` where a retry may succeed. Any other
    exception means that the tool is broken.
    """

    @property
    def schema(self) -> dict[str, Any]:
        """The function as chat templates and model APIs list it."""
        function = {
            "name": self.name,
            "description": self.description,
            "parameters": self.parameters,
        }
        return {"type": "function", "function": function}

    @property
    def signature(self) -> str:
        """One line, such as ``search(query: string, k: integer = 5)``."""
        required = self.parameters.get("required", ())
        parts = []
        for name, schema in self.parameters.get("properties", {}).items():
            default = "" if name in required else f" = {json.dumps(schema.get('default'))}"
            parts.append(f"{name}: {_kind(schema)}{default}")
        return f"{self.name}({', '.join(parts)})"

    def arguments(self, given: Mapping[str, object], *, texts: bool = False) -> dict[str, Any]:
        """Arguments for ``call``.

        Args:
            given: As the model wrote them.
            texts: All values are texts, as tags carry them, so ``"3"`` may stand for a number.

        Raises:
            MalformedAction: They do not fit; the message states what was expected.
        """
        try:
            return self.check(given, texts)
        except MalformedAction as problem:
            raise MalformedAction(f"{problem} Expected {self.signature}.") from None

    def fork(self, owner: object, heir: object) -> Self:
        """The tool of a forked environment: a method is bound to the fork, state is copied."""
        if getattr(self.call, "__self__", None) is owner:
            return replace(self, call=MethodType(self.call.__func__, heir))  # type: ignore[attr-defined]
        if hasattr(self.call, "fork"):
            return replace(self, call=self.call.fork())
        return self


def tool(function: Callable[..., Any] | Tool, *, name: str = "") -> Tool:
    """A tool from a typed callable with a docstring; a tool stays what it is.

    The first paragraphs of the docstring describe the tool to the model, an ``Args:`` section
    its parameters. Any type that pydantic knows is checked, ``Annotated`` limits included.

    Args:
        function: Sync or async function, bound method, or object with ``__call__``.
        name: Unless given, the function's name, or the object's attribute ``name``.

    Raises:
        ConfigError: It has no docstring, or a parameter that a model cannot pass by name.
        MissingExtra: pydantic is not installed.

    Examples:
        >>> def double(number: int) -> str:
        ...     '''Twice a number.'''
        ...     return str(2 * number)
        >>> tool(double).signature
        'double(number: integer)'
    """
    if isinstance(function, Tool):
        return function
    body = function if inspect.isroutine(function) else type(function).__call__
    name = name or getattr(function, "name", "") or getattr(function, "__name__", "")
    text = inspect.getdoc(function)
    if not name or not text:
        raise ConfigError(
            f"tool {name or function!r} needs a {'docstring' if name else 'name'}: the model "
            f"reads it"
        )
    described = _docstring(text)
    adapter = _adapter(name, body, inspect.signature(function), described[1])
    schema = without_titles(adapter.json_schema())
    return Tool(name, described[0], schema, _checker(adapter), function)


def _docstring(text: str) -> tuple[str, dict[str, str]]:
    """The description of a docstring, and that of each parameter."""
    import docstring_parser

    parsed = docstring_parser.parse(text)
    parts = [parsed.short_description, parsed.long_description]
    about = {param.arg_name: " ".join((param.description or "").split()) for param in parsed.params}
    return "\n\n".join(filter(None, parts)), about


def _adapter(
    name: str, body: Callable[..., Any], signature: inspect.Signature, about: Mapping[str, str]
) -> TypeAdapter[dict[str, Any]]:
    """The validator of the arguments: a typed dictionary that forbids other keys."""
    try:
        from pydantic import ConfigDict, Field, PydanticUserError, TypeAdapter
        from pydantic.errors import PydanticSchemaGenerationError
        from typing_extensions import TypedDict
    except ImportError:
        raise MissingExtra('tools need pydantic: pip install "agentic-gym[tools]"') from None
    hints = get_type_hints(body, include_extras=True)
    fields: dict[str, Any] = {}
    for key, parameter in signature.parameters.items():
        by_name = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if not by_name or key not in hints:
            raise ConfigError(
                f"parameter {str(parameter)!r} of tool {name!r} needs "
                f"{'a type' if by_name else 'to be passed by name'}"
            )
        required = parameter.default is parameter.empty
        extra = None if required else {"default": parameter.default}
        field = Field(description=about.get(key) or None, json_schema_extra=extra)
        annotated: Any = Annotated
        fields[key] = (Required if required else NotRequired)[annotated[hints[key], field]]
    shape = TypedDict(name, fields)  # type: ignore[misc]
    shape.__pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # type: ignore[attr-defined]
    try:
        return cast("TypeAdapter[dict[str, Any]]", TypeAdapter(shape))
    except (PydanticSchemaGenerationError, PydanticUserError) as problem:
        reason = str(problem).split("\n", 1)[0]
        raise ConfigError(f"tool {name!r} has a parameter no model can pass: {reason}") from None


def _checker(adapter: TypeAdapter[dict[str, Any]]) -> Check:
    from pydantic import ValidationError

    def check(given: Mapping[str, object], texts: bool) -> dict[str, Any]:
        try:
            if texts:
                return adapter.validate_strings(given)
            # Validated as JSON, where a list may stand for a tuple and a text for a date.
            return adapter.validate_json(json.dumps(given))
        except ValidationError as problem:
            raise MalformedAction(_explain(problem)) from None

    return check


def _explain(problem: ValidationError) -> str:
    """The first errors, one sentence each."""
    faults = problem.errors(include_url=False, include_context=False)
    messages = []
    for fault in faults[:3]:
        where = ".".join(map(str, fault["loc"])) or "arguments"
        got = "" if fault["type"] == "missing" else f", got {_short(fault['input'])}"
        messages.append(f"{where[:80]}: {fault['msg']}{got}.")
    return " ".join(messages)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}..."


def without_titles(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without the titles, which repeat the names."""
    kept = {key: value for key, value in schema.items() if key != "title"}
    for group in ("properties", "$defs"):
        if group in kept:
            kept[group] = {key: without_titles(value) for key, value in kept[group].items()}
    return kept


def _kind(schema: Mapping[str, Any]) -> str:
    """The type of a parameter in a word or two."""
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    if "anyOf" in schema:
        return " | ".join(_kind(option) for option in schema["anyOf"])
    if schema.get("type") == "array" and isinstance(schema.get("items"), dict):
        return f"array of {_kind(schema['items'])}"
    return str(schema.get("type", "object" if "$ref" in schema else "any"))
