"""The golden numbers of the entropy family, and the two episodes they were computed from."""

import json
from pathlib import Path

import pytest

from agentgym.losses.compose import Outputs
from agentgym.testing.batches import batch_of, written

GOLDEN = json.loads((Path(__file__).parent / "golden" / "family.json").read_text())
FIXTURE = GOLDEN["F1"]


def near(values, tolerance=1e-6):
    return pytest.approx(values, abs=tolerance)


def flat(rows):
    """Two rows of the fixture without the padding at the end of the second."""
    return [*rows[0], *rows[1][:3]]


def episodes(**about):
    """Two episodes of four and three tokens."""
    batch = batch_of([[4], [3]], **about)
    return batch.with_(
        advantage=written(batch, flat(FIXTURE["A"])), logprob=written(batch, flat(FIXTURE["old"]))
    )


def fixture():
    """The two episodes, and the outputs of a slightly later policy."""
    batch = episodes()
    logprob = written(batch, flat(FIXTURE["new"])).requires_grad_()
    return batch, Outputs(logprob, written(batch, flat(FIXTURE["H"])))
