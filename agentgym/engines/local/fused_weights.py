"""The weights of Llama, Qwen2 and Qwen3, with matrices of the same input fused.

Axes: H hidden, D head size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from agentgym.engines.requests import check_shapes
from agentgym.engines.weight_stream import WeightStream
from agentgym.models.protocols import CausalLM

_CLASSES = {"LlamaForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2", "Qwen3ForCausalLM": "qwen3"}
_ROWS = 8
"""Rows for which oneDNN chooses the layout of a matrix; it is right for any number."""


@dataclass(slots=True, eq=False)
class Linear:
    """A linear layer; in bfloat16 on a CPU its matrix is also kept in the layout of oneDNN.

    The layout saves reordering the matrix in every call, which costs as much as the product where
    rows are few. Results are the same.
    """

    weight: Tensor
    bias: Tensor | None = None
    _packed: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """[N, in] to [N, out]."""
        if self._packed is None:
            return F.linear(x, self.weight, self.bias)
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, "none", [], "")
        return y

    def pack(self) -> None:
        """Renew the packed copy after the weight has changed."""
        weight = self.weight
        low = weight.dtype == torch.bfloat16 and weight.device.type == "cpu"
        if low and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
            self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _ROWS)


class Layer(NamedTuple):
    """Weights of one layer."""

    norm_attention: Tensor
    qkv: Linear
    """[(heads + 2 * key/value heads) * D, H]."""
    qk_norm: Tensor | None
    """[heads + key/value heads, D]: the query norm repeated, then the key norm repeated."""
    out: Linear
    norm_mlp: Tensor
    gate_up: Linear
    down: Linear


def head_size(config: Any) -> int:
    """D: from the configuration, or hidden size divided by the number of heads."""
    size: int = (
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    return size


def supports(model: CausalLM) -> bool:
    """Whether fused weights can represent a Hugging Face model.

    Unsupported: other classes, scaled rotary embeddings, sliding windows, quantised or additional
    weights.
    """
    config = model.config
    if _CLASSES.get(type(model).__name__) != config.model_type:
        return False
    rope = getattr(config, "rope_parameters", None) or {}
    layers = set(getattr(config, "layer_types", None) or ["full_attention"])
    return (
        set(rope) == {"rope_type", "rope_theta"}
        and rope["rope_type"] == "default"
        and layers == {"full_attention"}
        and config.hidden_act == "silu"
        and getattr(config, "quantization_config", None) is None
        and set(model.state_dict()) | {"lm_head.weight"} == _names(config, model.state_dict())
    )


def _names(config: Any, weights: Mapping[str, Tensor]) -> set[str]:
    """Every state-dict name of a supported model with the optional parts that these have."""
    kinds = ["input_layernorm.weight", "post_attention_layernorm.weight"]
    kinds += [f"self_attn.{x}_proj.weight" for x in "qkvo"]
    kinds += [f"mlp.{x}_proj.weight" for x in ("gate", "up", "down")]
    optional = [f"self_attn.{x}_proj.bias" for x in "qkvo"]
    optional += [f"self_attn.{x}_norm.weight" for x in "qk"]
    kinds += [kind for kind in optional if f"model.layers.0.{kind}" in weights]
    layers = range(config.num_hidden_layers)
    names = {f"model.layers.{i}.{kind}" for i in layers for kind in kinds}
    return names | {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"}


class FusedWeights:
    """A private copy of the weights; ``load`` overwrites it in place.

    Every Hugging Face name is a view into its fused tensor, so loading is one copy per name.
    """

    def __init__(
        self,
        config: Any,
        weights: Mapping[str, Tensor],
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._to = {"dtype": dtype, "device": device}
        self._views: dict[str, Tensor] = {}
        self._shapes: dict[str, torch.Size] = {}
        repeats = (config.num_attention_heads, config.num_key_value_heads)
        self.embedding = self._fuse(weights, ["model.embed_tokens.weight"])
        self.norm = self._fuse(weights, ["model.norm.weight"])
        tied = config.tie_word_embeddings
        head = self.embedding if tied else self._fuse(weights, ["lm_head.weight"])
        self.head = Linear(head)
        layers = range(config.num_hidden_layers)
        self.layers = [self._layer(weights, f"model.layers.{i}.", repeats) for i in layers]
        self.load(WeightStream.of(weights))

    def _fuse(self, weights: Mapping[str, Tensor], names: Sequence[str]) -> Tensor:
        """Allocate one tensor for the named weights, stacked along the first axis."""
        shapes = [weights[name].shape for name in names]
        rows = [shape[0] for shape in shapes]
        whole: Tensor = torch.empty((sum(rows), *shapes[0][1:]), **self._to)  # type: ignore[call-overload]
        self._views |= dict(zip(names, torch.split(whole, rows), strict=True))
        self._shapes |= dict(zip(names, shapes, strict=True))
        return whole

    def _layer(self, weights: Mapping[str, Tensor], at: str, repeats: tuple[int, int]) -> Layer:
        attention, mlp = at + "self_attn.", at + "mlp."
        biases = [attention + f"{x}_proj.bias" for x in "qkv"]
        out_bias = attention + "o_proj.bias"
        return Layer(
            norm_attention=self._fuse(weights, [at + "input_layernorm.weight"]),
            qkv=Linear(
                self._fuse(weights, [attention + f"{x}_proj.weight" for x in "qkv"]),
                self._fuse(weights, biases) if biases[0] in weights else None,
            ),
            qk_norm=self._qk_norm(weights, attention, repeats),
            out=Linear(
                self._fuse(weights, [attention + "o_proj.weight"]),
                self._fuse(weights, [out_bias]) if out_bias in weights else None,
            ),
            norm_mlp=self._fuse(weights, [at + "post_attention_layernorm.weight"]),
            gate_up=Linear(self._fuse(weights, [mlp + "gate_proj.weight", mlp + "up_proj.weight"])),
            down=Linear(self._fuse(weights, [mlp + "down_proj.weight"])),
        )

    def _qk_norm(
        self, weights: Mapping[str, Tensor], attention: str, repeats: tuple[int, int]
    ) -> Tensor | None:
        names = [attention + "q_norm.weight", attention + "k_norm.weight"]
        if names[0] not in weights:
            return None
        shape = weights[names[0]].shape
        whole: Tensor = torch.empty((sum(repeats), *shape), **self._to)  # type: ignore[call-overload]
        # Copying [D] into [heads, D] repeats it.
        self._views |= dict(zip(names, torch.split(whole, list(repeats)), strict=True))
        self._shapes |= dict.fromkeys(names, shape)
        return whole

    @torch.no_grad()
    def load(self, weights: WeightStream) -> None:
        """Copy the weights of a Hugging Face state dict.

        Raises:
            ConfigError: A weight is missing or has another shape; nothing was changed.
            BrokenStream: They stopped arriving; some were copied.
        """
        check_shapes(self._shapes, weights.shapes)
        for name, weight in weights:
            if name in self._views:
                self._views[name].copy_(weight)
        self.head.pack()
        for layer in self.layers:
            for linear in (layer.qkv, layer.out, layer.gate_up, layer.down):
                linear.pack()
