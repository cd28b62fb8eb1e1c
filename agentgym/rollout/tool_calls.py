# ruff: noqa: RUF001 - DeepSeek writes fullwidth bars.
"""Tool calls in the notations of model families: read, converted to typed arguments, detected.

A notation is recognised by a round trip: the chat template writes a known call, and the notation
that reads the same call back is the model's. A tokenizer with a ``response_template`` is read by
transformers' own parser instead.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from agentgym.errors import ConfigError, MalformedAction, did_you_mean
from agentgym.utils.spans import spans

LONGEST = 65_536
"""Characters of one completion with calls; more is refused unread."""


class ToolCall(NamedTuple):
    """One call."""

    name: str
    arguments: Mapping[str, object]


class Parsed(NamedTuple):
    """What an answer holds."""

    content: str
    """The text outside the calls, stripped."""
    calls: tuple[ToolCall, ...]


class Notation(NamedTuple):
    """How a family of models writes calls."""

    name: str
    read: Callable[[str], Parsed]
    """Raises ``MalformedAction`` where a call is not well formed."""
    example: str
    """One call, as shown to a model that wrote something else."""


def from_tokenizer(tokenizer: Any) -> Notation:
    """The notation that the ``response_template`` of a tokenizer describes (transformers 5)."""

    def read(text: str) -> Parsed:
        try:
            message = tokenizer.parse_response(text, prefix="")
        except Exception as problem:  # Its errors have no common type.
            reason = " ".join(str(problem).split())[:120]
            raise MalformedAction(f"The call cannot be read: {reason}") from None
        found = (each.get("function", each) for each in message.get("tool_calls") or [])
        calls = tuple(_call(each, "arguments") for each in found)
        return Parsed(str(message.get("content") or "").strip(), calls)

    return Notation("response-template", read, "the one that the chat template shows")


def typed(call: ToolCall, tools: Sequence[Mapping[str, Any]]) -> ToolCall:
    """The call with text arguments converted to the types of the schema of its tool."""
    for each in tools:
        function = each.get("function", each)
        if function.get("name") == call.name:
            properties = function.get("parameters", {}).get("properties", {})
            converted = {
                key: _converted(value, properties.get(key, {}).get("type"))
                for key, value in call.arguments.items()
            }
            return ToolCall(call.name, converted)
    return call


def _converted(value: object, kind: object) -> object:
    if not isinstance(value, str) or kind in (None, "string"):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        found = {"true": True, "false": False, "none": None}.get(value.strip().lower(), value)
    return found


# ---- JSON ------------------------------------------------------------------------------------


def _json(text: str) -> Any:
    """JSON without double keys, NaN or halves of characters."""
    try:
        found = json.loads(text, object_pairs_hook=_no_double, parse_constant=_no_constant)
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise MalformedAction("The call contains half of a surrogate pair.") from None
    except (ValueError, RecursionError) as problem:
        raise MalformedAction(f"The call is not JSON: {str(problem)[:120]}.") from None
    return found


def _no_double(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise MalformedAction("The call has a key twice.")
    return found


def _no_constant(name: str) -> object:
    raise MalformedAction(f"The call contains {name}, which is not JSON.")


def _call(found: object, *keys: str) -> ToolCall:
    """A call from ``{"name": ..., "arguments": ...}``; arguments may be a JSON string."""
    if not isinstance(found, dict) or not isinstance(found.get("name"), str):
        raise MalformedAction('A call is {"name": "...", "arguments": {...}}.')
    arguments: Any = next((found[key] for key in keys if key in found), {})
    if isinstance(arguments, str):
        arguments = _json(arguments) if arguments.strip() else {}
    if not isinstance(arguments, dict):
        raise MalformedAction('"arguments" must be an object.')
    return ToolCall(found["name"], arguments)


# ---- notations -------------------------------------------------------------------------------


def _spans(text: str, opening: str, closing: str) -> tuple[str, list[str]]:
    """The text outside ``opening ... closing``, and what is inside each; linear in the text."""
    outside, inside, at = [], [], 0
    for span in spans(text, opening, closing):
        if span.end < 0:
            raise MalformedAction(f"{opening.strip()} is not closed by {closing}.")
        outside.append(text[at : span.before])
        inside.append(text[span.start : span.end])
        at = span.after
    return "".join([*outside, text[at:]]).strip(), inside


def _hermes(text: str) -> Parsed:
    content, bodies = _spans(text, "<tool_call>", "</tool_call>")
    return Parsed(content, tuple(_call(_json(body), "arguments") for body in bodies))


_FUNCTION = re.compile(r"\s*<function=([^>\n]+)>(.*)</function>\s*", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^>\n]+)>\n?(.*?)\n?</parameter>", re.DOTALL)


def _qwen_xml(text: str) -> Parsed:
    if "<function=" in text and "<tool_call>" not in text:
        text = text.replace("<function=", "<tool_call><function=")
        text = text.replace("</function>", "</function></tool_call>")
    content, bodies = _spans(text, "<tool_call>", "</tool_call>")
    calls = []
    for body in bodies:
        found = _FUNCTION.fullmatch(body)
        if found is None:
            raise MalformedAction("Expected <function=name>...</function> inside <tool_call>.")
        calls.append(ToolCall(found[1].strip(), _pairs(_PARAMETER, found[2], "<parameter=")))
    return Parsed(content, tuple(calls))


def _pairs(pattern: re.Pattern[str], body: str, mark: str) -> dict[str, object]:
    pairs = pattern.findall(body)
    if len(pairs) != body.count(mark):
        raise MalformedAction(f"An argument that {mark} opens is not closed.")
    return _no_double([(key.strip(), value) for key, value in pairs])


_GLM = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL)


def _glm(text: str) -> Parsed:
    content, bodies = _spans(text, "<tool_call>", "</tool_call>")
    calls = []
    for body in bodies:
        name, mark, rest = body.partition("<arg_key>")
        calls.append(ToolCall(name.strip(), _pairs(_GLM, mark + rest, "<arg_key>")))
    if any(not call.name or call.name.startswith(("{", "<")) for call in calls):
        raise MalformedAction("Expected the name of the tool after <tool_call>.")
    return Parsed(content, tuple(calls))


def _llama_json(text: str) -> Parsed:
    body = text.strip().removeprefix("<|python_tag|>").strip()
    if not (body.startswith("{") and '"name"' in body):
        return Parsed(text.strip(), ())
    decoder = json.JSONDecoder(object_pairs_hook=_no_double, parse_constant=_no_constant)
    calls, at = [], 0
    while at < len(body):
        try:
            _, end = decoder.raw_decode(body, at)
        except (ValueError, RecursionError) as problem:
            raise MalformedAction(f"The call is not JSON: {str(problem)[:120]}.") from None
        calls.append(_call(_json(body[at:end]), "parameters", "arguments"))
        at = end + len(body[end:]) - len(body[end:].lstrip("; \n"))
    return Parsed("", tuple(calls))


_PYTHONIC = re.compile(r"<\|python_start\|>|<\|python_end\|>|<\|tool_call_(?:start|end)\|>")


def _pythonic(text: str) -> Parsed:
    start, end = text.find("["), text.rfind("]")
    if start < 0 or end < start or not re.match(r"\[\s*[A-Za-z_][\w.]*\(", text[start:]):
        return Parsed(text.strip(), ())
    try:
        tree = ast.parse(text[start : end + 1].strip(), mode="eval").body
        calls = tuple(_python_call(each) for each in tree.elts)  # type: ignore[attr-defined]
    except (SyntaxError, ValueError, RecursionError, MemoryError, AttributeError) as problem:
        reason = " ".join(str(problem).split())[:120]
        raise MalformedAction(f"Expected [name(key=value, ...)]: {reason}.") from None
    outside = _PYTHONIC.sub("", text[:start] + text[end + 1 :])
    return Parsed(outside.strip(), calls)


def _python_call(node: ast.expr) -> ToolCall:
    if not isinstance(node, ast.Call) or node.args:
        raise ValueError("arguments must have names")
    arguments = [(each.arg or "", _literal(each.value)) for each in node.keywords]
    return ToolCall(ast.unparse(node.func), _no_double(arguments))


def _literal(node: ast.expr) -> object:
    """A Python literal; the names of JSON's constants are read, too."""
    if isinstance(node, ast.Name) and node.id in ("true", "false", "null"):
        return {"true": True, "false": False, "null": None}[node.id]
    if isinstance(node, ast.Dict):
        keys = [ast.literal_eval(key) for key in node.keys if key is not None]
        return dict(zip(keys, map(_literal, node.values), strict=True))
    if isinstance(node, ast.List | ast.Tuple):
        return [_literal(each) for each in node.elts]
    found: object = ast.literal_eval(node)
    return found


_MISTRAL_NAMED = re.compile(r"\s*([\w.-]+)(?:\[CALL_ID\][^\[]*)?(?:\[ARGS\])?\s*(\{.*)", re.DOTALL)


def _mistral(text: str) -> Parsed:
    content, *bodies = text.split("[TOOL_CALLS]")
    calls: list[ToolCall] = []
    for body in bodies:
        body = body.removesuffix("</s>").strip()
        if body.startswith("["):
            found = _json(body)
            calls += [_call(each, "arguments") for each in found]
            continue
        named = _MISTRAL_NAMED.fullmatch(body)
        if named is None:
            raise MalformedAction('Expected [{"name": ..., "arguments": ...}] after [TOOL_CALLS].')
        calls.append(_call({"name": named[1], "arguments": _json(named[2])}, "arguments"))
    return Parsed(content.strip(), tuple(calls))


_DEEPSEEK = re.compile(
    r"<｜tool▁call▁begin｜>(?:function<｜tool▁sep｜>([^\n<]+)\n```json\n(.*?)\n```"
    r"|([^<\n]+)<｜tool▁sep｜>(.*?))<｜tool▁call▁end｜>",
    re.DOTALL,
)


def _deepseek(text: str) -> Parsed:
    found = _DEEPSEEK.findall(text)
    if len(found) != text.count("<｜tool▁call▁begin｜>"):
        raise MalformedAction("A call is not of the form name, separator, JSON arguments.")
    calls = tuple(
        _call({"name": old or new, "arguments": _json(old_json or new_json)}, "arguments")
        for old, old_json, new, new_json in found
    )
    outside = _DEEPSEEK.sub("", text)
    outside = outside.replace("<｜tool▁calls▁begin｜>", "").replace("<｜tool▁calls▁end｜>", "")
    return Parsed(outside.strip(), calls)


_HARMONY = re.compile(
    r"(?:<\|start\|>assistant)?(?:<\|channel\|>(?:commentary|analysis))? ?"
    r"to=(?:functions\.)?([\w.-]+)"
    r"(?:<\|channel\|>(?:commentary|analysis))?\s*(?:<\|constrain\|>)?(?:json)?<\|message\|>"
    r"(.*?)(?:<\|call\|>|$)",
    re.DOTALL,
)


def _harmony(text: str) -> Parsed:
    calls = tuple(
        _call({"name": name, "arguments": _json(body)}, "arguments")
        for name, body in _HARMONY.findall(text)
    )
    return Parsed(_HARMONY.sub("", text).strip(), calls)


_GEMMA = re.compile(r"call:([\w.-]+)(\{.*\})", re.DOTALL)
_GEMMA_TOKEN = re.compile(r'<\|"\|>(.*?)<\|"\|>|([{,]\s*)(\w+):', re.DOTALL)


def _gemma(text: str) -> Parsed:
    content, bodies = _spans(text, "<|tool_call>", "<tool_call|>")
    calls = []
    for body in bodies:
        found = _GEMMA.fullmatch(body.strip())
        if found is None:
            raise MalformedAction("Expected call:name{key:value} inside <|tool_call>.")
        quoted = _GEMMA_TOKEN.sub(
            lambda m: json.dumps(m[1]) if m[3] is None else f'{m[2]}"{m[3]}":', found[2]
        )
        calls.append(_call({"name": found[1], "arguments": _json(quoted)}, "arguments"))
    return Parsed(content, tuple(calls))


_INVOKE = re.compile(r'<atem:invoke name="([^"]+)">\n?(.*?)</atem:invoke>', re.DOTALL)
_ATEM = re.compile(r'<atem:parameter name="([^"]+)">(.*?)</atem:parameter>', re.DOTALL)


def _atem(text: str) -> Parsed:
    content, bodies = _spans(text, "<atem:function_calls>", "</atem:function_calls>")
    calls = [
        ToolCall(name, _pairs(_ATEM, body, "<atem:parameter "))
        for group in bodies
        for name, body in _INVOKE.findall(group)
    ]
    if len(calls) != sum(group.count("<atem:invoke ") for group in bodies):
        raise MalformedAction("<atem:invoke> is not closed.")
    return Parsed(re.sub(r"^ ?to=[\w.-]+<\|message\|>", "", content).strip(), tuple(calls))


HERMES = Notation("hermes", _hermes, '<tool_call>{"name": "...", "arguments": {...}}</tool_call>')
NOTATIONS: dict[str, Notation] = {
    each.name: each
    for each in (
        HERMES,
        Notation(
            "qwen-xml",
            _qwen_xml,
            "<tool_call><function=name><parameter=key>value</parameter></function></tool_call>",
        ),
        Notation(
            "glm",
            _glm,
            "<tool_call>name<arg_key>key</arg_key><arg_value>value</arg_value></tool_call>",
        ),
        Notation("deepseek", _deepseek, "<｜tool▁call▁begin｜>name<｜tool▁sep｜>{...}"),
        Notation("gpt-oss", _harmony, " to=functions.name<|channel|>commentary json<|message|>{}"),
        Notation("mistral", _mistral, '[TOOL_CALLS][{"name": "...", "arguments": {...}}]'),
        Notation("gemma", _gemma, '<|tool_call>call:name{key:<|"|>value<|"|>}<tool_call|>'),
        Notation(
            "atem",
            _atem,
            '<atem:function_calls><atem:invoke name="name"><atem:parameter name="key">value'
            "</atem:parameter></atem:invoke></atem:function_calls>",
        ),
        Notation("llama-json", _llama_json, '{"name": "...", "parameters": {...}}'),
        Notation("pythonic", _pythonic, '[name(key="value")]'),
    )
}
"""Every notation by its name, in the order of detection."""


def notation(name: str) -> Notation:
    """A notation by its name.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in NOTATIONS:
        raise ConfigError(
            f"there is no tool notation {name!r}.{did_you_mean(name, NOTATIONS)} "
            f"Notations: {', '.join(NOTATIONS)}"
        )
    return NOTATIONS[name]


def detect(written: str, call: ToolCall) -> Notation | None:
    """The notation in which a chat template wrote ``call``; None if none reads it back."""
    for each in NOTATIONS.values():
        try:
            parsed = each.read(written)
        except MalformedAction:
            continue
        if parsed.calls == (call,):
            return each
    return None


def read_calls(text: str, expected: Notation) -> Parsed:
    """The calls of an answer.

    Raises:
        MalformedAction: There is none, one is malformed, or in the notation of another family.
    """
    if len(text) > LONGEST:
        raise MalformedAction(f"The answer has {len(text)} characters, expected {LONGEST} at most.")
    try:
        found = expected.read(text)
    except MalformedAction:
        _refuse_others(text, expected)
        raise
    if not found.calls:
        _refuse_others(text, expected)
        raise MalformedAction(
            f"Expected a tool call, got none. A call looks like {expected.example}"
        )
    return found


def _refuse_others(text: str, expected: Notation) -> None:
    for name in _other_notations(text, expected):
        raise MalformedAction(
            f"The call is in the notation {name!r}, expected {expected.name!r}: "
            f"write {expected.example}"
        ) from None


def _other_notations(text: str, expected: Notation) -> Iterator[str]:
    for each in NOTATIONS.values():
        if each is not expected:
            try:
                if each.read(text).calls:
                    yield each.name
            except MalformedAction:
                continue


def hermes_text(calls: Sequence[ToolCall]) -> str:
    """Calls as environments read them: one ``<tool_call>`` with a JSON object per line."""
    lines = (
        json.dumps({"name": call.name, "arguments": call.arguments}, ensure_ascii=False)
        for call in calls
    )
    return "\n".join(
        f"<tool_call>{line.replace('</', '<' + chr(92) + '/')}</tool_call>" for line in lines
    )


_RESULT = re.compile(r"<tool_response>\n(.*?)\n</tool_response>", re.DOTALL)


def results_of(observation: str, count: int) -> list[str]:
    """The observation as one result per call: role ``tool`` has no need of tags around it."""
    found = _RESULT.findall(observation)
    if len(found) == count and not _RESULT.sub("", observation).strip():
        return found
    return [observation]
