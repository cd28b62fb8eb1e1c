"""Where a run keeps what it makes.

RUN/config.yaml             the resolved configuration
RUN/checkpoints/warm        the model before reinforcement, an ordinary Hugging Face folder;
                            where adapters are trained, a folder in PEFT's format, or their base
RUN/checkpoints/step-0010   the same during it, with the trainer's state in trainer.pt
RUN/checkpoints/final       and after it
RUN/metrics.jsonl           one line per training step
RUN/episodes.jsonl          one line per training episode
RUN/eval/before.jsonl       one line per episode of the frozen panel; after.jsonl likewise
RUN/report.txt, report.png  the result
RUN/failed-step-0003        a step whose loss was no number: see ``agentgym.experiment.failed_step``
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentgym.errors import ConfigError
from agentgym.models.lora import base_of

KEPT = 2
"""Step checkpoints that stay; older ones are removed."""
BESIDE = "beside"
"""In the trainer's state: hash of the weights and the tokenizer it was saved with."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The paths of one run, and how its checkpoints are written: whole or not at all."""

    root: Path

    @classmethod
    def holding(cls, checkpoint: Path) -> RunFolder | None:
        """The run of which this is a checkpoint; None where it lies anywhere else."""
        found = cls(checkpoint.parent.parent)
        return found if checkpoint.parent.name == "checkpoints" and found.config.is_file() else None

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.root / "config.yaml"

    @property
    def warm(self) -> Path:
        """The checkpoint before reinforcement."""
        return self.root / "checkpoints" / "warm"

    @property
    def final(self) -> Path:
        """The checkpoint after it."""
        return self.root / "checkpoints" / "final"

    @property
    def metrics(self) -> Path:
        """One JSON line per training step."""
        return self.root / "metrics.jsonl"

    @property
    def episodes(self) -> Path:
        """One JSON line per training episode."""
        return self.root / "episodes.jsonl"

    @property
    def table(self) -> Path:
        """The result as text."""
        return self.root / "report.txt"

    @property
    def plot(self) -> Path:
        """The result as a picture."""
        return self.root / "report.png"

    def evaluation(self, name: str) -> Path:
        """One JSON line per episode of an evaluation."""
        return self.root / "eval" / f"{name}.jsonl"

    def step(self, number: int) -> Path:
        """The checkpoint after a training step."""
        return self.root / "checkpoints" / f"step-{number:04d}"

    def failed(self, number: int) -> Path:
        """What is kept of a training step, counted from 0, whose loss was no number."""
        return self.root / f"failed-step-{number:04d}"

    def latest_step(self) -> Path | None:
        """The newest checkpoint of a training step, if there is one."""
        found = sorted(self.root.glob("checkpoints/step-*"))
        return found[-1] if found else None

    def save(
        self, where: Path, model: Any, tokenizer: Any, state: dict[str, Any] | None = None
    ) -> None:
        """Write a model folder, with the trainer's state when given; a kill leaves none or all."""
        import torch
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        partial = where.with_name(f".{where.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        if state is not None:
            torch.save(state | {BESIDE: _hash(partial).hexdigest()}, partial / "trainer.pt")
        shutil.rmtree(where, ignore_errors=True)
        partial.rename(where)
        for old in sorted(self.root.glob("checkpoints/step-*"))[:-KEPT]:
            shutil.rmtree(old)

    def load_state(self, where: Path) -> dict[str, Any]:
        """The trainer's state of a step checkpoint.

        Raises:
            ConfigError: It was saved beside other weights or another tokenizer, so that what it
                remembers (moments, episodes to replay) is of another model.
        """
        import torch

        file = where / "trainer.pt"
        state: dict[str, Any] = torch.load(file, weights_only=True)
        if state.pop(BESIDE, None) != _hash(where).hexdigest():
            raise ConfigError(
                f"{file} is of another model or tokenizer than the one beside it: put back the "
                f"files it was saved with, or remove {where} to go on from the step before"
            )
        return state

    def summary(self) -> str:
        """What was written, a line each."""
        made = {
            "model before": self.warm,
            "model after": self.final,
            "episodes": self.episodes,
            "metrics": self.metrics,
            "evaluations": self.root / "eval",
            "table": self.table,
            "plot": self.plot,
        }
        return "\n".join(f"{name:<13} {path}" for name, path in made.items() if path.exists())


def fingerprint(model: str | Path) -> str:
    """What a result is filed under: changes with the weights or the tokenizer of a folder.

    Sixteen hexadecimal digits for a folder; a hub id is its own name. Adapters change with their
    base, too.
    """
    folder = Path(model)
    if not folder.is_dir():
        return str(model)
    digest = _hash(folder)
    if base := base_of(folder):
        digest.update(fingerprint(base).encode())
    return digest.hexdigest()


def _hash(folder: Path) -> hashlib.blake2b:
    """Of the weights and the tokenizer in a folder."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(folder.glob("*.safetensors")) + sorted(folder.glob("token*.json")):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest
