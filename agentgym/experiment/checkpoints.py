"""Writing and reading checkpoints: each is whole, or it is not there.

A checkpoint is written beside its place and renamed when all of it is there, so a run that is
killed meanwhile continues from the last one.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from transformers.utils import logging

from agentgym.errors import ConfigError
from agentgym.experiment.run_folder import RunFolder, hash_of, one_line
from agentgym.models.protocols import CausalLM, Tokenizer
from agentgym.training.cpu_copy import cpu_copy
from agentgym.training.learner import Learner

STATE = "trainer.pt"
"""File of the trainer's state."""
MODEL_HASH = "model_hash"
"""Key in the state: hash of the weights and the tokenizer it was saved with."""


class Checkpoints:
    """Saves the learner of a run, one checkpoint at a time.

    Args:
        folder: The run.
        learner: What is saved.
        tokenizer: Saved with the model.
        background: A checkpoint is copied to CPU memory and written while training goes on; the
            next one waits for it.
    """

    def __init__(
        self, folder: RunFolder, learner: Learner, tokenizer: Tokenizer, *, background: bool
    ) -> None:
        self.folder, self.learner, self.tokenizer = folder, learner, tokenizer
        self.background = background
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None

    def save(self, where: Path, state: dict[str, Any] | None = None) -> None:
        """Save the current weights; with a state, training goes on from there.

        Raises:
            ConfigError: This checkpoint or the one before cannot be written.
        """
        self.wait()
        copies = self.background and state is not None
        partial = self.folder.begin(where)
        with one_line(where):
            weights = self.learner.saving(partial, state=state is not None, copies=copies)
        held = cpu_copy(state) if copies else state

        def write() -> None:
            with one_line(where):
                weights()
                _write_rest(partial, self.tokenizer, held)
            self.folder.complete(where, partial)

        if copies:
            self._writing = self._thread.submit(write)
        else:
            write()

    def wait(self) -> None:
        """Wait until all is written.

        Raises:
            ConfigError: It cannot be written.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def __enter__(self) -> Checkpoints:
        """Nothing is written yet."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait until all is written; where the run has failed, that is reported instead."""
        self._thread.shutdown()
        if problem is None:
            self.wait()


def save_model(
    folder: RunFolder,
    where: Path,
    model: CausalLM,
    tokenizer: Tokenizer,
    state: dict[str, Any] | None = None,
) -> None:
    """Save a model, with a state when given.

    Raises:
        ConfigError: It cannot be written.
    """
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    partial = folder.begin(where)
    with one_line(where):
        model.save_pretrained(partial)
        _write_rest(partial, tokenizer, state)
    folder.complete(where, partial)


def _write_rest(partial: Path, tokenizer: Tokenizer, state: dict[str, Any] | None) -> None:
    tokenizer.save_pretrained(partial)
    if state is not None:
        torch.save(state | {MODEL_HASH: hash_of(partial).hexdigest()}, partial / STATE)


def load_state(where: Path) -> dict[str, Any]:
    """The trainer's state of a step checkpoint.

    Raises:
        ConfigError: It was saved with other weights or another tokenizer, so that its optimizer
            moments and replay episodes belong to another model.
    """
    file = where / STATE
    state: dict[str, Any] = torch.load(file, weights_only=True)
    if state.pop(MODEL_HASH, None) != hash_of(where).hexdigest():
        raise ConfigError(
            f"{file} belongs to another model or tokenizer than the one in its folder: put "
            f"back the files it was saved with, or remove {where} to continue from the "
            f"previous checkpoint"
        )
    return state
