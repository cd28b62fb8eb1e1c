"""The weights that the engines have now, for those that start later."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from agentgym.cluster.connect import ray_library
from agentgym.cluster.weights import pack

Source = Callable[[], Mapping[str, Tensor]]
"""Makes the weights of a version, as long as the trainer has not changed them."""


class Publication:
    """Weights of one version, which are put into the object store when they are asked for.

    Args:
        version: Of the weights.
        source: Makes them.
    """

    def __init__(self, version: int, source: Source) -> None:
        self.version = version
        self._source: Source | None = source
        self._packed: Any = None
        self._lock = threading.Lock()

    def packed(self) -> Any:
        """Reference to the packed weights; None when they cannot be made any more."""
        with self._lock:
            return self._pack()

    def put(self, weights: Mapping[str, Tensor]) -> None:
        """Put the weights into the object store now."""
        with self._lock:
            self._packed = ray_library().put(pack(weights))

    def retire(self, *, keep: bool) -> None:
        """The trainer is about to change the weights.

        Args:
            keep: The engines sample with them for a while: keep a copy in the object store.
        """
        with self._lock:
            if keep:
                self._pack()
            self._source = None

    def _pack(self) -> Any:
        if self._packed is None and self._source is not None:
            self._packed = ray_library().put(pack(self._source()))
        return self._packed
