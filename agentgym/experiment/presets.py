"""Settings that fit the model: ``pretrained.yaml`` for ``--model``, the defaults without it.

What sets a value, later over earlier: the defaults; the file ``pretrained.yaml`` if there is a
model; a file of the user; flags. A recipe is a file with a section ``pretrained``: its other values
are for a model made from scratch, so the file ``pretrained.yaml`` and that section override them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from agentgym.settings import Experiment, RolloutSettings
from agentgym.utils import yaml_config

FILE = Path(__file__).with_name("pretrained.yaml")
"""Where the settings for a pretrained model are listed, with their sources."""
SECTION = "pretrained"
"""Section of a recipe with its settings for a pretrained model."""
ADAPTERS = "adapter_config.json"
"""What a folder of adapters in PEFT's format holds."""
FAR = 30
"""Factor between a learning rate and the usual one from which a warning is given."""

T = TypeVar("T")


def fitted_values(
    values: Mapping[str, Any], *, model: str | None = None, lora: bool = False
) -> dict[str, Any]:
    """The values of a settings file, with those that its model selects.

    Args:
        values: Plain values, as read from YAML.
        model: Model given besides the file.
        lora: Whether adapters are asked for besides the file.
    """
    base = {name: value for name, value in values.items() if name != SECTION}
    model = values.get("model") if model is None else model
    if model is None:
        return base
    section = values.get(SECTION) or {}
    rank = _nested(merged(base, section), "lora", "rank")
    preset = _preset(lora or trains_adapters(model, rank))
    if SECTION not in values:
        return merged(preset, base)
    # Which arguments an environment takes is one value: parts of two sets may not fit together.
    whole = {"env_args": section["env_args"]} if "env_args" in section else {}
    return merged(base, preset, section) | whole


def trains_adapters(model: str, rank: int | None) -> bool:
    """Whether adapters are trained: new ones of a rank, or those that a folder holds."""
    return rank is not None or (Path(model) / ADAPTERS).is_file()


def fitted_algorithm(algo: T, values: Mapping[str, Any]) -> T:
    """An algorithm's settings with a critic's learning rate for a pretrained model.

    Args:
        algo: The settings; without a critic they stay as they are.
        values: Plain values of the algorithm's section in a file, which come first.
    """
    name = "critic_learning_rate"
    known = {f.name for f in dataclasses.fields(algo)}  # type: ignore[arg-type]
    if name not in known or name in values:
        return algo
    changed: T = dataclasses.replace(algo, **{name: _read()[name]})  # type: ignore[type-var]
    return changed


def pretrained_rollout() -> RolloutSettings:
    """How a pretrained model plays."""
    rollout: RolloutSettings = yaml_config.decode(
        RolloutSettings, _preset(lora=False)["rollout"], where=str(FILE)
    )
    return rollout


def advice(experiment: Experiment) -> tuple[str, ...]:
    """One line for each learning rate that is far from the usual ones for its model."""
    model = experiment.model
    lora = model is not None and trains_adapters(model, experiment.lora.rank)
    usual = Experiment() if model is None else _usual(lora)
    pairs = [("optimizer", experiment.optimizer.learning_rate, usual.optimizer.learning_rate)]
    if experiment.imitation.pretrained or model is None:
        rates = experiment.imitation.learning_rate, usual.imitation.learning_rate
        pairs.append(("imitation", *rates))
    kind = "a model made from scratch"
    if model is not None:
        kind = "adapters of a pretrained model" if lora else "all weights of a pretrained model"
    return tuple(
        f"{section}.learning_rate is {rate:g}, usual for {kind} is about {expected:g}"
        for section, rate, expected in pairs
        if rate > FAR * expected or 0 < rate < expected / FAR
    )


def merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings as one; later ones override earlier ones, value by value.

    Examples:
        >>> merged({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"c": 4}})
        {'a': 1, 'b': {'c': 4, 'd': 3}}
    """
    whole: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            before = whole.get(name)
            both = isinstance(before, Mapping) and isinstance(value, Mapping)
            whole[name] = merged(before, value) if both else value  # type: ignore[arg-type]
    return whole


def _nested(values: Mapping[str, Any], section: str, name: str) -> Any:
    found = values.get(section)
    return found.get(name) if isinstance(found, Mapping) else None


def _usual(lora: bool) -> Experiment:
    usual: Experiment = yaml_config.decode(Experiment, _preset(lora), where=str(FILE))
    return usual


def _preset(lora: bool) -> dict[str, Any]:
    file = _read()
    return merged(file["all"], file["lora" if lora else "full"])


@cache
def _read() -> Any:
    return yaml_config.read(FILE)
