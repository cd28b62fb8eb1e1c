"""Everything registered under ``agentgym.algorithms`` keeps the contract."""

import pytest

from agentgym import plugins
from agentgym.testing import check_algorithm


@pytest.mark.parametrize("name", sorted(plugins.algorithms()))
def test_a_registered_algorithm_keeps_the_contract(name):
    check_algorithm(plugins.algorithm(name))
