"""The forms in which programs call a model: chat completions, Responses, Anthropic's messages.

Each module has ``read`` (a JSON body to a ``Request``), ``write`` (a call to a JSON body) and
``events`` (a call to the events of a stream). The events of a stream are sent once the completion
is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from agentgym.programs.dialects import anthropic, chat, responses
from agentgym.programs.values import Call, Request

Body = dict[str, Any]
"""A JSON object."""


class Dialect(NamedTuple):
    """One form."""

    read: Callable[[Body], Request]
    """Raises ``RequestRefused`` where the body does not fit the form."""
    write: Callable[[Call, Request, str], Body]
    """The third argument is the id of the reply."""
    events: Callable[[Call, Request, str], Iterator[tuple[str, Body | str]]]
    """Name (empty where the form has none) and data of each event."""
    error: Callable[[str, int, str], Body]
    """The body of an error, from message, status and code."""


DIALECTS = {
    "/v1/chat/completions": Dialect(chat.read, chat.write, chat.events, chat.error),
    "/v1/responses": Dialect(responses.read, responses.write, responses.events, chat.error),
    "/v1/messages": Dialect(anthropic.read, anthropic.write, anthropic.events, anthropic.error),
}
"""Every form by the path that its clients post to."""
