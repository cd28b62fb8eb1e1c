"""The contract of an algorithm, as checks that each name the likely cause of a violation."""

from __future__ import annotations

from agentgym.algorithm import About, AlgorithmSettings
from agentgym.testing import credit_checks, update_checks
from agentgym.testing.trial import Trial, require


def check_algorithm(kind: type[AlgorithmSettings]) -> None:
    """Check everything that training relies on in an algorithm, for each of its constructors.

    Args:
        kind: Its configuration class, as registered under ``agentgym.algorithms``.

    Raises:
        AssertionError: The algorithm breaks its contract; the message names the likely cause.

    Examples:
        >>> from agentgym import plugins
        >>> check_algorithm(plugins.algorithm("grpo"))
    """
    require(
        isinstance(getattr(kind, "about", None), About),
        f"{kind.__name__}.about must be an agentgym.algorithm.About",
    )
    trials: list[Trial] = []
    for name in ("", "paper", "released"):
        require(not name or hasattr(kind, name), f"{kind.__name__} has no constructor {name}()")
        made = getattr(kind, name)() if name else kind()
        if all(made != trial.made for trial in trials):
            trials.append(Trial(f"{kind.__name__}.{name or '__init__'}", made))
    for trial in trials:
        for check in (
            credit_checks.check_configuration,
            credit_checks.check_columns,
            credit_checks.check_row_order,
            credit_checks.check_windows,
            credit_checks.check_junk,
            update_checks.check_updates,
            update_checks.check_split,
            update_checks.check_degenerate,
            credit_checks.check_state,
            update_checks.check_learning,
        ):
            check(trial)
