"""Files of questions: JSON lines, JSON lists and Parquet, and how their rows are split.

Which split a question belongs to is decided by the name of its file, where a folder holds a file
per split, or by a hash of its text. A hash keeps a question in its split whatever else the file
holds, and equal questions together.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from agentgym.env.base import SPLITS, one_of
from agentgym.errors import ConfigError, MissingExtra

DataSplit = Literal["auto", "hash", "train", "valid", "test"]
"""``hash``: by a hash of each question; ``train``, ``valid``, ``test``: the whole file is that
split; ``auto``: ``test`` where the name of the file has the word test or eval, else ``hash``."""
DATA_SPLITS: tuple[str, ...] = get_args(DataSplit)

_ENDINGS = (".jsonl", ".json", ".parquet")
_NAMES = {
    "train": ("train", "training"),
    "valid": ("valid", "validation", "val", "dev"),
    "test": ("test", "eval"),
}
_PERCENT = {"valid": 10, "test": 10}
"""Shares of the splits by hash; the rest is for training."""


class DataFile(NamedTuple):
    """One file, with the split that its name states in a folder of several."""

    path: Path
    split: str = ""


def data_files(data: str) -> tuple[DataFile, ...]:
    """The files of a path: one file, or those of a folder that are named after splits.

    Raises:
        ConfigError: The file is missing, or the folder has none.
    """
    path = Path(data).expanduser().resolve()
    if path.is_file():
        return (DataFile(path),)
    if not path.is_dir():
        raise ConfigError(f"data: there is no file {data}")
    found = [
        DataFile(each, split)
        for split, names in _NAMES.items()
        for each in sorted(path.iterdir())
        if each.suffix in _ENDINGS and each.name.partition(".")[0].partition("-")[0] in names
    ]
    if not found:
        raise ConfigError(
            f"data: the folder {data} has no files named after splits, expected for example "
            f"train.jsonl and test.jsonl (or .json, .parquet)"
        )
    return tuple(found)


def digest_of(files: Sequence[DataFile]) -> str:
    """Eight hexadecimal digits that depend on the content of all files.

    Raises:
        ConfigError: A file cannot be read.
    """
    digest = sha256()
    for file in files:
        try:
            digest.update(file.path.read_bytes())
        except OSError as problem:
            raise ConfigError(f"cannot read the questions in {file.path}: {problem}") from None
    return digest.hexdigest()[:8]


def split_rows(
    texts: Sequence[str], files: Sequence[DataFile], named: Sequence[str], data_split: str
) -> dict[str, tuple[int, ...]]:
    """The rows of each split, disjoint in their questions.

    Args:
        texts: The question of each row.
        files: Where the rows come from.
        named: The split that the file of each row states, or an empty text.
        data_split: One of ``DATA_SPLITS``; of no effect on a folder with a file per split.

    Raises:
        ConfigError: ``data_split`` is not one of those.
    """
    one_of("data_split", data_split, DATA_SPLITS)
    whole = data_split if data_split in SPLITS else ""
    if data_split == "auto" and len(files) == 1:
        words = re.split(r"[^a-z]+", files[0].path.name.lower())
        whole = "test" if {"test", "eval"} & set(words) else ""
    wanted = [own or whole or split_of(text) for own, text in zip(named, texts, strict=True)]
    # A question in two files is held out: it counts for the last of train, valid, test.
    last: dict[str, int] = {}
    for text, split in zip(texts, wanted, strict=True):
        last[_key(text)] = max(last.get(_key(text), 0), SPLITS.index(split))
    return {
        split: tuple(
            row
            for row, (text, its) in enumerate(zip(texts, wanted, strict=True))
            if its == split and last[_key(text)] == place
        )
        for place, split in enumerate(SPLITS)
    }


def split_of(text: str) -> str:
    """The split of a question by its hash: 80 % train, 10 % valid, 10 % test.

    Examples:
        >>> split_of("How many?") == split_of(" How  many? ")
        True
    """
    number = int.from_bytes(blake2b(_key(text).encode(), digest_size=4).digest(), "big") % 100
    for split, percent in _PERCENT.items():
        if number < percent:
            return split
        number -= percent
    return "train"


def read_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Rows of a file, each with its position.

    Raises:
        ConfigError: The file cannot be read, or has another format.
        MissingExtra: It is a Parquet file, and pyarrow is not installed.
    """
    rows: Iterable[tuple[str, Any]] = _parquet(path) if path.suffix == ".parquet" else _json(path)
    for where, row in rows:
        if not isinstance(row, Mapping):
            raise ConfigError(f"{where}: got a JSON {type(row).__name__}, expected an object")
        yield where, row


def last_user_message(prompt: object) -> str:
    """The last user message of a chat prompt, or the prompt itself if it is a text."""
    if isinstance(prompt, str):
        return prompt.strip()
    listed = prompt if isinstance(prompt, list | tuple) else ()
    messages = [each for each in listed if isinstance(each, Mapping)]
    users = [each for each in messages if each.get("role") in (None, "user")] or messages
    texts = [each.get("content") for each in users]
    return next((text.strip() for text in reversed(texts) if isinstance(text, str)), "")


def _key(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _json(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        # A byte order mark, which editors of Windows write, is no part of the text.
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as problem:
        raise ConfigError(f"cannot read the questions in {path}: {problem}") from None
    if text.lstrip().startswith("["):
        rows = _parsed(text, str(path))
        yield from ((f"{path}, entry {number}", row) for number, row in enumerate(rows, start=1))
        return
    # Not `splitlines`: texts may hold U+2028 and other marks that it takes for the end of a line.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            yield where, _parsed(line, where)


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise ConfigError(f"{where}: not JSON: {str(problem)[:100]}") from None


def _parquet(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        import pyarrow.parquet as parquet
        from pyarrow.lib import ArrowException
    except ImportError:
        raise MissingExtra('Parquet needs pyarrow: pip install "agentic-gym[parquet]"') from None
    try:
        rows = parquet.read_table(path).to_pylist()
    except (OSError, ArrowException) as problem:
        raise ConfigError(f"cannot read {path}: {str(problem)[:150]}") from None
    yield from ((f"{path}, row {number}", row) for number, row in enumerate(rows, start=1))
