"""Run by torchrun: the learner of several ranks against that of one process, case by case.

    torchrun --nproc-per-node 2 tests/ranks_worker.py CASE...

Rank 0 prints one JSON line per case: the largest relative difference of observed columns, credit,
gradient, weights and metrics after two steps.
"""

import copy
import json
import sys
import warnings
from typing import Any, NamedTuple

import torch

warnings.simplefilter("ignore")
torch.set_num_threads(1)

from agentgym import plugins  # noqa: E402
from agentgym.algorithm import DEFAULT_RUN, Algorithm  # noqa: E402
from agentgym.batch.batch import collate  # noqa: E402
from agentgym.distributed import sharding  # noqa: E402
from agentgym.distributed.learner import ShardedLearner  # noqa: E402
from agentgym.distributed.process_group import ProcessGroup, join  # noqa: E402
from agentgym.models import from_scratch, policy  # noqa: E402
from agentgym.models.lora import add_lora  # noqa: E402
from agentgym.models.policy import Policy  # noqa: E402
from agentgym.settings import LoraSettings, OptimizerSettings, ScratchSettings  # noqa: E402
from agentgym.testing.episodes import made_up  # noqa: E402
from agentgym.training.learner import Learner  # noqa: E402

REWARDS = (((1.0, 0.0, 0.0, 1.0), (0.0, 1.0, 0.0)), ((0.0, 1.0, 1.0), (1.0, 0.0, 0.0, 0.0)))


class Case(NamedTuple):
    """What is compared."""

    algorithm: str
    how: str = ""

    @classmethod
    def of(cls, name: str) -> "Case":
        return cls(*name.split("+"))


def network(how: str) -> Any:
    tokenizer = from_scratch.make_tokenizer(["".join(map(chr, range(97, 123)))] * 3, 300)
    shape = ScratchSettings(
        hidden_size=16, num_layers=2, num_heads=2, num_kv_heads=1, intermediate_size=16
    )
    model = from_scratch.make_model(tokenizer, shape, context=256, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8 if parameter.dim() > 1 else 1)
    if how == "lora":
        add_lora(model, LoraSettings(rank=2, alpha=8), seed=3)
    return model


def settings(how: str) -> OptimizerSettings:
    return OptimizerSettings(
        learning_rate=1e-2,
        microbatch_tokens=120,
        gradient_checkpointing=how == "checkpointing",
        cpu_offload=how == "offload",
    )


def run(learner: Learner, algorithm: Algorithm, how: str) -> dict[str, Any]:
    """Two steps; everything that came of them, whole."""
    learner.attach(algorithm)
    state = algorithm.credit.init()
    found: dict[str, Any] = {"metrics": []}
    for step, rewards in enumerate(REWARDS):
        batch = learner.observe(collate(made_up(step, rewards, windowed=how == "windowed")))
        found[f"observed {step}"] = {"logprob": batch.logprob, "entropy": batch.entropy}
        found[f"observed {step}"] |= dict(batch.extra)
        batch, state = algorithm.credit.apply(batch, state, step)
        found[f"credit {step}"] = {"advantage": batch.advantage, "weight": batch.weight}
        if step == 0:
            found["gradient"] = gradient(learner, batch, algorithm)
        for update in algorithm.updates:
            found["metrics"].append(learner.update(batch, update, step))
    found["weights"] = {
        name: sharding.whole(p) for name, p in learner.policy.model.named_parameters()
    }
    found["state"] = learner.state()
    return found


def gradient(learner: Learner, batch: Any, algorithm: Algorithm) -> dict[str, torch.Tensor]:
    update, generator = algorithm.updates[0], learner.generator.get_state()
    learner._zero_grad()
    learner.gradient(learner.prepare(batch, update), update, 0)
    parameters = learner.policy.model.named_parameters()
    found = {name: sharding.whole(p.grad) for name, p in parameters if p.grad is not None}
    learner._zero_grad()
    learner.generator.set_state(generator)
    return found


def difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Largest difference, relative to the largest value of its column."""
    assert one.keys() == other.keys(), sorted(one.keys() ^ other.keys())

    def apart(a: Any, b: Any) -> float:
        a, b = torch.as_tensor(a).double(), torch.as_tensor(b).double()
        return float((a - b).abs().max() / b.abs().max().clamp(min=1e-9)) if len(b.view(-1)) else 0

    return max((apart(one[name], other[name]) for name in one), default=0.0)


def compare(case: Case, ranks: ProcessGroup) -> dict[str, float]:
    algorithm = plugins.algorithm(case.algorithm)().build(DEFAULT_RUN)
    model, how = network(case.how), settings(case.how)
    whole = Learner(Policy(copy.deepcopy(model)), how, seed=3)
    expected = run(whole, algorithm, case.how)
    learner = ShardedLearner(Policy(model), how, ranks, seed=3)
    found = run(learner, algorithm, case.how)
    again = ShardedLearner(Policy(network(case.how)), how, ranks, seed=3)
    again.attach(algorithm)
    again.restore(expected["state"])
    found["restored"], expected["restored"] = (
        {str(n): m["exp_avg"] for n, m in each["optimizer"]["state"].items()}
        for each in (again.state(), expected["state"])
    )
    metrics = [
        difference(one, other)
        for one, other in zip(found.pop("metrics"), expected.pop("metrics"), strict=True)
    ]
    del found["state"], expected["state"]
    columns = {name: difference(found[name], expected[name]) for name in expected}
    return {**columns, "metrics": max(metrics, default=0.0)}


def main() -> None:
    ranks = join()
    assert ranks is not None
    for name in sys.argv[1:]:
        case = Case.of(name)
        policy.MAX_LOGITS = 300 * 17 if case.how == "pieces" else 2**24
        found = compare(case, ranks)
        if ranks.lead:
            sys.stdout.write(json.dumps({"case": name, **found}) + "\n")
            sys.stdout.flush()


main()
