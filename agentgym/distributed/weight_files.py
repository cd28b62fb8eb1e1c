"""A divided network becomes a Hugging Face folder, without ever being whole on one rank.

Each rank gathers some of the layers, one weight at a time, and writes them into a file of its own.
So every byte is written once, and the folder is one that any other library reads.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agentgym.distributed.sharding import whole
from agentgym.models.lora import has_lora

INDEX = "model.safetensors.index.json"
"""Which file holds which weight, where there are several."""


def saving(model: Any, folder: Path, *, rank: int, ranks: int) -> Callable[[], None]:
    """What writes this rank's part of a network, as it is now.

    Every rank takes part in this call, which gathers the weights into CPU memory. What it returns
    may be called in any thread, together with training; ``join_parts`` follows when all ranks have
    called theirs.

    Args:
        model: The network; with adapters, they alone are written.
        folder: The Hugging Face folder, on a file system that all ranks see.
        rank: This one.
        ranks: How many there are.
    """
    from safetensors.torch import save_file
    from transformers.core_model_loading import revert_weight_conversion

    owners = _owners(model, ranks)
    mine = {}
    for name, parameter in model.named_parameters():
        if name in owners:
            value = whole(parameter)
            if owners[name] == rank:
                mine[name] = value
    if rank == 0:
        named = dict(model.named_parameters(remove_duplicate=False))
        buffers = model.state_dict().items()
        mine |= {name: value.cpu().clone() for name, value in buffers if name not in named}

    def write() -> None:
        if rank == 0:
            model.save_pretrained(folder, state_dict=mine)
        elif mine:
            part = folder / f"part-{rank:05}"
            part.mkdir()
            # Elsewhere than on rank 0, `save_pretrained` writes nothing.
            weights = {n: w.contiguous() for n, w in revert_weight_conversion(model, mine).items()}
            save_file(weights, part / "model.safetensors", {"format": "pt"})

    return write


def join_parts(folder: Path) -> None:
    """Make one Hugging Face folder of what the ranks have written."""
    from safetensors import safe_open

    parts = sorted(folder.glob("part-*"))
    if not parts:
        return
    files = [file for part in (folder, *parts) for file in sorted(part.glob("*.safetensors"))]
    places: dict[str, str] = {}
    for number, file in enumerate(files, 1):
        name = f"model-{number:05}-of-{len(files):05}.safetensors"
        with safe_open(file, "pt") as weights:
            places |= dict.fromkeys(weights.keys(), name)
        file.rename(folder / name)
    for part in parts:
        shutil.rmtree(part)
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(places.items()))}
    (folder / INDEX).write_text(json.dumps(index, indent=2))


def _owners(model: Any, ranks: int) -> dict[str, int]:
    """Which rank writes which weight: about as many bytes each, a layer's together.

    Some architectures are saved under other names than they have in memory, several weights of a
    layer as one. Tied weights count once. Adapters belong into one file.
    """
    if has_lora(model):
        return {name: 0 for name, p in model.named_parameters() if p.requires_grad}
    layers = model.get_decoder().layers
    layer_of = {p: number for number, layer in enumerate(layers) for p in layer.parameters()}
    units: dict[int | str, list[str]] = {}
    sizes: dict[int | str, int] = {}
    for name, parameter in model.named_parameters():
        unit = layer_of.get(parameter, name)
        units.setdefault(unit, []).append(name)
        sizes[unit] = sizes.get(unit, 0) + parameter.numel()
    loads, found = [0] * ranks, dict[str, int]()
    for unit in sorted(units, key=lambda each: -sizes[each]):
        rank = loads.index(min(loads))
        loads[rank] += sizes[unit]
        found |= dict.fromkeys(units[unit], rank)
    return found
