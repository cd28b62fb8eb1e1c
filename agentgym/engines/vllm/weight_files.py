"""Weights on their way to a vLLM server, which reads them from files."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

FILE = 2**28
"""Bytes of weights after which another file is begun."""


def write_weights(weights: Iterable[tuple[str, torch.Tensor]], root: Path) -> Path:
    """Write weights to a new folder; after an error none is left.

    Args:
        weights: Names and values, one after another.
        root: Folder in which the new one is made.
    """
    folder = Path(tempfile.mkdtemp(prefix="weights-", dir=root))
    try:
        _write_files(weights, folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def _write_files(weights: Iterable[tuple[str, torch.Tensor]], folder: Path) -> None:
    """Files of about ``FILE`` bytes, so that memory holds the weights of one of them."""
    from safetensors.torch import save_file

    numbers = count()

    def write(named: dict[str, torch.Tensor]) -> None:
        save_file(named, folder / f"model-{next(numbers):05}.safetensors")

    named: dict[str, torch.Tensor] = {}
    size = 0
    for name, weight in weights:
        # Copies: tied weights share memory, which safetensors does not support.
        named[name] = weight.detach().cpu().clone().contiguous()
        size += weight.nbytes
        if size >= FILE:
            write(named)
            named, size = {}, 0
    write(named)
