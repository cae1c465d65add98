"""From a pydantic error to what a person reads: the place in the file, the setting, and the reason in plain words."""

from __future__ import annotations

import difflib
import json
import re
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from recdistill.errors import ConfigError, Problem
from recdistill.yamlfile import Document, KeyPath, dotted, kind_of

Model = TypeVar("Model", bound=BaseModel)


def validate(model: type[Model], document: Document) -> Model:
    """Return `document` as a `model`; types must match exactly, so the text "32" is not a number.

    Raises ConfigError with every problem of the file, of the settings on top of it and of the values.
    """
    try:
        found = model.model_validate_json(json.dumps(document.data), strict=True)
    except ValidationError as error:
        raise ConfigError([*document.problems, *problems(model, document, error)]) from None
    if document.problems:
        raise ConfigError(document.problems)
    return found


@dataclass(frozen=True, slots=True)
class _Complaint:
    """One pydantic error, led back to the file."""

    error: Mapping[str, Any]
    path: KeyPath
    annotation: Any  # of what is at `path`, as far as the walk understood it
    section: Any  # the model whose field `path` ends in
    inside: bool  # a union's section was entered, so its complaints are the ones that matter


def problems(model: type[BaseModel], document: Document, error: ValidationError) -> list[Problem]:
    """Return one problem for each setting that `error` complains about, in the order of the file."""
    groups: dict[KeyPath, list[_Complaint]] = {}
    for one in error.errors(include_url=False):
        complaint = _follow(one, model, document.data)
        groups.setdefault(complaint.path, []).append(complaint)
    order = {path: i for i, path in enumerate(document.places)}
    found = []
    for path, group in groups.items():
        entered = [c for c in group if c.inside]
        if not entered and any(c.inside and c.path[: len(path)] == path for g in groups.values() for c in g):
            continue  # what the union's other members say of a section that has complaints of its own
        if any(c.error["type"] == "too_short" for c in group) and any(p[:-1] == path for p in groups):
            continue  # an entry that is wrong was not counted, and says so itself
        chosen = entered or group
        where = document.where(_place(path, chosen[0].error["type"]))
        rank = next((order[path[:n]] for n in range(len(path), 0, -1) if path[:n] in order), -1)
        found.append((rank, Problem(where, dotted(path), _reason(chosen))))
    return [problem for _, problem in sorted(found, key=lambda pair: pair[0])]


def _place(path: KeyPath, kind: str) -> KeyPath:
    return {"missing": path[:-1], "union_tag_invalid": (*path, "kind")}.get(kind, path)


def close(word: str, known: Iterable[str]) -> str | None:
    """Return the one of `known` that `word` was most likely meant to be."""
    matches = difflib.get_close_matches(word, list(known), n=1)
    return matches[0] if matches else None


def _follow(error: Mapping[str, Any], model: type[BaseModel], data: Any) -> _Complaint:
    """Walk a pydantic location through the file; the steps that name a union's member are not in the file."""
    path: KeyPath = ()
    annotation, section, value, inside = model, None, data, False
    for step in error["loc"]:
        options = _options(annotation)
        members = {name: o for o in options if _is_model(o) for name in (_kind(o), o.__name__)}
        if len(options) > 1 and isinstance(step, str):  # a union, whose location names the member it tried
            shape = step.partition("[")[0]
            member = members.get(step) or next((o for o in options if get_origin(o) is _SHAPES.get(shape, ())), None)
            if member is None:
                break
            annotation, inside = member, isinstance(value, _SHAPES.get(shape, dict))
            continue
        if isinstance(value, dict) and members and isinstance(step, str):
            section = options[0]
            field = section.model_fields.get(step)
            annotation = field.annotation if field else None
        elif isinstance(value, (dict, list)) and get_args(options[0]):
            section = None
            args = [a for a in get_args(options[0]) if a is not Ellipsis]
            annotation = args[min(step, len(args) - 1)] if isinstance(step, int) else args[-1]
        else:
            break
        path = (*path, step)
        value = _inside(value, step)
    return _Complaint(error, path, annotation, section, inside)


def _inside(value: Any, step: int | str) -> Any:
    if isinstance(value, dict):
        return value.get(step)
    return value[step] if isinstance(step, int) and step < len(value) else None


def _options(annotation: Any) -> list[Any]:
    """Return the members of a union, `Annotated` and None stripped; a list of one for anything else."""
    if get_origin(annotation) is Annotated:
        return _options(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [o for a in get_args(annotation) if a is not type(None) for o in _options(a)]
    return [annotation]


def _is_model(option: Any) -> bool:
    return isinstance(option, type) and issubclass(option, BaseModel)


def _kind(option: Any) -> str | None:
    """Return the kind that picks this member of a union, if it has one."""
    field = option.model_fields.get("kind") if _is_model(option) else None
    names = get_args(field.annotation) if field else ()
    return names[0] if names else None


def _reason(complaints: list[_Complaint]) -> str:
    first = complaints[0]
    error, kind = first.error, first.error["type"]
    if kind == "extra_forbidden":
        return _unknown(str(first.path[-1]), first.section)
    if kind == "missing":
        return "required, but not given"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        kinds = [k for o in _options(first.annotation) if (k := _kind(o))]
        if kind == "union_tag_not_found":
            return f"needs a `kind`: {', '.join(kinds)}"
        tag = str(error["ctx"]["tag"])
        return f"unknown kind '{tag}'{_meant(close(tag, kinds)) or ';'} kinds: {', '.join(kinds)}"
    expected = list(dict.fromkeys(filter(None, (_expected(c.error) for c in complaints))))
    if expected:
        meant = _meant(_near_literal(error["input"], complaints))
        return f"expected {' or '.join(expected)}, not {kind_of(error['input'])}{meant}"
    if kind in _BOUNDS:
        return _BOUNDS[kind].format(value=kind_of(error["input"]), **error["ctx"])
    if kind == "string_pattern_mismatch":
        return f"must match {error['ctx']['pattern']}, which {kind_of(error['input'])} does not"
    return str(error["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")


def _unknown(key: str, section: Any) -> str:
    """Say that `key` is unknown, and what it may have been: a sibling misspelt, or a setting one section further in."""
    fields = section.model_fields if _is_model(section) else {}
    if near := close(key, fields):
        return f"unknown key{_meant(near)}"
    for name, field in fields.items():
        if any(_is_model(o) and key in o.model_fields for o in _options(field.annotation)):
            return f"unknown key{_meant(f'{name}.{key}')}"
    return f"unknown key; known here: {', '.join(fields)}" if fields else "unknown key"


def _meant(word: str | None) -> str:
    return f", did you mean '{word}'?" if word else ""


def _expected(error: Mapping[str, Any]) -> str | None:
    """Name what the setting takes, where the complaint is about the type or one of a few words."""
    if error["type"] == "literal_error":
        return str(error["ctx"]["expected"])
    return _TYPES.get(error["type"])


def _near_literal(value: Any, complaints: list[_Complaint]) -> str | None:
    literals = [c.error["ctx"]["expected"] for c in complaints if c.error["type"] == "literal_error"]
    words = [word for text in literals for word in re.findall("'([^']*)'", text)]
    return close(value, words) if isinstance(value, str) else None


_SHAPES: Mapping[str, type] = {"dict": dict, "list": list}
_SECTION = "a section (`key: value` lines)"
_TYPES = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "path_type": "a path",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "dict_type": _SECTION,
    "mapping_type": _SECTION,
    "model_type": _SECTION,
    "model_attributes_type": _SECTION,
    "none_required": "null",
}
_BOUNDS = {
    "greater_than": "must be more than {gt}, not {value}",
    "greater_than_equal": "must be at least {ge}, not {value}",
    "less_than": "must be less than {lt}, not {value}",
    "less_than_equal": "must be at most {le}, not {value}",
    "too_short": "needs {min_length} or more entries, not {actual_length}",
    "too_long": "may have {max_length} entries, not {actual_length}",
    "string_too_short": "needs {min_length} or more characters",
    "string_too_long": "may have {max_length} characters",
}
