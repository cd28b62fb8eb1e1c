"""A place in a list of tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from agentgym_envs.pythonmath.arithmetic import NoExpression
from agentgym_envs.pythonmath.lexer import Token

T = TypeVar("T")
_MAX_DEPTH = 40


class Cursor:
    """Reads tokens one after the other."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens, self.at, self.depth = tokens, 0, 0

    def peek(self, ahead: int = 0) -> Token:
        """The next token, or one after it; empty at the end."""
        at = self.at + ahead
        return self.tokens[at] if at < len(self.tokens) else ("", "")

    def take(self, sign: str) -> bool:
        """Read one sign if it is next."""
        if self.peek() == ("sign", sign):
            self.at += 1
            return True
        return False

    def need(self, sign: str) -> None:
        """Read a sign that must be next."""
        if not self.take(sign):
            raise NoExpression(f"expected {sign}")

    def nest(self, read: Callable[[], T]) -> T:
        """Read one level deeper."""
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise NoExpression("too deep")
        value = read()
        self.depth -= 1
        return value

    def word(self, name: str) -> bool:
        """Read one word if it is next."""
        if self.peek() == ("word", name):
            self.at += 1
            return True
        return False
