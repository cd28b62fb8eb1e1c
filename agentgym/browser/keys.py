"""Keys as the browser wants them."""

from __future__ import annotations

from typing import Any

from agentgym.errors import ConfigError, did_you_mean

CODES = {
    "Enter": 13,
    "Tab": 9,
    "Backspace": 8,
    "Delete": 46,
    "Escape": 27,
    "Space": 32,
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowDown": 40,
    "Home": 36,
    "End": 35,
    "PageUp": 33,
    "PageDown": 34,
}
"""Named keys and their codes."""
MODIFIERS = {"Alt": 1, "Control": 2, "Meta": 4, "Shift": 8}
TEXTS = {"Enter": "\r", "Space": " ", "Tab": ""}
COMMANDS = {"a": "selectAll", "c": "copy", "x": "cut", "v": "paste", "z": "undo"}
"""What Control and a letter do in a text field; headless browsers have no menus that do it."""


def key_event(key: str, kind: str) -> dict[str, Any]:
    """Parameters of ``Input.dispatchKeyEvent``.

    Args:
        key: A character or a named key, with modifiers in front: ``Control+a``.
        kind: ``keyDown`` or ``keyUp``.

    Raises:
        ConfigError: There is no such key.
    """
    *held, name = key.split("+") if len(key) > 1 else (key,)
    modifiers = 0
    for modifier in held:
        if modifier not in MODIFIERS:
            raise _unknown(modifier)
        modifiers |= MODIFIERS[modifier]
    if name in ("\n", "\r"):
        name = "Enter"
    event: dict[str, Any] = {"type": kind, "modifiers": modifiers}
    if name in CODES:
        shown = " " if name == "Space" else name
        event |= {"key": shown, "code": name, "windowsVirtualKeyCode": CODES[name]}
        text = TEXTS.get(name, "")
    elif len(name) == 1:
        code = ord(name.upper()) if name.isascii() and name.isalnum() else 0
        event |= {"key": name, "windowsVirtualKeyCode": code}
        text = "" if modifiers & ~MODIFIERS["Shift"] else name
    else:
        raise _unknown(name)
    if kind == "keyDown" and text:
        event["text"] = text
    if kind == "keyDown" and modifiers == MODIFIERS["Control"] and name.lower() in COMMANDS:
        event["commands"] = [COMMANDS[name.lower()]]
    return event


def _unknown(name: str) -> ConfigError:
    known = (*CODES, *MODIFIERS)
    return ConfigError(
        f"no key {name!r}.{did_you_mean(name, known)} Keys: one character, {', '.join(CODES)}, "
        f"with {', '.join(MODIFIERS)} and a plus in front"
    )
