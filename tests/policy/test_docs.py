"""Every YAML snippet of docs/ is a configuration, with the sections of a small one around it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from recdistill.config import load_config

PAGES = sorted((Path(__file__).parents[2] / "docs").rglob("*.md"))
FENCE = re.compile(r"^```yaml\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
SNIPPETS = [(page.name, text) for page in PAGES for text in FENCE.findall(page.read_text(encoding="utf-8"))]
AROUND = {
    "name": "name: doc\n",
    "log": "log: {path: log.parquet, user: user_id, item: item_id, time: timestamp}\n",
    "teacher": "teacher: {model: {kind: mf, dim: 64}, train: {epochs: 30}}\n",
    "labels": "labels: {depth: 100}\n",
    "student": "student: {model: {kind: mf, dim: 16}, train: {epochs: 10}}\n",
    "distill": "distill: [{kind: list, weight: 1, draw: [{kind: top, k: 10}], loss: {kind: softmax_kl}}]\n",
}


def test_there_is_a_snippet_of_every_recipe() -> None:
    kinds = set(re.findall(r"kind: (\w+)", "\n".join(text for _, text in SNIPPETS)))
    assert kinds >= {"external", "seeds", "checkpoints", "pool", "assistants", "self"}


@pytest.mark.parametrize(("page", "snippet"), SNIPPETS, ids=[f"{p}-{i}" for i, (p, _) in enumerate(SNIPPETS)])
def test_a_snippet_is_valid(tmp_path: Path, page: str, snippet: str) -> None:
    if "candidates" in snippet:  # which only a ranker has
        snippet += "teacher: {model: {kind: ranker}, train: {epochs: 30, negatives: 8}}\n"
    given = set(re.findall(r"^(\w+):", snippet, flags=re.MULTILINE))
    known = {"daily", "exec", "features", "index", "latency", "registry", "report", "split", "yesterday"}
    assert given <= AROUND.keys() | known
    file = tmp_path / "run.yaml"
    file.write_text(snippet + "".join(text for name, text in AROUND.items() if name not in given))
    assert load_config(file).name == "doc"
