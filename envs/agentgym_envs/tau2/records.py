"""Databases that share what has not changed: records are copied when they are fetched by key."""

from __future__ import annotations

import json
from typing import Any


class Records(dict[str, Any]):
    """Key -> record of a table; a record that is fetched by its key becomes a copy of one's own.

    The tools of the package find records by key before they change them, and only read those that
    they meet in a loop over the table.
    """

    __slots__ = ("own",)

    def __init__(self, records: dict[str, Any]) -> None:
        super().__init__(records)
        self.own: set[str] = set()
        """Keys of records that are not shared."""

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        if key not in self.own:
            value = value.model_copy(deep=True)
            self[key] = value
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        self.own.add(key)

    def get(self, key: str, default: Any = None) -> Any:
        """As of any dictionary."""
        return self[key] if key in self else default  # noqa: SIM401 - it is what `get` calls

    def fork(self) -> Records:
        """A table in the same state: shares what is shared, copies the rest."""
        other = Records(self)
        for key in self.own & self.keys():
            other[key] = dict.__getitem__(self, key).model_copy(deep=True)
        return other


def shared(database: Any) -> Any:
    """A database that shares all records with another, which must not be changed any more."""
    return database.model_copy(update={n: Records(t) for n, t in _tables(database).items()})


def fork(database: Any) -> Any:
    """A database in the same state."""
    return database.model_copy(update={n: t.fork() for n, t in _tables(database).items()})


def equal(one: Any, other: Any) -> bool:
    """Whether the package's hashes of two databases would be equal; looks at changed records."""
    return all(
        mine.keys() == theirs.keys()
        and all(_same(dict.__getitem__(theirs, key), record) for key, record in mine.items())
        for mine, theirs in zip(_tables(one).values(), _tables(other).values(), strict=True)
    )


def _same(one: Any, other: Any) -> bool:
    return one is other or _text(one) == _text(other)


def _text(record: Any) -> str:
    return json.dumps(record.model_dump(), sort_keys=True, default=str)


def _tables(database: Any) -> dict[str, Any]:
    """Name -> table; ``Records`` in a database that shares."""
    return {name: getattr(database, name) for name in type(database).model_fields}
