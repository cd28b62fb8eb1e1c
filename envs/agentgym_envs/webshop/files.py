"""The official WebShop files, found by name and read as a stream."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentgym.errors import ConfigError, EnvError
from agentgym_envs.webshop.products import Product, clean, is_listed

_CHUNK = 1 << 20
ReadSoFar = Callable[[int], None]
"""Called with the number of bytes read so far."""


@dataclass(frozen=True, slots=True)
class OfficialFiles:
    """The files of a catalogue."""

    products: Path
    """``items_shuffle.json`` (1.18 M products) or ``items_shuffle_1000.json``."""
    attributes: Path | None
    """``items_ins_v2*.json``: attributes and synthetic instructions."""
    wishes: Path | None
    """``items_human_ins.json``."""

    @property
    def size(self) -> int:
        """Bytes of the product file."""
        return self.products.stat().st_size

    @property
    def identity(self) -> str:
        """Changes with each of the files."""
        parts = [self.products, self.attributes, self.wishes]
        stats = [(str(part.resolve()), part.stat()) for part in parts if part]
        return repr([(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats])

    def read(self, report: ReadSoFar) -> Iterator[Product]:
        """Every product once, in file order."""
        attributes = _table(self.attributes)
        wishes = _table(self.wishes)
        seen: set[str] = set()
        for record, done in _records(self.products):
            report(done)
            if not isinstance(record, dict):
                raise _damaged(self.products, f"expected objects, got {type(record).__name__}")
            asin = str(record.get("asin"))
            if is_listed(record) and asin not in seen:
                seen.add(asin)
                try:
                    yield clean(record, attributes.get(asin), wishes.get(asin))
                except (KeyError, TypeError, AttributeError) as problem:
                    raise _damaged(self.products, f"product {asin}: {problem!r}") from problem


def find(location: str) -> OfficialFiles:
    """The files of a catalogue.

    Args:
        location: A folder with the official files, or the product file itself.

    Raises:
        ConfigError: They are missing, or there are several.
    """
    path = Path(location).expanduser()
    if path.is_dir():
        found = sorted(path.glob("items_shuffle*.json"))
        if len(found) != 1:
            names = ", ".join(file.name for file in found) or "none"
            raise ConfigError(
                f"data={location!r}: expected one items_shuffle*.json in the folder, "
                f"found {names}; give the path of the file to use"
            )
        path = found[0]
    if not path.is_file():
        raise ConfigError(
            f"data={location!r} is neither a folder nor a file; give the folder that holds "
            "items_shuffle*.json, items_ins_v2*.json and items_human_ins.json"
        )
    suffix = path.name.removeprefix("items_shuffle")
    return OfficialFiles(
        path,
        _beside(path, f"items_ins_v2{suffix}"),
        _beside(path, "items_human_ins.json"),
    )


def _beside(path: Path, name: str) -> Path | None:
    other = path.with_name(name)
    return other if other.is_file() else None


def _table(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        table = json.loads(path.read_bytes())
    except ValueError as problem:
        raise _damaged(path, str(problem)) from problem
    if not isinstance(table, dict):
        raise _damaged(path, f"expected an object, got {type(table).__name__}")
    return table


def _records(path: Path) -> Iterator[tuple[Any, int]]:
    """The entries of a JSON array with the bytes read so far, never the whole array at once."""
    decoder = json.JSONDecoder()
    with path.open(encoding="utf-8") as file:
        text = file.read(_CHUNK).lstrip()
        if not text.startswith("["):
            raise _damaged(path, "expected a JSON array")
        at, done = 1, len(text)
        while True:
            while at < len(text) and text[at] in " \t\r\n,":
                at += 1
            if at < len(text) and text[at] == "]":
                return
            try:
                record, at = decoder.raw_decode(text, at)
            except ValueError as problem:
                more = file.read(max(_CHUNK, len(text) - at))
                if not more:
                    raise _damaged(path, str(problem)) from problem
                text, at, done = text[at:] + more, 0, done + len(more)
                continue
            yield record, min(done, path.stat().st_size)


def _damaged(path: Path, reason: str) -> EnvError:
    return EnvError(f"{path} is not a WebShop file ({reason}); download it again")
