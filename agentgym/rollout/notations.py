# ruff: noqa: RUF001 - DeepSeek writes fullwidth bars.
"""How families of models write tool calls: ten notations, each with its reader."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from agentgym.errors import MalformedAction
from agentgym.types import ToolCall
from agentgym.utils import strict_json
from agentgym.utils.spans import spans


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


def named_call(found: object, *keys: str) -> ToolCall:
    """A call from ``{"name": ..., "arguments": ...}``; arguments may be a JSON string."""
    if not isinstance(found, dict) or not isinstance(found.get("name"), str):
        raise MalformedAction('A call is {"name": "...", "arguments": {...}}.')
    arguments: Any = next((found[key] for key in keys if key in found), {})
    if isinstance(arguments, str):
        arguments = strict_json.read(arguments) if arguments.strip() else {}
    if not isinstance(arguments, dict):
        raise MalformedAction('"arguments" must be an object.')
    return ToolCall(found["name"], arguments)


def _call(name: str, arguments: str) -> ToolCall:
    """A call from its name and the JSON of its arguments."""
    return named_call({"name": name, "arguments": strict_json.read(arguments)}, "arguments")


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
    found = [strict_json.read(body) for body in bodies]
    return Parsed(content, tuple(named_call(each, "arguments") for each in found))


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
    return strict_json.no_duplicates([(key.strip(), value) for key, value in pairs])


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
    calls, at = [], 0
    while at < len(body):
        end = strict_json.end_of_value(body, at)
        calls.append(named_call(strict_json.read(body[at:end]), "parameters", "arguments"))
        at = end + len(body[end:]) - len(body[end:].lstrip("; \n"))
    return Parsed("", tuple(calls))


_PYTHONIC = re.compile(r"<\|python_start\|>|<\|python_end\|>|<\|tool_call_(?:start|end)\|>")


def _pythonic(text: str) -> Parsed:
    start, end = text.find("["), text.rfind("]")
    if start < 0 or end < start or not re.match(r"\[\s*[A-Za-z_][\w.]*\(", text[start:]):
        return Parsed(text.strip(), ())
    try:
        tree = ast.parse(text[start : end + 1].strip(), mode="eval").body
        calls = tuple(_pythonnamed_call(each) for each in tree.elts)  # type: ignore[attr-defined]
    except (SyntaxError, ValueError, RecursionError, MemoryError, AttributeError) as problem:
        reason = " ".join(str(problem).split())[:120]
        raise MalformedAction(f"Expected [name(key=value, ...)]: {reason}.") from None
    outside = _PYTHONIC.sub("", text[:start] + text[end + 1 :])
    return Parsed(outside.strip(), calls)


def _pythonnamed_call(node: ast.expr) -> ToolCall:
    if not isinstance(node, ast.Call) or node.args:
        raise ValueError("arguments must have names")
    arguments = [(each.arg or "", _literal(each.value)) for each in node.keywords]
    return ToolCall(ast.unparse(node.func), strict_json.no_duplicates(arguments))


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
            found = strict_json.read(body)
            calls += [named_call(each, "arguments") for each in found]
            continue
        named = _MISTRAL_NAMED.fullmatch(body)
        if named is None:
            raise MalformedAction('Expected [{"name": ..., "arguments": ...}] after [TOOL_CALLS].')
        calls.append(_call(named[1], named[2]))
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
    calls = tuple(_call(old or new, old_json or new_json) for old, old_json, new, new_json in found)
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
    calls = tuple(_call(name, body) for name, body in _HARMONY.findall(text))
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
        calls.append(_call(found[1], quoted))
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
