"""What is asked of a vLLM server besides completions: its model, our extension, new weights."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentgym.engines.endpoint import Endpoint
from agentgym.engines.vllm.adapters import AdapterFolder
from agentgym.engines.vllm.answers import (
    ServedModel,
    parse_models,
    same_model,
    top_logprobs_of_first_token,
)
from agentgym.engines.vllm.arguments import TOP_LOGPROBS
from agentgym.engines.vllm.model_info import ModelInfo
from agentgym.errors import EngineError

CALL_SECONDS = 600.0
"""Time limit for a call of the workers; loading a large model's weights takes minutes."""
RESETS = 100
"""Attempts to empty the cache of a paused server."""


class ServerControl:
    """Requests that ask about a server or change it; they block.

    Args:
        endpoint: The server.
        adapters: Published in place of weights.
    """

    def __init__(self, endpoint: Endpoint, adapters: AdapterFolder | None) -> None:
        self.adapters = ""
        """Name of the adapters that the server has loaded last; empty without any."""
        self._endpoint, self._folder = endpoint, adapters

    def model(self, ours: ModelInfo) -> ServedModel:
        """Under which name, and with which context, it serves a model.

        Raises:
            EngineError: It serves another one.
        """
        models = self._endpoint.request("GET", "/v1/models", parse_models)
        for model in models:
            if same_model(ours.path, model.id) or same_model(ours.path, model.root):
                return model
        raise EngineError(
            f"the server at {self._endpoint.url} serves {', '.join(m.id for m in models)}, "
            f"expected {ours.path}: name the server of this model, or the model of this server"
        )

    def report_entropies(self) -> bool:
        """Make it report entropies with its completions; whether it can.

        Raises:
            EngineError: It runs without the worker extension.
        """
        # Results arrive as text.
        return set(self._call("agentgym_report_entropies")) == {"True"}

    def check_mode(self, request: Mapping[str, Any]) -> None:
        """Check that log-probabilities are of the distribution sampled from.

        Args:
            request: For one token.

        Raises:
            EngineError: They are of the model's, before temperature, top-k and top-p.
        """
        rows = []
        for temperature in (0.5, 1.0):
            rows.append(
                self._endpoint.request(
                    "POST",
                    "/v1/completions",
                    lambda answer: sorted(top_logprobs_of_first_token(answer).values())[-5:],
                    json={**request, "logprobs": TOP_LOGPROBS, "temperature": temperature},
                )
            )
        spread = rows[1][-1] - rows[1][0]
        if rows[0] == rows[1] and spread > 1e-6:
            raise EngineError(
                f"the server at {self._endpoint.url} reports log-probabilities before "
                f"temperature, top-k and top-p; start it with --logprobs-mode processed_logprobs"
            )

    def publish(self, weights: Path) -> None:
        """Make it load new weights, or the newest adapters, while it is paused; caches are emptied.

        Requests in flight are answered with what was sampled so far.
        """
        self._endpoint.request("POST", "/pause", params={"mode": "abort"})
        if self._folder is None:
            self._call("agentgym_load", str(weights))
        else:
            self._serve(self._folder)
        for _ in range(RESETS):
            if self._endpoint.request(
                "POST", "/reset_prefix_cache", lambda answer: answer["success"]
            ):
                break
            time.sleep(0.1)  # Aborted requests hold their blocks for a moment.
        else:
            raise EngineError(f"{self._endpoint.url} keeps a cache of the old weights")
        self._endpoint.request("POST", "/resume")

    def _call(self, method: str, *arguments: object) -> list[Any]:
        body = {"method": method, "args": list(arguments), "timeout": CALL_SECONDS}
        return self._endpoint.request(
            "POST", "/collective_rpc", lambda answer: list(answer["results"]), json=body
        )

    def _serve(self, newest: AdapterFolder) -> None:
        """Load adapters under a name of their own, and forget the last ones."""
        before, self.adapters = self.adapters, f"policy-{newest.number}"
        named = {"lora_name": self.adapters, "lora_path": str(newest.path)}
        self._endpoint.request("POST", "/v1/load_lora_adapter", json=named, decoded=False)
        if before not in ("", self.adapters):
            old = {"lora_name": before}
            self._endpoint.request("POST", "/v1/unload_lora_adapter", json=old, decoded=False)
