"""`agentgym algorithms` and `doctor`."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from agentgym import plugins
from agentgym.cli.defaults import unusual, usual
from agentgym.cli.parsing import parse

WIDE = 100
"""Characters of a terminal from which on each choice of an algorithm has a column of its own."""


@dataclass(frozen=True, kw_only=True)
class AlgorithmsOptions:
    """List the algorithms: arXiv id, how each collects, credits and updates, and its defaults.

    `agentgym train NAME --help` explains the fields of one, with their defaults.
    """


def algorithms(arguments: list[str]) -> int:
    """``algorithms``."""
    parse(AlgorithmsOptions, arguments, prog="agentgym algorithms")
    kinds, console = plugins.algorithms(), Console()
    choices = ("collect", "credit", "update") if console.width >= WIDE else ("method",)
    longest, arxiv_id = max(map(len, kinds)), len("2402.03300")
    free = console.width - longest - arxiv_id - 2 * (len(choices) + 2)
    last = max(24, free // (len(choices) + 1))  # room for the longest `field=value`
    table = Table(box=None, pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("arXiv", no_wrap=True)
    for choice in choices:
        table.add_column(choice, width=max(8, (free - last) // len(choices)))
    table.add_column("defaults", width=last)
    made = {name: kind() for name, kind in kinds.items()}
    known = usual(made.values())
    for name, kind in kinds.items():
        summary = ((kind.__doc__ or "").strip().partition("\n")[0], "", "")
        arxiv, *choices_of = getattr(kind, "about", None) or ("", *summary)
        cells = choices_of if len(choices) > 1 else ["; ".join(part for part in choices_of if part)]
        table.add_row(name, arxiv, *cells, unusual(made[name], known))
    console.print(table)
    agreed = " ".join(f"{name}={value}" for name, value in known.items())
    console.print(
        f"\nWhere an algorithm has the field and its row omits it: {agreed}", highlight=False
    )
    return 0


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """Try every engine with a small model; report which work here, and why others do not.

    Each samples, and again after new weights; its log-probabilities are compared with the model's.
    """

    server: str | None = None
    """Address of a chat endpoint, without /v1, to ask which models it serves."""


def doctor(arguments: list[str]) -> int:
    """``doctor [options]``."""
    options = parse(DoctorOptions, arguments, prog="agentgym doctor")
    from agentgym.engines.doctor import check_engines, table

    Console().print(table(check_engines(options.server)))
    return 0
