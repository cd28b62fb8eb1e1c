"""Adapters on their way to vLLM, which adds them to the weights that it was started with."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentgym.errors import ConfigError
from agentgym.models.lora import CONFIG, WEIGHTS

if TYPE_CHECKING:
    import torch

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Largest ranks for which vLLM can be started."""


class AdapterFolder:
    """The newest adapters, in a folder in PEFT's format.

    Args:
        config: PEFT's configuration of the adapters, as its file holds it.

    Raises:
        ConfigError: Their rank is larger than vLLM supports.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        if config["r"] > RANKS[-1]:
            raise ConfigError(
                f"lora.rank is {config['r']}, expected at most {RANKS[-1]} for vLLM with adapters: "
                f"set `--lora.sync merged`"
            )
        self.rank = next(rank for rank in RANKS if rank >= config["r"])
        """The largest rank for which vLLM is to be started."""
        self._config = json.dumps(config, default=str)
        self._root = Path(tempfile.mkdtemp(prefix="agentgym-adapters-"))
        self.number = 0
        """How many were written."""

    @property
    def path(self) -> Path:
        """Of the newest ones."""
        return self._root / str(self.number)

    def write(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Write new adapters beside the last ones, and remove those before."""
        from safetensors.torch import save_file

        shutil.rmtree(self._root / str(self.number - 1), ignore_errors=True)
        self.number += 1
        self.path.mkdir()
        (self.path / CONFIG).write_text(self._config, encoding="utf-8")
        named = {name: w.detach().cpu().contiguous() for name, w in weights.items()}
        save_file(named, self.path / WEIGHTS)

    def close(self) -> None:
        """Remove them."""
        shutil.rmtree(self._root, ignore_errors=True)
