"""Rows that begin alike as a forest, in which a token that several rows share is one node.

A node stands for a token and everything before it in its row, so a network's output on it is
the same in all rows that pass through it. Nodes are numbered depth first: a node's descendants
follow it at once. Rows that share nothing are trees of one path each.

Axes: P positions (tokens of all rows, end to end), T nodes, A some positions, U the nodes of those.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

Ids = NDArray[np.int64]


class Segment(NamedTuple):
    """Nodes numbered one after another, each the child of the one before."""

    path: Ids
    """From the root to the last node of the run."""
    shared: int
    """Leading nodes of the path that belong to earlier runs."""


class Forest(NamedTuple):
    """The rows of a batch with every shared token once."""

    node: Int[Tensor, " P"]
    """Of each position."""
    tokens: Int[Tensor, " T"]
    depth: Int[Tensor, " T"]
    """Index of the token within its row."""
    end: Int[Tensor, " T"]
    """One past the last descendant: node ``n`` lies before ``m`` in a row if n <= m < end[n]."""
    runs: tuple[Segment, ...]

    def distinct(self, at: Int[Tensor, " A"]) -> tuple[Int[Tensor, " U"], Int[Tensor, " A"]]:
        """One position for each node that lies at the given ones, and which of them each has."""
        nodes, back = torch.unique(self.node[at], return_inverse=True)
        return torch.empty_like(nodes).index_put_((back,), at), back


def build_forest(tokens: Int[Tensor, " P"], lengths: Int[Tensor, " N"]) -> Forest:
    """The forest of rows that are laid end to end."""
    rows = split(tokens, lengths)
    node, end = np.empty((2, len(tokens)), np.int64)
    places = np.split(node, lengths.cpu().cumsum(0)[:-1])
    path, total = np.empty(0, np.int64), 0
    runs: list[Segment] = []
    fresh: list[Ids] = []
    for row, shared in beginnings(rows):
        end[path[shared:]] = total
        new = rows[row][shared:]
        onwards = shared == len(path)  # The row before is the beginning of this one.
        path = np.concatenate([path[:shared], np.arange(total, total + len(new))])
        if onwards and runs:
            runs[-1] = runs[-1]._replace(path=path)
        else:
            runs.append(Segment(path, shared))
        places[row][:] = path
        fresh.append(new)
        total += len(new)
    end[path] = total
    depth = [np.arange(run.shared, len(run.path)) for run in runs]

    def column(ids: Ids) -> Tensor:
        return torch.from_numpy(ids).to(tokens.device)

    return Forest(
        node=column(node),
        tokens=column(np.concatenate(fresh)),
        depth=column(np.concatenate(depth)),
        end=column(end[:total]),
        runs=tuple(runs),
    )


def split(tokens: Int[Tensor, " P"], lengths: Int[Tensor, " N"]) -> list[Ids]:
    """Each row by itself."""
    return np.split(tokens.numpy(force=True), lengths.cpu().cumsum(0)[:-1])


def beginnings(rows: Sequence[Ids]) -> Iterator[tuple[int, int]]:
    """Rows in lexicographic order, each with how many tokens it shares with the one before.

    No earlier row shares more, so the rest of the row is new.
    """
    before = np.empty(0, np.int64)
    # The order of big-endian bytes is that of the numbers.
    for index in sorted(range(len(rows)), key=lambda n: rows[n].astype(">u8").tobytes()):
        row = rows[index]
        size = min(len(before), len(row))
        differ = before[:size] != row[:size]
        yield index, int(differ.argmax()) if differ.any() else size
        before = row
