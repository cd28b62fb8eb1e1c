"""Layout of a run folder.

RUN/config.yaml             the resolved configuration
RUN/checkpoints/warm        the model before reinforcement learning, a Hugging Face folder; with
                            LoRA, a folder in PEFT's format, or the base model
RUN/checkpoints/step-0010   the same during it, with the trainer's state in trainer.pt; of several
                            ranks, the tensors among it are in the folder optimizer
RUN/checkpoints/final       and after it
RUN/metrics.jsonl           one line per training step
RUN/episodes.jsonl          one line per training episode
RUN/eval/before.jsonl       one line per episode of the frozen panel; after.jsonl likewise
RUN/report.html             the report, which grows while the run goes
RUN/report.txt, report.png  the result
RUN/losses.json             of a run on a cluster: what died so far, and what was done again
RUN/versions.json           packages and machine of the latest start
RUN/failed-step-0003        a step with a non-finite loss: see ``agentgym.experiment.failed_step``
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentgym.errors import CannotWrite, ConfigError

KEPT = 2
"""Step checkpoints that stay; older ones are removed."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The paths of one run; checkpoints are written atomically."""

    root: Path

    @classmethod
    def of_checkpoint(cls, checkpoint: Path) -> RunFolder | None:
        """The run that a checkpoint, or a link to one, belongs to; None outside a run folder."""
        checkpoint = checkpoint.resolve()
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
        """One JSON line per training episode; compressed where the run compresses them."""
        compressed = self.episodes_file(compressed=True)
        return compressed if compressed.exists() else self.episodes_file(compressed=False)

    def episodes_file(self, *, compressed: bool) -> Path:
        """The file that training episodes are written to."""
        return self.root / ("episodes.jsonl.zst" if compressed else "episodes.jsonl")

    @property
    def table(self) -> Path:
        """The result as text."""
        return self.root / "report.txt"

    @property
    def plot(self) -> Path:
        """The result as a picture."""
        return self.root / "report.png"

    @property
    def page(self) -> Path:
        """The report, rewritten while the run goes."""
        return self.root / "report.html"

    @property
    def versions(self) -> Path:
        """Packages and machine of the latest start."""
        return self.root / "versions.json"

    @property
    def losses(self) -> Path:
        """What died on a cluster so far."""
        return self.root / "losses.json"

    def evaluation(self, name: str) -> Path:
        """One JSON line per episode of an evaluation."""
        return self.root / "eval" / f"{name}.jsonl"

    def step(self, number: int) -> Path:
        """The checkpoint after a training step."""
        return self.root / "checkpoints" / f"step-{number:04d}"

    def failed(self, number: int) -> Path:
        """Folder of a training step, counted from 0, with a non-finite loss."""
        return self.root / f"failed-step-{number:04d}"

    def latest_step(self) -> Path | None:
        """The newest checkpoint of a training step, if there is one."""
        found = sorted(self.root.glob("checkpoints/step-*"))
        return found[-1] if found else None

    def begin(self, where: Path) -> Path:
        """A new empty folder, to write a checkpoint into until ``complete``."""
        partial = where.with_name(f".{where.name}.partial")
        with one_line(where):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        return partial

    def complete(self, where: Path, partial: Path) -> None:
        """A checkpoint is written: give it its name, and remove old ones."""
        shutil.rmtree(where, ignore_errors=True)
        partial.rename(where)
        for old in sorted(self.root.glob("checkpoints/step-*"))[:-KEPT]:
            shutil.rmtree(old)

    def taken(self) -> int:
        """Training steps in the metrics file."""
        return self.metrics.read_bytes().count(b"\n") if self.metrics.exists() else 0

    def saved(self) -> str:
        """What a resumed run continues from, in a sentence."""
        last = self.latest_step()
        if self.final.exists():
            return "training is complete and saved"
        if last is not None:
            step = int(last.name.removeprefix("step-"))
            again = max(0, self.taken() - step)
            return f"step {step} is saved" + (
                f", {again} later steps are repeated" if again else ""
            )
        if self.warm.exists():
            return f"the warm-up is saved, {self.taken()} training steps are repeated"
        return "no checkpoint is saved yet"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process; the lock ends with the process.

        Raises:
            ConfigError: Another process holds it, or the folder cannot be written.
        """
        with one_line(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            file = (self.root / ".lock").open("a+")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                owner = file.read().strip() or "unknown"
                raise ConfigError(
                    f"{self.root} is in use by another process (pid {owner}): wait for it to end, "
                    f"or choose another folder with `--out`"
                ) from None
            except OSError:  # A file system without locks.
                pass
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def held(self) -> bool:
        """Whether a process, this one included, works on the run."""
        try:
            with (self.root / ".lock").open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        except OSError:  # A file system without locks.
            return False
        return False

    def archive(self, steps: int) -> None:
        """Make room for further steps: rename the results after ``steps`` steps, keeping them."""
        moves = {
            self.final: self.final.with_name(f"final-{steps:04d}"),
            self.evaluation("after"): self.evaluation(f"after-{steps:04d}"),
            self.table: self.root / f"report-{steps:04d}.txt",
            self.plot: self.root / f"report-{steps:04d}.png",
        }
        for now, then in moves.items():
            if now.exists():
                now.rename(then)

    def summary(self) -> str:
        """What was written, one line each."""
        made = {
            "model before": self.warm,
            "model after": self.final,
            "episodes": self.episodes,
            "metrics": self.metrics,
            "evaluations": self.root / "eval",
            "table": self.table,
            "plot": self.plot,
            "report": self.page,
        }
        return "\n".join(f"{name:<13} {path}" for name, path in made.items() if path.exists())


def fingerprint_of(model: Any, tokenizer: Any) -> str:
    """Identity of a model in memory: changes with its weights or its tokenizer's vocabulary."""
    import torch

    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    digest.update(repr(sorted(tokenizer.get_vocab().items())).encode())
    digest.update(str(tokenizer.chat_template).encode())
    return digest.hexdigest()


def fingerprint(model: str | Path) -> str:
    """Identity of a model: changes with the weights or the tokenizer of a folder.

    Sixteen hexadecimal digits for a folder or a GGUF file; a hub id for itself. For adapters it
    includes the base.
    """
    from agentgym.models.lora import base_model_of

    folder = Path(model)
    if folder.is_file():
        return _hash_files([folder]).hexdigest()
    if not folder.is_dir():
        return str(model)
    digest = hash_of(folder)
    if base := base_model_of(folder):
        digest.update(fingerprint(base).encode())
    return digest.hexdigest()


@contextmanager
def one_line(where: Path) -> Iterator[None]:
    """Report a folder that cannot be written in one line.

    Raises:
        CannotWrite: Naming the folder and the reason.
    """
    try:
        yield
    except ConfigError:
        raise
    except Exception as problem:
        # torch and safetensors report full disks as errors of their own: "file write failed" and
        # "No space left on device (os error 28)".
        text = str(problem) + repr(problem.args)
        if not isinstance(problem, OSError) and "rite" not in text and "os error" not in text:
            raise
        reason = getattr(problem, "strerror", None) or str(problem).splitlines()[0]
        raise CannotWrite(f"cannot write {where}: {reason}") from problem


def hash_of(folder: Path) -> hashlib.blake2b:
    """Hash of the weights and the tokenizer in a folder."""
    return _hash_files(sorted(folder.glob("*.safetensors")) + sorted(folder.glob("token*.json")))


def _hash_files(paths: Iterable[Path]) -> hashlib.blake2b:
    digest = hashlib.blake2b(digest_size=8)
    for path in paths:
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest
