"""What an evaluation is of: a model under settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Setting = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class EvalSpec:
    """What is evaluated, under which settings."""

    model: str
    """Fingerprint of the weights, or another name that changes when they do."""
    settings: Mapping[str, Setting] = field(default_factory=dict)
    """Everything else the result depends on: temperature, turn limit, prompt, env options."""
    name: str = field(default="", compare=False)
    """What reports call the model: its path or hub id; the fingerprint where it is empty."""
    experiment: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """All settings as plain values, from which the evaluation can be played again."""
    versions: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Of the packages in use when the evaluation began."""

    @property
    def label(self) -> str:
        """Name for tables: the last two parts of a path, or the fingerprint."""
        return "/".join(self.name.split("/")[-2:]) or self.model
