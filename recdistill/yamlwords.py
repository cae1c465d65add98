"""The words of YAML 1.2 and no others, what each means, and how much of them may be a configuration."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import yaml

LONGEST = 1 << 20  # characters of a file; the longest configuration of ours has four thousand
MANY = 100_000  # keys; more than this is an alias that repeats itself, not a configuration
DEEPEST = 100  # sections within sections
TOO_DEEP = "nested too deeply, or an alias that contains itself"
WRITTEN = 4 << 20  # characters of all values, those of aliases as often as they stand


class Unfit(ValueError):
    """A value or a document that no configuration holds; says why."""


class Loader(yaml.SafeLoader):
    """A loader that knows the words of YAML 1.2 and no others, and goes no deeper than a configuration does.

    PyYAML takes time that grows with the square of how deep brackets stand: seconds, for a thousand.
    """

    depth = 0

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:
        if self.flow_level >= DEEPEST:
            raise Unfit(TOO_DEEP)
        super().fetch_flow_collection_start(TokenClass)

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.depth >= DEEPEST:
            raise Unfit(TOO_DEEP)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


_WORDS = {
    "null": (r"(?:~|null|Null|NULL|)", ["~", "n", "N", ""]),
    "bool": (r"(?:true|True|TRUE|false|False|FALSE)", list("tTfF")),
    "int": (r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)", list("-+0123456789")),
    "float": (
        r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))",
        list("-+.0123456789"),
    ),
}
Loader.yaml_implicit_resolvers = dict[str, Any]()
for _tag, (_pattern, _first) in _WORDS.items():
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern + r"\Z"), _first)


def within_limits(root: yaml.Node) -> None:
    """Raise Unfit if what `root` stands for, its aliases written out, is more than a configuration can be.

    Every node is looked at once, however often it stands: the limits hold before anything is written out.
    """
    known: dict[int, tuple[int, int, int]] = {}  # by node: entries, characters and levels
    stack: list[tuple[yaml.Node, bool]] = [(root, False)]
    begun: set[int] = set()
    while stack:
        node, done = stack.pop()
        parts = _parts(node)
        if done:
            below = [known[id(part)] for part in parts]
            entries, characters = len(parts) + sum(b[0] for b in below), sum(b[1] for b in below)
            characters += 0 if parts else len(node.value)
            known[id(node)] = entries, characters, 1 + max((b[2] for b in below), default=0)
            if known[id(node)][0] > 2 * MANY:  # a key and its value are two
                raise Unfit(f"more than {MANY} keys")
            if known[id(node)][1] > WRITTEN:
                raise Unfit(f"more than {WRITTEN} characters, aliases written out")
            if known[id(node)][2] > DEEPEST:
                raise Unfit(TOO_DEEP)
        elif id(node) not in known:
            if id(node) in begun:
                raise Unfit(TOO_DEEP)
            begun.add(id(node))
            stack.append((node, True))
            stack += [(part, False) for part in parts if id(part) not in known]


def _parts(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def text_of(text: str) -> str:
    """Return `text`; raises Unfit where it holds a character that neither a path, nor JSON, nor a terminal can take."""
    odd = next((c for c in text if c == "\0" or "\ud800" <= c <= "\udfff"), None)
    if odd is not None:
        raise Unfit(f"the character U+{ord(odd):04X} is not allowed")
    return text


def _integer(text: str) -> int:
    digits, base = text.lstrip("+-"), {"0o": 8, "0x": 16}.get(text[:2], 10)
    if len(text) > 40:  # Python takes seconds for a million digits, and refuses to write thousands
        raise Unfit("a whole number of more than 64 bits")
    number = int(digits if base == 10 else digits[2:], base)
    if number >= 1 << 63:
        raise Unfit("a whole number of more than 64 bits")
    return -number if text.startswith("-") else number


def _float(text: str) -> float:
    return float(re.sub(r"\.(?=inf|nan)", "", text))


SCALARS: Mapping[str, Callable[[str], Any]] = {
    "tag:yaml.org,2002:null": lambda _: None,
    "tag:yaml.org,2002:bool": lambda text: {"true": True, "false": False}[text.lower()],
    "tag:yaml.org,2002:int": _integer,
    "tag:yaml.org,2002:float": lambda text: _float(text.lower()),
    "tag:yaml.org,2002:str": text_of,
}
