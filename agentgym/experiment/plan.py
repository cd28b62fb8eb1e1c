"""A training run as settings: an experiment, the name of its algorithm, and the algorithm's fields.

``config.yaml`` of a run folder, recipes and files given with ``--config`` hold these.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from agentgym import plugins
from agentgym.env import registry
from agentgym.errors import ConfigError, did_you_mean
from agentgym.experiment.presets import fitted_algorithm, fitted_values
from agentgym.experiment.sources import OBJECT, not_nameable, object_name
from agentgym.settings import Experiment
from agentgym.utils import yaml_config

DEFAULT_ALGORITHM = "gigpo"
"""The algorithm of a run that names none; on the default run it improved with every seed tried."""
VARIANTS = ("paper", "released")
"""Constructors of an algorithm's settings, besides the default."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a training run does."""

    algorithm: str
    """Name of an installed algorithm, with its variant: ``epo`` or ``epo.paper``."""
    algo: Any
    """Settings of the algorithm: a dataclass with ``build()``."""
    experiment: Experiment = field(default_factory=Experiment)

    def dump(self) -> str:
        """The YAML text from which ``load_plan`` rebuilds the plan."""
        plain = yaml_config.encode(self.experiment)
        return yaml_config.dump(
            {**plain, "algorithm": self.algorithm, "algo": yaml_config.encode(self.algo)}
        )


def algorithm_settings(name: str) -> Any:
    """Settings of an algorithm by name: ``grpo``, ``grpo.paper`` or ``grpo.released``.

    Raises:
        ConfigError: There is no such algorithm or variant.
    """
    base, _, variant = name.partition(".")
    kind = plugins.algorithm(base)
    if variant and variant not in VARIANTS:
        raise ConfigError(
            f"{base} has no variant {variant!r}.{did_you_mean(variant, VARIANTS)} "
            f"Variants: {', '.join(VARIANTS)}"
        )
    return getattr(kind, variant)() if variant else kind()


def name_of(algo: Any) -> str:
    """The name of an algorithm given as an object: that of its class where it is installed.

    Raises:
        ConfigError: The object is not a dataclass with a method ``build``.
    """
    if isinstance(algo, type) or not dataclasses.is_dataclass(algo) or not hasattr(algo, "build"):
        raise ConfigError(
            f"the algorithm is {algo!r}, expected a name or a dataclass instance with `build()`"
        )
    installed: dict[type[Any], str] = {kind: name for name, kind in plugins.algorithms().items()}
    return installed.get(type(algo), object_name(type(algo)))


def load_plan(
    file: str | Path | None = None,
    algorithm: str | None = None,
    *,
    algo: Any = None,
    model: str | None = None,
    lora: bool = False,
) -> Plan:
    """What a file sets, with an algorithm: the given one, else the file's, else the default.

    Args:
        file: YAML; the defaults where it is None.
        algorithm: Name of an algorithm; another one than the file's leaves out the file's ``algo``.
        algo: Settings of the algorithm given as an object.
        model: Model given besides the file; it selects settings that fit a pretrained model.
        lora: Whether adapters are asked for besides the file.

    Raises:
        ConfigError: The file does not fit, or its algorithm is an object that is not given.
    """
    values = {} if file is None else yaml_config.read(file)
    if not isinstance(values, dict):
        raise ConfigError(f"{file} is {values!r}, expected the fields of Experiment")
    values = fitted_values(values, model=model, lora=lora)
    filed = None if file is None else yaml_config.peek(file, "algorithm")
    values.pop("algorithm", None)
    fields = values.pop("algo", None)
    if algo is None:
        name = algorithm or filed or DEFAULT_ALGORITHM
        if name.startswith(OBJECT):
            raise ConfigError(not_nameable("algorithm", name))
        algo = algorithm_settings(name)
        if model is not None or values.get("model") is not None:
            algo = fitted_algorithm(algo, fields if isinstance(fields, dict) else {})
        if fields is not None and (filed is None or algorithm in (None, filed)):
            algo = _with_fields(algo, fields, f"{file}.algo")
    else:
        name = name_of(algo)
    experiment = yaml_config.decode(Experiment, values, where=str(file))
    return Plan(algorithm=name, algo=algo, experiment=experiment)


def plan_for_env(
    name: str,
    algorithm: str | None = None,
    *,
    algo: Any = None,
    model: str | None = None,
    lora: bool = False,
) -> Plan:
    """The plan of an environment's recipe; the defaults where it has none.

    Raises:
        ConfigError: There is no such environment.
    """
    env = registry.full_id(name)
    plan = load_plan(registry.recipe(env), algorithm, algo=algo, model=model, lora=lora)
    return dataclasses.replace(plan, experiment=dataclasses.replace(plan.experiment, env=env))


def recipe_settings(env: str, *, model: str | None = None, lora: bool = False) -> Experiment:
    """The settings of an environment's recipe, without the algorithm; see ``load_plan``."""
    full = registry.full_id(env)
    file = registry.recipe(full)
    values = fitted_values({} if file is None else yaml_config.read(file), model=model, lora=lora)
    for name in ("algorithm", "algo"):
        values.pop(name, None)
    found: Experiment = yaml_config.decode(Experiment, values, where=str(file))
    return dataclasses.replace(found, env=full)


def override(experiment: Experiment, changes: Mapping[str, Any]) -> Experiment:
    """The settings with some fields changed.

    Args:
        experiment: The settings.
        changes: Field to value; a section takes a settings object, or a mapping of its fields.

    Raises:
        ConfigError: Naming a field that does not exist, or a value of another type.
    """
    plain = yaml_config.encode(experiment)
    for name, value in changes.items():
        now = getattr(experiment, name, None)
        if isinstance(value, Mapping) and dataclasses.is_dataclass(now):
            plain[name] = {**plain[name], **yaml_config.encode(dict(value))}
        else:
            plain[name] = yaml_config.encode(value)
    changed: Experiment = yaml_config.decode(Experiment, plain, where="settings")
    return changed


def _with_fields(algo: Any, fields: Any, where: str) -> Any:
    """An algorithm's settings with the fields that a file names."""
    if not isinstance(fields, dict):
        raise ConfigError(f"{where} is {fields!r}, expected the fields of {type(algo).__name__}")
    hints = get_type_hints(type(algo))
    known = [each.name for each in dataclasses.fields(algo)]
    for key in fields:
        if key not in known:
            raise ConfigError(
                f"{where}: {type(algo).__name__} has no field {key!r}."
                f"{did_you_mean(str(key), known)} Fields: {', '.join(known)}"
            )
    decoded = {
        key: yaml_config.decode(hints[key], value, where=f"{where}.{key}")
        for key, value in fields.items()
    }
    return dataclasses.replace(algo, **decoded)
