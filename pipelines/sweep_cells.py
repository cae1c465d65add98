"""What a sweep tries: every method on every student, each with a configuration of its own."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from pipelines.sweep_fits import reason
from recdistill.config import Config, load_config
from recdistill.errors import ConfigError
from recdistill.methods import FAMILIES, find, presets
from recdistill.yamlfile import read_yaml


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What to try; what is empty is as the file has it, and of methods all there are."""

    file: Path
    sets: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    dims: tuple[int, ...] = ()
    losses: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    tune: tuple[float, ...] = ()
    students: tuple[str, ...] = ()  # settings to try in the place of the file's: sections of `student`, as YAML
    jobs: int = 1
    against: str = ""  # of the methods, the one that all are held against


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One student, by its width and its own loss, and the method that is to make it better; None for its scratch twin.

    `config` holds all of it, and `why` stands for a configuration that cannot be.
    """

    method: str | None
    dim: int
    loss: str
    config: Config | None
    student: str = ""  # which of the settings that are tried
    why: str = ""

    @property
    def place(self) -> tuple[str | None, int, str]:
        """Return what it is one of several settings of."""
        return self.method, self.dim, self.loss


def cells(asked: Asked) -> tuple[list[Cell], list[Cell]]:
    """Return the scratch students, one a loss and width, and what is tried on each; raises ConfigError for the former.

    A method that does not fit the configuration is a cell that says why.
    """
    scratch, tried = list[Cell](), list[Cell]()
    every = product((None, *asked.methods), asked.losses, asked.dims, asked.students)
    for method, loss, dim, student in every:
        kind, _, negatives = loss.partition(":")
        sets = [*asked.sets, f"student.model.dim={dim}", f"student.train.loss={kind}"]
        sets += [f"student.train.negatives={negatives}"] if negatives else []
        sets += [f"student.{name}={value}" for name, value in leaves(student)]
        try:
            config, why = load_config(asked.file, sets, method), ""
        except ConfigError as error:
            if method is None:
                raise
            config, why = None, reason(error)
        cell = Cell(method=method, dim=dim, loss=loss, config=config, student=student, why=why)
        (scratch if method is None else tried).append(cell)
    return scratch, tried


def leaves(student: str) -> list[tuple[str, str]]:
    """Return (dotted name, YAML value) of every setting in a section that is written as YAML; raises ConfigError."""
    try:
        read = read_yaml(student or "{}", "--student")
        section = None if read.problems else read.data
    except ConfigError:
        section = None
    if not isinstance(section, dict):
        fix = "write it as {model: {space: dot}, train: {lr: 0.3}}"
        raise ConfigError(f"{student!r} is no section of YAML", where="--student", fix=fix)
    found = list[tuple[str, str]]()
    for name, value in section.items():
        inner = value.items() if isinstance(value, dict) else ()
        found += [(f"{name}.{key}", json.dumps(part)) for key, part in inner] or [(str(name), json.dumps(value))]
    return found


def filled(asked: Asked) -> Asked:
    """Return what is asked with what the file has in the place of what is not; unknown methods are refused here."""
    student = load_config(asked.file, asked.sets).student
    families = {family: tuple(presets(family=family)) for family in FAMILIES if family}
    asked = replace(asked, methods=tuple(name for one in asked.methods for name in families.get(one, (one,))))
    if len({find(method).stem for method in asked.methods}) < len(asked.methods):
        raise ConfigError("two methods have one name", where="--methods", fix="rename one of the files")
    if asked.against and asked.against not in [find(method).stem for method in asked.methods or presets()]:
        what = f"{asked.against!r} is none of the methods that are tried"
        raise ConfigError(what, where="--against", fix="name it in --methods too")
    return replace(
        asked,
        methods=asked.methods or tuple(presets()),
        dims=asked.dims or (student.model.dim,),
        losses=asked.losses or (student.train.loss,),
        seeds=asked.seeds or student.all_seeds,
        tune=asked.tune or (1.0,),
        students=asked.students or ("",),
        jobs=max(asked.jobs, 1),
    )
