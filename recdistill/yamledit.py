"""One section of a YAML file changed where it stands, so that its comments and the order of its keys stay."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml

from recdistill.errors import ConfigError
from recdistill.yamlfile import read_yaml

Edit = tuple[int, int, str]  # from, to, what stands there then


def with_section(text: str, name: str, wanted: Mapping[str, Any]) -> str:
    """Return the YAML `text` with its section `name` saying `wanted`, JSON values, and nothing else changed.

    Keys that stay keep their place, new ones come first. Text that cannot be changed so, such as an alias of what
    stands elsewhere, is written anew, without its comments.
    """
    data = read_yaml(text, "the file").data
    if data.get(name) == wanted:
        return text
    meant = data | {name: dict(wanted)}
    changed = _changed(text, name, wanted, data.get(name))
    try:
        if read_yaml(changed, "the file").data == meant:
            return changed
    except ConfigError:
        pass
    return "".join(f"{_pair(key, value)}\n" for key, value in meant.items())


def _changed(text: str, name: str, wanted: Mapping[str, Any], before: Any) -> str:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    pairs = root.value if isinstance(root, yaml.MappingNode) else []
    section = next((value for key, value in pairs if key.value == name), None)
    if section is None:
        lines = [f"{name}:", *(f"  {_pair(key, value)}" for key, value in wanted.items())]
        return text.rstrip("\n") + "\n" + "\n".join(lines) + "\n"
    if not isinstance(section, yaml.MappingNode) or not section.value:
        whole = _whole(wanted)
        return _applied(
            text, [(section.start_mark.index, section.end_mark.index, f" {whole}".removeprefix(_blank(text, section)))]
        )
    return _applied(text, _edits(text, section, wanted, before))


def _edits(text: str, section: yaml.MappingNode, wanted: Mapping[str, Any], before: Mapping[str, Any]) -> list[Edit]:
    """Return what to write where, so that a mapping with keys says `wanted`; a key that goes gives way to a new one."""
    new = [_pair(key, value) for key, value in wanted.items() if key not in before]
    if section.flow_style and len(before.keys() - wanted.keys()) > len(new):
        return [(section.start_mark.index, section.end_mark.index, _whole(wanted))]
    edits: list[Edit] = []
    for key, value in section.value:
        start, end = key.start_mark.index, _end(value)
        if key.value not in wanted:
            edits.append((start, end, new.pop(0)) if new else _line(text, key, value))
        elif wanted[key.value] != before[key.value]:
            edits.append((start, end, _pair(key.value, wanted[key.value])))
    if new:
        first = section.value[0][0].start_mark
        between = ", " if section.flow_style else "\n" + " " * first.column
        edits.append((first.index, first.index, "".join(pair + between for pair in new)))
    return edits


def _line(text: str, key: yaml.Node, value: yaml.Node) -> Edit:
    """Return the edit that leaves a pair of a block out, with its lines."""
    line = text.rfind("\n", 0, key.start_mark.index) + 1
    return line, text.find("\n", _end(value)) + 1 or len(text), ""


def _end(node: yaml.Node) -> int:
    """Return where a value ends; one that is written as a block ends, to YAML, only where the next begins."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    return node.end_mark.index


def _applied(text: str, edits: list[Edit]) -> str:
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _blank(text: str, node: yaml.Node) -> str:
    """Return the space that stands before a value already."""
    return " " if text[: node.start_mark.index].endswith(" ") else ""


def _whole(wanted: Mapping[str, Any]) -> str:
    return "{" + ", ".join(_pair(key, value) for key, value in wanted.items()) + "}"


def _pair(key: str, value: Any) -> str:
    return f"{key}: {json.dumps(value, ensure_ascii=False)}"
