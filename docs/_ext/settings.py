"""Every setting of a configuration as Markdown, from the JSON Schema that the configuration's own classes give."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Schema = Mapping[str, Any]
BOUNDS = {
    "exclusiveMinimum": "> {}",
    "minimum": ">= {}",
    "exclusiveMaximum": "< {}",
    "maximum": "<= {}",
    "multipleOf": "a multiple of {}",
    "minItems": "at least {}",
    "maxItems": "at most {}",
    "maxLength": "at most {} characters",
    "pattern": "matching `{}`",
}
WORDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}


@dataclass(frozen=True, slots=True)
class Section:
    """One class of the configuration, at the first place that holds it."""

    name: str
    place: str
    schema: Schema

    @property
    def kind(self) -> str | None:
        """Return the word that picks it among others, if there is one."""
        return self.schema.get("properties", {}).get("kind", {}).get("const")

    @property
    def is_part(self) -> bool:
        """Say whether it is a part of the file, and the only thing that the part may be."""
        return "." not in self.place and self.kind is None

    @property
    def title(self) -> str:
        return f"`{self.place}`" + (f", kind `{self.kind}`" if self.kind else "")


@dataclass(frozen=True, slots=True)
class _Walk:
    """The sections found so far, by the name of their class; each is told of once."""

    classes: Mapping[str, Schema]
    found: dict[str, Section] = field(default_factory=dict)

    def below(self, schema: Schema, place: str) -> Iterator[Section]:
        for ref, at in _refs(schema, place):
            if ref in self.found:
                continue
            section = self.found[ref] = Section(ref, at, self.classes[ref])
            yield section
            for name, setting in section.schema.get("properties", {}).items():
                yield from self.below(setting, f"{at}.{name}")


def settings(schema: Schema) -> str:
    """Return a page's sections: a heading for each part of a configuration, and one for each that lies within it."""
    walk = _Walk(schema["$defs"])
    parts = {name: list(walk.below(setting, name)) for name, setting in schema["properties"].items()}
    lines = ["## The file as a whole", "", *_table(schema, walk.found), ""]
    for name, sections in parts.items():
        if sections and not sections[0].is_part:  # one of several kinds, each of which has a heading of its own
            lines += [f"## {name}", ""]
        for section in sections:
            head = f"## {name}" if section.is_part else f"### {section.title}"
            lines += [f"(setting-{section.name})=", head, "", section.schema.get("description", ""), ""]
            lines += [*_table(section.schema, walk.found), ""]
    return "\n".join(lines)


def _refs(schema: Schema, place: str) -> Iterator[tuple[str, str]]:
    """Yield each class that a setting may hold, and where it stands then."""
    if "$ref" in schema:
        yield schema["$ref"].rsplit("/", 1)[1], place
    for member in (*schema.get("oneOf", ()), *schema.get("anyOf", ()), *schema.get("prefixItems", ())):
        yield from _refs(member, place)
    if isinstance(schema.get("items"), Mapping):
        yield from _refs(schema["items"], place)
    if isinstance(schema.get("additionalProperties"), Mapping):
        yield from _refs(schema["additionalProperties"], f"{place}.NAME")


def _table(schema: Schema, found: Mapping[str, Section]) -> list[str]:
    rows = {name: one for name, one in schema.get("properties", {}).items() if "const" not in one}
    if not rows:
        return ["No settings of its own."]
    lines = ["| setting | is | left out | |", "|---|---|---|---|"]
    for name, one in rows.items():
        default = _default(one) if "default" in one else _absent(name, schema)
        cells = (f"`{name}`", kind_of(one, found), default, one.get("description", ""))
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return lines


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _absent(name: str, schema: Schema) -> str:
    return "**must be given**" if name in schema.get("required", ()) else "empty"


def _default(setting: Schema) -> str:
    """Return the default in a form that a reader can compare with what a file says."""
    value = setting["default"]
    if isinstance(value, dict):
        return f"kind `{value['kind']}`" if "kind" in value else "the defaults of its own"
    if value is None:
        return "none"
    if isinstance(value, str) and value.strip():
        return f"`{value}`"
    return "empty" if value == "" else f"`{json.dumps(value)}`"


def kind_of(setting: Schema, found: Mapping[str, Section]) -> str:
    """Return in words what a setting may be: the type, its bounds, its words, or a link to the section it holds."""
    if "$ref" in setting:
        section = found[setting["$ref"].rsplit("/", 1)[1]]
        return f"[{section.kind or 'its settings'}](#setting-{section.name})"
    for union in ("oneOf", "anyOf"):
        if union in setting:
            members = [kind_of(one, found) for one in setting[union] if one.get("type") != "null"]
            return " or ".join(dict.fromkeys(members))
    if "enum" in setting:
        return ", ".join(f"`{word}`" for word in setting["enum"])
    return f"{_plain(setting, found)}{_bounds(setting)}"


def _plain(setting: Schema, found: Mapping[str, Section]) -> str:
    sort = setting.get("type")
    if sort == "array":
        members = setting.get("prefixItems") or [setting.get("items", {})]
        return "a list of " + (", ".join(kind_of(one, found) for one in members) or "anything")
    if sort == "object":
        keys = setting.get("propertyNames", {}).get("enum")
        whose = f" for each of {', '.join(f'`{key}`' for key in keys)}" if keys else " for each name"
        values = setting.get("additionalProperties")
        return (kind_of(values, found) if isinstance(values, Mapping) else "a setting") + whose
    return WORDS.get(sort or "", "anything")


def _bounds(setting: Schema) -> str:
    said = [text.format(setting[name]) for name, text in BOUNDS.items() if name in setting]
    return f", {', '.join(said)}" if said else ""
