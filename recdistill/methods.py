"""Published methods: each a preset, a few lines of what a configuration says, with its paper beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from recdistill.distill.spec import GatesTermSpec, ListTermSpec, TermSpec
from recdistill.errors import ConfigError
from recdistill.explain import close, validate
from recdistill.spec import Spec
from recdistill.yamlfile import Document, load_yaml

FOLDERS = (Path("configs/methods"), Path(__file__).parent / "presets")
"""Where a name is looked for: here, then in the package; the first that has it."""
FAMILIES = ("", "seeds")
"""Folders of presets within those: methods for recommenders, and papers on why distillation works."""
OUTSIDE = ("unseen", "whole", "student_top", "student_ranked", "closure")
"""Draws of items that may stand in no list, where a loss over scores needs the teacher's vectors."""
LOWEST = ("sampled_pl",)
"""Losses over scores that take such an item as one below the list, whatever its score."""
Text = Annotated[str, Field(min_length=1)]


class Changes(Spec):
    """What a method sets of a configuration: sections are merged with the file's, `distill` takes its place."""

    teacher: dict[str, Any] = Field(default_factory=dict)
    labels: dict[str, Any] = Field(default_factory=dict)
    student: dict[str, Any] = Field(default_factory=dict)
    distill: Annotated[tuple[TermSpec, ...], Field(min_length=1)]
    yesterday: dict[str, Any] = Field(default_factory=dict)

    @property
    def needs(self) -> list[str]:
        """What must be stored or trained beside the student."""
        given = self.student.get("start", "random"), self.student.get("items", "learned")
        return [*needs(self.distill, *given), *(["yesterday"] if self.yesterday else [])]


class Method(Spec):
    """A published method."""

    title: Text
    paper: Text
    """Who published it, and where."""
    transfers: Text
    """What the student is taught."""
    reference: Text
    """The settings of the paper or of its authors' code."""
    differs: str = ""
    """What is otherwise here, and why."""
    cost: Text
    """Beside the scratch student's step, in symbols: d and D the widths of student and teacher, K and L items drawn."""
    set: Changes


def find(name: str, folders: Sequence[Path] = FOLDERS) -> Path:
    """Return the file of a method: `name` itself if it is a path, else the first of `folders` that has it.

    Raises ConfigError for a name that none of them has.
    """
    if "/" in name or name.endswith((".yaml", ".yml")):
        return Path(name)
    known = {called: path for family in FAMILIES for called, path in presets(folders, family).items()}
    if name in known:
        return known[name]
    near = close(name, known)
    meant = f", did you mean {near!r}?" if near else ""
    fix = (
        f"the methods are {', '.join(known)}" if known else f"there are no presets in {' or '.join(map(str, folders))}"
    )
    raise ConfigError(f"no method {name!r}{meant}", where="--method", fix=fix)


def presets(folders: Sequence[Path] = FOLDERS, family: str = "") -> dict[str, Path]:
    """Return every preset of a family by its name, in alphabetical order; an earlier folder's stands for a later's."""
    found = {file.stem: file for folder in reversed(folders) for file in (folder / family).glob("*.yaml")}
    return dict(sorted(found.items()))


def read_method(path: Path) -> Document:
    """Read the preset at `path`, checked, with the place of every key; raises ConfigError with every problem."""
    document = load_yaml(path)
    validate(Method, document)
    return document


def load_method(path: Path) -> Method:
    """Return the preset at `path`; raises ConfigError with every problem."""
    return validate(Method, load_yaml(path))


def needs(terms: Sequence[TermSpec], start: str = "random", items: str = "learned") -> list[str]:
    """Return what `terms`, what the tables `start` with, and the `items` that serve need beside the student.

    lists, vectors, item lists, trajectory and gates are of the label store; student lists are of the training, brought
    up to date every few epochs; a partner is a model that learns beside the student.
    """
    found: dict[str, bool] = dict.fromkeys(NEEDS, False) | {"vectors": start == "teacher" or items == "folded"}
    for term in terms:
        if isinstance(term, GatesTermSpec):
            found["lists"] = found["gates"] = True
            continue
        if not isinstance(term, ListTermSpec):
            found["vectors"] = True
            found["lists"] |= term.preserve is not None
            continue
        reads = {source for draw in term.draw for source in draw.reads}
        taught = term.teacher == "labels"
        scored = term.loss.needs != "rank" and term.loss.kind not in LOWEST
        found["partner"] |= not taught
        found["student lists"] |= "student" in reads
        found["item lists"] |= taught and term.side == "items"
        found["lists"] |= taught and term.side == "users" and "labels" in reads
        found["trajectory"] |= "trajectory" in reads
        found["vectors"] |= term.loss.kind == "subclass_kl"
        found["vectors"] |= taught and ("vectors" in reads or (scored and any(d.kind in OUTSIDE for d in term.draw)))
    return [name for name, wanted in found.items() if wanted]


NEEDS = ("lists", "vectors", "item lists", "trajectory", "student lists", "partner", "gates")


def method_schema() -> dict[str, Any]:
    """Return the JSON Schema that editors check and complete presets with."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Method.model_json_schema()}
