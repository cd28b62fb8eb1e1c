"""Precision: in which kind of number a model computes, and in which its weights are kept.

Weights under training and the optimizer's state are float32 on every device. In bfloat16, which has
8 bits of precision, a step of 1e-6 is lost against a weight of 0.02: nearly all weights would stay
where they are. Only the computation is in bfloat16, by automatic mixed precision.
"""

from __future__ import annotations

import torch

from agentgym.models.protocols import CausalLM
from agentgym.settings import Precision

LARGE = 50_000_000
"""Parameters from which bfloat16 is worth its rounding: below, casts cost what products save."""


def compute_dtype(precision: Precision, model: CausalLM) -> torch.dtype:
    """Kind of number in which a model is to compute.

    Args:
        precision: As configured. ``auto`` is bfloat16 for weights that are stored in it, and for
            models of at least ``LARGE`` parameters on hardware that multiplies in bfloat16.
        model: The model, on its device.
    """
    if precision != "auto":
        return torch.float32 if precision == "float32" else torch.bfloat16
    parameters = list(model.parameters())
    low = any(p.dtype == torch.bfloat16 for p in parameters)
    large = sum(p.numel() for p in parameters) >= LARGE
    if low or (large and multiplies_bfloat16(parameters[0].device)):
        return torch.bfloat16
    return torch.float32


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for products of bfloat16 numbers."""
    if device.type == "cuda":
        supported: bool = torch.cuda.is_bf16_supported(including_emulation=False)
        return supported
    known = torch.cpu.get_capabilities()
    return device.type == "cpu" and bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def keep_trained_weights_in_float32(model: CausalLM) -> None:
    """Cast the weights that are trained to float32; frozen ones keep their kind."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
