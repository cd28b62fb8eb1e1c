"""LoRA adapters: small matrices trained beside frozen weights, in the format of PEFT.

Hu et al. 2021 (arXiv:2106.09685). A model with adapters is the same Hugging Face model with some of
its linear layers replaced. It is saved as a folder that holds the adapters alone and the name of
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
from agentgym.models.precision import keep_trained_weights_in_float32
from agentgym.models.protocols import CausalLM
from agentgym.settings import LoraSettings

ADAPTER = "default"
"""Adapter name within PEFT; a model has one set of adapters."""
WEIGHTS = "adapter_model.safetensors"
"""File of the adapters in their folder."""
CONFIG = "adapter_config.json"
"""File of their configuration."""
_PREFIX = "base_model.model."


def add_lora(model: Any, settings: LoraSettings, *, seed: int) -> None:
    """Freeze a model and add adapters, which leave its outputs unchanged at first.

    A model that has adapters keeps them; their size must be the configured one.

    Args:
        model: A Hugging Face causal language model.
        settings: Rank, which must be set, scale and adapted modules.
        seed: Seed of the adapters' first weights; the global generator is left unchanged.

    Raises:
        ConfigError: The model has no such modules, or adapters of another size.
    """
    if has_lora(model):
        found = model.peft_config[ADAPTER]
        if (found.r, found.lora_alpha) != (settings.rank, settings.alpha):
            raise ConfigError(
                f"the model has adapters of rank {found.r} and alpha {found.lora_alpha}, got "
                f"lora.rank {settings.rank} and lora.alpha {settings.alpha}: leave both out to "
                f"train them further"
            )
        return
    assert settings.rank is not None, "adapters need a rank"
    from peft import LoraConfig

    config: Any = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules=list(settings.target_modules) or "all-linear",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(), _quiet():
        torch.manual_seed(seed)
        try:
            model.add_adapter(config, ADAPTER)
        except ValueError as problem:
            reason = " ".join(str(problem).split())[:300]
            raise ConfigError(f"lora.target_modules: {reason}") from problem
    if Path(model.name_or_path).exists():
        config.base_model_name_or_path = str(Path(model.name_or_path).resolve())
    keep_trained_weights_in_float32(model)


def has_lora(model: CausalLM) -> bool:
    """Whether a model has adapters."""
    return bool(getattr(model, "_hf_peft_config_loaded", False))


def base_model_of(path: str | Path) -> str | None:
    """The base named by a folder or hub id of adapters; None where there are no adapters.

    Raises:
        ConfigError: The adapters are of another kind than LoRA, or change other weights too.
    """
    from transformers.utils.peft_utils import find_adapter_config_file

    try:
        adapters = find_adapter_config_file(str(path)) is not None
    except OSError:  # Nothing has this name; loading it raises the error.
        adapters = False
    if not adapters:
        return None
    from peft import PeftConfig

    found: Any = PeftConfig.from_pretrained(str(path))
    plain = found.peft_type == "LORA" and found.bias == "none"
    if not plain or found.use_dora or found.modules_to_save or found.trainable_token_indices:
        raise ConfigError(
            f"{str(path)!r} holds adapters that cannot be merged into weights: expected plain LoRA "
            f"without biases, magnitudes (DoRA) and whole modules; merge them into their base first"
        )
    return _moved(Path(path), str(found.base_model_name_or_path))


def _moved(path: Path, base: str) -> str:
    """The base of adapters; in a run folder that was moved, the one that moved with them."""
    folder = Path(base)
    if folder.is_absolute() and not folder.exists() and folder.parent.name == "checkpoints":
        for near in (path.resolve().parent, path.resolve().parent / "checkpoints"):
            if (near / folder.name / "config.json").is_file():
                return str(near / folder.name)
    return base


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

    file = _weights(path)
    if file is None:  # In an older format, which is checked when it is loaded.
        return
    with torch.device("meta"), _quiet():
        model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
        try:
            model.add_adapter(PeftConfig.from_pretrained(str(path)), ADAPTER)
        except ValueError as problem:
            raise _unfit(path, base, " ".join(str(problem).split())[:200]) from problem
    expected = {
        name: list(weight.shape)
        for name, weight in get_peft_model_state_dict(model, adapter_name=ADAPTER).items()
    }
    with safe_open(file, "pt") as weights:
        found = {
            _plain(name): weights.get_slice(name).get_shape()
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
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    try:
        with _quiet():
            loaded = model.load_adapter(str(path), ADAPTER, is_trainable=True)
        wrong = sorted({*loaded.missing_keys, *loaded.unexpected_keys})
    except (RuntimeError, ValueError) as problem:
        wrong = [" ".join(str(problem).split())[:200]]
    if wrong:
        raise _unfit(path, model.name_or_path, wrong[0])
    model.peft_config[ADAPTER].base_model_name_or_path = model.name_or_path
    keep_trained_weights_in_float32(model)
    if (file := _weights(path)) is not None:
        # Again, since PEFT has rounded them to the base's kind of number.
        found = {_plain(name): weight for name, weight in load_file(file).items()}
        set_peft_model_state_dict(model, found, adapter_name=ADAPTER)


def _weights(path: str | Path) -> str | None:
    """File of the weights of a folder or hub id; None for a format older than safetensors."""
    from transformers.utils.hub import cached_file

    file: str | None = cached_file(path, WEIGHTS, _raise_exceptions_for_missing_entries=False)
    return file


def _plain(name: str) -> str:
    """Name of a weight within the Hugging Face model."""
    return name.removeprefix(_PREFIX)


def _unfit(path: str | Path, base: str, reason: str) -> ConfigError:
    return ConfigError(f"the adapters in {str(path)!r} do not fit their base {base!r}: {reason}")


def saved_weights(model: Any) -> dict[str, torch.Tensor]:
    """What a model's folder holds, as ``save_pretrained`` takes it: of adapters, they alone."""
    weights: dict[str, torch.Tensor] = model.state_dict()
    if not has_lora(model):
        return weights
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    return {name: weight for name, weight in weights.items() if name in trained}


def adapter_weights(model: CausalLM) -> dict[str, torch.Tensor]:
    """The weights of the adapters alone, named as in PEFT's files."""
    from peft import get_peft_model_state_dict

    found: dict[str, torch.Tensor] = get_peft_model_state_dict(model, adapter_name=ADAPTER)
    return {f"{_PREFIX}{name}": weight.detach() for name, weight in found.items()}


def adapter_config(model: Any) -> dict[str, Any]:
    """PEFT's configuration of the adapters, as its file holds it."""
    config: dict[str, Any] = model.peft_config[ADAPTER].to_dict()
    config["target_modules"] = sorted(config["target_modules"])
    return {**config, "inference_mode": True}


def without_lora(model: CausalLM) -> CausalLM:
    """The model under the adapters; it shares the weights. Returned as it is if it has none."""
    return _plain_model(model, merged=False)


def merge_lora(model: CausalLM) -> CausalLM:
    """An equivalent model without adapters, which are added to the weights under them.

    Args:
        model: Left unchanged; returned as it is if it has no adapters.

    Returns:
        A model that shares all other weights with the given one.

    Raises:
        ConfigError: Adapters are on one of two tied weights and would untie them.
    """
    return _plain_model(model, merged=True)


def _plain_model(model: CausalLM, *, merged: bool) -> CausalLM:
    if not has_lora(model):
        return model
    from peft.tuners.lora import LoraLayer

    whole = _copy(model, model.parameters())
    layers: list[tuple[str, Any]] = [
        (name, module) for name, module in whole.named_modules() if isinstance(module, LoraLayer)
    ]
    for name, layer in layers:
        base = layer.get_base_layer()
        if merged:
            with torch.no_grad():
                weight = base.weight + layer.get_delta_weight(ADAPTER)
            base.weight = torch.nn.Parameter(weight.to(base.weight.dtype), requires_grad=False)
        whole.set_submodule(name, base)
    del whole.peft_config
    whole._hf_peft_config_loaded = False
    ends = whole.get_input_embeddings().weight, whole.get_output_embeddings().weight
    if whole.config.get_text_config().tie_word_embeddings and ends[0] is not ends[1]:
        raise ConfigError(
            "adapters are on the embedding or the head, which are tied in this model: leave "
            "both out of `lora.target_modules`"
        )
    found: CausalLM = whole
    return found


def trainable_copy(model: Any) -> Any:
    """A copy that shares the frozen weights of a model and has its own trainable ones."""
    return _copy(model, (p for p in model.parameters() if not p.requires_grad))


def unshared_weights(copied: Any, original: Any) -> dict[str, torch.Tensor]:
    """The weights of a copy that it does not share; to be loaded with ``strict=False``."""
    shared = {tensor.data_ptr() for tensor in original.state_dict().values()}
    weights = copied.state_dict()
    return {name: w for name, w in weights.items() if w.data_ptr() not in shared}


def _copy(model: Any, shared: Iterable[torch.Tensor]) -> Any:
    return copy.deepcopy(model, {id(tensor): tensor for tensor in shared})


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide PEFT's warnings: of transposed weights, which it handles, and of what we refuse."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
