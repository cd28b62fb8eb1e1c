"""The page: static files, and episodes either beside them or inside them."""

from __future__ import annotations

import base64
import gzip
import json
from importlib.resources import files
from pathlib import Path

from agentgym.utils.jsonl import write_atomic
from agentgym.viewer.source import Loaded, index_of

SCRIPTS = ("viewer.js", "values.js", "compare.js")
"""Parts of the page's script; the first one starts it."""

PART = 200
"""Episodes per compressed part; a part is unpacked when one of its episodes is opened."""


def static(name: str) -> str:
    """One of the files that make the page."""
    return files("agentgym.viewer").joinpath("static", name).read_text(encoding="utf-8")


def page(loaded: Loaded, title: str) -> str:
    """The whole viewer as one HTML document that needs neither a server nor a network.

    The list is plain JSON, so that it is shown at once; conversations are compressed parts.
    """
    rows = [index_of(episode, number) for number, episode in enumerate(loaded.episodes)]
    parts = [
        loaded.episodes[start : start + PART] for start in range(0, len(loaded.episodes), PART)
    ]
    data = {"title": title, "rows": rows, "part": PART, "warnings": loaded.warnings}
    scripts = [f'<script type="application/json" id="data">{_inline(json.dumps(data))}</script>']
    for number, part in enumerate(parts):
        packed = base64.b64encode(gzip.compress(json.dumps(part).encode(), mtime=0)).decode()
        scripts.append(f'<script type="text/plain" id="part-{number}">{packed}</script>')
    return (
        static("viewer.html")
        .replace("/*STYLE*/", static("viewer.css"))
        .replace("<!--DATA-->", "\n".join(scripts))
        .replace("/*SCRIPT*/", "".join(map(static, SCRIPTS)))
    )


def _inline(text: str) -> str:
    """JSON that cannot end the script element it stands in, whatever an observation holds."""
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def bundle(loaded: Loaded, target: Path, title: str) -> int:
    """Write the page; returns its size in bytes."""
    text = page(loaded, title)
    write_atomic(target, text)
    return len(text.encode())
