"""FSDP2: each rank keeps a share of every weight, and gathers a layer when it computes it.

The root of a network is a module whose forward is the policy's call. What lies outside the layers
(embedding, last norm, head) is then gathered once per micro-batch, and the head may be asked in
pieces without a further collective.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from agentgym.models.policy import Policy


class _Root(nn.Module):
    """All that a policy asks of its network at once, as the forward of one module."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """The call's result."""
        return call(*arguments)


def shard(policy: Policy, mesh: DeviceMesh, *, cpu_offload: bool = False) -> None:
    """Divide a network among the ranks of a mesh, layer by layer; every rank holds it whole before.

    Args:
        policy: The network; its weights, gradients and optimizer state are divided.
        mesh: The ranks.
        cpu_offload: Keep the shares in CPU memory; a layer is on the device while it computes.
    """
    offload = CPUOffloadPolicy(pin_memory=mesh.device_type == "cuda")
    options: dict[str, Any] = {
        "mesh": mesh,
        "offload_policy": offload if cpu_offload else OffloadPolicy(),
    }
    root = _Root(policy.model)
    for layer in policy.model.get_decoder().layers:
        fully_shard(layer, **options)
    fully_shard(root, **options)
    for module in root.modules():
        if isinstance(module, FSDPModule):
            # The loss is divided by the weights of all ranks already.
            module.set_gradient_divide_factor(1.0)
            # Gloo has no sum that scales on the way.
            module.set_force_sum_reduction_for_comms(True)
    policy.through = root  # type: ignore[method-assign]


def whole(tensor: Tensor) -> Tensor:
    """A tensor with all its shares, on the CPU; every rank takes part."""
    value = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return value.detach().cpu()


def divided(tensor: Tensor, like: Tensor) -> Tensor:
    """This rank's share of a whole tensor, divided as another is."""
    if not isinstance(like, DTensor) or tensor.shape != like.shape:
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)


def gather_into(copy: nn.Module, model: nn.Module, *, lead: bool) -> None:
    """Write the trained weights of a divided network into a whole copy that rank 0 keeps."""
    targets = dict(copy.named_parameters()) if lead else {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            value = whole(parameter)
            if lead:
                targets[name].data.copy_(value)


def load_whole_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Load whole weights by name; others stay."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in state:
                parameter.copy_(divided(state[name], parameter))


def load_whole_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load an optimizer's state that one process saved."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    moments = {
        number: {
            key: divided(v, parameters[number]) if isinstance(v, Tensor) else v
            for key, v in each.items()
        }
        for number, each in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": moments})


def norm(parameters: Any) -> float:
    """Norm of the gradients of all ranks together."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return 0.0
    return float(whole(torch.nn.utils.get_total_norm(gradients)))
