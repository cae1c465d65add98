"""Asking the teacher: what is shown must come from the list that is re-ranked, and a budget must be a share."""

from __future__ import annotations

from pathlib import Path

import pytest

from recdistill.config import load_config
from recdistill.errors import ConfigError

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "quickstart.yaml"


def said(*sets: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(CONFIG, [f"defer.{each}" for each in sets])
    return str(caught.value)


def test_what_is_shown_is_of_the_list_that_is_re_ranked() -> None:
    assert "defer.k: 60 is beyond the list, 50 deep: raise defer.depth" in said("k=60")


@pytest.mark.parametrize("metric", ["recall", "hit", "precision"])
def test_an_order_that_no_metric_sees_is_refused(metric: str) -> None:
    assert f"changes no {metric}@10" in said("k=10", "depth=10", f"metric={metric}")
    assert load_config(CONFIG, ["defer.depth=11", f"defer.metric={metric}"]).defer is not None


def test_an_order_that_the_metric_sees_is_welcome() -> None:
    spec = load_config(CONFIG, ["defer.k=10", "defer.depth=10"]).defer
    assert spec is not None
    assert (spec.metric, spec.budget) == ("ndcg", 0.2)


@pytest.mark.parametrize("budget", ["0", "1", "-0.1", "1.5"])
def test_a_budget_of_nothing_or_of_all_needs_no_gate(budget: str) -> None:
    assert "budget" in said(f"budget={budget}")


def test_a_configuration_without_it_says_nothing_of_it() -> None:
    assert "defer" not in load_config(CONFIG).model_dump(mode="json")
