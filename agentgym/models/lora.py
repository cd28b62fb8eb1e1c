"""Adapters: small matrices trained beside frozen weights, in the format of PEFT.

LoRA, Hu et al. 2021 (arXiv:2106.09685). A model with adapters is the same Hugging Face model with
some of its linear layers replaced. Saved, it is a folder with the adapters alone, and the name of
the model that they belong to, their base.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from agentgym.errors import ConfigError
from agentgym.settings import LoraSettings

NAME = "default"
"""Adapter name within PEFT; a model has one set of adapters."""
WEIGHTS = "adapter_model.safetensors"
"""File of the adapters in their folder."""


def adapt(model: Any, wanted: LoraSettings, *, seed: int) -> None:
    """Freeze a model and give it adapters, after which it says what it said before.

    A model that has adapters keeps them, and they must be as wanted.

    Args:
        model: A Hugging Face causal language model.
        wanted: Their size, which must be given, and where.
        seed: Of their first weights; the global generator is left as it was.

    Raises:
        ConfigError: The model has no such modules, or adapters of another size.
    """
    if adapted(model):
        found = model.peft_config[NAME]
        if (found.r, found.lora_alpha) != (wanted.rank, wanted.alpha):
            raise ConfigError(
                f"the model has adapters of rank {found.r} and alpha {found.lora_alpha}, got "
                f"lora.rank {wanted.rank} and lora.alpha {wanted.alpha}: leave both out to train "
                f"them further"
            )
        return
    assert wanted.rank is not None, "whoever wants adapters says of which rank"
    from peft import LoraConfig

    settings: Any = LoraConfig(
        r=wanted.rank,
        lora_alpha=wanted.alpha,
        target_modules=list(wanted.target_modules) or "all-linear",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(), _quiet():
        torch.manual_seed(seed)
        try:
            model.add_adapter(settings, NAME)
        except ValueError as problem:
            raise ConfigError(f"lora.targets: {' '.join(str(problem).split())[:300]}") from problem
    if Path(model.name_or_path).exists():
        settings.base_model_name_or_path = str(Path(model.name_or_path).resolve())
    _in_full_precision(model)


def adapted(model: Any) -> bool:
    """Whether a model has adapters."""
    return bool(getattr(model, "_hf_peft_config_loaded", False))


def base_of(path: str | Path) -> str | None:
    """The base that a folder or hub id of adapters names; None where there are no adapters.

    Raises:
        ConfigError: The adapters are of another kind than LoRA, or change other weights too.
    """
    from transformers.utils.peft_utils import find_adapter_config_file

    try:
        adapters = find_adapter_config_file(str(path)) is not None
    except OSError:  # There is nothing of the name, as whoever loads it will say.
        adapters = False
    if not adapters:
        return None
    from peft import PeftConfig

    found: Any = PeftConfig.from_pretrained(str(path))
    plain = found.peft_type == "LORA" and found.bias == "none"
    if not plain or found.use_dora or found.modules_to_save or found.trainable_token_indices:
        raise ConfigError(
            f"{str(path)!r} holds adapters that we cannot add to weights: expected plain LoRA, "
            f"without biases, magnitudes (DoRA) and whole modules; merge them into their base first"
        )
    return str(found.base_model_name_or_path)


def check_adapters(path: str | Path, base: str, config: Any) -> None:
    """Refuse adapters of another model by their shapes, before any weights are loaded.

    Args:
        path: Folder or hub id of the adapters.
        base: Name of the model they are to be added to.
        config: The base's Hugging Face configuration.

    Raises:
        ConfigError: They belong to another model.
    """
    from peft import PeftConfig, get_peft_model_state_dict
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM
    from transformers.utils.hub import cached_file

    file = cached_file(path, WEIGHTS, _raise_exceptions_for_missing_entries=False)
    if file is None:  # In an older format, which is checked when it is loaded.
        return
    with torch.device("meta"), _quiet():
        model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
        try:
            model.add_adapter(PeftConfig.from_pretrained(str(path)), NAME)
        except ValueError as problem:
            raise _unfit(path, base, " ".join(str(problem).split())[:200]) from problem
    expected = {
        name: list(weight.shape)
        for name, weight in get_peft_model_state_dict(model, adapter_name=NAME).items()
    }
    with safe_open(file, "pt") as weights:
        found = {
            name.removeprefix("base_model.model."): weights.get_slice(name).get_shape()
            for name in weights.keys()  # noqa: SIM118 (the object is no mapping)
        }
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            reason = f"{name} has shape {found.get(name)}, expected {expected.get(name)}"
            raise _unfit(path, base, reason)


def load_adapters(model: Any, path: str | Path) -> None:
    """Add the adapters of a folder or hub id to their base, ready for further training.

    Raises:
        ConfigError: They belong to another model.
    """
    try:
        with _quiet():
            loaded = model.load_adapter(str(path), NAME, is_trainable=True)
        wrong = sorted({*loaded.missing_keys, *loaded.unexpected_keys})
    except (RuntimeError, ValueError) as problem:
        wrong = [" ".join(str(problem).split())[:200]]
    if wrong:
        raise _unfit(path, model.name_or_path, wrong[0])
    _in_full_precision(model)


def _unfit(path: str | Path, base: str, reason: str) -> ConfigError:
    return ConfigError(f"the adapters in {str(path)!r} do not fit their base {base!r}: {reason}")


def merged(model: Any) -> Any:
    """A model without adapters that says the same: weights that have some are their sum.

    Args:
        model: Left as it is; without adapters it is the answer.

    Returns:
        A model that shares every other weight with the given one.

    Raises:
        ConfigError: Adapters lie on one of two weights that are tied, and would part them.
    """
    if not adapted(model):
        return model
    from peft.tuners.lora import LoraLayer

    whole = _twin(model, model.parameters())
    layers: list[tuple[str, Any]] = [
        (name, module) for name, module in whole.named_modules() if isinstance(module, LoraLayer)
    ]
    for name, layer in layers:
        base = layer.get_base_layer()
        with torch.no_grad():
            weight = base.weight + layer.get_delta_weight(NAME)
        base.weight = torch.nn.Parameter(weight.to(base.weight.dtype), requires_grad=False)
        whole.set_submodule(name, base)
    del whole.peft_config
    whole._hf_peft_config_loaded = False
    ends = whole.get_input_embeddings().weight, whole.get_output_embeddings().weight
    if whole.config.get_text_config().tie_word_embeddings and ends[0] is not ends[1]:
        raise ConfigError(
            "adapters lie on the embedding or the head, which are one matrix in this model: leave "
            "both out of `lora.target_modules`"
        )
    return whole


def twin(model: Any) -> Any:
    """A copy that shares with a model what is frozen, and has its own of what is trained."""
    return _twin(model, (p for p in model.parameters() if not p.requires_grad))


def own(copied: Any, original: Any) -> dict[str, torch.Tensor]:
    """The part of a twin's state dict that it does not share; loaded with ``strict=False``."""
    shared = {tensor.data_ptr() for tensor in original.state_dict().values()}
    weights = copied.state_dict()
    return {name: w for name, w in weights.items() if w.data_ptr() not in shared}


def _twin(model: Any, shared: Iterable[torch.Tensor]) -> Any:
    return copy.deepcopy(model, {id(tensor): tensor for tensor in shared})


@contextmanager
def _quiet() -> Iterator[None]:
    """PEFT warns of transposed weights, which it then treats rightly, and of what we refuse."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _in_full_precision(model: Any) -> None:
    """Adapters in float32, whose small steps would be lost in bfloat16."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
