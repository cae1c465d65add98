"""On surfaces whose answer is known: the cheapest point, what binds, what relaxing it buys, and what conflicts."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from surfaces import finite, point, surface

from recdistill.errors import ConfigError
from recdistill.serving_limits import NAMES, limits
from recdistill.serving_plan import ServingPlan, cost, plan
from recdistill.serving_words import as_json, lines, outward
from recdistill.surface_form import Surface, check_surface

PLANTED = [
    point("tiny", quality=0.120, p95=0.1, size=2),
    point("slow", quality=0.135, p95=2.6, size=4),
    point("fits", quality=0.136, p95=1.5, size=47),
    point("fits too", quality=0.138, p95=1.9, size=60),
    point("large", quality=0.140, p95=1.0, size=300),
]
ASKED = {"--p95-ms": 2.0, "--memory-mb": 200.0, "--min-ndcg-of-teacher": 0.95}


def planned(points: list[Any], asked: dict[str, float], **more: Any) -> tuple[ServingPlan, Surface]:
    found = check_surface(surface(points, **more))
    return plan(found.points, limits(found, asked)), found


def ids(steps: Any) -> dict[str, str]:
    return {step.limit.name: step.point.id for step in steps}


def test_the_cheapest_point_within_the_limits_is_picked_and_what_keeps_cheaper_ones_out_is_named() -> None:
    found, measured = planned(PLANTED, ASKED)
    assert found.picked is not None
    assert found.picked.id == "fits"
    assert found.feasible == 2
    assert ids(found.binding) == {"--p95-ms": "slow", "--min-ndcg-of-teacher": "tiny"}
    assert found.binding[0].value == 2.6
    assert ids(found.better) == {"--memory-mb": "large"}
    assert found.best is not None
    assert found.best.id == "fits too"
    text = "\n".join(lines(found, measured))
    assert "serve fits: 47 MB, p95 1.50 ms, NDCG@10 0.1360, 95.8% of the teacher's" in text
    assert "--p95-ms 2 binds: 2.6 ms instead gives slow: 43 MB less, p95 +1.10 ms, NDCG@10 -0.0010" in text
    assert (
        "--memory-mb 200 costs quality: 300 MB instead gives large: 240 MB more, p95 -0.9000 ms, NDCG@10 +0.0020"
        in text
    )
    assert "--min-ndcg-of-teacher 0.95 is kept by the mean, not surely: the lower end of its interval is 0.9437" in text


def test_a_limit_without_which_there_is_a_still_cheaper_point_says_both_steps() -> None:
    points = [point("a", p95=1, size=9), point("b", p95=2, size=5), point("c", p95=3, size=1)]
    found, measured = planned(points, {"--p95-ms": 1.0})
    assert ids(found.binding) == {"--p95-ms": "b"}
    assert ids(found.furthest) == {"--p95-ms": "c"}
    assert "and further, 3 ms instead gives c: 8 MB less" in "\n".join(lines(found, measured))


def test_equal_bytes_are_told_apart_by_p95_then_quality_then_name() -> None:
    points = [
        point("slower", p95=0.5),
        point("b", p95=0.4, quality=0.13),
        point("a", p95=0.4, quality=0.13),
        point("worse", p95=0.4, quality=0.12),
    ]
    for order in (points, points[::-1]):
        found, _ = planned(order, {"--p95-ms": 1.0})
        assert found.picked is not None
        assert found.picked.id == "a"
        assert found.binding == ()


def test_a_bound_is_kept_by_its_own_value() -> None:
    found, _ = planned([point("p", p95=2.0, size=200)], {"--p95-ms": 2.0, "--memory-mb": 200.0, "--min-ndcg": 0.13})
    assert found.feasible == 1


def test_limits_that_nothing_keeps_name_the_smallest_conflicts_and_the_nearest_misses() -> None:
    points = [point("fast", p95=1, quality=0.10, size=1), point("good", p95=3, quality=0.14, size=1)]
    found, measured = planned(points, {"--p95-ms": 2.0, "--min-ndcg": 0.13, "--memory-mb": 5.0})
    assert found.picked is None
    assert [[c.name for c in some] for some in found.conflicts] == [["--p95-ms", "--min-ndcg"]]
    assert ids(found.alone) == {"--p95-ms": "good", "--min-ndcg": "fast"}
    assert [m.point.id for m in found.nearest] == ["fast", "good"]  # 23 % below, 50 % above
    text = "\n".join(lines(found, measured))
    assert "no way keeps --p95-ms 2 and --min-ndcg 0.13 together" in text
    assert "nearest: fast: --min-ndcg is 0.1, 23.1% off" in text


def test_a_limit_that_is_out_of_reach_is_a_conflict_of_its_own() -> None:
    found, measured = planned(PLANTED, {"--memory-mb": 1.0, "--p95-ms": 2.0})
    assert [[c.name for c in some] for some in found.conflicts] == [["--memory-mb"]]
    assert "no way keeps --memory-mb 1\n" in "\n".join(lines(found, measured))


def test_two_limits_that_bind_only_together_are_not_called_binding() -> None:
    points = [point("here", p95=1, size=9, quality=0.14), point("there", p95=9, size=1, quality=0.01)]
    found, measured = planned(points, {"--p95-ms": 2.0, "--min-ndcg": 0.1})
    assert found.binding == ()
    assert "no limit alone keeps a cheaper one out" in lines(found, measured)


def test_what_was_not_measured_keeps_no_limit_and_is_not_told_as_a_number() -> None:
    points = [point("unknown", p95=None, quality=math.nan, size=1), point("known", size=9)]
    found, measured = planned(points, {"--p95-ms": 2.0})
    assert found.picked is not None
    assert found.picked.id == "known"
    assert found.binding == ()
    nothing, _ = planned(points[:1], {"--p95-ms": 2.0, "--min-ndcg": 0.1})
    for made in (found, nothing):
        told = as_json(made, measured)
        assert finite(told)
        assert "nan" not in json.dumps(told, allow_nan=False).lower()


def test_an_empty_surface_has_nothing_to_serve() -> None:
    found, measured = planned([], {"--p95-ms": 2.0})
    assert found.picked is None
    assert lines(found, measured)[0].startswith("nothing fits: of 0 measured")


def test_a_share_of_a_teacher_that_was_not_measured_is_refused() -> None:
    with pytest.raises(ConfigError, match="no teacher that was measured") as caught:
        planned(PLANTED, {"--min-ndcg-of-teacher": 0.95}, teacher=None)
    assert "use --min-ndcg" in str(caught.value)
    with pytest.raises(ConfigError, match="use --min-quality"):
        planned(PLANTED, {"--min-quality-of-teacher": 0.95}, teacher=None, metric="recall")
    assert "teacher" not in "\n".join(lines(*planned(PLANTED, {"--p95-ms": 2.0}, teacher=None)))


@pytest.mark.parametrize(
    ("asked", "more", "said"),
    [
        ({}, {}, "no limit was given"),
        ({"--p95-ms": 0.0}, {}, "0 is no limit"),
        ({"--p95-ms": math.nan}, {}, "nan is no limit"),
        ({"--min-recall": 1.5}, {}, "1.5 is no share"),
        ({"--min-ndcg": 0.1}, {"metric": "recall"}, "measured by recall"),
        ({"--min-ndcg": 0.1, "--min-quality": 0.1}, {}, "--min-quality says the same"),
    ],
)
def test_limits_that_mean_nothing_are_refused(asked: dict[str, float], more: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        planned(PLANTED, asked, **more)


def test_recall_is_that_at_the_k_of_the_surface_else_at_the_least_depth() -> None:
    points = [point("p", recall={"20": 0.9, "100": 0.5}), point("q", recall={"20": 0.7, "100": 0.99})]
    found, _ = planned(points, {"--min-recall": 0.8})
    assert found.picked is not None
    assert found.picked.id == "p"
    with pytest.raises(ConfigError, match="holds no recall"):
        planned([point("p", recall={})], {"--min-recall": 0.8})


def test_a_machine_too_noisy_to_judge_is_said() -> None:
    environment = {"noise": {"judge": False, "why": "fixed work varied by 80%"}}
    found, measured = planned(PLANTED, ASKED, environment=environment)
    assert lines(found, measured)[-1].startswith("the times cannot be judged: fixed work varied by 80%")
    assert as_json(found, measured)["noise"] == "fixed work varied by 80%"
    assert as_json(*planned(PLANTED, ASKED))["noise"] is None


few = st.sampled_from([0.5, 1.0, 2.0, 3.0])
random_points = st.lists(
    st.tuples(few, st.integers(1, 5), st.one_of(st.none(), few), st.sampled_from([0.5, 0.9, 1.0])), max_size=12
)
bounds = st.dictionaries(
    st.sampled_from([n for n in NAMES if n not in ("--min-quality", "--min-quality-of-teacher")]),
    st.sampled_from([0.5, 0.9, 1.0, 2.0, 2.5]),
    min_size=1,
)


@settings(max_examples=150, deadline=None)
@given(random_points, bounds)
def test_the_pick_keeps_every_limit_and_nothing_cheaper_does(drawn: Any, asked: dict[str, float]) -> None:
    points = [
        point(f"p{n}", p95=p95, size=size, quality=quality, recall={"10": recall})
        for n, (p95, size, quality, recall) in enumerate(drawn)
    ]
    asked = {name: min(bound, 1.0) if name == "--min-recall" else bound for name, bound in asked.items()}
    if not points and "--min-recall" in asked:
        return
    found, measured = planned(points, asked, teacher={"quality": 2.0})
    keeping = [p for p in measured.points if not any(limit.miss(p) for limit in found.limits)]
    assert (found.picked is None) == (not keeping)
    assert found.feasible == len(keeping)
    if found.picked is None:
        for some in found.conflicts:  # no point keeps them, and each is needed for that
            assert not any(all(c.miss(p) == 0 for c in some) for p in measured.points)
            for one in some if measured.points else ():
                rest = [c for c in some if c is not one]
                assert not rest or any(all(c.miss(p) == 0 for c in rest) for p in measured.points)
    else:
        assert found.picked in keeping
        assert min(map(cost, keeping)) == cost(found.picked)
    for step in (*found.binding, *found.furthest, *found.better, *found.alone):  # what is suggested works as it is told
        moved = [replace(c, bound=outward(c, step.value)) if c is step.limit else c for c in found.limits]
        assert not any(c.miss(step.point) for c in moved)
    for step in found.binding:
        again = plan(measured.points, [replace(c, bound=step.value) if c is step.limit else c for c in found.limits])
        assert again.picked is not None
        assert found.picked is not None
        assert cost(again.picked) < cost(found.picked)
    assert finite(as_json(found, measured))
