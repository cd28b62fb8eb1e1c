"""Run by torchrun: the learner of several ranks against that of one process, case by case.

    torchrun --nproc-per-node 2 tests/ranks_worker.py FOLDER CASE...

Rank 0 prints one JSON line per case: the largest relative difference of observed columns, credit,
gradient, weights and metrics after two steps; and of weights and optimizer state that went through
checkpoints of the ranks and of one process, read by ranks and by one process.
"""

import copy
import json
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

warnings.simplefilter("ignore")
torch.set_num_threads(1)

from agentgym import plugins  # noqa: E402
from agentgym.algorithm import DEFAULT_RUN, Algorithm  # noqa: E402
from agentgym.batch.collate import collate  # noqa: E402
from agentgym.distributed import sharding  # noqa: E402
from agentgym.distributed.learner import ShardedLearner  # noqa: E402
from agentgym.distributed.process_group import ProcessGroup, join  # noqa: E402
from agentgym.models import from_scratch, policy  # noqa: E402
from agentgym.models.loading import load_model  # noqa: E402
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


def network(how: str, folder: Path) -> Any:
    tokenizer = from_scratch.make_tokenizer(["".join(map(chr, range(97, 123)))] * 3, 300)
    shape = ScratchSettings(
        hidden_size=16, num_layers=2, num_heads=2, num_kv_heads=1, intermediate_size=16
    )
    model = from_scratch.make_model(tokenizer, shape, context=256, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8 if parameter.dim() > 1 else 1)
    if how == "untied":
        model.config.tie_word_embeddings = False
        head: Any = model.get_output_embeddings()
        head.weight = torch.nn.Parameter(head.weight.detach() * 0.9)
    if how == "lora":
        base = folder / "base"
        if dist.get_rank() == 0:
            model.save_pretrained(base)
        dist.barrier()
        model = load_model(base)
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
    found["weights"] = weights(learner)
    return found


def weights(learner: Learner) -> dict[str, torch.Tensor]:
    """The policy's weights, and all that a checkpoint holds besides, whole."""
    named = dict(learner.policy.model.named_parameters()) | learner.networks.tensors().named()
    return {name: sharding.whole(each).clone() for name, each in named.items()}


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


def compare(case: Case, ranks: ProcessGroup, folder: Path) -> dict[str, float]:
    algorithm = plugins.algorithm(case.algorithm)().build(DEFAULT_RUN)
    model, how = network(case.how, folder), settings(case.how)
    whole = Learner(Policy(copy.deepcopy(model)), how, seed=3)
    expected = run(whole, algorithm, case.how)
    learner = ShardedLearner(Policy(model), how, seed=3, ranks=ranks)
    found = run(learner, algorithm, case.how)
    metrics = [
        difference(one, other)
        for one, other in zip(found.pop("metrics"), expected.pop("metrics"), strict=True)
    ]
    columns = {name: difference(found[name], expected[name]) for name in expected}
    if case.how != "lora":
        refused_by_all(learner, ranks, folder / "taken")
    checkpoints = saved_and_resumed(whole, learner, algorithm, ranks, folder)
    return {**columns, "metrics": max(metrics, default=0.0), **checkpoints}


def refused_by_all(learner: ShardedLearner, ranks: ProcessGroup, folder: Path) -> None:
    """What rank 1 cannot write is an error on every rank, and none waits for another."""
    if ranks.lead:
        folder.mkdir(parents=True)
        (folder / "part-00001").touch()
    dist.barrier()
    try:
        learner.saving(folder, state=True, copies=False)()
    except OSError as problem:
        assert "rank 1: " in str(problem) and "part-00001" in str(problem)
    else:
        raise AssertionError("written over a file")


def saved_and_resumed(
    whole: Learner, learner: Learner, algorithm: Algorithm, ranks: ProcessGroup, folder: Path
) -> dict[str, float]:
    """What went through files: of the ranks and of one process, read by ranks and by one."""
    alone, together = folder / "alone", folder / "together"
    together.mkdir(parents=True, exist_ok=True)
    for of, where in ((whole, alone), (learner, together)):
        write = of.saving(where, state=True, copies=True)
        before = weights(of)
        for parameter in of.policy.model.parameters():
            parameter.data.mul_(2)
        write()
        for parameter in of.policy.model.parameters():
            parameter.data.div_(2)
        assert difference(weights(of), before) == 0
    dist.barrier()
    found = {}
    for of, where in ((whole, alone), (learner, together)):
        for kind, group in ((Learner, None), (ShardedLearner, ranks)):
            again = kind(Policy(load_model(where)), whole.settings, seed=4, ranks=group)
            again.attach(algorithm)
            again.restore(of.state(), where)
            assert torch.equal(again.generator.get_state(), of.generator.get_state())
            found[f"{where.name}, read by {kind.__name__}"] = difference(
                weights(again), weights(of)
            )
    return found


def main() -> None:
    ranks = join()
    assert ranks is not None
    scratch, *names = sys.argv[1:]
    for name in names:
        case = Case.of(name)
        policy.MAX_LOGITS = 300 * 17 if case.how == "pieces" else 2**24
        found = compare(case, ranks, Path(scratch) / name)
        if ranks.lead:
            sys.stdout.write(json.dumps({"case": name, **found}) + "\n")
            sys.stdout.flush()


main()
