"""YAML 1.2 with a place for every key, and `--set a.b=value` on top of it.

A parser of YAML 1.1 reads `1e-3` as text, `no` as false and `12:30:00` as 45000, and lets the last of two equal keys
win in silence; here only the words of YAML 1.2 are special and a repeated key is a problem.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from recdistill.errors import ConfigError, Problem
from recdistill.masking import masked
from recdistill.yamlwords import LONGEST, MANY, SCALARS, Loader, Unfit, text_of, within_limits

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What a file (and the settings on top of it) says, and where each key says it."""

    name: str  # the file, as messages should call it
    data: dict[str, Any]
    places: Mapping[KeyPath, str]  # `file:line:col` or `--set a.b`, in the order they were read
    problems: tuple[Problem, ...] = ()

    def where(self, path: KeyPath) -> str:
        """Return the place of `path`, or of the nearest key above it that was written down."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, f"{self.name}:1:1")


def load_yaml(path: Path) -> Document:
    """Read one YAML file whose root is a mapping.

    Repeated keys and the like are left in `problems`, to be reported with whatever else is wrong. Raises ConfigError
    if the file is missing, empty, not UTF-8, not YAML or not a mapping.
    """
    return read_yaml(_read(path), str(path))


def read_yaml(text: str, name: str) -> Document:
    """Return what `text`, called `name` in messages, says; raises ConfigError as `load_yaml` does."""
    places: dict[KeyPath, str] = {}
    problems: list[Problem] = []
    data = _parse(text, name, (), places, problems)
    if not isinstance(data, dict):
        empty = data is None
        reason = "the file is empty" if empty else f"expected `key: value` lines at the top, not {kind_of(data)}"
        raise ConfigError([*problems, Problem(f"{name}:1:1", "", reason)])
    return Document(name=name, data=data, places=places, problems=tuple(problems))


def apply_sets(document: Document, sets: Sequence[str]) -> Document:
    """Return `document` with every `a.b.0.c=value` of `sets` applied in order; the value is read as YAML.

    Sections that are missing on the way are made; entries of a list must exist. A setting that cannot be applied is
    left in `problems`.
    """
    data = _copy(document.data)
    places, problems = dict(document.places), list(document.problems)
    for text in sets:
        key, equals, value = text.partition("=")
        where = f"--set {key}"
        if not equals or not value.strip() or not all(key.split(".")):
            wanted = "expected a.b.c=value (null clears a setting)"
            problems.append(Problem(f"--set {text}", "", wanted))
            continue
        path = _target(data, key.split("."), where, problems)
        if path is None:
            continue
        for old in [p for p in places if p[: len(path)] == path]:
            del places[old]
        inside: dict[KeyPath, str] = {}
        try:
            parsed = _parse(value, where, path, inside, problems)
        except ConfigError as error:
            problems += [Problem(where, "", p.reason) for p in error.problems]
            continue
        _parent(data, path)[path[-1]] = parsed
        places |= dict.fromkeys([path, *inside], where)
    return Document(name=document.name, data=data, places=places, problems=tuple(problems))


def overlay(document: Document, other: Document, at: KeyPath = ()) -> Document:
    """Return `document` with what `other` says below `at` on top of it, every key with the place that wrote it.

    Sections are merged, key by key; a section of another `kind`, a list and any other value take the old one's place.
    """
    data, part = _copy(document.data), _copy(other.data)
    for key in at:
        part = part[key]
    places = dict(document.places)
    for path in _merge(data, part, ()):
        for old in [p for p in places if p[: len(path)] == path]:
            del places[old]
        below = (*at, *path)
        places |= {p[len(at) :]: where for p, where in other.places.items() if p[: len(below)] == below}
    return Document(name=document.name, data=data, places=places, problems=(*document.problems, *other.problems))


def kind_of(value: Any) -> str:
    """Describe a YAML value in plain words, short enough for one line."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, list):
        return "a list"
    shown = masked(str(value))  # before it is cut: half a password is one too
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return f"the text '{shown}'" if isinstance(value, str) else shown


def dotted(path: KeyPath) -> str:
    """Write a key path the way `--set` takes it."""
    return ".".join(map(str, path))


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:  # bounded: what is read may be a device, which never ends
            raw = file.read(4 * LONGEST + 1)
    except FileNotFoundError:
        near = sorted(p.name for p in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
        hint = f"; {path.parent} has {', '.join(near[:5])}" if near else ""
        raise ConfigError(f"no such file{hint}", where=str(path)) from None
    except OSError as cause:
        raise ConfigError(f"cannot be read: {cause.strerror}", where=str(path)) from cause
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        line = raw.count(b"\n", 0, cause.start) + 1
        col = cause.start - raw.rfind(b"\n", 0, cause.start)
        reason = f"byte 0x{raw[cause.start]:02x} is not UTF-8; save the file as UTF-8"
        raise ConfigError(reason, where=f"{path}:{line}:{col}") from None


def _parse(text: str, name: str, root: KeyPath, places: dict[KeyPath, str], problems: list[Problem]) -> Any:
    """Return the value of `text`; its keys, below `root`, go to `places`."""
    try:
        if len(text) > LONGEST:
            raise Unfit(f"more than {LONGEST} characters, which is no configuration")
        node = yaml.compose(text, Loader=Loader)
        if node is not None:
            within_limits(node)
        return None if node is None else _value(node, root, (name, places, problems))
    except yaml.MarkedYAMLError as cause:
        mark = cause.problem_mark or cause.context_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        tab = "'\\t'" in str(cause.problem)
        reason = "a tab cannot indent YAML; use spaces" if tab else f"not YAML: {cause.problem}"
        raise ConfigError(reason, where=where) from None
    except yaml.reader.ReaderError as cause:
        before = text[: cause.position]
        col = cause.position - before.rfind("\n")
        reason = f"the character {cause.character!r} is not allowed in YAML"
        raise ConfigError(reason, where=f"{name}:{before.count(chr(10)) + 1}:{col}") from None
    except Unfit as cause:
        raise ConfigError(str(cause), where=name) from None
    except RecursionError:
        raise ConfigError("nested too deeply, or an alias that contains itself", where=name) from None


def _value(node: yaml.Node, path: KeyPath, read: tuple[str, dict[KeyPath, str], list[Problem]]) -> Any:
    name, places, problems = read
    if len(places) > MANY:
        raise ConfigError(f"more than {MANY} keys", where=name)
    if isinstance(node, yaml.MappingNode) and node.tag.endswith(":map"):
        return _mapping(node, path, read)
    if isinstance(node, yaml.SequenceNode) and node.tag.endswith(":seq"):
        items = []
        for i, item in enumerate(node.value):
            places[(*path, i)] = _mark(name, item)
            items.append(_value(item, (*path, i), read))
        return items
    convert = SCALARS.get(node.tag) if isinstance(node, yaml.ScalarNode) else None
    try:
        if convert is not None:
            return convert(node.value)
        reason = f"the tag {node.tag.replace('tag:yaml.org,2002:', '!!')} is not used here"
    except Unfit as cause:
        reason = str(cause)
    except (ValueError, KeyError):
        reason = f"'{node.value}' does not fit its tag"
    problems.append(Problem(_mark(name, node), dotted(path), reason))
    return None


def _mapping(node: yaml.MappingNode, path: KeyPath, read: tuple[str, dict[KeyPath, str], list[Problem]]) -> Any:
    name, places, problems = read
    found: dict[str, Any] = {}
    for key, value in node.value:
        where = _mark(name, key)
        if not isinstance(key, yaml.ScalarNode):
            problems.append(Problem(where, dotted(path), "a key must be a word"))
            continue
        try:
            text_of(key.value)
        except Unfit as cause:
            problems.append(Problem(where, dotted(path), str(cause)))
            continue
        here = (*path, key.value)
        if key.value in found:
            first = places[here].rpartition(":")[0].rpartition(":")[2]
            problems.append(Problem(where, dotted(here), f"given twice; the first is on line {first}"))
            continue
        places[here] = where
        found[key.value] = _value(value, here, read)
    return found


def _mark(name: str, node: yaml.Node) -> str:
    return f"{name}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _copy(v) for k, v in value.items()}
    return [_copy(v) for v in value] if isinstance(value, list) else value


def _merge(data: dict[str, Any], part: Mapping[str, Any], path: KeyPath) -> Iterator[KeyPath]:
    """Merge `part` into `data`; yields where a value came new or took an old one's place."""
    for key, value in part.items():
        old = data.get(key)
        sections = isinstance(value, dict) and isinstance(old, dict)
        if sections and ("kind" not in value or value["kind"] == old.get("kind")):
            yield from _merge(old, value, (*path, key))
        else:
            data[key] = value
            yield (*path, key)


def _target(data: dict[str, Any], keys: list[str], where: str, problems: list[Problem]) -> KeyPath | None:
    """Return the path that `keys` name, making the sections that are missing; None, with a problem, if it cannot be."""
    path: KeyPath = ()
    value: Any = data
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(value, dict):
            path = (*path, key)
            if not last and value.get(key) is None:
                value[key] = {}
            value = value.get(key)
        elif isinstance(value, list):
            if not key.isdecimal() or int(key) >= len(value):
                size = f"has {len(value)} entries, counted from 0" if value else "is an empty list"
                problems.append(Problem(where, "", f"{dotted(path)} {size}; {key!r} is none of them"))
                return None
            path = (*path, int(key))
            value = value[int(key)]
        else:
            problems.append(Problem(where, "", f"{dotted(path)} is {kind_of(value)}, which has nothing inside it"))
            return None
    return path


def _parent(data: Any, path: KeyPath) -> Any:
    for key in path[:-1]:
        data = data[key]
    return data
