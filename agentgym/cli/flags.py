"""Unknown options: what was meant, in our names, in TRL's or in verl's."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from agentgym.errors import ConfigError

FOREIGN = {
    # TRL (GRPOConfig, ModelConfig) and Hugging Face's TrainingArguments
    "lr": "optimizer.learning-rate",
    "num-generations": "algo.group-size",
    "max-steps": "steps",
    "num-train-epochs": "steps",
    "per-device-train-batch-size": "tasks-per-step",
    "max-completion-length": "rollout.max-completion-tokens",
    "max-new-tokens": "rollout.max-completion-tokens",
    "max-prompt-length": "rollout.max-context-tokens",
    "beta": "algo.kl-coef",
    "epsilon": "algo.clip-ratio-low",
    "epsilon-high": "algo.clip-ratio-high",
    "num-iterations": "algo.epochs",
    "save-steps": "save-every",
    "lora-r": "lora.rank",
    "lora-alpha": "lora.alpha",
    "lora-target-modules": "lora.target-modules",
    "use-peft": "lora.rank",
    "output-dir": "out",
    "model-name-or-path": "model",
    "use-vllm": "engine",
    "vllm-server-base-url": "server",
    "resume-from-checkpoint": "resume",
    "report-to": "track",
    # verl and verl-agent
    "actor-rollout-ref.model.path": "model",
    "actor-rollout-ref.model.lora-rank": "lora.rank",
    "actor-rollout-ref.model.lora-alpha": "lora.alpha",
    "actor-rollout-ref.actor.optim.lr": "optimizer.learning-rate",
    "actor-rollout-ref.actor.optim.lr-warmup-steps": "optimizer.warmup-steps",
    "actor-rollout-ref.actor.optim.weight-decay": "optimizer.weight-decay",
    "actor-rollout-ref.actor.grad-clip": "optimizer.max-grad-norm",
    "actor-rollout-ref.actor.clip-ratio": "algo.clip-ratio-low",
    "actor-rollout-ref.actor.clip-ratio-high": "algo.clip-ratio-high",
    "actor-rollout-ref.actor.entropy-coeff": "algo.entropy-coef",
    "actor-rollout-ref.actor.kl-loss-coef": "algo.kl-coef",
    "actor-rollout-ref.actor.ppo-epochs": "algo.epochs",
    "actor-rollout-ref.actor.ppo-mini-batch-size": "algo.minibatches",
    "actor-rollout-ref.actor.ppo-max-token-len-per-gpu": "optimizer.microbatch-tokens",
    "actor-rollout-ref.rollout.n": "algo.group-size",
    "actor-rollout-ref.rollout.name": "engine",
    "actor-rollout-ref.rollout.temperature": "rollout.temperature",
    "algorithm.gamma": "algo.discount",
    "algorithm.lam": "algo.gae-lambda",
    "data.train-batch-size": "tasks-per-step",
    "data.max-response-length": "rollout.max-completion-tokens",
    "data.max-prompt-length": "rollout.max-context-tokens",
    "data.train-files": "data",
    "data.val-files": "data",
    "env.env-name": "env",
    "env.max-steps": "rollout.max-turns",
    "env.rollout.n": "algo.group-size",
    "env.seed": "seed",
    "trainer.default-local-dir": "out",
    "trainer.save-freq": "save-every",
    "trainer.logger": "track",
    "trainer.total-epochs": "steps",
    "trainer.total-training-steps": "steps",
    "world": "env",
}
"""Options of other libraries, and of our own verbs, with ours for the same thing."""
TAKEN_FIRST = ("config", "resume", "world")
"""Options that are read before the others, with the fields of a settings class unknown to them."""
_HYDRA = re.compile(r"\+{0,2}([a-z_]\w*(?:\.\w+)+)=")


def known_flags(options: Any) -> set[str]:
    """Names of the options of a dataclass or of an instance, without the leading hyphens."""
    return set(_flags(options, "")) | {"help"}


def check_flags(words: Sequence[str], options: Any, prog: str) -> None:
    """Refuse the first option that does not exist.

    Args:
        words: The command line.
        options: The dataclass of the verb's options, or an instance with its defaults.
        prog: The command, for the message.

    Raises:
        ConfigError: With the option that was probably meant.
    """
    known = known_flags(options)
    for word in words:
        hydra = _HYDRA.match(word)
        if hydra or (word.startswith("--") and len(word) > 2):
            name = (hydra.group(1) if hydra else word[2:].partition("=")[0]).replace("_", "-")
            if hydra or not (name in known or name.startswith("env-args.")):
                raise ConfigError(unknown_option(name, known, prog))


def unknown_option(name: str, known: set[str], prog: str) -> str:
    """The message for an option that does not exist."""
    names = suggestions(name.lower(), known)
    if name.lower() == "algorithm.adv-estimator":
        meant = f" Name the algorithm after the verb: `{prog.rpartition(' ')[0]} grpo`."
    elif names:
        meant = f" Did you mean {' or '.join(f'--{each}' for each in names)}?"
    else:
        meant = ""
    return f"no option --{name}.{meant} `{prog} --help` lists all"


def suggestions(name: str, known: set[str]) -> list[str]:
    """Up to three existing options that may have been meant, best first."""
    everything = known | set(TAKEN_FIRST) - {name}  # Which this verb does not take.
    leaf = name.rpartition(".")[2]
    for foreign in (name, leaf):
        if FOREIGN.get(foreign) in everything:
            return [FOREIGN[foreign]]
        # Some algorithms have the field in the algorithm that they build on.
        inner = FOREIGN.get(foreign, "").replace("algo.", "algo.base.")
        if inner in everything:
            return [inner]
    leaves: dict[str, list[str]] = {}
    for each in sorted(everything):
        leaves.setdefault(each.rpartition(".")[2], []).append(each)
    if leaf in leaves:
        return _most_alike(name, leaves[leaf])
    if "." in name and (near := difflib.get_close_matches(name, everything, n=1, cutoff=0.75)):
        return near
    near = difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.7)
    return _most_alike(name, leaves[near[0]]) if near else []


def _most_alike(name: str, options: list[str]) -> list[str]:
    """Three options, those with the most words of the name first."""
    words = set(re.split(r"[.-]", name))
    return sorted(options, key=lambda each: -len(words & set(re.split(r"[.-]", each))))[:3]


def _flags(options: Any, prefix: str) -> Iterator[str]:
    for field in dataclasses.fields(options):
        # A field such as `with_` carries the underscore for Python's sake.
        name = prefix + field.name.rstrip("_").replace("_", "-")
        value = _value(options, field)
        if dataclasses.is_dataclass(value):
            yield from _flags(value, f"{name}.")
        else:
            yield name
            yield f"{prefix}no-{field.name.replace('_', '-')}"


def _value(options: Any, field: dataclasses.Field[Any]) -> Any:
    if not isinstance(options, type):
        return getattr(options, field.name)
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default
