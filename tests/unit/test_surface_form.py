from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from surfaces import finite, point, surface

import recdistill
from recdistill.errors import ArtifactError
from recdistill.surface_form import check_surface, noise, read_surface, surface_schema


def test_a_surface_reads_back_as_it_was_written(tmp_path: Path) -> None:
    given = surface() | {"later": {"key": 1}}
    (tmp_path / "surface.json").write_text(json.dumps(given, indent=1, sort_keys=True))
    found = read_surface(tmp_path)
    assert found == read_surface(tmp_path / "surface.json") == check_surface(given)
    assert len(found.points) == 40
    told = found.model_dump(mode="json")
    assert told["later"] == {"key": 1}
    assert (found.exact_width, found.exact_quality) == (64, 0.139)


def test_what_is_not_a_number_is_null() -> None:
    found = check_surface(surface([point("p", quality=math.nan, qps=math.inf, recall={"10": math.nan})]))
    assert (found.points[0].quality, found.points[0].qps, found.points[0].recall) == (None, None, {"10": None})
    assert finite(found.model_dump(mode="json"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ("[1]", "a surface is an object; this is list"),
        (json.dumps(surface() | {"schema_version": 2}), "surface schema 2; this version reads up to 1"),
        (json.dumps(surface([{"id": "p"}])), r"points\.0\.width: Field required"),
        (json.dumps(surface([point("p"), point("p")])), "two points are called 'p'"),
        (json.dumps(surface([point("p", bytes=-1)])), r"points\.0\.bytes: "),
        (json.dumps(surface() | {"teacher": {"quality": 1, "histogram": {"edges_ms": [1, 2], "counts": []}}}), "rise"),
    ],
)
def test_a_malformed_file_is_refused_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "surface.json"
    file.write_text(text)
    with pytest.raises(ArtifactError, match=said) as caught:
        read_surface(tmp_path)
    assert caught.value.where == str(file)
    assert caught.value.fix


def test_a_missing_surface_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="--until surface"):
        read_surface(tmp_path)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, ""),
        ({"noise": 0.1, "warning": None}, ""),
        ({"noise": 0.9, "warning": "noisy machine: trust nothing"}, "noisy machine: trust nothing"),
        ({"noise": {"judge": True, "why": "it kept its time"}}, ""),
        ({"noise": {"judge": False, "why": "fixed work varied"}}, "fixed work varied"),
        ({"noise": {"judge": False}, "warning": "noisy machine"}, "noisy machine"),
        ({"noise": {"judge": False}}, "the machine was too noisy while it was measured"),
    ],
)
def test_only_a_machine_that_cannot_be_judged_by_is_called_so(environment: dict[str, Any], said: str) -> None:
    assert noise(environment) == said


def test_the_published_schema_is_the_one_in_force() -> None:
    published = Path(recdistill.__file__).with_name("surface.schema.json").read_text()
    assert json.loads(published) == json.loads(json.dumps(surface_schema())), "run python -m pipelines.schema"
