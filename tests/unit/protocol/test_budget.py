"""The one rule of the alert budget: the contract's, unless a run's plan has its own for its judgement."""

import pytest

from protocol.errors import LocalError
from protocol.run_plan import RunPlan


def test_a_plan_without_a_budget_takes_the_contract_s() -> None:
    assert RunPlan().budget(0.002) == 0.002
    assert RunPlan(alert_budget=0.01).budget(0.002) == 0.01
    assert RunPlan.from_json(RunPlan().to_json()).budget(0.002) == 0.002


@pytest.mark.parametrize("budget", ["0", "1.5", '"x"'])
def test_a_budget_that_is_no_share_is_refused(budget: str) -> None:
    with pytest.raises(LocalError, match="alert_budget"):
        RunPlan.from_json(f'{{"alert_budget": {budget}}}')
