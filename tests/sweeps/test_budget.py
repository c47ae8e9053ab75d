"""What a search may use up."""

from __future__ import annotations

from typing import Any

import pytest

from mtbert.schema import ConfigError, build
from sweeps.budget import Budget


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"points": 0}, "budget.points: expected a number at least 1, got 0"),
        ({"hours": 0.0}, "budget.hours: expected a number above 0, got 0.0"),
        ({"core_hours": -1}, "budget.core_hours: expected a number above 0, got -1.0"),
        ({"gpu_hours": "many"}, "budget.gpu_hours: expected a number, got 'many'"),
        ({"cost": 3}, "budget.price: expected a number beside a cost, got none"),
        ({"price": 3}, "budget.cost: expected a number beside a price, got none"),
        ({"runs": 3}, "budget.runs: no such field"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(Budget, given, "budget")
