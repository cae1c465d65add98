"""Every snippet of docs/teachers.md is a configuration, with the sections of a small one around it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from recdistill.config import load_config

TEXT = (Path(__file__).parents[2] / "docs" / "teachers.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```yaml\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
AROUND = {
    "name": "name: doc\n",
    "log": "log: {path: log.parquet, user: user_id, item: item_id, time: timestamp}\n",
    "teacher": "teacher: {model: {kind: mf, dim: 64}, train: {epochs: 30}}\n",
    "labels": "labels: {depth: 100}\n",
    "student": "student: {model: {kind: mf, dim: 16}, train: {epochs: 10}}\n",
    "distill": "distill: [{kind: list, weight: 1, draw: [{kind: top, k: 10}], loss: {kind: softmax_kl}}]\n",
}


def test_there_is_a_snippet_of_every_recipe() -> None:
    kinds = set(re.findall(r"kind: (\w+)", "\n".join(SNIPPETS)))
    assert kinds >= {"external", "seeds", "checkpoints", "pool", "assistants", "self"}


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_a_snippet_is_valid(tmp_path: Path, snippet: str) -> None:
    given = set(re.findall(r"^(\w+):", snippet, flags=re.MULTILINE))
    assert given <= AROUND.keys()
    file = tmp_path / "run.yaml"
    file.write_text(snippet + "".join(text for name, text in AROUND.items() if name not in given))
    assert load_config(file).name == "doc"
