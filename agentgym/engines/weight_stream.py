"""Weights that reach an engine one after another, so that no second copy of a model is needed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from agentgym.errors import EngineError


class BrokenStream(EngineError):
    """Weights stopped arriving; an engine that had begun to copy them must not sample."""


@dataclass(frozen=True)
class WeightStream:
    """Names and weights, in any order, to be read once."""

    shapes: Mapping[str, torch.Size]
    """Of all that will come, so that an engine can refuse them before it copies the first."""
    weights: Iterable[tuple[str, Tensor]]

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> WeightStream:
        """The stream of a state dict."""
        return cls({name: weight.shape for name, weight in weights.items()}, weights.items())

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        """Each name with its weight.

        Raises:
            BrokenStream: The rest will not come.
        """
        return iter(self.weights)


@runtime_checkable
class LoadsStreams(Protocol):
    """An engine that copies weights as they arrive."""

    stream_device: str
    """Type of the device on which it reads them, ``cpu`` or ``cuda``."""

    def load_stream(self, weights: WeightStream, version: int) -> None:
        """As ``Engine.load``.

        Where the stream breaks, requests wait for the next weights: tokens are never sampled from
        weights of two versions.

        Raises:
            BrokenStream: The stream broke.
        """
