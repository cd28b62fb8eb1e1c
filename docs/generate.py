"""Writes the pages that are made from code: environments, algorithms, settings, verbs, the API.

Run by MkDocs (plugin gen-files) at every build, so these pages cannot fall behind the code.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
import subprocess
import sys
import typing
from pathlib import Path
from types import ModuleType

import gymnasium
import mkdocs_gen_files

from agentgym import plugins
from agentgym.cli import VERBS
from agentgym.env import registry
from agentgym.settings import Experiment

ROOT = Path(__file__).resolve().parent.parent


def write(path: str, text: str) -> None:
    """One page."""
    with mkdocs_gen_files.open(path, "w") as file:
        file.write(text)


def moved(text: str, source: str) -> str:
    """The text of a README with its links made to fit the site.

    Links to pages of ``docs`` stay links; other relative links become code, since their targets
    are files of the repository.
    """

    def link(match: re.Match[str]) -> str:
        label, target = match.groups()
        if re.match(r"https?://|#", target):
            return match[0]
        full = (Path(source).parent / target).as_posix()
        full = full.removeprefix("./")
        page = full.removeprefix("docs/") if full.startswith("docs/") else None
        return f"[{label}](../{page})" if page else f"`{full}`"

    return re.sub(r"(?<!!)\[([^\]]+)\]\(([^)]+)\)", link, text)


def summary(folder: str, names: dict[str, str]) -> None:
    """The navigation of a folder: title -> file."""
    lines = [f"* [{title}]({file})\n" for title, file in names.items()]
    write(f"{folder}/SUMMARY.md", "".join(lines))


def environments() -> None:
    """A page for each registered environment, from its docstrings, recipe and registration."""
    pages = {"Overview": "index.md"}
    readme = (ROOT / "envs/agentgym_envs/README.md").read_text(encoding="utf-8")
    write("environments/index.md", moved(readme, "envs/agentgym_envs/README.md"))
    for id_ in registry.environments():
        spec = gymnasium.spec(id_)
        entry = str(spec.entry_point)
        module, _, name = entry.partition(":")
        short = registry.short_name(id_)
        bare = registry.world(id_)
        lines = [f"# {name}\n", f"`{id_}`: at most {spec.max_episode_steps} turns.\n"]
        if manual := bare.manual():
            lines += ["## What an agent reads\n", f"```text\n{manual}\n```\n"]
        if recipe := registry.recipe(id_):
            text = recipe.read_text(encoding="utf-8")
            lines += ["## Recipe\n", f"`agentgym train --world {short}` uses:\n"]
            lines += [f"```yaml\n{text}```\n"]
        lines += ["## Class\n", f"::: {module}.{name}\n"]
        bare.close()
        write(f"environments/{short}.md", "\n".join(lines))
        pages[name] = f"{short}.md"
    summary("environments", pages)


def algorithms() -> None:
    """A page for each installed algorithm, from its module's docstring and its fields."""
    pages = {"Overview": "index.md"}
    readme = (ROOT / "trainers/agentgym_trainers/README.md").read_text(encoding="utf-8")
    readme = re.sub(r"!\[[^\]]*\]\([^)]*\)\n*", "", readme)
    write("algorithms/index.md", moved(readme, "trainers/agentgym_trainers/README.md"))
    for name, kind in plugins.algorithms().items():
        module = sys.modules[kind.__module__]
        about = kind.about
        lines = [
            f"# {name}\n",
            f"[arXiv:{about.arxiv}](https://arxiv.org/abs/{about.arxiv})\n",
            "| collect | credit | update |\n|---|---|---|",
            f"| {about.collect} | {about.credit} | {about.update} |\n",
            f"{plain(module)}\n",
            f"`agentgym train {name}`, `{name}.paper`, `{name}.released`:\n",
            forms(kind),
            f"## Settings\n\n::: {kind.__module__}.{kind.__name__}\n",
        ]
        write(f"algorithms/{name}.md", "\n".join(lines))
        pages[name] = f"{name}.md"
    summary("algorithms", pages)


def plain(module: ModuleType) -> str:
    """A module's docstring with reStructuredText's double backticks as Markdown's single ones."""
    return (inspect.getdoc(module) or "").replace("``", "`")


def forms(kind: type) -> str:
    """A table of the fields with a value per form: the default, the paper's, the authors' code."""
    made = {"default": kind()}
    made |= {form: getattr(kind, form)() for form in ("paper", "released") if hasattr(kind, form)}
    lines = [f"| field | {' | '.join(made)} |", "|---" * (1 + len(made)) + "|"]
    for each in dataclasses.fields(kind):
        values = [shown(getattr(config, each.name)) for config in made.values()]
        lines.append(f"| `{each.name}` | {' | '.join(values)} |")
    return "\n".join(lines) + "\n"


def shown(value: object) -> str:
    """A value in a table."""
    if dataclasses.is_dataclass(value):
        return f"`{type(value).__name__}`"
    return "unset" if value is None else f"`{value}`"


def settings() -> None:
    """Every setting of a run: flag, default, meaning."""
    lines = ["# Settings\n", "Every setting is a flag (`--rollout.max-turns 30`) and a field of a"]
    lines += ["`--config` file (`rollout: {max_turns: 30}`).\n"]
    hints = typing.get_type_hints(Experiment)
    nested = [f for f in dataclasses.fields(Experiment) if dataclasses.is_dataclass(hints[f.name])]
    lines += ["## The run\n", *rows(Experiment, "", skip={f.name for f in nested})]
    for each in nested:
        kind = hints[each.name]
        lines += [f"\n## {each.name}\n", f"{inspect.getdoc(kind)}\n"]
        lines += rows(kind, f"{each.name}.")
    write("reference/settings.md", "\n".join(lines) + "\n")


def rows(kind: type, prefix: str, skip: set[str] = frozenset()) -> list[str]:  # type: ignore[assignment]
    """A table of the fields of a dataclass; their docstrings are read from its source."""
    texts = documented(kind)
    lines = ["| setting | default | meaning |", "|---|---|---|"]
    for each in dataclasses.fields(kind):
        if each.name in skip:
            continue
        default = each.default
        if default is dataclasses.MISSING:
            assert callable(each.default_factory)
            default = each.default_factory()
        flag = f"`--{prefix}{each.name}`".replace("_", "-")
        lines.append(f"| {flag} | {shown(default)} | {texts.get(each.name, '')} |")
    return lines


def documented(kind: type) -> dict[str, str]:
    """Field -> its docstring, in one line."""
    import ast

    body = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for one, other in zip(body.body, body.body[1:], strict=False):
        if isinstance(one, ast.AnnAssign) and isinstance(other, ast.Expr):
            text = ast.literal_eval(other.value)
            found[ast.unparse(one.target)] = re.sub(r"\s+", " ", str(text)).replace("``", "`")
    return found


def command_line() -> None:
    """`--help` of every verb, as a terminal of 100 columns shows it."""
    lines = ["# Command line\n", "```text", helped(), "```\n"]
    for verb in VERBS:
        lines += [f"## agentgym {verb}\n", "```text", helped(verb), "```\n"]
    write("reference/command-line.md", "\n".join(lines))


def helped(*words: str) -> str:
    """The help text of the program or a verb."""
    command = [sys.executable, "-m", "agentgym.cli", *words, "--help"]
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return re.sub(r"\x1b\[[0-9;]*m", "", done.stdout).rstrip()


def api() -> None:
    """A page for each room of the package."""
    pages = {}
    package = ROOT / "agentgym"
    for room in sorted(path.parent for path in package.glob("*/__init__.py")):
        names = [
            ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for path in sorted(room.rglob("*.py"))
            if not path.name.startswith("_") and "inside" not in path.parts
        ]
        name = f"agentgym.{room.name}"
        lines = [f"# {name}\n"]
        for each in names:
            lines += [f"## {each}\n", f"::: {each}\n    options:\n      heading_level: 3\n"]
        write(f"reference/api/{room.name}.md", "\n".join(lines))
        pages[name] = f"{room.name}.md"
    flat = [path.stem for path in sorted(package.glob("*.py")) if not path.stem.startswith("_")]
    lines = ["# agentgym\n", "::: agentgym\n"]
    for stem in flat:
        lines += [f"## agentgym.{stem}\n"]
        lines += [f"::: agentgym.{stem}\n    options:\n      heading_level: 3\n"]
    write("reference/api/index.md", "\n".join(lines))
    summary("reference/api", {"agentgym": "index.md", **pages})


def about() -> None:
    """The files at the root of the repository."""
    for source, target in (
        ("CONTRIBUTING.md", "contributing"),
        ("CHANGELOG.md", "changelog"),
        ("SECURITY.md", "security"),
    ):
        text = (ROOT / source).read_text(encoding="utf-8")
        write(f"about/{target}.md", moved(text, source))


environments()
algorithms()
settings()
command_line()
api()
about()
