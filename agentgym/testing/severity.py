"""Our checks by the names of OpenEnv's policy ``severity-v1``, which lists 45.

Names and their meaning: RFC 008 of OpenEnv. Checks that need the image of an environment, a
declaration of its resources or a registry cannot be done over the wire. The names of level 4 are
looked at with agents that need no model: the oracle, idle, random, repeating and asking ones.
"""

from __future__ import annotations

from collections.abc import Iterable

from agentgym.testing.findings import Finding, Verdict

POLICY = {
    "static": (
        "manifest reproducible_build image_hygiene layout sbom oci_labels resource_declaration "
        "timeout_ceiling dependency_pinning task_distribution_pinning"
    ),
    "runtime": (
        "reward_well_formed rubric_introspectable observation_schema state_contract "
        "trajectory_record reward_attribution tool_declaration_accuracy task_declaration_accuracy "
        "seed_control episode_determinism network_policy host_containment resource_bounds "
        "episode_isolation oracle_containment"
    ),
    "semantic": (
        "oracle_max floor_gap canary_floor no_solution_leakage verifier_determinism "
        "verifier_portability resource_envelope replayability"
    ),
    "hub": (
        "layer_isolation time_to_first_work cosign_signature cross_host_determinism "
        "immutable_versioning"
    ),
    "statistical": (
        "reward_reachability difficulty_separation headroom variance_bound training_signal "
        "adversarial_floor gameability_gap"
    ),
}
NAMES = tuple(f"{level}.{name}" for level, names in POLICY.items() for name in names.split())

COVERED: dict[str, tuple[str, ...]] = {
    "static.task_distribution_pinning": ("panels are stable", "tasks are as declared"),
    "runtime.reward_well_formed": ("rewards are numbers",),
    "runtime.observation_schema": ("observations match their schema",),
    "runtime.state_contract": ("state follows the episode",),
    "runtime.tool_declaration_accuracy": ("manual documents the commands",),
    "runtime.task_declaration_accuracy": ("task ids select tasks", "tasks are as declared"),
    "runtime.seed_control": ("seeds draw tasks", "seeds change episodes"),
    "runtime.episode_determinism": ("episodes are reproducible",),
    "runtime.resource_bounds": ("resets leak no memory there", "files are closed there"),
    "runtime.episode_isolation": (
        "environments do not interact",
        "groups start in the same state",
        "sessions at once are isolated",
        "ended sessions make room",
        "global generators are not used there",
    ),
    "runtime.oracle_containment": ("the oracle is not shown", "answers hide the score"),
    "semantic.oracle_max": ("oracle wins",),
    "semantic.floor_gap": ("returns tell agents apart", "idle agents lose"),
    "semantic.canary_floor": ("canaries stay at the floor", "malformed actions are harmless"),
    "semantic.no_solution_leakage": (
        "openings hide the solution",
        "order of actions reveals nothing",
    ),
    "semantic.verifier_determinism": ("solutions are paid alike",),
    "semantic.verifier_portability": ("another server agrees",),
    "semantic.resource_envelope": ("answers come soon", "resets leak no memory there"),
    "semantic.replayability": ("episodes are reproducible", "forks are exact and independent"),
    "hub.time_to_first_work": ("answers come soon",),
    "hub.cross_host_determinism": ("another server agrees",),
    "statistical.reward_reachability": ("oracle wins", "returns tell agents apart"),
    "statistical.difficulty_separation": ("returns tell agents apart", "random agents lose"),
    "statistical.headroom": ("random agents lose",),
    "statistical.variance_bound": ("episodes are reproducible", "solutions are paid alike"),
    "statistical.training_signal": ("returns tell agents apart",),
    "statistical.adversarial_floor": (
        "canaries stay at the floor",
        "repeating agents lose",
        "idle agents lose",
    ),
    "statistical.gameability_gap": ("repeating agents lose", "nothing is paid outside an episode"),
}
"""Name in the policy to our checks that look at it."""


def verdicts(found: Iterable[Finding]) -> dict[str, Verdict]:
    """The verdict of each name that was looked at: failed if one of its checks failed.

    A name is skipped if all its checks were.
    """
    by_check = {finding.check: finding.verdict for finding in found}
    verdict: dict[str, Verdict] = {}
    for name, checks in COVERED.items():
        seen = [by_check.get(check, Verdict.SKIPPED) for check in checks]
        worst = Verdict.FAILED if Verdict.FAILED in seen else Verdict.SKIPPED
        passed = Verdict.PASSED in seen and Verdict.FAILED not in seen
        verdict[name] = Verdict.PASSED if passed else worst
    return verdict
