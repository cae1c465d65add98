"""Widths and factories that cannot be measured or served are refused before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from recdistill.config import load_config
from recdistill.errors import ConfigError

QUICK = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
LEARNED = [
    "student.model={kind: mf, dim: 16, space: dot, temperature: 1.0}",
    "student.stages=[{epochs: 1, width: 8}, {}]",
]


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["index.width=16"], "index.width: has no effect: 16 is all that the student has"),
        (["index.width=32"], "index.width: 32 is beyond student.model.dim, which is 16"),
        (["index.width=4"], "index.width: the student is none by its first 4 numbers (it learned 8)"),
        (["index.width=8", "index.factory=PQ16x4fs"], "index.factory: FAISS cannot make"),
        (["surface.widths=[8, 4]"], "surface.widths: the student is none by its first 4 numbers"),
        (["surface.widths=[8, 8]"], "surface.widths: names one of them twice"),
        (["surface.factories=[SQ8, Banana]"], "surface.factories: FAISS cannot make an inner-product index 'Banana'"),
        (["surface.factories=[PQ16x4fs]"], "of 8 dimensions"),
        (["surface={}", "report.metrics=[coverage, ndcg]"], "report.metrics: has coverage first"),
    ],
)
def test_what_cannot_be_measured_or_served_is_refused_before_anything_is_trained(sets: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(QUICK, [*LEARNED, *sets])
    assert said in str(caught.value)


def test_a_width_that_was_learned_is_welcome_and_what_is_left_out_changes_no_fingerprint() -> None:
    config = load_config(QUICK, [*LEARNED, "index.width=8", "surface={widths: [8, 16]}"])
    assert config.surface is not None
    assert (config.index.width, config.surface.widths) == (8, (8, 16))
    plain = load_config(QUICK)
    assert "surface" not in plain.model_dump()
    assert not {"width", "histories"} & set(plain.index.model_dump())
